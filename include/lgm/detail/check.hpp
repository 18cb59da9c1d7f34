// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/formula.hpp>
#include <lgm/types.hpp>
#include <limits>

// Argument checks, shared by the drivers. Each returns the first error, in the order of the arguments.

namespace lgm::detail {

// The classes of the whole mixture.
LGM_HD inline std::int64_t total_classes(const shape& s) {
  return s.total_classes == 0 ? s.classes : s.total_classes;
}

// Whether a call is a shard's, perhaps of all classes: its row states then merge with those of other calls.
LGM_HD inline bool is_shard(const shape& s) { return s.total_classes != 0; }

// A class's index among those of the call, -1 where it is not one of them. label may be any number: an ignored label is not a
// class.
LGM_HD inline std::int64_t local_class(const shape& s, std::int64_t label) {
  return label >= s.class_begin && label < s.class_begin + s.classes ? label - s.class_begin : -1;
}

// Whether a label is neither a class of the whole mixture nor the one that is ignored.
LGM_HD inline bool is_out_of_range(const shape& s, std::int64_t ignore_label, std::int64_t label) {
  return label != ignore_label && (label < 0 || label >= total_classes(s));
}

LGM_HD inline std::int64_t stride_or(std::int64_t stride, std::int64_t packed) {
  return stride == 0 ? packed : stride;
}

// The same for walking over rows, which may have no memory where they have no elements.
LGM_HD inline std::int64_t row_stride(std::int64_t stride, std::int64_t length) {
  return length == 0 ? 0 : stride_or(stride, length);
}

// True where rows * columns elements of up to 16 bytes can be addressed.
inline bool addressable(std::int64_t rows, std::int64_t columns) {
  return rows == 0 || columns <= (std::numeric_limits<std::int64_t>::max)() / 16 / rows;
}

inline status check_shape(const shape& s) {
  if (s.samples < 0 || s.classes < 0 || s.dims < 0 || s.total_classes < 0) return status::negative_size;
  if (s.covariance != covariance::identity && s.covariance != covariance::spherical &&
      s.covariance != covariance::diagonal)
    return status::invalid_option;
  if (s.class_begin < 0 || s.class_begin > total_classes(s) || s.classes > total_classes(s) - s.class_begin)
    return status::invalid_class_range;
  const std::int64_t features = stride_or(s.feature_stride, s.dims),
                     gradient = stride_or(s.gradient_stride, s.dims),
                     logits = stride_or(s.logits_stride, s.classes);
  if (features < s.dims || gradient < s.dims || logits < s.classes) return status::stride_too_small;
  if (!addressable(s.samples, features) || !addressable(s.samples, gradient) ||
      !addressable(s.samples, logits) || !addressable(total_classes(s), s.dims))
    return status::size_too_large;
  return status::success;
}

template <class T>
LGM_HD bool usable_factor(T value) {
  return value >= T(0) && value <= -numeric<T>::lowest;
}

template <class T>
status check_options(const loss_options<T>& o) {
  // alpha_at lies in the context's memory, which cannot be read here: the value is checked where losses are computed.
  if (o.alpha_at == nullptr && !usable_factor(o.alpha)) return status::invalid_alpha;
  if (!usable_factor(o.lambda)) return status::invalid_lambda;
  if (o.reduction != reduction::mean && o.reduction != reduction::sum && o.reduction != reduction::none)
    return status::invalid_option;
  if (!(o.label_smoothing >= T(0) && o.label_smoothing <= T(1))) return status::invalid_label_smoothing;
  if (!(o.gradient_filter >= T(0) && o.gradient_filter < T(1))) return status::invalid_option;
  return status::success;
}

template <class T>
status check_options(const sgd_options<T>& o) {
  const bool rates =
      usable_factor(o.mean_rate) && usable_factor(o.log_variance_rate) && usable_factor(o.log_prior_rate);
  const bool rest = usable_factor(o.momentum) && o.momentum < T(1) && usable_factor(o.weight_decay) &&
                    o.min_log_variance <= o.max_log_variance;
  return rates && rest ? status::success : status::invalid_option;
}

template <class T>
status check_options(const estimate_options<T>& o) {
  const bool usable = usable_factor(o.variance_floor) && o.shrinkage >= T(0) && o.shrinkage <= T(1) &&
                      o.decay >= T(0) && o.decay <= T(1);
  return usable ? status::success : status::invalid_option;
}

// A pointer may be null where nothing would be read or written through it.
template <class T>
status check_mean(const shape& s, const T* mean) {
  return mean == nullptr && s.classes > 0 && s.dims > 0 ? status::null_pointer : status::success;
}
template <class T>
status check_features(const shape& s, const T* features) {
  return features == nullptr && s.samples > 0 && s.dims > 0 ? status::null_pointer : status::success;
}
// [samples] of anything that is needed.
inline status check_rows(const shape& s, const void* data) {
  return data == nullptr && s.samples > 0 ? status::null_pointer : status::success;
}

template <class T>
status check_soft_targets(const shape& s, const soft_targets<T>& targets) {
  if (targets.stride != 0 && targets.stride < s.classes) return status::stride_too_small;
  if (!addressable(s.samples, stride_or(targets.stride, s.classes))) return status::size_too_large;
  return targets.data == nullptr && s.samples > 0 && s.classes > 0 ? status::null_pointer : status::success;
}

template <class A>
status check_moments(const shape& s, const class_moments<A>& m) {
  if (m.count == nullptr && s.classes > 0) return status::null_pointer;
  if (m.m2 != nullptr || m.scatter != nullptr) {
    if (check_mean(s, m.mean) != status::success) return status::null_pointer;
  }
  return m.scatter != nullptr && !addressable(s.dims, s.dims) ? status::size_too_large : status::success;
}

// Where `written` is not null, `needed` must not be null either.
template <class A>
status check_source(const shape& s, const void* written, const A* needed) {
  return written == nullptr ? status::success : check_mean(s, needed);
}

// The first status that is not success.
template <class... Statuses>
status first_failure(Statuses... each) {
  status result = status::success;
  ((result = result == status::success ? each : result), ...);
  return result;
}

}  // namespace lgm::detail
