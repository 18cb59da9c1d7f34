// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/device/tuning.hpp>
#include <lgm/types.hpp>

// What the drivers in detail/device/ ask of the device that they run on. They are plain C++: they launch kernels that
// are function objects over a group, and never touch the memory behind a pointer themselves. So the same driver runs on a
// CUDA stream (detail/cuda/cuda_device.cuh) and, in tests, on the host, under every kind of group there is.
//
// A Device has:
//
//   template <int... Widths, class Kernel>
//   void launch(int lanes, std::int64_t tasks, const Kernel& kernel);
//       kernel(group, task) for every task of [0, tasks), each by a group of its own with `lanes` lanes, one of Widths; in
//       any order, but after all that was enqueued before, and before all that will be. lanes: 1 (serial_group), 2 to 32
//       (a part of a warp), or more (a block). No tasks: nothing is enqueued. A kernel is a struct of a few pointers and
//       numbers, at most 4 KiB, whose call operator is a const LGM_HD template over the group.
//
//   template <class T>
//   void multiply(number_format format, bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
//                 T alpha, const void* a, std::int64_t lda, const void* b, std::int64_t ldb, T beta, T* c,
//                 std::int64_t ldc);
//       c [m, n] = alpha op(a) op(b) + beta c, row-major; op(a) is [m, k], op(b) [k, n]. With beta = 0, c is not read. Any
//       size may be 0. format is that of a and b: full, numbers of T; else T is float, in which products are added, and
//       tf32 is taken for floats that are rounded already: what the format does not hold may be cut off.
//
//   status result() const;
//       the first failure of what was enqueued so far; nothing is enqueued after one.

namespace lgm::detail {

// Lanes of the groups that take a row of n elements. Narrow rows share a warp; wide ones have a block each.
LGM_HD constexpr int lanes_for(std::int64_t n) {
  return n <= tuning::narrow_row ? tuning::narrow_lanes
         : n <= tuning::warp_row ? tuning::warp_lanes
                                 : tuning::block_lanes;
}

// Whole units in n, rounded up.
LGM_HD constexpr std::int64_t ceil_divide(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit; }

// For each of the lanes that lanes_for returns.
template <class Device, class Kernel>
void launch_rows(Device& device, std::int64_t width, std::int64_t tasks, const Kernel& kernel) {
  device.template launch<tuning::narrow_lanes, tuning::warp_lanes, tuning::block_lanes>(lanes_for(width),
                                                                                        tasks, kernel);
}

// The same for groups that take a column a lane.
template <class Device, class Kernel>
void launch_columns(Device& device, std::int64_t columns, std::int64_t tasks, const Kernel& kernel) {
  const int lanes = columns <= tuning::narrow_lanes ? tuning::narrow_lanes
                    : columns <= tuning::warp_lanes ? tuning::warp_lanes
                                                    : tuning::block_lanes;
  device.template launch<tuning::narrow_lanes, tuning::warp_lanes, tuning::block_lanes>(lanes, tasks, kernel);
}

// out [tasks, columns] = 0.
template <class T>
struct zero_kernel {
  std::int64_t columns, stride;
  T* out;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t row) const {
    group.for_each(columns, [&](std::int64_t j) { out[row * stride + j] = T(0); });
  }
};

}  // namespace lgm::detail
