// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/detail/check.hpp>
#include <lgm/detail/device/launch.hpp>
#include <lgm/detail/device/plan.hpp>
#include <lgm/detail/device/tile.hpp>
#include <lgm/detail/loss_row.hpp>
#include <lgm/formula.hpp>
#include <lgm/row.hpp>
#include <lgm/types.hpp>

// Losses and gradients of labelled samples in two kernels, for problems whose launches would take longer than their work.
// All distances and sums are made from the differences; no matrix product is called, and nothing cancels.

namespace lgm::detail {

// Rows: losses, weights and the features' gradient. Groups do not communicate: each counts all samples, and keeps a state and
// class constants of its own.
template <class T>
struct small_rows_kernel {
  device_tile<T> t;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t part) const {
    const std::int64_t classes = t.class_count, dims = t.call.shape.dims;
    const bool gather = t.call.requested.gather, differentiate = t.call.requested.differentiate;
    device_tile<T> own = t;
    own.call.kind = {target_kind::labels};  // it is; said here, the compiler drops the code for the others
    own.b.state = t.b.state + 1 + part;
    own.b.offset = nullptr;
    own.centre = t.call.mixture.origin;
    T* const bias = t.b.small_bias + part * classes;
    T* const half_log_dets = t.b.small_half_log_det + part * classes;
    own.b.constants.bias = own.b.constants.offset = bias;
    own.b.constants.half_log_det = half_log_dets;
    own.b.constants.scale = nullptr;

    const std::int64_t samples = t.call.shape.samples;
    sample_count count;
    count.weight = group.reduce(
        samples, 0.0, [&](std::int64_t i) { return t.call.count_of(i).weight; }, plus{});
    count.counted = group.reduce(
        samples, std::int64_t(0), [&](std::int64_t i) { return t.call.count_of(i).counted; }, plus{});
    own.begin(group, count, T(0));
    if (part == 0) group.one_lane([&] { *t.b.state = *own.b.state; });
    group.for_each(classes, [&](std::int64_t k) {
      half_log_dets[k] = half_log_det(serial_group{}, dims, t.parameters_of(k));
      bias[k] = t.log_prior(k) - half_log_dets[k];
    });

    for (std::int64_t i = t.row_count * part / t.row_parts; i < t.row_count * (part + 1) / t.row_parts; ++i) {
      row_record<T> r;
      prepare_row(group, own.call, own, i, r);
      T* const products = t.tile_row(i);
      const bool counts = own.counts(i);
      if (counts) {
        const auto direct = own.direct(i, 0, r.frame);
        group.for_each(classes, [&](std::int64_t k) { products[k] = -direct(k); });
        r.frame.pending = 0;
        auto row = group.load_row(products, classes);
        if (gather) gather_row(group, own.call, own, i, own.range(i), row, r);
        finish_evidence(group, own.call, own, i, r);
        if (differentiate) {
          if (!gather) row_logits(group, own.call, own, i, own.range(i), row, r);
          row_weights(group, own.call, own, i, own.range(i), row, r, {}, unrounded{});
          row.store(products);
          own.init_gradient(group, i, r, {});
          add_classes(group, i, own.b.state->base_scale);
        }
      } else {
        finish_evidence(group, own.call, own, i, r);
        if (differentiate) own.clear_sums(group, i);
      }
      if (differentiate) own.write_feature_gradient(group, i);
      own.store_record(group, i, r);
    }
  }

 private:
  // The classes' part of eq:grad_feature, but for the target's: see feature_terms.
  template <class Group>
  LGM_HD void add_classes(const Group& group, std::int64_t i, T base_scale) const {
    if (t.call.gradient.feature == nullptr) return;
    const T* const weights = t.tile_row(i);
    // On a shard the target's mean is added once, in one sum.
    const T* const target =
        is_shard(t.call.shape) || t.b.target[i] < 0 ? nullptr : t.parameters_of(t.b.target[i]).mean;
    const number_array<T> x = t.features(i);
    T* const out = t.feature_sum(i);
    group.for_each(t.call.shape.dims, [&](std::int64_t j) {
      T sum = out[j];
      const T from = target != nullptr                  ? target[j]
                     : t.call.mixture.origin != nullptr ? t.call.mixture.origin[j]
                                                        : T(0);
      for (std::int64_t k = 0; k < t.class_count; ++k) {
        const class_parameters<T> p = t.parameters_of(k);
        const T inverse =
            p.log_variance == nullptr ? T(1) : inverse_variance(p.log_variance[p.diagonal ? j : 0]);
        if (base_scale != T(0)) sum = fused(weights[k] * base_scale, from - p.mean[j], sum);
        if (inverse != base_scale)
          sum = fused(weights[k] * (inverse - base_scale), load(x, j) - p.mean[j], sum);
      }
      out[j] = sum;
    });
  }
};

// Classes: the parameters' gradients, a task for each class and dimension; and one task for the losses.
template <class T>
struct small_classes_kernel {
  device_tile<T> t;
  std::int64_t parameters;  // tasks; 0 where no parameter's gradient is wanted

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    if (task == parameters) {
      t.add_losses(group, true);
      return;
    }
    const std::int64_t dims = t.call.shape.dims, k = task / dims, j = task % dims;
    const class_parameters<T> p = t.parameters_of(k);
    const T lambda = p.log_variance == nullptr ? T(1) : inverse_variance(p.log_variance[p.diagonal ? j : 0]);
    const T mean = p.mean[j];
    const bool add = t.call.gradient.accumulate, squares = t.diagonal() && t.call.wants_log_variance();
    if (t.call.gradient.mean != nullptr) {
      const T sum =
          over_samples(group, [&](std::int64_t i) { return weight(i, k) * (load(t.features(i), j) - mean); });
      write(group, add, mean_gradient(sum, lambda), t.call.gradient.mean + k * dims + j);
    }
    if (squares) {
      const T sum = over_samples(group, [&](std::int64_t i) {
        const T difference = load(t.features(i), j) - mean;
        return weight(i, k) * difference * difference;
      });
      write(group, add, log_variance_gradient(variance_weight(group, k), sum, lambda),
            t.call.gradient.log_variance + k * dims + j);
    }
    if (j != 0) return;
    if (t.spherical() && t.call.wants_log_variance()) {
      const T distance = over_samples(group, [&](std::int64_t i) {
        return product_or_zero(weight(i, k), t.direct(i, 0, row_frame<T>{})(k));
      });
      write(group, add, spherical_log_variance_gradient(variance_weight(group, k), distance, dims),
            t.call.gradient.log_variance + k);
    }
    if (t.call.gradient.log_prior != nullptr) {
      const T sum = over_samples(group, [&](std::int64_t i) {
        return t.b.target[i] == k ? -t.b.record[i].residual : -weight(i, k);
      });
      write(group, add, sum, t.call.gradient.log_prior + k);
    }
  }

 private:
  // w_ik, the target's included.
  LGM_HD T weight(std::int64_t i, std::int64_t k) const {
    return t.b.target[i] == k ? t.b.record[i].weight : t.tile_row(i)[k];
  }
  // Over the samples that count.
  template <class Group, class F>
  LGM_HD T over_samples(const Group& group, F f) const {
    return group.reduce(
        t.row_count, T(0), [&](std::int64_t i) { return t.b.counts[i] == 0 ? T(0) : f(i); }, plus{});
  }
  // sum_i [lambda delta_kz - g_ik].
  template <class Group>
  LGM_HD T variance_weight(const Group& group, std::int64_t k) const {
    return over_samples(group, [&](std::int64_t i) {
      return t.b.target[i] == k ? t.b.record[i].variance_weight : weight(i, k);
    });
  }
  template <class Group>
  LGM_HD static void write(const Group& group, bool add, T value, T* out) {
    group.one_lane([&] { *out = add ? *out + value : value; });
  }
};

// t: of a call with labels; its tile is made here.
template <class Device, class T>
void run_small(Device& device, device_tile<T> t) {
  constexpr std::int64_t vector = 16 / sizeof(T);
  t.row_count = t.call.shape.samples;
  t.class_count = t.call.shape.classes;
  t.tile = t.b.tile;
  t.tile_stride = ceil_divide(t.class_count, vector) * vector;
  const std::int64_t widest = larger(t.class_count, t.call.shape.dims);
  launch_rows(device, smaller(widest, std::int64_t(512)), t.row_parts, small_rows_kernel<T>{t});
  const std::int64_t parameters = t.call.wants_parameters() ? t.class_count * t.call.shape.dims : 0;
  device.template launch<32>(32, parameters + (t.call.requested.report ? 1 : 0),
                             small_classes_kernel<T>{t, parameters});
}

}  // namespace lgm::detail
