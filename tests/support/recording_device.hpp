// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <lgm/detail/cuda/launch_shape.hpp>
#include <lgm/detail/device/launch.hpp>
#include <lgm/detail/number_format.hpp>
#include <lgm/types.hpp>
#include <vector>

// A device that runs nothing and notes what it would have run: for shapes that no machine here has the memory for. Its
// drivers' pointers lead nowhere.

namespace support {

class recording_device {
 public:
  struct launched {
    int lanes;
    std::int64_t tasks;
    lgm::detail::launch_shape shape;
  };
  struct product {
    std::int64_t m, n, k, lda, ldb, ldc;
    bool transpose_a, transpose_b;
    lgm::detail::number_format format;
  };
  std::vector<launched> launches;
  std::vector<product> products;

  template <int... Widths, class Kernel>
  void launch(int lanes, std::int64_t tasks, const Kernel&) {
    static_assert(sizeof(Kernel) <= 4000, "a kernel's arguments are at most 4 KiB");
    if (tasks > 0) launches.push_back({lanes, tasks, lgm::detail::launch_shape::make(lanes, tasks)});
  }
  template <class T>
  void multiply(lgm::detail::number_format format, bool transpose_a, bool transpose_b, std::int64_t m,
                std::int64_t n, std::int64_t k, T, const void*, std::int64_t lda, const void*,
                std::int64_t ldb, T, T*, std::int64_t ldc) {
    products.push_back({m, n, k, lda, ldb, ldc, transpose_a, transpose_b, format});
  }
  lgm::status result() const { return lgm::status::success; }
};

}  // namespace support
