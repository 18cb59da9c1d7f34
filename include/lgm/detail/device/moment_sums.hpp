// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <lgm/detail/check.hpp>
#include <lgm/detail/device/launch.hpp>
#include <lgm/detail/device/ranks.hpp>
#include <lgm/detail/label_view.hpp>
#include <lgm/detail/number_format.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/detail/workspace.hpp>
#include <lgm/formula.hpp>
#include <lgm/moments.hpp>
#include <lgm/types.hpp>
#include <limits>

// The moments on a device, detail/host/moment_sums.hpp's counterpart. A class's samples are merged one after the other, in the
// order of the call, each dimension by itself. So the bits of count, mean and m2 do not depend on how samples are cut into
// tiles or batches.

namespace lgm::detail {

// Dimensions in a task, and samples or classes in one that looks at labels or counts alone.
constexpr std::int64_t moments_columns = 128, moments_rows = 32;

struct device_moments_plan {
  std::int64_t rows = 0;  // samples in a tile

  // Nothing here shrinks as samples grow, so that a workspace for some samples is enough for fewer.
  static device_moments_plan make(const shape& s, std::size_t tile_bytes) {
    const std::int64_t limit = static_cast<std::int64_t>(smaller(tile_bytes, std::size_t(1) << 60));
    const std::int64_t each = bounded_product(larger(s.dims, std::int64_t(1)), sizeof(double));
    return {smaller(s.samples, std::clamp<std::int64_t>(limit / 2 / each, 1, 4096))};
  }
};

template <class A>
struct device_moments_buffers {
  std::int64_t *key, *row, *ranked;  // [rows] each: see rank_kernel
  A* deviation;                      // [rows, dims], of merge_class

  device_moments_buffers() = default;
  device_moments_buffers(arena& a, const device_moments_plan& p, std::int64_t dims) {
    key = a.take<std::int64_t>(p.rows);
    row = a.take<std::int64_t>(p.rows);
    ranked = a.take<std::int64_t>(p.rows);
    deviation = a.take<A>(bounded_product(p.rows, dims));
  }
};

// The size for double accumulators, whatever their type is: workspace_size does not know it.
inline std::size_t device_moments_bytes(const device_moments_plan& p, const shape& s) {
  arena a;
  const device_moments_buffers<double> sizes(a, p, s.dims);
  static_cast<void>(sizes);
  return a.bytes();
}

// A tile of samples as its kernels see it.
template <class T, class A>
struct moments_tile {
  lgm::shape shape;
  label_view labels;
  std::int64_t ignore_label;
  const T* sample_weight;
  number_array<T> all_features;
  class_moments<A> moments;
  device_moments_buffers<A> b;
  std::int64_t first, rows;

  LGM_HD A weight(std::int64_t i) const {
    return sample_weight != nullptr ? static_cast<A>(sample_weight[first + i]) : A(1);
  }
  // From dimension `begin` on.
  LGM_HD number_array<T> features(std::int64_t i, std::int64_t begin) const {
    return all_features.from((first + i) * row_stride(shape.feature_stride, shape.dims) + begin);
  }
};

// The keys of the tile's samples: their classes; for samples that do not count, the number of classes.
template <class T, class A>
struct moments_key_kernel {
  moments_tile<T, A> t;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t begin = task * moments_rows;
    group.for_each(smaller(moments_rows, t.rows - begin), [&](std::int64_t n) {
      const std::int64_t i = begin + n, label = t.labels[t.first + i];
      const std::int64_t local =
          label == t.ignore_label || t.weight(i) == A(0) ? -1 : local_class(t.shape, label);
      t.b.key[i] = local < 0 ? t.shape.classes : local;
    });
  }
};

// Merges the samples of a class into some dimensions of its moments; the counts stay as they are, for all tasks to see.
template <class T, class A>
struct merge_samples_kernel {
  moments_tile<T, A> t;
  bool scatter;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t dims = t.shape.dims, blocks = ceil_divide(dims, moments_columns);
    const std::int64_t k = task / blocks, begin = task % blocks * moments_columns;
    const std::int64_t n = smaller(moments_columns, dims - begin), at = k * dims + begin;
    const auto part = [&](A* array) { return array == nullptr ? nullptr : array + at; };
    const class_moment_rows<A> into{part(t.moments.mean), part(t.moments.mean_residual), part(t.moments.m2)};
    const A* const none = nullptr;
    A count = t.moments.count[k];
    const std::int64_t first = first_of_class(t.b.ranked, t.rows, k),
                       last = first_of_class(t.b.ranked, t.rows, k + 1);
    for (std::int64_t r = first; r < last; ++r) {
      const std::int64_t i = t.b.row[r];
      merge_class(group, n, t.weight(i), t.features(i, begin), none, none, count, into,
                  scatter ? t.b.deviation + r * dims + begin : nullptr);
      count += t.weight(i);
    }
  }
};

template <class T, class A>
struct add_counts_kernel {
  moments_tile<T, A> t;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t begin = task * moments_rows;
    group.for_each(smaller(moments_rows, t.shape.classes - begin), [&](std::int64_t n) {
      const std::int64_t k = begin + n;
      std::int64_t r = first_of_class(t.b.ranked, t.rows, k);
      if (r == t.rows || t.b.ranked[r] != k) return;
      A count = t.moments.count[k];
      for (; r < t.rows && t.b.ranked[r] == k; ++r) count += t.weight(t.b.row[r]);
      t.moments.count[k] = count;
    });
  }
};

// Deviations of samples that do not count: zero.
template <class T, class A>
struct clear_deviations_kernel {
  moments_tile<T, A> t;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t r) const {
    if (t.b.ranked[r] < t.shape.classes) return;
    A* const out = t.b.deviation + r * t.shape.dims;
    group.for_each(t.shape.dims, [&](std::int64_t j) { out[j] = A(0); });
  }
};

// The lower triangle of [dims, dims] becomes the upper's mirror image.
template <class A>
struct mirror_kernel {
  std::int64_t dims;
  A* matrix;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t i) const {
    group.for_each(i, [&](std::int64_t j) { matrix[i * dims + j] = matrix[j * dims + i]; });
  }
};

template <class Device, class T, class A>
status device_accumulate_moments(Device& device, std::size_t tile_bytes, const shape& s,
                                 const loss_options<T>& o, const number_array<T>& features,
                                 const label_view& labels, const class_moments<A>& moments,
                                 const workspace& w) {
  const status checked = first_failure(
      check_shape(s), check_options(o),
      moments.mean != nullptr ? check_features(s, features.data) : status::success,
      labels.is_null() && s.samples > 0 ? status::null_pointer : status::success, check_moments(s, moments));
  if (checked != status::success) return checked;
  const device_moments_plan plan = device_moments_plan::make(s, tile_bytes);
  if (w.data == nullptr) return status::null_pointer;
  if (w.bytes < device_moments_bytes(plan, s)) return status::workspace_too_small;
  arena pieces(w);
  moments_tile<T, A> t{s,
                       labels,
                       o.ignore_label,
                       o.sample_weight,
                       features,
                       moments,
                       device_moments_buffers<A>(pieces, plan, s.dims),
                       0,
                       0};
  const std::int64_t dims = s.dims, blocks = ceil_divide(dims, moments_columns);
  const bool scatter = moments.scatter != nullptr && dims > 0;
  for (; t.first < s.samples; t.first += t.rows) {
    t.rows = smaller(plan.rows, s.samples - t.first);
    device.template launch<32>(32, ceil_divide(t.rows, moments_rows), moments_key_kernel<T, A>{t});
    device.template launch<32>(32, rank_kernel::tasks(t.rows),
                               rank_kernel{t.rows, t.b.key, t.b.row, t.b.ranked});
    if (moments.mean != nullptr)
      launch_rows(device, smaller(dims, moments_columns), s.classes * blocks,
                  merge_samples_kernel<T, A>{t, scatter});
    device.template launch<32>(32, ceil_divide(s.classes, moments_rows), add_counts_kernel<T, A>{t});
    if (!scatter) continue;
    launch_rows(device, dims, t.rows, clear_deviations_kernel<T, A>{t});
    const A* const deviation = t.b.deviation;
    device.multiply(number_format::full, true, false, dims, dims, t.rows, A(1), deviation, dims, deviation,
                    dims, A(1), moments.scatter, dims);
  }
  if (scatter) launch_rows(device, dims, dims, mirror_kernel<A>{dims, moments.scatter});
  return device.result();
}

// Row i of the upper triangle: into.scatter += from.scatter and what the merges of the classes add to it, from means that
// are not merged yet.
template <class A>
struct merge_scatter_kernel {
  std::int64_t classes, dims;
  class_moments<A> from, into;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t i) const {
    group.for_each(dims - i, [&](std::int64_t n) {
      const std::int64_t j = i + n;
      A sum = into.scatter[i * dims + j] + from.scatter[i * dims + j];
      for (std::int64_t k = 0; k < classes; ++k) {
        if (from.count[k] == A(0) || into.count[k] == A(0)) continue;
        const merge_weights<A> weights(into.count[k], from.count[k]);
        sum = fused(weights.square * difference(k * dims + i), difference(k * dims + j), sum);
      }
      into.scatter[i * dims + j] = sum;
    });
  }

 private:
  LGM_HD A difference(std::int64_t at) const {
    A delta = from.mean[at] - into.mean[at];
    if (from.mean_residual != nullptr) delta += from.mean_residual[at];
    if (into.mean_residual != nullptr) delta -= into.mean_residual[at];
    return delta;
  }
};

// Of class k: means and sums of squares, then its count.
template <class A>
struct merge_moments_kernel {
  std::int64_t dims;
  class_moments<A> from, into;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t k) const {
    const A added = from.count[k], present = into.count[k];
    if (added == A(0)) return;
    if (into.mean != nullptr) {
      const auto row = [&](A* array) { return array == nullptr ? nullptr : array + k * dims; };
      const A *mean = row(from.mean), *residual = row(from.mean_residual),
              *m2 = into.m2 == nullptr ? nullptr : row(from.m2);
      const class_moment_rows<A> out{row(into.mean), row(into.mean_residual), row(into.m2)};
      merge_class(group, dims, added, mean, residual, m2, present, out, static_cast<A*>(nullptr));
    }
    group.for_each(1, [&](std::int64_t) { into.count[k] = present + added; });
  }
};

template <class Device, class A>
status device_merge_moments(Device& device, const shape& s, const class_moments<A>& from,
                            const class_moments<A>& into) {
  const status checked =
      first_failure(check_shape(s), check_moments(s, from), check_moments(s, into),
                    check_source(s, into.mean, from.mean), check_source(s, into.m2, from.m2),
                    into.scatter != nullptr && from.scatter == nullptr && s.dims > 0 ? status::null_pointer
                                                                                     : status::success);
  if (checked != status::success) return checked;
  if (into.scatter != nullptr && s.dims > 0) {
    launch_rows(device, s.dims, s.dims, merge_scatter_kernel<A>{s.classes, s.dims, from, into});
    launch_rows(device, s.dims, s.dims, mirror_kernel<A>{s.dims, into.scatter});
  }
  launch_rows(device, s.dims, s.classes, merge_moments_kernel<A>{s.dims, from, into});
  return device.result();
}

// Parameters from moments. Each task computes for itself what all classes share, their total count and pooled variances: there
// is no workspace, and pooling is rare.
template <class A, class T>
struct estimate_kernel {
  lgm::shape shape;
  class_moments<A> moments;
  parameters<T> p;  // only arrays that are to be written
  estimate_rule<A> rule;

  // Of class k: its mean, prior, and spherical variance.
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t k) const {
    const std::int64_t dims = shape.dims;
    const A count = moments.count[k];
    if (count == A(0)) return;
    if (p.mean != nullptr)
      estimate_mean(group, dims, static_cast<const A*>(moments.mean + k * dims), rule, p.mean + k * dims);
    const bool spherical = shape.covariance == covariance::spherical && p.log_variance != nullptr;
    const A all = total(group);
    if (spherical) {
      const A variance = squares(group, k, k + 1) / (count * static_cast<A>(dims));
      const A pooled =
          rule.shrinkage != A(0) ? squares(group, 0, shape.classes) / (all * static_cast<A>(dims)) : A(0);
      group.one_lane([&] {
        T& out = p.log_variance[k];
        out = static_cast<T>(estimated_log_variance(variance, pooled, present(out), rule));
      });
    }
    if (p.log_prior != nullptr)
      group.one_lane([&] {
        T& out = p.log_prior[k];
        out = static_cast<T>(estimated_log_prior(count / all, present(out), rule));
      });
  }

  LGM_HD A present(T value) const { return rule.decay != A(0) ? static_cast<A>(value) : A(0); }
  template <class Group>
  LGM_HD A total(const Group& group) const {
    return static_cast<A>(group.reduce(
        shape.classes, 0.0, [&](std::int64_t k) { return static_cast<double>(moments.count[k]); }, plus{}));
  }

 private:
  // Of classes [first, last) that have samples.
  template <class Group>
  LGM_HD A squares(const Group& group, std::int64_t first, std::int64_t last) const {
    const std::int64_t dims = shape.dims;
    return group.reduce((last - first) * dims, A(0),
                        [&](std::int64_t n) {
                          return moments.count[first + n / dims] == A(0) ? A(0)
                                                                         : moments.m2[first * dims + n];
                        },
                        plus{});
  }
};

// The variances of some dimensions of a diagonal covariance: of class k, or with pooled ones of all classes.
template <class A, class T>
struct estimate_diagonal_kernel {
  estimate_kernel<A, T> e;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t dims = e.shape.dims, blocks = ceil_divide(dims, moments_columns);
    const std::int64_t begin = task % blocks * moments_columns, n = smaller(moments_columns, dims - begin);
    const bool pools = e.rule.shrinkage != A(0);
    const std::int64_t first = pools ? 0 : task / blocks, last = pools ? e.shape.classes : first + 1;
    const A share = pools ? A(1) / e.total(group) : A(0);
    group.for_each(n, [&](std::int64_t c) {
      const std::int64_t j = begin + c;
      A pooled = 0;
      for (std::int64_t k = first; pools && k < last; ++k)
        if (e.moments.count[k] != A(0)) pooled += e.moments.m2[k * dims + j];
      for (std::int64_t k = first; k < last; ++k) {
        const A count = e.moments.count[k];
        if (count == A(0)) continue;
        T& out = e.p.log_variance[k * dims + j];
        out = static_cast<T>(estimated_log_variance(e.moments.m2[k * dims + j] / count, share * pooled,
                                                    e.present(out), e.rule));
      }
    });
  }
};

template <class Device, class A, class T>
status device_estimate(Device& device, const shape& s, const class_moments<A>& moments,
                       const estimate_options<T>& o, const parameters<T>& p) {
  parameters<T> written = p;
  if (s.covariance == covariance::identity || s.dims == 0) written.log_variance = nullptr;
  const status checked = first_failure(
      check_shape(s), moments.count == nullptr && s.classes > 0 ? status::null_pointer : status::success,
      check_source(s, written.mean, moments.mean), check_source(s, written.log_variance, moments.m2),
      check_options(o));
  if (checked != status::success) return checked;
  if (o.decay == T(1)) return status::success;
  // So that the logarithm is finite.
  const A smallest = larger(static_cast<A>((std::numeric_limits<T>::min)()), (std::numeric_limits<A>::min)());
  const estimate_rule<A> rule{static_cast<A>(o.shrinkage), larger(static_cast<A>(o.variance_floor), smallest),
                              static_cast<A>(o.decay)};
  const estimate_kernel<A, T> kernel{s, moments, written, rule};
  launch_rows(device, s.dims, s.classes, kernel);
  if (written.log_variance != nullptr && s.covariance == covariance::diagonal) {
    const std::int64_t blocks = ceil_divide(s.dims, moments_columns);
    launch_rows(device, smaller(s.dims, moments_columns), blocks * (rule.shrinkage != A(0) ? 1 : s.classes),
                estimate_diagonal_kernel<A, T>{kernel});
  }
  return device.result();
}

}  // namespace lgm::detail
