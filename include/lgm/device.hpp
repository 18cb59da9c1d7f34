// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <lgm/detail/check.hpp>
#include <lgm/detail/device.hpp>
#include <lgm/detail/device_call.hpp>
#include <lgm/detail/device_moments.hpp>
#include <lgm/detail/device_update.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/detail/workspace.hpp>
#include <lgm/schedule.hpp>
#include <lgm/types.hpp>
#include <type_traits>

// The functions of the library on a device, with the names, arguments and results of host.hpp. Context is the device's:
// cuda_context (cuda.cuh). T is float or double, L a label type (std::int32_t, std::int64_t, std::uint8_t); features,
// parameters and results are of one type.
//
// All of them: matrices are row-major; pointers lead to the device's memory, at any alignment, and the memory is the
// caller's; a call enqueues work on the context's stream and returns; nothing is allocated, synchronised, thrown or
// printed; inputs are never written; null outputs are not computed; the same arguments on the same device give the
// same bits. A call that answers anything but status::success because of its arguments has enqueued nothing. Features, labels
// and results must not overlap.
//
// What only the device can see is judged there, after the call has returned: a sample whose label is outside
// [0, total_classes) and not ignore_label has losses that are not a number, gradients of zero, and is not counted; with a
// bad value behind alpha_at all losses are not a number, and all gradients zero.

namespace lgm {

namespace detail {

// What makes a type the context of a device: a specialisation with
//   using device_type = ...;                                a Device (detail/device.hpp), made of (context, scratch)
//   static std::size_t scratch_bytes(const Context&, const shape&);   what its products take of the workspace
// and a member tile_bytes of the context, what the workspace is kept within where the shape allows it.
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
std::size_t tile_limit(const Context& ctx, const shape& s) {
  const std::size_t scratch = device_traits<Context>::scratch_bytes(ctx, s);
  return ctx.tile_bytes > scratch ? ctx.tile_bytes - scratch : 0;
}

// f(device, what its tiles are kept within, rest of the workspace): the products' scratch comes first.
template <class Context, class F>
status on_device(const Context& ctx, const shape& s, const workspace& w, F f) {
  using traits = device_traits<Context>;
  const status checked = check(s);
  if (checked != status::success) return checked;
  if (w.data == nullptr) return status::null_pointer;
  const std::size_t scratch = traits::scratch_bytes(ctx, s);
  if (w.bytes < scratch) return status::workspace_too_small;
  const auto data = static_cast<char*>(w.data);
  typename traits::device_type device(ctx, workspace{data, scratch});
  return f(device, tile_limit(ctx, s), workspace{data + scratch, w.bytes - scratch});
}

template <class T, class L>
device_targets<T> device_targets_of(const L* labels) {
  device_targets<T> targets;
  targets.labels = label_view(labels);
  return targets;
}
template <class T>
device_targets<T> device_targets_of(const soft_targets<T>& soft) {
  device_targets<T> targets;
  targets.soft = soft;
  targets.is_soft = true;
  return targets;
}

// Everything that loss functions share; see device_run_loss. Targets: labels or soft_targets<T>.
template <class T, class Context, class Targets>
status call_loss(const Context& ctx, const shape& s, const mixture<T>& m, const loss_options<T>& o,
                 const T* features, const Targets& targets, bool has_state, const T* row_state, bool report,
                 const T* upstream, const loss_result<T>& result, const gradients<T, T>& gradient,
                 const workspace& w) {
  static_assert(is_device_scalar<T>, "features and parameters are float or double");
  return on_device(ctx, s, w, [&](auto& device, std::size_t tile_bytes, const workspace& rest) {
    return device_run_loss(device, tile_bytes, s, m, o, features, device_targets_of<T>(targets), has_state,
                           row_state, report, upstream, result, gradient, rest);
  });
}

}  // namespace detail

// Bytes of workspace that are enough for any function below at this shape and at any number of samples below it, whatever
// the memory's address. 0 for a shape that the functions would refuse. Asks no device.
template <class F, class T = F, class Context, class = detail::if_device<Context>>
std::size_t workspace_size(const Context& ctx, const shape& s) {
  if (detail::check(s) != status::success) return 0;
  static_assert(std::is_same<F, T>::value && detail::is_device_scalar<T>,
                "features and parameters are float or double");
  const std::size_t limit = detail::tile_limit(ctx, s);
  const std::size_t bytes =
      std::max(detail::device_loss_bytes<T>(s, limit),
               detail::device_moments_bytes(detail::device_moments_plan::make(s, limit), s));
  return bytes == 0 ? 0 : bytes + detail::device_traits<Context>::scratch_bytes(ctx, s);
}

// Losses of a batch (eq:classification, eq:likelihood, eq:loss).
template <class T, class L, class Context, class = detail::if_device<Context>>
status forward(const Context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
               const loss_options<detail::named_t<T>>& options, const T* features, const L* labels,
               const loss_result<detail::named_t<T>>& result, workspace w) {
  return detail::call_loss<T>(ctx, s, m, options, features, labels, false, nullptr, true, nullptr, result, {},
                              w);
}
template <class T, class Context, class = detail::if_device<Context>>
status forward(const Context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
               const loss_options<detail::named_t<T>>& options, const T* features,
               const soft_targets<detail::named_t<T>>& targets, const loss_result<detail::named_t<T>>& result,
               workspace w) {
  return detail::call_loss<T>(ctx, s, m, options, features, targets, false, nullptr, true, nullptr, result,
                              {}, w);
}

// Gradients of a batch (eq:grad_feature, eq:grad_mean, eq:grad_log_variance, eq:grad_log_prior), from what forward left.
template <class T, class L, class Context, class = detail::if_device<Context>>
status backward(const Context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
                const loss_options<detail::named_t<T>>& options, const T* features, const L* labels,
                const detail::named_t<T>* row_state, const detail::named_t<T>* upstream,
                const gradients<detail::named_t<T>, detail::named_t<T>>& gradient, workspace w) {
  return detail::call_loss<T>(ctx, s, m, options, features, labels, true, row_state, false, upstream, {},
                              gradient, w);
}
template <class T, class Context, class = detail::if_device<Context>>
status backward(const Context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
                const loss_options<detail::named_t<T>>& options, const T* features,
                const soft_targets<detail::named_t<T>>& targets, const detail::named_t<T>* row_state,
                const detail::named_t<T>* upstream,
                const gradients<detail::named_t<T>, detail::named_t<T>>& gradient, workspace w) {
  return detail::call_loss<T>(ctx, s, m, options, features, targets, true, row_state, false, upstream, {},
                              gradient, w);
}

// forward and backward in one pass, which saves a matrix product.
template <class T, class L, class Context, class = detail::if_device<Context>>
status forward_backward(const Context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
                        const loss_options<detail::named_t<T>>& options, const T* features, const L* labels,
                        const detail::named_t<T>* upstream, const loss_result<detail::named_t<T>>& result,
                        const gradients<detail::named_t<T>, detail::named_t<T>>& gradient, workspace w) {
  return detail::call_loss<T>(ctx, s, m, options, features, labels, false, nullptr, true, upstream, result,
                              gradient, w);
}
template <class T, class Context, class = detail::if_device<Context>>
status forward_backward(const Context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
                        const loss_options<detail::named_t<T>>& options, const T* features,
                        const soft_targets<detail::named_t<T>>& targets, const detail::named_t<T>* upstream,
                        const loss_result<detail::named_t<T>>& result,
                        const gradients<detail::named_t<T>, detail::named_t<T>>& gradient, workspace w) {
  return detail::call_loss<T>(ctx, s, m, options, features, targets, false, nullptr, true, upstream, result,
                              gradient, w);
}

// The losses of forward, given the row state of all shards of the classes, merged.
template <class T, class L, class Context, class = detail::if_device<Context>>
status finish_forward(const Context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
                      const loss_options<detail::named_t<T>>& options, const T* features, const L* labels,
                      const detail::named_t<T>* row_state, const loss_result<detail::named_t<T>>& result,
                      workspace w) {
  return detail::call_loss<T>(ctx, s, m, options, features, labels, true, row_state, true, nullptr, result,
                              {}, w);
}
template <class T, class Context, class = detail::if_device<Context>>
status finish_forward(const Context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
                      const loss_options<detail::named_t<T>>& options, const T* features,
                      const soft_targets<detail::named_t<T>>& targets, const detail::named_t<T>* row_state,
                      const loss_result<detail::named_t<T>>& result, workspace w) {
  return detail::call_loss<T>(ctx, s, m, options, features, targets, true, row_state, true, nullptr, result,
                              {}, w);
}

// Logarithms of sums, merged each on its own.
//   from, into  [samples, 2], the row states of two disjoint sets of classes; into becomes that of both
template <class T, class Context, class = detail::if_device<Context>>
status merge_row_state(const Context& ctx, const shape& s, const T* from, detail::named_t<T>* into) {
  static_assert(detail::is_device_scalar<T>, "row states are float or double");
  typename detail::device_traits<Context>::device_type device(ctx, workspace{});
  return detail::device_merge_row_state(device, s, from, into);
}

// Logits l_k (eq:logit), with the margin at each counted sample's target; labels null: no margin.
template <class T, class L, class Context, class = detail::if_device<Context>>
status logits(const Context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
              const loss_options<detail::named_t<T>>& options, const T* features, const L* labels,
              detail::named_t<T>* out, workspace w) {
  static_assert(detail::is_device_scalar<T>, "features and parameters are float or double");
  return detail::on_device(ctx, s, w, [&](auto& device, std::size_t tile_bytes, const workspace& rest) {
    return detail::device_run_logits(device, tile_bytes, s, m, options, features, detail::label_view(labels),
                                     out, rest);
  });
}
template <class T, class Context, class = detail::if_device<Context>>
status logits(const Context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
              const loss_options<detail::named_t<T>>& options, const T* features, std::nullptr_t,
              detail::named_t<T>* out, workspace w) {
  return logits(ctx, s, m, options, features, static_cast<const std::int64_t*>(nullptr), out, w);
}
template <class T, class Context, class = detail::if_device<Context>>
status logits(const Context& ctx, const shape& s, const mixture<detail::named_t<T>>& m, const T* features,
              detail::named_t<T>* out, workspace w) {
  return logits(ctx, s, m, {}, features, nullptr, out, w);
}

// Gradients from any gradient of the logits, in place of g_k: a loss of the caller's own.
template <class T, class L, class Context, class = detail::if_device<Context>>
status logits_backward(const Context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
                       const loss_options<detail::named_t<T>>& options, const T* features, const L* labels,
                       const detail::named_t<T>* grad_logits, const detail::named_t<T>* upstream,
                       const gradients<detail::named_t<T>, detail::named_t<T>>& gradient, workspace w) {
  static_assert(detail::is_device_scalar<T>, "features and parameters are float or double");
  return detail::on_device(ctx, s, w, [&](auto& device, std::size_t tile_bytes, const workspace& rest) {
    detail::device_targets<T> targets = detail::device_targets_of<T>(labels);
    targets.slope = grad_logits;
    targets.is_given = true;
    return detail::device_run_logits_backward(device, tile_bytes, s, m, options, features, targets, upstream,
                                              gradient, rest);
  });
}
template <class T, class Context, class = detail::if_device<Context>>
status logits_backward(const Context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
                       const loss_options<detail::named_t<T>>& options, const T* features, std::nullptr_t,
                       const detail::named_t<T>* grad_logits, const detail::named_t<T>* upstream,
                       const gradients<detail::named_t<T>, detail::named_t<T>>& gradient, workspace w) {
  return logits_backward(ctx, s, m, options, features, static_cast<const std::int64_t*>(nullptr), grad_logits,
                         upstream, gradient, w);
}

// What the mixture says of each sample, without margin and without labels; see score_result.
template <class T, class Context, class = detail::if_device<Context>>
status score(const Context& ctx, const shape& s, const mixture<detail::named_t<T>>& m, const T* features,
             const score_result<detail::named_t<T>>& result, workspace w) {
  static_assert(detail::is_device_scalar<T>, "features and parameters are float or double");
  return detail::on_device(ctx, s, w, [&](auto& device, std::size_t tile_bytes, const workspace& rest) {
    return detail::device_run_score(device, tile_bytes, s, m, features, result, rest);
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
template <class T, class Context, class = detail::if_device<Context>>
status sgd_step(const Context& ctx, const shape& s, const sgd_options<T>& options,
                const gradients<detail::named_t<T>, detail::named_t<T>>& gradient,
                const parameters<detail::named_t<T>>& momentum, const parameters<detail::named_t<T>>& p) {
  static_assert(detail::is_device_scalar<T>, "parameters are float or double");
  typename detail::device_traits<Context>::device_type device(ctx, workspace{});
  return detail::device_sgd_step(device, s, options, gradient, momentum, p);
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
template <class T, class L, class A, class Context, class = detail::if_device<Context>>
status accumulate_moments(const Context& ctx, const shape& s, const loss_options<detail::named_t<T>>& options,
                          const T* features, const L* labels, const class_moments<A>& moments, workspace w) {
  static_assert(detail::is_device_scalar<T> && detail::is_device_scalar<A>,
                "features and moments are float or double");
  return detail::on_device(ctx, s, w, [&](auto& device, std::size_t tile_bytes, const workspace& rest) {
    return detail::device_accumulate_moments(device, tile_bytes, s, options, features,
                                             detail::label_view(labels), moments, rest);
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

}  // namespace lgm
