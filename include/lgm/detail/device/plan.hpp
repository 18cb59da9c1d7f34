// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <lgm/detail/device/direct.hpp>
#include <lgm/detail/device/launch.hpp>
#include <lgm/detail/device/product_form.hpp>
#include <lgm/detail/device/ranks.hpp>
#include <lgm/detail/device/tuning.hpp>
#include <lgm/detail/loss_call.hpp>
#include <lgm/detail/number_format.hpp>
#include <lgm/detail/row_record.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/detail/workspace.hpp>
#include <lgm/row.hpp>
#include <lgm/types.hpp>

namespace lgm::detail {

// A context's limits and choices for its calls.
struct device_limits {
  std::size_t tile_bytes = 0;
  lgm::precision precision = lgm::precision::highest;
};

// How a call is cut into tiles so that its workspace stays within a limit, and its kernels into tasks. It depends on the shape
// and the limit alone, not on which device runs them.
struct device_plan {
  std::int64_t rows = 0;     // samples in a tile
  std::int64_t classes = 0;  // classes in a tile
  std::int64_t stride = 0;   // elements between rows of the tile
  std::int64_t row_parts =
      1;  // of a tile's rows: a group visits those of a part in turn, and sums over them by class
  // Parts of a row's classes; a group takes each, and the row's state merges. With few rows, one group a row would leave most
  // of the device idle.
  std::int64_t class_parts = 1;
  std::int64_t target_parts = 1;  // of a class's samples, whose sums are made side by side
  std::int64_t mean_parts = 1;    // of the classes, for the mean of the means
  bool whole_rows = true;         // a tile has all classes: three products a step, else four
  // The means' gradient is summed where the caller wants it: a product adds to it, row tile by row tile, and what is no product
  // is added once. Not where variances multiply the sum, classes are cut, or a class's samples are in parts.
  bool sums_in_place = false;
  std::int64_t most_tile_rows = 0;  // before the samples are cut into tiles of even height
  product_form form;
  std::int64_t operand_stride = 0;  // elements between rows of the products' operands
  bool narrow = false;              // features are of 16 bits, and so may their gradients be

  static constexpr std::int64_t most_rows = rank_kernel::most_rows;
  // Of samples, in a task that counts them.
  static constexpr std::int64_t count_tasks = 1024, count_chunk = 4096;
  // Up to these are counted in no task of their own.
  static constexpr std::int64_t few_samples = std::int64_t(1) << 14;

  // Tasks that keep a device busy.
  static constexpr std::int64_t enough_tasks = 512, most_target_parts = 64;
  // A row has no more parts than this, and a part no fewer classes than that.
  static constexpr std::int64_t most_class_parts = 1024, part_classes = 4096;

  static std::int64_t count_chunk_of(std::int64_t samples) {
    return larger(count_chunk, ceil_divide(samples, count_tasks));
  }

  // Whether launches would take longer than the work: small.hpp then does it all in two.
  static bool is_small(const shape& s) { return s.samples > 0 && s.samples <= 4096 && has_small_classes(s); }
  // The same for some number of samples.
  static bool has_small_classes(const shape& s) {
    constexpr std::int64_t most = std::int64_t(1) << 13;
    return s.dims > 0 && bounded_product(s.classes, s.dims) <= most;
  }

  // features: their format. forward_only: a tile is not needed after its logits, so that tall tiles of some classes, which
  // read the means less often, beat low ones of whole rows.
  template <class T>
  static device_plan make(const shape& s, const device_limits& limits, number_format features,
                          bool forward_only = false);

  // Sets the tile, and what follows from it.
  template <class T>
  void set_tile(std::int64_t tile_rows, std::int64_t tile_classes, const shape& s) {
    // For tensor cores, rows of 16-bit operands begin at multiples of 16 bytes.
    const std::int64_t vector = 16 / bytes_of<T>(form.format);
    operand_stride = is_narrow(form.format) ? ceil_divide(s.dims, vector) * vector : s.dims;
    rows = tile_rows;
    classes = tile_classes;
    stride = ceil_divide(classes, vector) * vector;
    // One row a group where the sums by class of all rows are small. Else eight, so that the sums are a fraction of the tile.
    constexpr std::int64_t few = std::int64_t(1) << 18;
    const std::int64_t all = std::max<std::int64_t>(s.classes, 1);
    row_parts = std::clamp<std::int64_t>(larger(ceil_divide(rows, 8), smaller(rows, few / all)), 1,
                                         all > tuning::warp_row ? 512 : 4096);
    class_parts = std::clamp<std::int64_t>(
        smaller(most_class_parts / std::max<std::int64_t>(rows, 1), classes / part_classes), 1,
        most_class_parts);
    // A class has rows / classes samples, if they are even; 16 of them keep a group busy.
    target_parts = std::clamp<std::int64_t>(rows / all / 16, 1, most_target_parts);
    // A diagonal covariance's sums over all samples are made in the same parts, of at least 64 samples.
    if (s.covariance == covariance::diagonal) {
      const std::int64_t tasks = std::max<std::int64_t>(direct_tasks(classes, s.dims), 1);
      target_parts = std::clamp<std::int64_t>(smaller(ceil_divide(enough_tasks, tasks), rows / 64),
                                              target_parts, most_target_parts);
    }
    mean_parts = std::clamp<std::int64_t>(ceil_divide(s.classes, 64), 1, 2048);
    sums_in_place = s.covariance == covariance::identity && classes >= s.classes && target_parts == 1;
  }
};

// What the kernels of a call share, in the device's memory.
template <class T>
struct device_state : call_state<T> {
  T max_scale, max_norm;  // of the class tile's constants
  T extra_norm;           // of class_constants
};

// The pieces of the workspace. The same code carves and sizes it.
template <class T>
struct device_buffers {
  device_state<T>*
      state;  // [1 + plan.row_parts], the first one that of the call, the others for groups that keep their own
  sample_count* sample_counts;  // [plan.count_tasks], of the samples of a task
  // [plan.mean_parts, dims]: parts of the mean of the means, and then, in the first one's place, what features and means are
  // centred on.
  T* offset;
  // [plan.rows, dims], row stride plan.operand_stride: x', or x where it enters products as given; rows that do not count
  // are zero.
  product_operand<T> samples;
  T* tile;  // [plan.rows, plan.classes], row stride plan.stride: products, then logits, then weights
  // [plan.rows, plan.classes], row stride plan.stride: the weights, where products do not take them from the tile. With two
  // parts high is null: the tile has it.
  product_operand<T> weights;
  // The classes' operands of the products. Not diagonal: [plan.classes, dims], row stride plan.operand_stride, mu' / Lambda.
  // Diagonal: for the logits 1 / sigma and mu' / sigma, [dims, plan.stride] each, and for the features' gradient 1 / Lambda
  // and mu' / Lambda, [plan.classes, dims] each.
  product_operand<T> means;
  T *deviation, *shift, *inverse, *scaled_mean;
  class_constants<T> constants;  // [plan.classes] each
  T* offset_product;             // [plan.classes], of class_constants
  T* feature_sums;               // [plan.rows, dims]: the features' gradient before it becomes 16 bits
  T* class_sum;       // [plan.row_parts, plan.classes], parts of the sums of w_ik over the tile's samples ...
  T* class_distance;  // ... and of w_ik d_ik
  T* class_variance_weight;  // [plan.row_parts, plan.classes], the same of what soft targets need besides
  T* class_probability;      // plan.sums_in_place: in the first part the sum over the targets, too
  // [plan.row_parts, plan.classes], in the memory of sums that the call does not make: score's distances, and the constants of
  // small calls with labels.
  T *distances, *small_bias, *small_half_log_det;
  T* differences;  // [plan.classes, dims], sums of w_ik (x_i - mu_k); plan.sums_in_place: null
  T* squares;      // the same of w_ik (x_i - mu_k)^2, diagonal alone
  // [plan.classes, plan.target_parts, dims], parts of those: the targets' terms; diagonal: all
  T* target_differences;
  T* target_squares;
  T* target_scalars;      // [plan.classes, plan.target_parts, 3]
  row_record<T>* record;  // [plan.rows]
  // [plan.rows, plan.class_parts], what each range of a row's classes says of it, and the sum of its weights. Where a call may
  // be split: as large for any number of samples.
  row_record<T>* part_record;
  weight_sums<T>* part_weight;
  std::int64_t *target,
      *counts;  // [plan.rows]: the target's class, -1: none; 0 for rows that are left out, else 1
  std::int64_t *key, *ranked_row,
      *ranked_class;  // [plan.rows], the rows by their targets' classes, those without one last

  device_buffers() = default;
  device_buffers(arena& a, const device_plan& p, const shape& s) {
    const std::int64_t d = s.dims;
    const bool diagonal = s.covariance == covariance::diagonal,
               spherical = s.covariance == covariance::spherical;
    const auto take = [&](std::int64_t rows, std::int64_t columns) {
      return a.take<T>(bounded_product(rows, columns));
    };
    state = a.take<device_state<T>>(1 + p.row_parts);
    sample_counts = a.take<sample_count>(device_plan::count_tasks);
    offset = take(p.mean_parts, d);
    const auto take_operand = [&](std::int64_t rows, std::int64_t columns, bool high, bool low) {
      product_operand<T> o;
      const std::int64_t bytes = bounded_product(bounded_product(rows, columns), bytes_of<T>(p.form.format));
      o.format = p.form.format;
      if (high) o.high = a.take<char>(bytes);
      if (low) o.low = a.take<char>(bytes);
      return o;
    };
    samples = take_operand(p.rows, p.operand_stride, true, p.form.feature_parts > 1);
    tile = take(p.rows, p.stride);
    weights = take_operand(p.rows, p.stride, is_narrow(p.form.format), p.form.weight_parts > 1);
    deviation = shift = inverse = scaled_mean = nullptr;
    if (diagonal) {
      deviation = take(d, p.stride);
      shift = take(d, p.stride);
      inverse = take(p.classes, d);
      scaled_mean = take(p.classes, d);
    } else {
      means = take_operand(p.classes, p.operand_stride, true, p.form.mean_parts > 1);
    }
    constants.bias = take(1, p.classes);
    constants.offset = take(1, p.classes);
    constants.scale = spherical ? take(1, p.classes) : nullptr;
    constants.norm = take(1, p.classes);
    constants.half_log_det = take(1, p.classes);
    constants.max_scale = constants.max_norm = 0;
    constants.epsilon = p.form.epsilon<T>();
    constants.trusted = p.form.trusted<T>();
    offset_product = p.form.uncentred ? take(1, p.classes) : nullptr;
    constants.offset_product = offset_product;
    feature_sums = p.narrow ? take(p.rows, d) : nullptr;
    class_sum = take(p.row_parts, p.classes);
    class_distance = spherical ? take(p.row_parts, p.classes) : nullptr;
    const bool identity = !diagonal && !spherical;
    class_variance_weight =
        identity && !device_plan::has_small_classes(s) ? nullptr : take(p.row_parts, p.classes);
    class_probability = take(p.row_parts, p.classes);
    distances = class_sum;
    small_bias = class_variance_weight;
    small_half_log_det = class_probability;
    differences = p.sums_in_place ? nullptr : take(p.classes, d);
    squares = diagonal ? take(p.classes, d) : nullptr;
    const std::int64_t parts = p.target_parts > 1 ? bounded_product(p.target_parts, p.classes) : 0;
    target_differences = take(parts, d);
    target_squares = diagonal ? take(parts, d) : nullptr;
    target_scalars = take(parts, 3);
    record = a.take<row_record<T>>(p.rows);
    const std::int64_t class_parts =
        s.classes < 2 * device_plan::part_classes ? 0 : device_plan::most_class_parts;
    part_record = a.take<row_record<T>>(class_parts);
    part_weight = a.take<weight_sums<T>>(class_parts);
    target = a.take<std::int64_t>(p.rows);
    counts = a.take<std::int64_t>(p.rows);
    key = a.take<std::int64_t>(p.rows);
    ranked_row = a.take<std::int64_t>(p.rows);
    ranked_class = a.take<std::int64_t>(p.rows);
  }
};

template <class T>
std::size_t device_bytes(const device_plan& p, const shape& s) {
  arena a;
  const device_buffers<T> sizes(a, p, s);
  static_cast<void>(sizes);
  return a.bytes();
}

template <class T>
device_plan device_plan::make(const shape& s, const device_limits& limits, number_format features,
                              bool forward_only) {
  device_plan p;
  p.form = product_form::make(features, s.covariance, limits.precision);
  p.narrow = is_narrow(features);
  const std::int64_t limit = static_cast<std::int64_t>(smaller(limits.tile_bytes, std::size_t(1) << 60));
  const auto fits = [&](std::int64_t tile_rows, std::int64_t tile_classes) {
    device_plan q = p;
    q.set_tile<T>(tile_rows, tile_classes, s);
    return static_cast<std::int64_t>(device_bytes<T>(q, s)) <= limit;
  };
  const std::int64_t most = smaller(s.samples, most_rows);
  const std::int64_t useful = smaller(most, tuning::useful_rows), enough = smaller(most, tuning::enough_rows);
  std::int64_t rows = 0, classes = s.classes;
  bool whole = fits(useful, classes);
  if (whole) rows = largest_that_fits(useful, most, [&](std::int64_t n) { return fits(n, classes); });
  if (!whole || (forward_only && rows < enough)) {
    const std::int64_t least = std::min<std::int64_t>(s.classes, 256);
    rows = largest_that_fits(1, std::max<std::int64_t>(enough, 1),
                             [&](std::int64_t n) { return fits(n, least); });
    classes = largest_that_fits(std::min<std::int64_t>(s.classes, 1), s.classes,
                                [&](std::int64_t n) { return fits(rows, n); });
  }
  p.most_tile_rows = rows;
  // Tiles of even height rather than a small last one.
  if (s.samples > 0) rows = ceil_divide(s.samples, ceil_divide(s.samples, std::max<std::int64_t>(rows, 1)));
  p.set_tile<T>(s.samples > 0 ? rows : 0, classes, s);
  p.whole_rows = p.classes >= s.classes;
  return p;
}

}  // namespace lgm::detail
