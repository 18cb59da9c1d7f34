// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <lgm/column.hpp>
#include <lgm/detail/check.hpp>
#include <lgm/detail/host/direct.hpp>
#include <lgm/detail/host/gemm.hpp>
#include <lgm/detail/host/operands.hpp>
#include <lgm/detail/host/packet_group.hpp>
#include <lgm/detail/host/parallel.hpp>
#include <lgm/detail/host/plan.hpp>
#include <lgm/detail/host/sparse.hpp>
#include <lgm/detail/loss_call.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/row.hpp>
#include <lgm/types.hpp>

// What all host functions that look at samples and classes share: a call cut into tiles, and the products made in
// them. What is done with the rows of a tile is in loss.hpp and score.hpp.

namespace lgm::detail {

// A range of a tile's classes, of loss_row.hpp.
template <class T>
struct host_range {
  std::int64_t first;
  const class_constants<T>& constants;
  std::int64_t target;
};

template <class T, class Threads>
class host_tiles {
 public:
  using group_type = packet_group<T>;
  using row_type = typename group_type::row;

  const host_plan plan;
  const lgm::shape shape;
  const lgm::mixture<T> mixture;

 private:
  const T* const features_;
  const std::int64_t stride_;
  arena arena_;

 public:
  host_buffers<T> buffers;

  // The tile at work: samples [first_row, first_row + row_count), classes [first_class, first_class + class_count).
  std::int64_t first_row = 0, row_count = 0, first_class = 0, class_count = 0;
  T* tile = nullptr;
  std::int64_t tile_stride = 0;

  host_tiles(const host_plan& p, const lgm::shape& s, const lgm::mixture<T>& m, const T* features,
             const workspace& w)
      : plan(p),
        shape(s),
        mixture(m),
        features_(features),
        stride_(row_stride(s.feature_stride, s.dims)),
        arena_(w),
        buffers(arena_, plan, s),
        operands_(plan, shape, mixture, buffers) {}

  bool diagonal() const { return shape.covariance == covariance::diagonal; }

  // Most weights may be zero: each task of multiply_weights checks whether leaving them out is worth it.
  void expect_zeros() { expects_zeros_ = !diagonal(); }

  // Sets the state of the call, but for base_scale, which follows from the classes.
  void begin(const call_state<T>& state) { state_ = state; }

  // Row i of the tile, in its several forms; centred: as the products have it, row stride centred_stride().
  const T* features(std::int64_t i) const { return features_ + (first_row + i) * stride_; }
  const T* centred(std::int64_t i) const {
    return in_place_ ? features(i) : buffers.centred + i * shape.dims;
  }
  // The point that is subtracted from centred rows, [dims]; null: 0.
  const T* origin() const { return operands_.origin(); }
  std::int64_t centred_stride() const { return in_place_ ? stride_ : shape.dims; }
  T* tile_row(std::int64_t i) const { return tile + i * tile_stride; }
  row_type held_row(std::int64_t i) const { return group_type{}.load_row(tile_row(i), class_count); }

  const call_state<T>& state() const { return state_; }
  call_state<T>& state() { return state_; }
  std::int64_t target(std::int64_t i) const { return buffers.target[i]; }
  bool counts(std::int64_t i) const { return buffers.counts[i] != 0; }

  // Class k of this call.
  class_parameters<T> parameters_of(std::int64_t k) const { return {shape, mixture, k}; }
  T log_prior(std::int64_t k) const { return operands_.log_prior(k); }
  // The index in the class tile of the target of row i, -1 where it is not there.
  std::int64_t local_target(std::int64_t i) const {
    const std::int64_t z = buffers.target[i] - first_class;
    return buffers.target[i] >= 0 && z >= 0 && z < class_count ? z : -1;
  }

  // f() for each row tile, and f() for each class tile within one.
  //   all_count      no row will be left out. Where one is, the products take a copy of the rows, with the same values, so that
  //                  a row's results do not depend on the others
  //   shares_states  row states are to merge with those of other shards
  template <class F>
  void for_row_tiles(std::int64_t samples, bool all_count, bool shares_states, F f) {
    if (samples > 0) operands_.centre(shares_states);
    state_.base_scale = buffers.constants.base_scale;
    in_place_ = all_count && operands_.is_raw();
    for (first_row = 0; first_row < samples; first_row += plan.rows) {
      row_count = smaller(plan.rows, samples - first_row);
      f();
    }
  }
  template <class F>
  void for_class_tiles(F f) {
    for (first_class = 0; first_class < shape.classes; first_class += plan.classes) {
      class_count = smaller(plan.classes, shape.classes - first_class);
      tile = buffers.tile;
      tile_stride = class_count;
      f();
    }
  }

  bool is_last_class_tile() const { return first_class + class_count == shape.classes; }

  // f(i, part) for the rows of the tile. One thread visits the rows of a part, in order; the parts depend on
  // the plan alone.
  std::int64_t row_parts() const { return plan.threads_for(row_count * (plan.classes + shape.dims) * 8); }
  template <class F>
  void for_rows(F f) {
    const std::int64_t parts = row_parts();
    parallel_for<Threads>(plan.parallel, plan.threads, parts, [&](std::int64_t part, int) {
      const std::int64_t begin = row_count * part / parts, end = row_count * (part + 1) / parts;
      for (std::int64_t i = begin; i < end; ++i) f(i, part);
    });
  }

  // Of loss_row.hpp; centres the row's features, or, where it does not count, leaves them out unread.
  template <class Group>
  void prepare_sample(const Group& group, std::int64_t i, bool counts, std::int64_t target,
                      row_record<T>& r) const {
    buffers.target[i] = counts ? target : -1;
    buffers.counts[i] = counts ? 1 : 0;
    T* const copy = buffers.centred + i * shape.dims;
    if (!counts) {
      std::fill(copy, copy + shape.dims, T(0));
      return;
    }
    const T half_norm = operands_.is_raw() ? T(0.5) * squared_norm(group, shape.dims, features(i))
                                           : centre_row(group, shape.dims, features(i), buffers.offset, copy);
    if (operands_.is_raw() && !in_place_) std::copy_n(features(i), shape.dims, copy);
    const T fault = r.begin_frame(group, shape, features(i), half_norm, state_.base_scale);
    if (target < 0) return;
    r.take_target(
        target_of(group, shape.dims, features(i), parameters_of(target), log_prior(target), state_.alpha),
        fault);
  }

  // The class constants of the tile, where no products are made that bring them.
  void prepare_constants() {
    for_operands([&](std::int64_t begin, std::int64_t count) {
      operands_.prepare(operand_kind::logits, first_class, begin, count);
    });
    find_bounds();
  }

  // The products of the tile, not yet logits.
  void make_products() {
    const std::int64_t dims = shape.dims;
    for_operands([&](std::int64_t begin, std::int64_t count) {
      operands_.prepare(operand_kind::logits, first_class, begin, count);
      const T* const operand = operands_.operand(first_class, begin);
      if (!diagonal() && external_gemm(plan.gemm, false, true, row_count, count, dims, T(1), centred(0),
                                       centred_stride(), operand, dims, T(0), tile + begin, tile_stride))
        return;
      const host_plan::partition parts =
          diagonal() ? partition_blocks(count) : plan.partition_product(row_count, count, dims);
      parallel_for<Threads>(
          plan.parallel, plan.threads_for(row_count * count * dims), parts.tasks(),
          [&](std::int64_t task, int slot) {
            const std::int64_t i = task % parts.row_tasks * parts.rows,
                               n = smaller(parts.rows, row_count - i);
            const std::int64_t c = task / parts.row_tasks * parts.columns,
                               m = smaller(parts.columns, count - c);
            T* out = tile_row(i) + begin + c;
            if (diagonal()) {
              direct_logits(n, m, dims, centred(i), dims, operand + 2 * c * dims, out, tile_stride);
              return;
            }
            for (std::int64_t r = 0; r < n; ++r)
              std::fill(out + r * tile_stride, out + r * tile_stride + m, T(0));
            if (plan.batch_invariant)
              ordered_gemm(n, m, dims, centred(i), centred_stride(), operand + c * dims, dims, out,
                           tile_stride, buffers.scratch[slot]);
            else
              gemm<transposed::no, transposed::yes>(n, m, dims, T(1), centred(i), centred_stride(),
                                                    operand + c * dims, dims, out, tile_stride,
                                                    buffers.scratch[slot]);
          });
    });
    find_bounds();
  }

  // All classes of the tile, for row i.
  host_range<T> whole_range(std::int64_t i) const {
    return {first_class, buffers.constants, local_target(i)};
  }
  // f(range, row) for the ranges of classes of row i that row functions take at once, in order. A range's sums and decisions do
  // not depend on how classes are cut into tiles.
  template <class F>
  void for_ranges(std::int64_t i, F f) const {
    const std::int64_t target = local_target(i);
    for (std::int64_t first = 0; first < class_count; first += plan.row_part) {
      const std::int64_t count = smaller(plan.row_part, class_count - first);
      const bool has_target = target >= first && target < first + count;
      row_type row = group_type{}.load_row(tile_row(i) + first, count);
      f(host_range<T>{first_class + first, buffers.parts[first / plan.row_part],
                      has_target ? target - first : -1},
        row);
    }
  }
  // Of loss_row.hpp; the group is the host's.
  auto direct(std::int64_t i, std::int64_t first, const row_frame<T>& frame) const {
    return [this, i, first, &frame](std::int64_t k) { return distance(group_type{}, i, first + k, frame); };
  }
  // Called for few classes, from many loops: compiled once.
  [[gnu::noinline]] T distance(const group_type& group, std::int64_t i, std::int64_t k,
                               const row_frame<T>& frame) const {
    const class_parameters<T> c = parameters_of(k);
    return frame.omitted == T(0) ? T(0.5) * squared_distance(group, shape.dims, features(i), c)
                                 : distance_beyond(group, shape.dims, features(i), c, operands_.origin(),
                                                   frame.half_norm, state_.base_scale);
  }

  // The products of the tile's weights.
  //   out             [row_count, dims], row stride out_stride: the classes' part of the feature gradient is added; null: not
  //                   wanted
  //   parameters      whether sums over samples are wanted
  //   finish_classes  called as (begin, count, differences, squares) for each block of the tile's classes. The arrays are
  //                   [count, dims], the sums of w_ik (x_i - mu_k) and of w_ik (x_i - mu_k)^2
  //   difference, square
  //                   which of the two are wanted; the others are null
  //   whole           [shape.classes, dims], where a gemm hook makes the differences of all classes in one product; null: they
  //                   are made block by block
  template <class F>
  void multiply_weights(T* out, std::int64_t out_stride, bool parameters, bool difference, bool square,
                        T* whole, F finish_classes) {
    const std::int64_t dims = shape.dims;
    for_operands([&](std::int64_t begin, std::int64_t count) {
      host_plan::partition parts{0, 0, 0, 0};  // of the features' product
      if (out != nullptr) {
        operands_.prepare(operand_kind::gradient, first_class, begin, count);
        parts = diagonal() ? partition_rows(count) : plan.partition_product(row_count, dims, count);
      }
      const std::int64_t block = diagonal() ? plan.block : plan.class_block(count, row_count, dims);
      std::int64_t feature_tasks = parts.tasks();
      const std::int64_t class_tasks = parameters ? (count + block - 1) / block : 0;
      // The caller's products come from the calling thread alone.
      const bool hooked = !diagonal() && plan.gemm.template of<T>() != nullptr &&
                          !skips_zeros(row_count, count, tile + begin);
      const auto classes_task = [&](std::int64_t task, int slot) {
        const std::int64_t c = begin + task * block, n = smaller(block, begin + count - c);
        T* const differences = difference ? buffers.sums[slot] : nullptr;
        T* const squares = square ? buffers.sums[slot] + plan.block * dims : nullptr;
        sum_samples(c, n, buffers.sums[slot], squares, difference, hooked, slot);
        finish_classes(c, n, differences, squares);
      };
      const auto features_task = [&](std::int64_t task, int slot) {
        const std::int64_t i = task % parts.row_tasks * parts.rows, n = smaller(parts.rows, row_count - i);
        const std::int64_t j = task / parts.row_tasks * parts.columns, m = smaller(parts.columns, dims - j);
        add_features(out + i * out_stride, out_stride, i, n, j, m, begin, count, slot);
      };
      if (hooked) {
        if (feature_tasks > 0 &&
            external_gemm(plan.gemm, false, false, row_count, dims, count, T(-1), tile + begin, tile_stride,
                          operands_.operand(first_class, begin), dims, T(1), out, out_stride))
          feature_tasks = 0;
        if (class_tasks > 0 && difference && whole != nullptr)
          sum_samples_whole(begin, count, whole + (first_class + begin) * dims, finish_classes);
        else
          for (std::int64_t task = 0; task < class_tasks; ++task) classes_task(task, 0);
        parallel_for<Threads>(plan.parallel, plan.threads_for(row_count * count * dims), feature_tasks,
                              features_task);
        return;
      }
      // The longer tasks first, so that the threads end together.
      parallel_for<Threads>(plan.parallel, plan.threads_for(row_count * count * dims),
                            class_tasks + feature_tasks, [&](std::int64_t task, int slot) {
                              if (task < class_tasks) return classes_task(task, slot);
                              features_task(task - class_tasks, slot);
                            });
    });
  }

 private:
  void find_bounds() {
    for (std::int64_t first = 0; first < class_count; first += plan.row_part) {
      const std::int64_t count = smaller(plan.row_part, class_count - first);
      class_constants<T> c = buffers.constants;
      for (T** array : {&c.bias, &c.offset, &c.norm, &c.half_log_det}) *array += first;
      if (c.scale != nullptr) c.scale += first;
      c.max_scale = c.scale == nullptr ? T(1) : *std::max_element(c.scale, c.scale + count);
      c.max_norm = *std::max_element(c.norm, c.norm + count);
      buffers.parts[first / plan.row_part] = c;
    }
  }

  // f(begin, count) for the parts of the class tile whose operands are at hand at once.
  template <class F>
  void for_operands(F f) {
    const std::int64_t part = operands_.is_raw() ? class_count : plan.operand;
    for (std::int64_t begin = 0; begin < class_count; begin += part)
      f(begin, smaller(part, class_count - begin));
  }

  // The direct loops of a diagonal covariance, cut into tasks.
  host_plan::partition partition_rows(std::int64_t classes) const {
    const std::int64_t least = plan.grain / std::max<std::int64_t>(classes * shape.dims, 1) + 1;
    const std::int64_t parts = 2 * std::int64_t(plan.threads), even = (row_count + parts - 1) / parts;
    const std::int64_t rows =
        smaller(row_count, (std::max<std::int64_t>({least, even, std::int64_t(16)}) + 7) / 8 * 8);
    return {rows, shape.dims, (row_count + rows - 1) / rows, 1};
  }
  host_plan::partition partition_blocks(std::int64_t classes) const {
    host_plan::partition parts = partition_rows(classes);
    parts.columns = plan.block;
    parts.column_tasks = (classes + plan.block - 1) / plan.block;
    return parts;
  }

  // The classes' part of eq:grad_feature for rows [i, i + n), dimensions [j, j + m) and classes [begin, begin + count)
  // of the tile. out: of row i.
  void add_features(T* out, std::int64_t out_stride, std::int64_t i, std::int64_t n, std::int64_t j,
                    std::int64_t m, std::int64_t begin, std::int64_t count, int slot) {
    const std::int64_t dims = shape.dims;
    const T* weights = tile_row(i) + begin;
    const T* const operand = operands_.operand(first_class, begin);
    if (diagonal())
      direct_feature_gradient(n, count, dims, weights, tile_stride, centred(i), dims, operand, out,
                              out_stride);
    else if (skips_zeros(n, count, weights))
      sparse_gemm(n, m, count, T(-1), weights, tile_stride, operand + j, dims, out + j, out_stride);
    else
      gemm<transposed::no, transposed::no>(n, m, count, T(-1), weights, tile_stride, operand + j, dims,
                                           out + j, out_stride, buffers.scratch[slot]);
  }

  // The sums over the tile's samples for classes [begin, begin + count) of the tile.
  void sum_samples(std::int64_t begin, std::int64_t count, T* differences, T* squares, bool difference,
                   bool hooked, int slot) {
    const std::int64_t dims = shape.dims;
    const T* weights = tile + begin;
    if (diagonal()) {
      if (difference || squares != nullptr)
        direct_class_sums(row_count, count, dims, weights, tile_stride, features(0), stride_, buffers.counts,
                          mixture.mean + (first_class + begin) * dims, differences, squares,
                          buffers.slabs[slot]);
      return;
    }
    if (!difference) return;
    begin_sums(begin, count, differences);
    if (skips_zeros(row_count, count, weights)) {
      sparse_gemm_transposed(count, dims, row_count, weights, tile_stride, centred(0), centred_stride(),
                             differences, dims);
      return;
    }
    if (!hooked || !add_samples_by_hook(begin, count, differences))
      add_samples(begin, count, differences, slot);
  }

  // The same by one product of the caller's for all classes, with what is not a product done by all threads.
  template <class F>
  void sum_samples_whole(std::int64_t begin, std::int64_t count, T* differences, F finish_classes) {
    const std::int64_t dims = shape.dims, block = plan.class_block(count, row_count, dims);
    const auto for_blocks = [&](std::int64_t work, auto f) {
      parallel_for<Threads>(
          plan.parallel, plan.threads_for(work), (count + block - 1) / block,
          [&](std::int64_t task, int slot) { f(task * block, smaller(block, count - task * block), slot); });
    };
    const auto at = [&](std::int64_t c) { return differences + c * dims; };
    for_blocks(count * dims * 2, [&](auto c, auto n, int) { begin_sums(begin + c, n, at(c)); });
    if (!add_samples_by_hook(begin, count, differences))
      for_blocks(count * dims * row_count,
                 [&](auto c, auto n, int slot) { add_samples(begin + c, n, at(c), slot); });
    for_blocks((count + row_count) * dims * 2,
               [&](auto c, auto n, int) { finish_classes(begin + c, n, at(c), nullptr); });
  }

  // The sums' parts that are not products.
  void begin_sums(std::int64_t begin, std::int64_t count, T* differences) {
    for (std::int64_t c = 0; c < count; ++c)
      begin_class_sum(group_type{}, shape.dims, parameters_of(first_class + begin + c).mean, buffers.offset,
                      buffers.class_sum[begin + c], differences + c * shape.dims);
  }
  // Their products, by the caller's hook; false where there is none, or where it declined.
  bool add_samples_by_hook(std::int64_t begin, std::int64_t count, T* differences) {
    return external_gemm(plan.gemm, true, false, count, shape.dims, row_count, T(1), tile + begin,
                         tile_stride, centred(0), centred_stride(), T(1), differences, shape.dims);
  }
  void add_samples(std::int64_t begin, std::int64_t count, T* differences, int slot) {
    gemm<transposed::yes, transposed::no>(count, shape.dims, row_count, T(1), tile + begin, tile_stride,
                                          centred(0), centred_stride(), differences, shape.dims,
                                          buffers.scratch[slot]);
  }

  bool skips_zeros(std::int64_t rows, std::int64_t classes, const T* weights) const {
    return expects_zeros_ && is_sparse(rows, classes, weights, tile_stride);
  }

  bool expects_zeros_ = false;
  call_state<T> state_{};
  bool in_place_ = false;  // the products take features from where the caller has them
  host_operands<T, Threads> operands_;
};

}  // namespace lgm::detail
