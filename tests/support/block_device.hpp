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
#include <lgm/types.hpp>

#include "support/cuda_fibres.hpp"
#include "support/emulated_device.hpp"

// A device on the host whose kernels run as a GPU's do: by run_tasks, in the groups of block_group.cuh, a fibre for each thread,
// with grids so small that groups have several tasks in turn.

namespace support {

struct block_context {
  int threads = 0;  // means nothing to a device
  std::size_t tile_bytes = std::size_t(64) << 20;
  lgm::precision precision = lgm::precision::highest;
  lane_order order = lane_order::forward;
  unsigned most_blocks = 3;
  bool watched = false;  // for races
};

class block_device {
 public:
  // Its products need no scratch.
  block_device(const block_context& c, const lgm::workspace&) : context_(c), fibres_(c.order, 7, c.watched) {}

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
    fibres_.launch(blocks, static_cast<unsigned>(shape.threads),
                   [&] { lgm::detail::run_tasks<Lanes>(kernel, tasks); });
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
