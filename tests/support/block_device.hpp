// SPDX-License-Identifier: MIT
#pragma once

// For a file that is compiled with support/cuda_fibres before CUDA's own folders.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <lgm/detail/cuda/launch_shape.hpp>
#include <lgm/detail/cuda/run_tasks.cuh>
#include <lgm/detail/number_format.hpp>
#include <lgm/device.hpp>
#include <lgm/group.hpp>
#include <lgm/types.hpp>

#include "support/cuda_fibres.hpp"
#include "support/emulated_device.hpp"

// A device on the host whose kernels run as a GPU's do: by run_tasks, in the groups of block_group.cuh, a fibre for each thread,
// with grids so small that groups have several tasks in turn. Two tasks of one group run in order, so that a race between them
// does not show: a grid of as many groups as tasks shows it (most_blocks).

namespace support {

struct block_context {
  int threads = 0;  // means nothing to a device
  std::size_t tile_bytes = std::size_t(64) << 20;
  lgm::precision precision = lgm::precision::highest;
  lane_order order = lane_order::forward;
  unsigned most_blocks = 2;
  bool watched = false;  // for races
  // For suites, whose launches are many: of some problems (begin_problem) the first tasks of a launch and the last run so, two for
  // each group and one more; all else runs in one thread. The orders of threads take turns. All calls of a problem are alike, since
  // suites compare their bits.
  bool sampled = true;
};

class block_device {
 public:
  // Its products need no scratch.
  block_device(const block_context& c, const lgm::workspace&)
      : context_(c), fibres_(order_of(c), 7, c.watched) {}

  static inline unsigned problem = 0;  // the number of the problem at hand

  template <int... Widths, class Kernel>
  void launch(int lanes, std::int64_t tasks, const Kernel& kernel) {
    if (tasks > 0) ((lanes == Widths ? launch_groups<Widths>(tasks, kernel) : void()), ...);
  }
  template <class T>
  void multiply(lgm::detail::number_format format, bool transpose_a, bool transpose_b, std::int64_t m,
                std::int64_t n, std::int64_t k, T alpha, const void* a, std::int64_t lda, const void* b,
                std::int64_t ldb, T beta, T* c, std::int64_t ldc) {
    multiply_plainly(format, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  }
  lgm::status result() const { return lgm::status::success; }

 private:
  template <int Lanes, class Kernel>
  void launch_groups(std::int64_t tasks, const Kernel& kernel) {
    const lgm::detail::launch_shape shape = lgm::detail::launch_shape::make(Lanes, tasks);
    const auto blocks = static_cast<unsigned>(std::min<std::int64_t>(shape.blocks, context_.most_blocks));
    const auto threads = static_cast<unsigned>(shape.threads);
    if (context_.sampled && problem % 23 != 1) {
      for (std::int64_t task = 0; task < tasks; ++task) kernel(lgm::serial_group{}, task);
      return;
    }
    const std::int64_t sample = 2 * shape.groups * std::int64_t(blocks) + 1;
    if (!context_.sampled || tasks <= sample) {
      fibres_.launch(blocks, threads, [&] { lgm::detail::run_tasks<Lanes>(kernel, tasks); });
      return;
    }
    const auto first_and_last = [&](const auto& group, std::int64_t n) {
      kernel(group, n + 1 < sample ? n : tasks - 1);
    };
    fibres_.launch(blocks, threads, [&] { lgm::detail::run_tasks<Lanes>(first_and_last, sample); });
    for (std::int64_t task = sample - 1; task + 1 < tasks; ++task) kernel(lgm::serial_group{}, task);
  }

  static lane_order order_of(const block_context& c) {
    constexpr lane_order all[] = {lane_order::forward, lane_order::reverse, lane_order::shuffled};
    return c.sampled ? all[problem % 3] : c.order;
  }

  block_context context_;
  cuda_fibres fibres_;
};

}  // namespace support

namespace lgm::detail {

template <>
struct device_traits<support::block_context> {
  using device_type = support::block_device;
  static std::size_t scratch_bytes(const support::block_context&, const shape&) { return 0; }
};

}  // namespace lgm::detail
