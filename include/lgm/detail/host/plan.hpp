// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <lgm/detail/host/direct.hpp>
#include <lgm/detail/host/gemm.hpp>
#include <lgm/detail/row_record.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/detail/workspace.hpp>
#include <lgm/host_context.hpp>
#include <lgm/row.hpp>
#include <lgm/types.hpp>
#include <limits>

namespace lgm::detail {

// How a call is cut into tiles so that its workspace stays within a limit. Only one tile of the [samples, classes] matrix
// exists at a time. It has all classes of some samples where that leaves a useful height, else some classes of some samples.
struct host_plan {
  int threads = 1;           // slots of parallel_for
  std::int64_t rows = 0;     // samples in a tile
  std::int64_t classes = 0;  // classes in a tile
  std::int64_t operand = 0;  // classes whose operands of the products are at hand at once
  std::int64_t block = 0;    // classes in one task
  bool whole_rows = true;    // a tile has all classes: three products a step, else four
  parallel_for_hook parallel;
  gemm_hook gemm;
  bool batch_invariant = true;  // of host_context

  static constexpr std::int64_t largest_block = 256;
  // Classes that row functions take at once. Class tiles are cut at multiples of it, so that what is summed, and in which
  // order, follows from the classes alone.
  static constexpr std::int64_t row_part = 1024;
  // Fewer rows than useful_rows make the products inefficient; more than enough_rows gain nothing where classes
  // are cut as well.
  static constexpr std::int64_t useful_rows = 128, enough_rows = 1024;

  // A parallel step is worth its start from about this many multiply-adds.
  static constexpr std::int64_t grain = std::int64_t(1) << 17;
  int threads_for(std::int64_t work) const { return work < 2 * grain ? 1 : threads; }

  // A product of [rows, columns] results, cut into tasks.
  struct partition {
    std::int64_t rows, columns;  // of one task
    std::int64_t row_tasks, column_tasks;
    std::int64_t tasks() const { return row_tasks * column_tasks; }
  };
  // Two tasks for each thread, if each then has a grain of multiply-adds. A task packs its rows of one operand and its columns
  // of the other; the product is cut in the way that packs least.
  partition partition_product(std::int64_t height, std::int64_t width, std::int64_t inner) const {
    const std::int64_t parts = parts_of(bounded_product(bounded_product(height, width), inner));
    const auto split = [](std::int64_t length, std::int64_t n, std::int64_t unit) {
      return std::max<std::int64_t>(smaller(length, (length + n * unit - 1) / (n * unit) * unit), 1);
    };
    const auto packed = [&](const partition& c) { return c.column_tasks * height + c.row_tasks * width; };
    partition best{height, width, 1, 1};
    for (std::int64_t n = 1; n <= parts; n *= 2) {
      partition c{split(height, n, 8), split(width, parts / n, 16), 0, 0};
      c.row_tasks = (height + c.rows - 1) / c.rows;
      c.column_tasks = (width + c.columns - 1) / c.columns;
      if (c.tasks() > best.tasks() || (c.tasks() == best.tasks() && packed(c) < packed(best))) best = c;
    }
    return best;
  }
  // Classes in a task that sums over samples.
  std::int64_t class_block(std::int64_t count, std::int64_t samples, std::int64_t dims) const {
    const std::int64_t parts = parts_of(bounded_product(bounded_product(count, samples), dims));
    return smaller(block, ((count + parts - 1) / parts + 7) / 8 * 8);
  }

  // forward_only: a tile is not needed after its logits. Tall tiles of some classes, which read the means less often, then beat
  // low ones of whole rows.
  template <class T>
  static host_plan make(const shape& s, int threads, std::size_t tile_bytes, bool forward_only = false);

 private:
  // How many tasks `work` multiply-adds are worth.
  std::int64_t parts_of(std::int64_t work) const {
    return threads <= 1 ? 1 : std::clamp<std::int64_t>(work / grain, 1, 2 * std::int64_t(threads));
  }
};

// The pieces of the workspace. The same code carves and sizes it.
template <class T>
struct host_buffers {
  T* offset;                     // [dims], what features and means are centred on
  T* centred;                    // [plan.rows, dims]; rows that do not count are zero
  T* tile;                       // [plan.rows, plan.classes]: products, then logits, then weights
  T* operand;                    // [plan.operand, dims], twice that for a diagonal covariance
  class_constants<T> constants;  // [plan.classes] each; without bounds
  class_constants<T>* parts;     // the same of each row_part, with bounds
  T* class_sum;              // [threads, plan.classes], parts of the sums of w_ik over the tile's samples ...
  T* class_distance;         // ... and of w_ik d_ik
  T* class_variance_weight;  // [threads, plan.classes], the same of what soft targets need besides
  T* class_probability;
  T* distances;  // [threads, plan.classes], of score, in the memory of class_sum, which it does not make
  row_record<T>* record;     // [plan.rows]
  std::int64_t* target;      // [plan.rows], the target's class, -1 where there is none
  std::int64_t* counts;      // [plan.rows], 0 for rows that are ignored, else 1
  gemm_scratch<T>* scratch;  // [threads]
  T** sums;                  // [threads] of [block, dims] (diagonal: two of them)
  T** slabs;                 // [threads] of [plan.rows, packet], for direct_class_sums

  host_buffers(arena& a, const host_plan& p, const shape& s) {
    const std::int64_t d = s.dims;
    const bool diagonal = s.covariance == covariance::diagonal;
    offset = a.take<T>(d);
    centred = a.take<T>(bounded_product(p.rows, d));
    tile = a.take<T>(bounded_product(p.rows, p.classes));
    operand =
        a.take<T>(diagonal ? larger(interleaved<T>::size(p.operand, d), interleaved<T>::size(d, p.operand))
                           : bounded_product(p.operand, d));
    constants.bias = a.take<T>(p.classes);
    constants.offset = a.take<T>(p.classes);
    constants.scale = s.covariance == covariance::spherical ? a.take<T>(p.classes) : nullptr;
    constants.norm = a.take<T>(p.classes);
    constants.half_log_det = a.take<T>(p.classes);
    parts = a.take<class_constants<T>>(p.classes / host_plan::row_part + 1);
    const std::int64_t class_sums = bounded_product(p.threads, p.classes);
    distances = class_sum = a.take<T>(class_sums);
    class_distance = s.covariance == covariance::spherical ? a.take<T>(class_sums) : nullptr;
    class_variance_weight = a.take<T>(class_sums);
    class_probability = a.take<T>(class_sums);
    record = a.take<row_record<T>>(p.rows);
    target = a.take<std::int64_t>(p.rows);
    counts = a.take<std::int64_t>(p.rows);
    scratch = a.take<gemm_scratch<T>>(p.threads);
    sums = a.take<T*>(p.threads);
    slabs = a.take<T*>(p.threads);
    for (int slot = 0; slot < p.threads; ++slot) {
      gemm_scratch<T> g;
      g.carve(a, larger(p.rows, p.block), larger(p.classes, d),
              std::max<std::int64_t>({d, p.rows, p.classes}));
      T* sum = a.take<T>(bounded_product(p.block * (diagonal ? 2 : 1), d));
      T* slab = a.take<T>(diagonal ? bounded_product(p.rows, packet<T>::size) : 0);
      if (scratch == nullptr) continue;
      scratch[slot] = g;
      sums[slot] = sum;
      slabs[slot] = slab;
    }
  }
};

template <class T>
[[gnu::noinline]] std::size_t host_bytes(const host_plan& p, const shape& s) {
  arena a;
  const host_buffers<T> sizes(a, p, s);
  static_cast<void>(sizes);
  return a.bytes();
}

template <class T>
host_plan host_plan::make(const shape& s, int threads, std::size_t tile_bytes, bool forward_only) {
  host_plan p;
  const std::int64_t dims = std::max<std::int64_t>(s.dims, 1);
  const std::int64_t limit = static_cast<std::int64_t>(smaller(tile_bytes, std::size_t(1) << 60));
  // A task's sums should stay in the second-level cache, and all threads' scratch within a quarter of the
  // limit.
  p.block = std::clamp<std::int64_t>((std::int64_t(1) << 20) / std::int64_t(sizeof(T)) / dims / 16 * 16, 32,
                                     largest_block);
  p.block = smaller(p.block, std::max<std::int64_t>(s.classes, 1));
  p.rows = p.classes = p.operand = 1;
  p.threads = 1;
  const auto fixed = static_cast<std::int64_t>(host_bytes<T>(p, s));
  p.threads = 2;
  const std::int64_t per_thread =
      std::max<std::int64_t>(static_cast<std::int64_t>(host_bytes<T>(p, s)) - fixed, 1) +
      2 * gemm_scratch<T>::inner_block * gemm_scratch<T>::row_block * std::int64_t(sizeof(T));
  p.threads = static_cast<int>(std::clamp<std::int64_t>(limit / 4 / per_thread, 1, larger(threads, 1)));

  const auto fits = [&](std::int64_t tile_rows, std::int64_t tile_classes, std::int64_t part) {
    host_plan q = p;
    q.rows = std::max<std::int64_t>(tile_rows, 0);
    q.classes = tile_classes;
    q.operand = part;
    return static_cast<std::int64_t>(host_bytes<T>(q, s)) <= limit;
  };
  const std::int64_t useful = smaller(s.samples, useful_rows), enough = smaller(s.samples, enough_rows);
  bool whole = true;
  if (fits(useful, s.classes, s.classes)) {
    p.classes = p.operand = s.classes;
    p.rows =
        largest_that_fits(useful, s.samples, [&](std::int64_t n) { return fits(n, p.classes, p.operand); });
  } else if (fits(useful, s.classes, smaller(s.classes, 4 * p.block))) {
    // Whole rows, but only a part of the operands at a time, which each tile makes again.
    p.classes = s.classes;
    p.operand = smaller(s.classes, 4 * p.block);
    p.rows =
        largest_that_fits(useful, s.samples, [&](std::int64_t n) { return fits(n, p.classes, p.operand); });
  } else {
    whole = false;
  }
  if (!whole || (forward_only && p.rows < enough)) {
    const std::int64_t least = smaller(s.classes, p.block), parts = (s.classes - 1) / row_part + 1;
    const auto classes_of = [&](std::int64_t n) { return n < parts ? n * row_part : s.classes; };
    p.rows = largest_that_fits(1, enough, [&](std::int64_t n) { return fits(n, classes_of(1), least); });
    p.classes = classes_of(largest_that_fits(
        1, parts, [&](std::int64_t n) { return fits(p.rows, classes_of(n), classes_of(n)); }));
    p.operand = largest_that_fits(1, p.classes, [&](std::int64_t n) { return fits(p.rows, p.classes, n); });
  }
  // A tile that is used at once had better fit a cache.
  if (forward_only) p.rows = smaller(p.rows, enough);
  if (s.samples > 0) {
    // Tiles of even height rather than a small last one.
    const std::int64_t tiles = (s.samples - 1) / p.rows + 1;
    p.rows = (s.samples - 1) / tiles + 1;
  } else {
    p.rows = 0;
  }
  p.block = smaller(p.block, std::max<std::int64_t>(p.operand, 1));
  p.whole_rows = p.classes >= s.classes;
  return p;
}

}  // namespace lgm::detail
