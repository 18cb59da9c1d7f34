// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <lgm/column.hpp>
#include <lgm/detail/check.hpp>
#include <lgm/detail/device/direct.hpp>
#include <lgm/detail/device/launch.hpp>
#include <lgm/detail/device/plan.hpp>
#include <lgm/detail/device/tile.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/row.hpp>
#include <lgm/types.hpp>

// What all device functions that look at samples and classes share: a call cut into tiles, the classes' operands, and the
// products made in them. What is done with the rows of a tile is in loss.hpp and score.hpp.

namespace lgm::detail {

// The samples of a task that count.
template <class T>
struct count_kernel {
  device_tile<T> t;
  std::int64_t chunk;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t first = task * chunk, n = smaller(chunk, t.call.shape.samples - first);
    const double weight = group.reduce(
        n, 0.0, [&](std::int64_t i) { return t.call.count_of(first + i).weight; }, plus{});
    const std::int64_t counted = group.reduce(
        n, std::int64_t(0), [&](std::int64_t i) { return t.call.count_of(first + i).counted; }, plus{});
    group.one_lane([&] { t.b.sample_counts[task] = {weight, counted}; });
  }
};

// The call's state before its first tile.
template <class T>
struct begin_kernel {
  device_tile<T> t;
  std::int64_t count_tasks;  // of count_kernel; 0: the samples are counted here

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t) const {
    const std::int64_t n = count_tasks > 0 ? count_tasks : t.call.shape.samples;
    const auto count = [&](std::int64_t i) {
      return count_tasks > 0 ? t.b.sample_counts[i] : t.call.count_of(i);
    };
    sample_count samples;
    samples.weight = group.reduce(
        n, 0.0, [&](std::int64_t i) { return count(i).weight; }, plus{});
    samples.counted = group.reduce(
        n, std::int64_t(0), [&](std::int64_t i) { return count(i).counted; }, plus{});
    const bool priors = t.scores.result.log_mixture != nullptr;
    t.begin(group, samples, priors ? log_sum_of_priors(group, t.call.shape, t.call.mixture) : T(0));
  }
};

// Parts of the sum of all means, a lane a dimension; a task has a chunk of the classes and some dimensions.
constexpr std::int64_t mean_columns = 256;
template <class T>
struct mean_part_kernel {
  std::int64_t classes, dims, parts;
  const T* mean;
  T* sums;  // [parts, dims]

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t part = task % parts, begin = task / parts * mean_columns;
    const std::int64_t first = classes * part / parts, last = classes * (part + 1) / parts;
    const T share = T(1) / static_cast<T>(classes);
    group.for_each(smaller(mean_columns, dims - begin), [&](std::int64_t c) {
      T sum = 0;
      for (std::int64_t k = first; k < last; ++k) sum = fused(share, mean[k * dims + begin + c], sum);
      sums[part * dims + begin + c] = sum;
    });
  }
};

// Of arrays [rows, columns], null where there is none: the sum of some rows, `step` apart, in the first one's place.
template <class T>
struct sum_rows_kernel {
  static constexpr std::int64_t chunk = 64;  // rows

  std::int64_t rows, columns, step;
  T* arrays[4];

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t blocks = ceil_divide(columns, mean_columns), begin = task % blocks * mean_columns;
    const std::int64_t first = task / blocks * chunk * step, end = smaller(rows, first + chunk * step);
    group.for_each(smaller(mean_columns, columns - begin), [&](std::int64_t c) {
      for (T* const array : arrays) {
        if (array == nullptr) continue;
        T sum = 0;
        for (std::int64_t r = first; r < end; r += step) sum += array[r * columns + begin + c];
        array[first * columns + begin + c] = sum;
      }
    });
  }
};

// Of each array [rows, columns], null where there is none: the sum of its rows, in the first one's place.
template <class Device, class T>
void sum_rows(Device& device, std::int64_t rows, std::int64_t columns, T* a, T* b = nullptr, T* c = nullptr,
              T* d = nullptr) {
  constexpr std::int64_t chunk = sum_rows_kernel<T>::chunk;
  for (std::int64_t step = 1; step < rows; step *= chunk)
    launch_columns(device, smaller(columns, mean_columns),
                   ceil_divide(columns, mean_columns) * ceil_divide(rows, chunk * step),
                   sum_rows_kernel<T>{rows, columns, step, {a, b, c, d}});
}

// The operands and constants of class task of the tile.
template <class T>
struct operand_kernel {
  device_tile<T> t;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t c) const {
    const std::int64_t dims = t.call.shape.dims, k = t.first_class + c, stride = t.tile_stride;
    const class_parameters<T> p = t.parameters_of(k);
    const T h = half_log_det(group, dims, p), bias = t.log_prior(k) - h;
    const T* const centre = t.b.offset;
    T scale = 1, norm = 0, offset_product = 0;
    if (t.diagonal()) {
      group.for_each(dims, [&](std::int64_t j) {
        const T v = p.log_variance != nullptr ? p.log_variance[j] : T(0), mean = p.mean[j] - centre[j];
        t.b.deviation[j * stride + c] = inverse_deviation(v);
        t.b.shift[j * stride + c] = mean * inverse_deviation(v);
        t.b.inverse[c * dims + j] = inverse_variance(v);
        t.b.scaled_mean[c * dims + j] = mean * inverse_variance(v);
      });
    } else {
      if (p.log_variance != nullptr) scale = inverse_variance(*p.log_variance);
      const scaled_row<T> out{t.b.means, c * t.operand_stride};
      norm = centre_class(group, dims, p, centre, scale, out);
      if (t.form.uncentred)
        offset_product = group.reduce(
            dims, T(0), [&](std::int64_t j) { return centre[j] * out.operand.at(out.first + j); }, plus{});
    }
    group.one_lane([&] {
      const class_constants<T>& constants = t.b.constants;
      constants.half_log_det[c] = h;
      constants.bias[c] = bias;
      constants.norm[c] = norm;
      constants.offset[c] = bias - T(0.5) * norm - offset_product;
      if (t.b.offset_product != nullptr) t.b.offset_product[c] = offset_product;
      if (constants.scale != nullptr) constants.scale[c] = scale;
    });
  }
};

// The bounds of the tile's cancellation.
template <class T>
struct bounds_kernel {
  device_tile<T> t;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t) const {
    const class_constants<T>& c = t.b.constants;
    T scale = 1;
    if (c.scale != nullptr)
      scale = group.reduce(
          t.class_count, T(0), [&](std::int64_t k) { return c.scale[k]; }, maximum{});
    const T norm = group.reduce(
        t.class_count, T(0), [&](std::int64_t k) { return c.norm[k]; }, maximum{});
    // Features that are not centred make the products' sums, in float, larger. The factor is four times float's unit roundoff,
    // because tensor cores truncate as they add.
    T extra_norm = 0;
    if (t.form.uncentred)
      extra_norm = T(4) * numeric<T>::epsilon / c.epsilon *
                   std::sqrt(squared_norm(group, t.call.shape.dims, static_cast<const T*>(t.b.offset)));
    group.one_lane([&] {
      t.b.state->max_scale = scale;
      t.b.state->max_norm = norm;
      t.b.state->extra_norm = extra_norm;
    });
  }
};

template <class T, class Device>
class device_tiles {
 public:
  device_tiles(Device& device, const device_plan& plan, const loss_call<T>& call, const workspace& w)
      : device_(device), plan_(plan) {
    arena pieces(w);
    const shape& s = call.shape;
    t.b = device_buffers<T>(pieces, plan, s);
    t.call = call;
    t.uniform_log_prior = total_classes(s) > 0 ? -std::log(static_cast<T>(total_classes(s))) : T(0);
    t.row_parts = plan.row_parts;
    t.class_parts = plan.class_parts;
    t.sums_in_place = plan.sums_in_place;
    t.form = plan.form;
    t.operand_stride = plan.operand_stride;
  }

  // What the kernels are given.
  device_tile<T> t;

  const device_plan& plan() const { return plan_; }
  Device& device() { return device_; }

  // Counts the samples, and sets the state of the call.
  void begin() {
    const std::int64_t samples = t.call.shape.samples, chunk = device_plan::count_chunk_of(samples),
                       tasks = samples <= device_plan::few_samples ? 0 : ceil_divide(samples, chunk);
    device_.template launch<256>(256, tasks, count_kernel<T>{t, chunk});
    device_.template launch<256>(256, 1, begin_kernel<T>{t, tasks});
  }

  // f() for each row tile, and f() for each class tile within one.
  template <class F>
  void for_row_tiles(std::int64_t samples, F f) {
    if (samples > 0) centre();
    for (t.first_row = 0; t.first_row < samples; t.first_row += plan_.rows) {
      t.row_count = smaller(plan_.rows, samples - t.first_row);
      t.row_parts = smaller(plan_.row_parts, t.row_count);
      f();
    }
  }
  template <class F>
  void for_class_tiles(F f) {
    for (t.first_class = 0; t.first_class < t.call.shape.classes; t.first_class += plan_.classes) {
      t.class_count = smaller(plan_.classes, t.call.shape.classes - t.first_class);
      t.tile = t.b.tile;
      t.tile_stride = plan_.stride;
      f();
    }
  }
  bool is_last_class_tile() const { return t.first_class + t.class_count == t.call.shape.classes; }

  // The classes' operands and constants of the tile, unless they are at hand.
  void prepare_operands() {
    if (held_first_ == t.first_class && held_count_ == t.class_count) return;
    held_first_ = t.first_class;
    held_count_ = t.class_count;
    device_tile<T> own = t;
    own.tile_stride = plan_.stride;
    launch_rows(device_, t.call.shape.dims, t.class_count, operand_kernel<T>{own});
    device_.template launch<256>(256, 1, bounds_kernel<T>{own});
  }

  // The products of the tile, not yet logits.
  void make_products() {
    prepare_operands();
    const std::int64_t dims = t.call.shape.dims;
    if (t.diagonal()) {
      const direct_logits_kernel<T> kernel{
          t.row_count,   t.class_count, dims,
          plan_.stride,  t.tile_stride, static_cast<const T*>(t.b.samples.high),
          t.b.deviation, t.b.shift,     t.tile};
      launch_columns(device_, smaller(t.class_count, direct_columns),
                     direct_tasks(t.row_count, t.class_count), kernel);
      return;
    }
    multiply(false, true, t.row_count, t.class_count, dims, T(1), t.b.samples, plan_.operand_stride,
             t.b.means, plan_.operand_stride, T(0), t.tile, t.tile_stride);
  }

  // The device's product of the operands' parts, the smaller ones first; low times low is left out.
  void multiply(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, T alpha,
                const product_operand<T>& a, std::int64_t lda, const product_operand<T>& b, std::int64_t ldb,
                T beta, T* c, std::int64_t ldc) {
    const auto add = [&](const void* left, const void* right) {
      if (left == nullptr || right == nullptr) return;
      device_.multiply(plan_.form.format, transpose_a, transpose_b, m, n, k, alpha, left, lda, right, ldb,
                       beta, c, ldc);
      beta = T(1);
    };
    add(a.high, b.low);
    add(a.low, b.high);
    add(a.high, b.high);
  }
  // The tile's weights, row stride t.tile_stride.
  product_operand<T> weights() const {
    product_operand<T> w = t.b.weights;
    if (w.high == nullptr) w.high = t.tile;
    return w;
  }

 private:
  // Sets the offset: the mixture's origin, or where none is given the mean of the means, so that features and means far from
  // zero lose nothing in the products. 0 on a shard without an origin whose row states must be relative to a point that all
  // shards know.
  void centre() {
    const T* const given = t.call.mixture.origin;
    if (given != nullptr) t.b.offset = const_cast<T*>(given);  // it is only read
    t.centre = t.b.offset;
    if (given != nullptr) return;
    if (t.call.shape.covariance == covariance::identity && t.call.shares_states) {
      launch_rows(device_, t.call.shape.dims, std::int64_t(1),
                  zero_kernel<T>{t.call.shape.dims, t.call.shape.dims, t.b.offset});
      return;
    }
    const std::int64_t dims = t.call.shape.dims, blocks = ceil_divide(dims, mean_columns),
                       parts = plan_.mean_parts;
    launch_columns(device_, smaller(dims, mean_columns), blocks * parts,
                   mean_part_kernel<T>{t.call.shape.classes, dims, parts, t.call.mixture.mean, t.b.offset});
    sum_rows(device_, parts, dims, t.b.offset);
  }

  Device& device_;
  const device_plan& plan_;
  // The classes whose operands the workspace holds.
  std::int64_t held_first_ = -1, held_count_ = 0;
};

}  // namespace lgm::detail
