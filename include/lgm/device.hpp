// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <lgm/detail/check.hpp>
#include <lgm/detail/device/call.hpp>
#include <lgm/detail/device/launch.hpp>
#include <lgm/detail/device/moment_sums.hpp>
#include <lgm/detail/device/product_form.hpp>
#include <lgm/detail/device/update.hpp>
#include <lgm/detail/number_format.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/detail/whitening_driver.hpp>
#include <lgm/detail/workspace.hpp>
#include <lgm/schedule.hpp>
#include <lgm/types.hpp>
#include <type_traits>

// The functions of the library on a device, with the names, arguments and results of host.hpp. Context is the device's:
// cuda_context (cuda.cuh). F, the type of the features, is float, double or one of 16 bits that the context brings; T, that of
// parameters and results, is double with double features, else float; G, that of the features' gradient, is F or T; L, of the
// labels, is any integer, which is compared as a std::int64_t. The context's precision says how products are made.
//
// What holds for all of them:
// - Matrices are row-major. Pointers lead to the device's memory, at any alignment; it belongs to the caller.
// - A call enqueues work on the context's stream and returns. Nothing is allocated, synchronised, thrown or printed.
// - Inputs are never written. Null outputs are not computed. Features, labels and results must not overlap.
// - A call that refuses its arguments has enqueued nothing.
// - The same arguments on the same device give the same bits.
//
// Labels and alpha_at are in the device's memory, and are checked there, after the call has returned. A sample whose label is
// outside [0, total_classes), and is not ignore_label, has losses of NaN and gradients of zero, and is not counted. An invalid
// value behind alpha_at makes all losses NaN and all gradients zero.

namespace lgm {

namespace detail {

// What makes a type the context of a device: a specialisation with
//   using device_type = ...;                                a Device (detail/device/launch.hpp), made of (context, scratch)
//   static std::size_t scratch_bytes(const Context&, const shape&);   what its products take of the workspace
// and two members of the context: tile_bytes, what the workspace is kept within where the shape allows it, and precision.
template <class Context>
struct device_traits;

template <class Context, class = void>
struct is_device_context : std::false_type {};
template <class Context>
struct is_device_context<Context, std::void_t<typename device_traits<Context>::device_type>>
    : std::true_type {};
template <class Context>
using if_device = std::enable_if_t<is_device_context<Context>::value>;

template <class T>
constexpr bool is_device_scalar = std::is_same<T, float>::value || std::is_same<T, double>::value;

// What is left for tiles.
template <class Context>
device_limits limits_of(const Context& ctx, const shape& s) {
  const std::size_t scratch = device_traits<Context>::scratch_bytes(ctx, s);
  return {ctx.tile_bytes > scratch ? ctx.tile_bytes - scratch : 0, ctx.precision};
}

// f(device, limits, rest of the workspace): the products' scratch comes first.
template <class Context, class F>
status on_device(const Context& ctx, const shape& s, const workspace& w, F f) {
  using traits = device_traits<Context>;
  const status checked = check_shape(s);
  if (checked != status::success) return checked;
  if (w.data == nullptr) return status::null_pointer;
  const std::size_t scratch = traits::scratch_bytes(ctx, s);
  if (w.bytes < scratch) return status::workspace_too_small;
  const auto data = static_cast<char*>(w.data);
  typename traits::device_type device(ctx, workspace{data, scratch});
  return f(device, limits_of(ctx, s), workspace{data + scratch, w.bytes - scratch});
}

// What every loss function does, once its arguments are in a call.
template <class Context, class T>
status call_loss(const Context& ctx, loss_call<T>& call, loss_function function, const workspace& w) {
  call.request(function);
  return on_device(ctx, call.shape, w, [&](auto& device, const device_limits& limits, const workspace& rest) {
    return device_run_loss(device, limits, call, rest);
  });
}

}  // namespace detail

// Bytes of workspace that are enough for any function below at this shape and at any number of samples below it, whatever
// the memory's address (but for estimate_whitening, see whitening_workspace_size). 0 for a shape or a precision that the
// functions would refuse. Asks no device.
template <class F, class T = detail::parameter_t<F>, class Context, class = detail::if_device<Context>>
std::size_t workspace_size(const Context& ctx, const shape& s) {
  static_assert(std::is_same<T, detail::parameter_t<F>>::value,
                "parameters are double with double features, else float");
  if (detail::check_shape(s) != status::success) return 0;
  const detail::device_limits limits = detail::limits_of(ctx, s);
  const std::size_t losses = detail::device_loss_bytes<T>(s, limits, detail::feature_type<F>::format);
  if (losses == 0) return 0;
  const std::size_t moments =
      detail::device_moments_bytes(detail::device_moments_plan::make(s, limits.tile_bytes), s);
  detail::arena whiten;
  static_cast<void>(detail::device_whiten_tile<T>(whiten, s, limits.tile_bytes));
  return std::max<std::size_t>({losses, moments, whiten.bytes()}) +
         detail::device_traits<Context>::scratch_bytes(ctx, s);
}

// Losses of a batch (eq:classification, eq:likelihood, eq:loss).
template <class F, class L, class Context, class = detail::if_device<Context>>
status forward(const Context& ctx, const shape& s, const mixture<detail::parameter_t<F>>& m,
               const loss_options<detail::parameter_t<F>>& options, const F* features, const L* labels,
               const loss_result<detail::parameter_t<F>>& result, workspace w) {
  auto call = detail::call_of<detail::any_kind>(s, m, options, features, labels);
  call.result = result;
  return detail::call_loss(ctx, call, detail::loss_function::forward, w);
}
template <class F, class Context, class = detail::if_device<Context>>
status forward(const Context& ctx, const shape& s, const mixture<detail::parameter_t<F>>& m,
               const loss_options<detail::parameter_t<F>>& options, const F* features,
               const soft_targets<detail::parameter_t<F>>& targets,
               const loss_result<detail::parameter_t<F>>& result, workspace w) {
  auto call = detail::call_of<detail::any_kind>(s, m, options, features, targets);
  call.result = result;
  return detail::call_loss(ctx, call, detail::loss_function::forward, w);
}

// Gradients of a batch (eq:grad_feature, eq:grad_mean, eq:grad_log_variance, eq:grad_log_prior), from what forward left. All of
// them are scaled by upstream before they are rounded to G.
template <class F, class L, class Context, class G = F, class = detail::if_device<Context>>
status backward(const Context& ctx, const shape& s, const mixture<detail::parameter_t<F>>& m,
                const loss_options<detail::parameter_t<F>>& options, const F* features, const L* labels,
                const detail::parameter_t<F>* row_state, const detail::parameter_t<F>* upstream,
                const gradients<G, detail::parameter_t<F>>& gradient, workspace w) {
  auto call = detail::call_of<detail::any_kind>(s, m, options, features, labels);
  call.row_state = row_state;
  call.upstream = upstream;
  call.gradient = detail::gradients_of<F>(gradient);
  return detail::call_loss(ctx, call, detail::loss_function::backward, w);
}
template <class F, class Context, class G = F, class = detail::if_device<Context>>
status backward(const Context& ctx, const shape& s, const mixture<detail::parameter_t<F>>& m,
                const loss_options<detail::parameter_t<F>>& options, const F* features,
                const soft_targets<detail::parameter_t<F>>& targets, const detail::parameter_t<F>* row_state,
                const detail::parameter_t<F>* upstream, const gradients<G, detail::parameter_t<F>>& gradient,
                workspace w) {
  auto call = detail::call_of<detail::any_kind>(s, m, options, features, targets);
  call.row_state = row_state;
  call.upstream = upstream;
  call.gradient = detail::gradients_of<F>(gradient);
  return detail::call_loss(ctx, call, detail::loss_function::backward, w);
}

// forward and backward in one pass, which saves a matrix product.
template <class F, class L, class Context, class G = F, class = detail::if_device<Context>>
status forward_backward(const Context& ctx, const shape& s, const mixture<detail::parameter_t<F>>& m,
                        const loss_options<detail::parameter_t<F>>& options, const F* features,
                        const L* labels, const detail::parameter_t<F>* upstream,
                        const loss_result<detail::parameter_t<F>>& result,
                        const gradients<G, detail::parameter_t<F>>& gradient, workspace w) {
  auto call = detail::call_of<detail::any_kind>(s, m, options, features, labels);
  call.upstream = upstream;
  call.result = result;
  call.gradient = detail::gradients_of<F>(gradient);
  return detail::call_loss(ctx, call, detail::loss_function::forward_backward, w);
}
template <class F, class Context, class G = F, class = detail::if_device<Context>>
status forward_backward(const Context& ctx, const shape& s, const mixture<detail::parameter_t<F>>& m,
                        const loss_options<detail::parameter_t<F>>& options, const F* features,
                        const soft_targets<detail::parameter_t<F>>& targets,
                        const detail::parameter_t<F>* upstream,
                        const loss_result<detail::parameter_t<F>>& result,
                        const gradients<G, detail::parameter_t<F>>& gradient, workspace w) {
  auto call = detail::call_of<detail::any_kind>(s, m, options, features, targets);
  call.upstream = upstream;
  call.result = result;
  call.gradient = detail::gradients_of<F>(gradient);
  return detail::call_loss(ctx, call, detail::loss_function::forward_backward, w);
}

// The losses of forward, given the row state of all shards of the classes, merged.
template <class F, class L, class Context, class = detail::if_device<Context>>
status finish_forward(const Context& ctx, const shape& s, const mixture<detail::parameter_t<F>>& m,
                      const loss_options<detail::parameter_t<F>>& options, const F* features, const L* labels,
                      const detail::parameter_t<F>* row_state,
                      const loss_result<detail::parameter_t<F>>& result, workspace w) {
  auto call = detail::call_of<detail::any_kind>(s, m, options, features, labels);
  call.row_state = row_state;
  call.result = result;
  return detail::call_loss(ctx, call, detail::loss_function::finish_forward, w);
}
template <class F, class Context, class = detail::if_device<Context>>
status finish_forward(const Context& ctx, const shape& s, const mixture<detail::parameter_t<F>>& m,
                      const loss_options<detail::parameter_t<F>>& options, const F* features,
                      const soft_targets<detail::parameter_t<F>>& targets,
                      const detail::parameter_t<F>* row_state,
                      const loss_result<detail::parameter_t<F>>& result, workspace w) {
  auto call = detail::call_of<detail::any_kind>(s, m, options, features, targets);
  call.row_state = row_state;
  call.result = result;
  return detail::call_loss(ctx, call, detail::loss_function::finish_forward, w);
}

// Merges the row states of two disjoint sets of classes: see lgm/host.hpp.
//   from, into  [samples, 2]; `into` becomes the row state of both sets
template <class T, class Context, class = detail::if_device<Context>>
status merge_row_state(const Context& ctx, const shape& s, const T* from, detail::named_t<T>* into) {
  static_assert(detail::is_device_scalar<T>, "row states are float or double");
  typename detail::device_traits<Context>::device_type device(ctx, workspace{});
  return detail::device_merge_row_state(device, s, from, into);
}

// Logits l_k (eq:logit), with the margin at each counted sample's target; labels null: no margin.
template <class F, class L, class Context, class = detail::if_device<Context>>
status logits(const Context& ctx, const shape& s, const mixture<detail::parameter_t<F>>& m,
              const loss_options<detail::parameter_t<F>>& options, const F* features, const L* labels,
              detail::parameter_t<F>* out, workspace w) {
  const auto call = detail::call_of<detail::any_kind>(s, m, options, features, labels);
  return detail::on_device(ctx, s, w,
                           [&](auto& device, const detail::device_limits& limits, const workspace& rest) {
                             return detail::device_run_logits(device, limits, call, out, rest);
                           });
}
template <class F, class Context, class = detail::if_device<Context>>
status logits(const Context& ctx, const shape& s, const mixture<detail::parameter_t<F>>& m,
              const loss_options<detail::parameter_t<F>>& options, const F* features, std::nullptr_t,
              detail::parameter_t<F>* out, workspace w) {
  return logits(ctx, s, m, options, features, static_cast<const std::int64_t*>(nullptr), out, w);
}
template <class F, class Context, class = detail::if_device<Context>>
status logits(const Context& ctx, const shape& s, const mixture<detail::parameter_t<F>>& m, const F* features,
              detail::parameter_t<F>* out, workspace w) {
  return logits(ctx, s, m, {}, features, nullptr, out, w);
}

// Gradients from any gradient of the logits, in place of g_k: a loss of the caller's own.
template <class F, class L, class Context, class G = F, class = detail::if_device<Context>>
status logits_backward(const Context& ctx, const shape& s, const mixture<detail::parameter_t<F>>& m,
                       const loss_options<detail::parameter_t<F>>& options, const F* features,
                       const L* labels, const detail::parameter_t<F>* grad_logits,
                       const detail::parameter_t<F>* upstream,
                       const gradients<G, detail::parameter_t<F>>& gradient, workspace w) {
  auto call = detail::call_of<detail::any_kind>(s, m, options, features, labels);
  call.kind = {detail::target_kind::grad_logits};
  call.grad_logits = grad_logits;
  call.upstream = upstream;
  call.gradient = detail::gradients_of<F>(gradient);
  return detail::call_loss(ctx, call, detail::loss_function::logits_backward, w);
}
template <class F, class Context, class G = F, class = detail::if_device<Context>>
status logits_backward(const Context& ctx, const shape& s, const mixture<detail::parameter_t<F>>& m,
                       const loss_options<detail::parameter_t<F>>& options, const F* features, std::nullptr_t,
                       const detail::parameter_t<F>* grad_logits, const detail::parameter_t<F>* upstream,
                       const gradients<G, detail::parameter_t<F>>& gradient, workspace w) {
  return logits_backward(ctx, s, m, options, features, static_cast<const std::int64_t*>(nullptr), grad_logits,
                         upstream, gradient, w);
}

// The scores of each sample, without margin and without labels; see score_result.
template <class F, class Context, class = detail::if_device<Context>>
status score(const Context& ctx, const shape& s, const mixture<detail::parameter_t<F>>& m, const F* features,
             const score_result<detail::parameter_t<F>>& result, workspace w) {
  const auto call = detail::call_of<detail::any_kind>(s, m, loss_options<detail::parameter_t<F>>{}, features);
  return detail::on_device(ctx, s, w,
                           [&](auto& device, const detail::device_limits& limits, const workspace& rest) {
                             return detail::device_run_score(device, limits, call, result, rest);
                           });
}

// Means drawn from a normal distribution, the same numbers as on the host; log_variance and log_prior, where not null,
// become 0 and -log(total_classes). One launch.
template <class T, class Context, class = detail::if_device<Context>>
status initialize_means(const Context& ctx, const shape& s, std::uint64_t seed, detail::named_t<T> scale,
                        const parameters<T>& p) {
  static_assert(detail::is_device_scalar<T>, "parameters are float or double");
  typename detail::device_traits<Context>::device_type device(ctx, workspace{});
  return detail::device_initialize_means(device, s, seed, scale, p);
}

// One step of stochastic gradient descent on every array of p whose gradient is not null, in one launch; see sgd_options
// and sgd_update.
//   momentum  the arrays' velocities, zero before the first step; may be null where options.momentum is 0
template <class T, class Context, class G = T, class = detail::if_device<Context>>
status sgd_step(const Context& ctx, const shape& s, const sgd_options<T>& options,
                const gradients<G, detail::named_t<T>>& gradient,
                const parameters<detail::named_t<T>>& momentum, const parameters<detail::named_t<T>>& p) {
  static_assert(detail::is_device_scalar<T>, "parameters are float or double");
  typename detail::device_traits<Context>::device_type device(ctx, workspace{});
  const gradients<T, T> parameters_alone{nullptr, gradient.mean, gradient.log_variance, gradient.log_prior};
  return detail::device_sgd_step(device, s, options, parameters_alone, momentum, p);
}

// out [1] = the schedule at iteration *iteration_at, both in the device's memory: what loss_options::alpha_at reads, so that
// a captured graph follows the schedule. A step that is not positive: status::invalid_option.
template <class T, class Context, class = detail::if_device<Context>>
status scheduled_alpha(const Context& ctx, const stepped_schedule<T>& schedule,
                       const std::int64_t* iteration_at, detail::named_t<T>* out) {
  static_assert(detail::is_device_scalar<T>, "schedules are float or double");
  typename detail::device_traits<Context>::device_type device(ctx, workspace{});
  return detail::device_scheduled_alpha(device, schedule, iteration_at, out);
}

// Adds a batch to the moments of its classes. A may be another type than T. Samples that are ignored, of weight 0 or of a
// class outside [class_begin, class_begin + classes), whether there is such a class or not, do not count, and their features
// are not read. count and scatter must be zero before the first batch; of a class whose count is 0 nothing else is read.
template <class F, class L, class A, class Context, class = detail::if_device<Context>>
status accumulate_moments(const Context& ctx, const shape& s,
                          const loss_options<detail::parameter_t<F>>& options, const F* features,
                          const L* labels, const class_moments<A>& moments, workspace w) {
  static_assert(detail::is_device_scalar<A>, "moments are float or double");
  return detail::on_device(
      ctx, s, w, [&](auto& device, const detail::device_limits& limits, const workspace& rest) {
        return detail::device_accumulate_moments(device, limits.tile_bytes, s, options,
                                                 detail::array_of(features), detail::label_view(labels),
                                                 moments, rest);
      });
}

// Adds one set of moments to another, as if the samples of `from` had followed those of `into`.
template <class A, class Context, class = detail::if_device<Context>>
status merge_moments(const Context& ctx, const shape& s, const class_moments<A>& from,
                     const class_moments<A>& into) {
  static_assert(detail::is_device_scalar<A>, "moments are float or double");
  typename detail::device_traits<Context>::device_type device(ctx, workspace{});
  return detail::device_merge_moments(device, s, from, into);
}

// Parameters from moments; see estimate_options. Classes with a count of 0 keep theirs, log_prior too.
template <class A, class T, class Context, class = detail::if_device<Context>>
status estimate(const Context& ctx, const shape& s, const class_moments<A>& moments,
                const estimate_options<detail::named_t<T>>& options, const parameters<T>& p) {
  static_assert(detail::is_device_scalar<T> && detail::is_device_scalar<A>,
                "moments and parameters are float or double");
  typename detail::device_traits<Context>::device_type device(ctx, workspace{});
  return detail::device_estimate(device, s, moments, options, p);
}

// Bytes of workspace that estimate_whitening needs with moments of A, for what workspace_size does not cover. 0 for a shape
// that it would refuse. Asks no device.
template <class A, class Context, class = detail::if_device<Context>>
std::size_t whitening_workspace_size(const Context& ctx, const shape& s) {
  static_assert(detail::is_device_scalar<A>, "moments are float or double");
  if (detail::check_shape(s) != status::success) return 0;
  detail::arena a;
  const detail::whitening_buffers<A> sizes(a, s.dims);
  static_cast<void>(sizes);
  return a.bytes() + detail::device_traits<Context>::scratch_bytes(ctx, s);
}

// The covariance that all classes share, each about its own mean, as a map that takes it out; see whitening and
// whitening_options. Computed in A. A covariance that is singular to within A's rounding, or not finite, makes the
// matrix and log_abs_det NaN: the status does not tell, since the device computes after the call has returned.
template <class A, class T, class Context, class = detail::if_device<Context>>
status estimate_whitening(const Context& ctx, const shape& s, const class_moments<A>& moments,
                          const whitening_options<detail::named_t<T>>& options, const whitening<T>& out,
                          workspace w) {
  static_assert(detail::is_device_scalar<T> && detail::is_device_scalar<A>,
                "moments and results are float or double");
  return detail::on_device(ctx, s, w, [&](auto& device, const detail::device_limits&, const workspace& rest) {
    return detail::device_estimate_whitening(device, s, moments, options, out, rest);
  });
}

// y = W (x - c) of each sample (eq:whitening), of a batch of features or of the classes' means. Products of float or double,
// whatever the context's precision: W makes much of what rounding leaves out.
//   out  [samples, dims], row stride shape.gradient_stride
template <class F, class Context, class = detail::if_device<Context>>
status whiten(const Context& ctx, const shape& s, const whitening<detail::parameter_t<F>>& map, const F* in,
              detail::parameter_t<F>* out, workspace w) {
  return detail::on_device(
      ctx, s, w, [&](auto& device, const detail::device_limits& limits, const workspace& rest) {
        return detail::device_whiten(device, limits.tile_bytes, s, map, detail::array_of(in), out, rest);
      });
}

}  // namespace lgm
