// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/check.hpp>
#include <lgm/detail/host/call.hpp>
#include <lgm/detail/host/moment_sums.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/host_context.hpp>
#include <lgm/types.hpp>

// Means and variances estimated from the features themselves, on the host: moments of each class, gathered over
// batches and merged across threads, shards and ranks, and the parameters that follow from them. What
// lgm/host.hpp says of all functions holds here too.

// What follows depends on how this translation unit is compiled, and so does its name.
namespace lgm::detail {
inline namespace LGM_HOST_NAMESPACE {
namespace host {

// Bytes that accumulate_moments needs.
inline std::size_t moments_bytes(const host_context& ctx, const shape& s) {
  return detail::moments_bytes(detail::make_moments_plan(ctx, s, threads(ctx)), s);
}

}  // namespace host
}  // namespace LGM_HOST_NAMESPACE
}  // namespace lgm::detail

namespace lgm {
inline namespace LGM_HOST_NAMESPACE {

// Adds a batch to the moments of its classes.
//   options   ignore_label, and sample_weight where not null; the others have no part in it, but must be in their range.
//             Samples that are ignored, of weight 0 or of a class outside [class_begin, class_begin + classes) do not
//             count, and their features are not read
//   features  [samples, dims], row stride shape.feature_stride, of T; they become A before anything is subtracted
//   labels    [samples]; each in [0, total_classes) or options.ignore_label, else status::label_out_of_range
//   moments   see class_moments; updated in place. A may be another type than T. count and scatter must be zero before
//             the first batch; of a class whose count is 0 nothing else is read
// Bits: count, mean, mean_residual and m2 do not depend on how the samples are cut into batches, nor on the number of threads,
// as long as each class's samples keep their order. The scatter does not depend on the number of threads. Accuracy: with
// mean_residual, double moments agree with a computation in two passes to 1e-12, even at means of 1e6 deviations and in batches
// of one sample. That is relative to m2 itself, to the scatter's diagonal, and for a mean to the larger of the mean and the
// deviation. Without mean_residual m2 is off by up to about epsilon |mean| / deviation. float stops counting at 2^24 samples a
// class. A feature of a counted sample that is not finite makes that dimension of its class not finite, and that row and column
// of the scatter.
template <class T, class L, class A>
status accumulate_moments(const host_context& ctx, const shape& s,
                          const loss_options<detail::named_t<T>>& options, const T* features, const L* labels,
                          const class_moments<A>& moments, workspace w) {
  static_assert(detail::host::is_supported<T> && detail::host::is_supported<A>,
                "features and moments are float or double");
  status checked =
      detail::first_failure(detail::host::check_shape(ctx, s), detail::check_options(options),
                            moments.mean != nullptr ? detail::check_features(s, features) : status::success,
                            detail::check_rows(s, labels), detail::check_moments(s, moments));
  if (checked != status::success) return checked;
  const detail::moments_plan plan = detail::make_moments_plan(ctx, s, detail::host::threads(ctx));
  if (w.data == nullptr) return status::null_pointer;
  if (w.bytes < detail::moments_bytes(plan, s)) return status::workspace_too_small;
  checked = detail::host::check_labels(s, options, detail::label_view(labels));
  if (checked != status::success) return checked;
  detail::moments_driver<T, L, A, detail::host_threads>(plan, s, options, features, labels, moments, w).run();
  return status::success;
}

// Adds one set of moments to another, as if the samples of `from` had followed those of `into`: for the shards and
// ranks that samples were spread over. shape.samples has no part in it.
//   from  what is needed for `into`: its mean_residual may be null (0), each of its other arrays where into's is.
//         Of a class whose count is 0 nothing else is read
//   into  updated in place, as by accumulate_moments; must not overlap `from`
template <class A>
status merge_moments(const host_context& ctx, const shape& s, const class_moments<A>& from,
                     const class_moments<A>& into) {
  static_assert(detail::host::is_supported<A>, "moments are float or double");
  const status checked = detail::first_failure(
      detail::host::check_shape(ctx, s), detail::check_moments(s, from), detail::check_moments(s, into),
      detail::check_source(s, into.mean, from.mean), detail::check_source(s, into.m2, from.m2),
      into.scatter != nullptr && from.scatter == nullptr && s.dims > 0 ? status::null_pointer
                                                                       : status::success);
  if (checked != status::success) return checked;
  detail::run_merge<A, detail::host_threads>(ctx, detail::host::threads(ctx), s, from, into);
  return status::success;
}

// Parameters from moments; see estimate_options. Classes with a count of 0 keep theirs, log_prior too.
//   mean          the class's mean
//   log_variance  log of m2 / count (spherical: the mean of it over the dimensions; identity: not written), with
//                 shrinkage s: of (1 - s) times that and s times the pooled variance, which is the sum of m2 over the
//                 classes of the call divided by the sum of their counts. Never below options.variance_floor, nor
//                 below the smallest normal number, so that it is finite
//   log_prior     log of the class's share in the counts of the call's classes
// With decay d each becomes d times the present value and 1 - d times the new one: means, variances and priors, not
// their logarithms. Only then are present values read. With decay 1 nothing is written.
//   moments  count, with mean where parameters.mean and m2 where parameters.log_variance is not null
//   p        every array may be null
template <class A, class T>
status estimate(const host_context& ctx, const shape& s, const class_moments<A>& moments,
                const estimate_options<detail::named_t<T>>& options, const parameters<T>& p) {
  static_assert(detail::host::is_supported<T> && detail::host::is_supported<A>,
                "moments and parameters are float or double");
  parameters<T> written = p;
  if (s.covariance == covariance::identity || s.dims == 0) written.log_variance = nullptr;
  const status checked = detail::first_failure(
      detail::host::check_shape(ctx, s),
      moments.count == nullptr && s.classes > 0 ? status::null_pointer : status::success,
      detail::check_source(s, written.mean, moments.mean),
      detail::check_source(s, written.log_variance, moments.m2), detail::check_options(options));
  if (checked != status::success) return checked;
  if (options.decay == T(1)) return status::success;
  detail::estimate_driver<A, T, detail::host_threads>(ctx, detail::host::threads(ctx), s, moments, options,
                                                      written)
      .run();
  return status::success;
}

}  // namespace LGM_HOST_NAMESPACE
}  // namespace lgm
