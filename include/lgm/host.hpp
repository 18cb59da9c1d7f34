// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <lgm/column.hpp>
#include <lgm/config.hpp>
#include <lgm/detail/check.hpp>
#include <lgm/detail/host/call.hpp>
#include <lgm/detail/host/driver.hpp>
#include <lgm/detail/host/parallel.hpp>
#include <lgm/detail/host/plan.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/host_context.hpp>
#include <lgm/host_moments.hpp>
#include <lgm/host_whitening.hpp>
#include <lgm/types.hpp>
#include <type_traits>

// The functions of the library on the host. T, the type of features, parameters and results, is float or double. L, the type of
// the labels, is any integer; labels are compared as std::int64_t.
//
// What holds for all of them:
// - Matrices are row-major. Memory is the host's, at any alignment, and belongs to the caller.
// - Nothing is allocated, thrown or printed, and no global state is changed. Inputs are never written. Null outputs are not
//   computed. Features, labels and results must not overlap.
// - A call that returns anything but status::success has written nothing.
// - The same arguments, machine and thread count give the same bits. What forward, logits and score compute for one row has the
//   same bits in any batch, at any place in it, with any tile_bytes and number of threads; not where a gemm hook makes the
//   products, or host_context::batch_invariant is false.
// - Calls may run at the same time, also with one context, where none writes what another reads or writes. Each needs a
//   workspace of its own.

// What follows depends on how this translation unit is compiled, and so does its name.
namespace lgm::detail {
inline namespace LGM_HOST_NAMESPACE {
namespace host {

// The kind of targets: labels or soft_targets<T>.
template <class Targets>
inline constexpr detail::target_kind kind_of = detail::target_kind::labels;
template <class T>
inline constexpr detail::target_kind kind_of<soft_targets<T>> = detail::target_kind::soft;

template <class T, class Targets>
auto call_of(const shape& s, const mixture<T>& m, const loss_options<T>& o, const T* features,
             const Targets& targets) {
  static_assert(is_supported<T>, "features and parameters are float or double");
  return detail::call_of<detail::one_kind<kind_of<Targets>>>(s, m, o, features, targets);
}

template <class T, class Kind>
status check_call(const host_context& ctx, const detail::loss_call<T, Kind>& call) {
  return detail::first_failure(
      check_shape(ctx, call.shape), detail::check_mean(call.shape, call.mixture.mean),
      detail::check_options(call.options), detail::check_features(call.shape, call.features.data));
}

// What every loss function does, once its arguments are in a call.
template <class T, detail::target_kind Kind>
status call_loss(const host_context& ctx, detail::loss_call<T, detail::one_kind<Kind>>& call,
                 detail::loss_function function, const workspace& w) {
  call.request(function);
  status checked = detail::first_failure(detail::check_state(call), check_call(ctx, call));
  if (checked != status::success) return checked;
  const shape& s = call.shape;
  const detail::host_plan p = plan<T>(ctx, s);
  checked = detail::first_failure(
      call.is_labels() ? status::success : detail::check_given_targets(call), check_workspace<T>(p, s, w),
      call.is_labels() || !call.labels.is_null() ? check_labels(s, call.options, call.labels)
                                                 : status::success);
  if (checked != status::success) return checked;
  detail::run_loss<T, detail::host_threads>(p, call, w);
  return status::success;
}

}  // namespace host
}  // namespace LGM_HOST_NAMESPACE
}  // namespace lgm::detail

namespace lgm {
inline namespace LGM_HOST_NAMESPACE {

// Bytes of workspace that are enough for any function at this shape and at any number of samples below it, whatever the
// memory's address (but for estimate_whitening, see whitening_workspace_size). 0 for a shape that the functions would refuse.
template <class F, class T = F>
std::size_t workspace_size(const host_context& ctx, const shape& s) {
  static_assert(std::is_same<F, T>::value && detail::host::is_supported<T>,
                "features and parameters are float or double");
  if (detail::host::check_shape(ctx, s) != status::success) return 0;
  const detail::host_plan plan = detail::host::plan<T>(ctx, s);
  const std::size_t bytes = detail::larger(detail::host_bytes<T>(plan, s),
                                           detail::host_bytes<T>(detail::host::plan<T>(ctx, s, true), s));
  // A problem in one tile takes less with fewer samples; one in several may take up to the limit with any number.
  const bool one_tile = plan.rows == s.samples && plan.operand == s.classes;
  return std::max<std::size_t>({one_tile ? bytes : detail::larger(bytes, ctx.tile_bytes),
                                detail::host::moments_bytes(ctx, s), detail::host::whiten_bytes<T>(ctx, s)});
}

// Losses of a batch (eq:classification, eq:likelihood, eq:loss).
//   features  [samples, dims], row stride shape.feature_stride
//   labels    [samples]; each in [0, total_classes) or options.ignore_label, else status::label_out_of_range
//   targets   in place of labels: [samples, classes], row stride targets.stride; their values are not checked
//   result    see loss_result
// No samples, or all ignored: losses are 0, with reduction::mean NaN. A feature of a counted sample that is not finite makes
// that sample's losses NaN, and so the reduced ones. On a shard of the classes: losses among this call's classes, 0 for a
// sample whose label is on another shard; merge_row_state and finish_forward make them those of the whole mixture.
template <class T, class L>
status forward(const host_context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
               const loss_options<detail::named_t<T>>& options, const T* features, const L* labels,
               const loss_result<detail::named_t<T>>& result, workspace w) {
  auto call = detail::host::call_of<T>(s, m, options, features, labels);
  call.result = result;
  return detail::host::call_loss(ctx, call, detail::loss_function::forward, w);
}
template <class T>
status forward(const host_context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
               const loss_options<detail::named_t<T>>& options, const T* features,
               const soft_targets<detail::named_t<T>>& targets, const loss_result<detail::named_t<T>>& result,
               workspace w) {
  auto call = detail::host::call_of<T>(s, m, options, features, targets);
  call.result = result;
  return detail::host::call_loss(ctx, call, detail::loss_function::forward, w);
}

// Gradients of a batch (eq:grad_feature, eq:grad_mean, eq:grad_log_variance, eq:grad_log_prior), from what
// forward left.
//   row_state  [samples, 2], as forward wrote it, on a shard of the classes merged with the others'
//   upstream   [1], or [samples] with reduction::none: what the gradients are multiplied by; null: 1
//   gradient   see gradients. No samples, or all ignored: exactly zero. On a shard of the classes the feature gradient is
//              this shard's part: the parts add up.
template <class T, class L>
status backward(const host_context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
                const loss_options<detail::named_t<T>>& options, const T* features, const L* labels,
                const detail::named_t<T>* row_state, const detail::named_t<T>* upstream,
                const gradients<detail::named_t<T>, detail::named_t<T>>& gradient, workspace w) {
  auto call = detail::host::call_of<T>(s, m, options, features, labels);
  call.row_state = row_state;
  call.upstream = upstream;
  call.gradient = detail::gradients_of<T>(gradient);
  return detail::host::call_loss(ctx, call, detail::loss_function::backward, w);
}
template <class T>
status backward(const host_context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
                const loss_options<detail::named_t<T>>& options, const T* features,
                const soft_targets<detail::named_t<T>>& targets, const detail::named_t<T>* row_state,
                const detail::named_t<T>* upstream,
                const gradients<detail::named_t<T>, detail::named_t<T>>& gradient, workspace w) {
  auto call = detail::host::call_of<T>(s, m, options, features, targets);
  call.row_state = row_state;
  call.upstream = upstream;
  call.gradient = detail::gradients_of<T>(gradient);
  return detail::host::call_loss(ctx, call, detail::loss_function::backward, w);
}

// forward and backward in one pass, which saves a matrix product. upstream multiplies the gradients, not the
// losses.
template <class T, class L>
status forward_backward(const host_context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
                        const loss_options<detail::named_t<T>>& options, const T* features, const L* labels,
                        const detail::named_t<T>* upstream, const loss_result<detail::named_t<T>>& result,
                        const gradients<detail::named_t<T>, detail::named_t<T>>& gradient, workspace w) {
  auto call = detail::host::call_of<T>(s, m, options, features, labels);
  call.upstream = upstream;
  call.result = result;
  call.gradient = detail::gradients_of<T>(gradient);
  return detail::host::call_loss(ctx, call, detail::loss_function::forward_backward, w);
}
template <class T>
status forward_backward(const host_context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
                        const loss_options<detail::named_t<T>>& options, const T* features,
                        const soft_targets<detail::named_t<T>>& targets, const detail::named_t<T>* upstream,
                        const loss_result<detail::named_t<T>>& result,
                        const gradients<detail::named_t<T>, detail::named_t<T>>& gradient, workspace w) {
  auto call = detail::host::call_of<T>(s, m, options, features, targets);
  call.upstream = upstream;
  call.result = result;
  call.gradient = detail::gradients_of<T>(gradient);
  return detail::host::call_loss(ctx, call, detail::loss_function::forward_backward, w);
}

// Merges the row states of two disjoint sets of classes. Of the first numbers, all but one are -infinity with labels; with soft
// targets they add up. The second numbers, logarithms of sums, become the logarithm of the whole sum.
//   from, into  [samples, 2]; `into` becomes the row state of both sets
template <class T>
status merge_row_state(const host_context& ctx, const shape& s, const T* from, detail::named_t<T>* into) {
  static_assert(detail::host::is_supported<T>, "row states are float or double");
  const status checked = detail::first_failure(detail::host::check_shape(ctx, s), detail::check_rows(s, from),
                                               detail::check_rows(s, into));
  if (checked != status::success) return checked;
  for (std::int64_t i = 0; i < s.samples; ++i) merge_state(from + 2 * i, into + 2 * i);
  return status::success;
}

// The losses of forward, given the row state of all shards of the classes, merged: this call's part of total,
// classification and likelihood, which add up to the whole mixture's over the shards; log_evidence and counted are the
// whole's on every shard.
//   row_state  [samples, 2]
//   result     without row_state and correct, which do not follow from such a state: else status::invalid_option
template <class T, class L>
status finish_forward(const host_context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
                      const loss_options<detail::named_t<T>>& options, const T* features, const L* labels,
                      const detail::named_t<T>* row_state, const loss_result<detail::named_t<T>>& result,
                      workspace w) {
  auto call = detail::host::call_of<T>(s, m, options, features, labels);
  call.row_state = row_state;
  call.result = result;
  return detail::host::call_loss(ctx, call, detail::loss_function::finish_forward, w);
}
template <class T>
status finish_forward(const host_context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
                      const loss_options<detail::named_t<T>>& options, const T* features,
                      const soft_targets<detail::named_t<T>>& targets, const detail::named_t<T>* row_state,
                      const loss_result<detail::named_t<T>>& result, workspace w) {
  auto call = detail::host::call_of<T>(s, m, options, features, targets);
  call.row_state = row_state;
  call.result = result;
  return detail::host::call_loss(ctx, call, detail::loss_function::finish_forward, w);
}

// Logits l_k (eq:logit), with the margin at each counted sample's target; labels null: no margin.
//   out  [samples, classes], row stride shape.logits_stride
template <class T, class L>
status logits(const host_context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
              const loss_options<detail::named_t<T>>& options, const T* features, const L* labels,
              detail::named_t<T>* out, workspace w) {
  const auto call = detail::host::call_of<T>(s, m, options, features, labels);
  status checked = detail::first_failure(detail::host::check_call(ctx, call),
                                         s.classes > 0 ? detail::check_rows(s, out) : status::success);
  if (checked != status::success) return checked;
  const detail::host_plan p = detail::host::plan<T>(ctx, s, true);
  checked = detail::first_failure(
      detail::host::check_workspace<T>(p, s, w),
      labels == nullptr ? status::success : detail::host::check_labels(s, options, call.labels));
  if (checked != status::success) return checked;
  detail::run_logits<T, detail::host_threads>(p, call, out, w);
  return status::success;
}
template <class T>
status logits(const host_context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
              const loss_options<detail::named_t<T>>& options, const T* features, std::nullptr_t,
              detail::named_t<T>* out, workspace w) {
  return logits(ctx, s, m, options, features, static_cast<const std::int64_t*>(nullptr), out, w);
}
template <class T>
status logits(const host_context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
              const T* features, detail::named_t<T>* out, workspace w) {
  return logits(ctx, s, m, {}, features, nullptr, out, w);
}

// Gradients from any gradient of the logits, in place of g_k: a loss of the caller's own. The likelihood term, where
// options.lambda is not 0, is added as the options reduce it.
//   labels       as for logits; null: no margin, no likelihood. Rows that are ignored have neither, but are differentiated
//   grad_logits  [samples, classes], row stride shape.logits_stride; a row of zeros without a likelihood term gives
//                exactly zero, whatever its features
//   upstream     multiplies both terms; see backward
template <class T, class L>
status logits_backward(const host_context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
                       const loss_options<detail::named_t<T>>& options, const T* features, const L* labels,
                       const detail::named_t<T>* grad_logits, const detail::named_t<T>* upstream,
                       const gradients<detail::named_t<T>, detail::named_t<T>>& gradient, workspace w) {
  static_assert(detail::host::is_supported<T>, "features and parameters are float or double");
  using kind = detail::one_kind<detail::target_kind::grad_logits>;
  auto call = detail::call_of<kind>(s, m, options, features, labels);
  call.grad_logits = grad_logits;
  call.upstream = upstream;
  call.gradient = detail::gradients_of<T>(gradient);
  return detail::host::call_loss(ctx, call, detail::loss_function::logits_backward, w);
}
template <class T>
status logits_backward(const host_context& ctx, const shape& s, const mixture<detail::named_t<T>>& m,
                       const loss_options<detail::named_t<T>>& options, const T* features, std::nullptr_t,
                       const detail::named_t<T>* grad_logits, const detail::named_t<T>* upstream,
                       const gradients<detail::named_t<T>, detail::named_t<T>>& gradient, workspace w) {
  return logits_backward(ctx, s, m, options, features, static_cast<const std::int64_t*>(nullptr), grad_logits,
                         upstream, gradient, w);
}

// The scores of each sample, without margin and without labels; see score_result. Without classes, predicted is -1 and the rest
// NaN.
template <class T>
status score(const host_context& ctx, const shape& s, const mixture<detail::named_t<T>>& m, const T* features,
             const score_result<detail::named_t<T>>& result, workspace w) {
  const auto call =
      detail::host::call_of<T>(s, m, loss_options<T>{}, features, static_cast<const int*>(nullptr));
  status checked = detail::host::check_call(ctx, call);
  if (checked != status::success) return checked;
  const detail::host_plan p = detail::host::plan<T>(ctx, s, true);
  checked = detail::host::check_workspace<T>(p, s, w);
  if (checked != status::success) return checked;
  detail::run_score<T, detail::host_threads>(p, call, result, w);
  return status::success;
}

// Means drawn from a normal distribution with mean 0 and standard deviation `scale`; log_variance and
// log_prior, where not null, become 0 and -log(total_classes). A class's numbers depend on its index in the
// whole mixture, the seed and dims alone.
template <class T>
status initialize_means(const host_context& ctx, const shape& s, std::uint64_t seed, detail::named_t<T> scale,
                        const parameters<T>& p) {
  static_assert(detail::host::is_supported<T>, "parameters are float or double");
  const status checked =
      detail::first_failure(detail::host::check_shape(ctx, s), detail::check_mean(s, p.mean),
                            std::isfinite(scale) ? status::success : status::invalid_option);
  if (checked != status::success) return checked;
  const std::int64_t all = s.classes * s.dims, first = s.class_begin * s.dims;
  const serial_group group;
  group.for_each(all, [&](std::int64_t i) {
    p.mean[i] =
        static_cast<T>(static_cast<double>(scale) * normal_at(seed, static_cast<std::uint64_t>(first + i)));
  });
  group.for_each(p.log_variance != nullptr ? log_variance_size(s) : 0,
                 [&](std::int64_t i) { p.log_variance[i] = T(0); });
  group.for_each(p.log_prior != nullptr ? s.classes : 0, [&](std::int64_t k) {
    p.log_prior[k] = -std::log(static_cast<T>(detail::total_classes(s)));
  });
  return status::success;
}

// One step of stochastic gradient descent on every array of p whose gradient is not null; see sgd_options and
// sgd_update.
//   gradient   as forward_backward wrote it; its feature part is not read
//   momentum   the arrays' velocities, zero before the first step; may be null where options.momentum is 0
//   p          what is moved
template <class T>
status sgd_step(const host_context& ctx, const shape& s, const sgd_options<T>& options,
                const gradients<detail::named_t<T>, detail::named_t<T>>& gradient,
                const parameters<detail::named_t<T>>& momentum, const parameters<detail::named_t<T>>& p) {
  static_assert(detail::host::is_supported<T>, "parameters are float or double");
  const status checked =
      detail::first_failure(detail::host::check_shape(ctx, s), detail::check_options(options));
  if (checked != status::success) return checked;
  const std::int64_t all = s.classes * s.dims;
  const T scale = options.inverse_loss_scale_at != nullptr ? *options.inverse_loss_scale_at : T(1);
  constexpr T unbounded = numeric<T>::infinity;
  struct array {
    std::int64_t size;
    const T* gradient;
    T* velocity;
    T* parameter;
    sgd_rule<T> rule;
  };
  const auto rule = [&](T rate, const T* rate_at, T decay, T lower, T upper) {
    return sgd_rule<T>{
        rate_at != nullptr ? *rate_at : rate, options.momentum, decay, scale, options.nesterov, lower, upper};
  };
  const array arrays[] = {
      {all, gradient.mean, momentum.mean, p.mean,
       rule(options.mean_rate, options.mean_rate_at, options.weight_decay, -unbounded, unbounded)},
      {log_variance_size(s), gradient.log_variance, momentum.log_variance, p.log_variance,
       rule(options.log_variance_rate, options.log_variance_rate_at, T(0), options.min_log_variance,
            options.max_log_variance)},
      {s.classes, gradient.log_prior, momentum.log_prior, p.log_prior,
       rule(options.log_prior_rate, options.log_prior_rate_at, T(0), -unbounded, unbounded)},
  };
  for (const array& a : arrays) {
    if (a.gradient == nullptr || a.parameter == nullptr || a.size == 0) continue;
    if (options.momentum != T(0) && a.velocity == nullptr) return status::null_pointer;
  }
  if (options.skip_at != nullptr && *options.skip_at) return status::success;
  for (const array& a : arrays) {
    if (a.gradient == nullptr || a.parameter == nullptr || a.rule.rate == T(0)) continue;
    // A part of the array to a thread.
    const std::int64_t part = std::int64_t(1) << 15, parts = (a.size + part - 1) / part;
    detail::parallel_for<detail::host_threads>(
        ctx.parallel_for, parts < 4 ? 1 : detail::host::threads(ctx), parts, [&](std::int64_t i, int) {
          const std::int64_t first = i * part;
          sgd_update(detail::packet_group<T>{}, detail::smaller(part, a.size - first), a.rule,
                     a.gradient + first, a.velocity == nullptr ? nullptr : a.velocity + first,
                     a.parameter + first);
        });
  }
  return status::success;
}

}  // namespace LGM_HOST_NAMESPACE
}  // namespace lgm
