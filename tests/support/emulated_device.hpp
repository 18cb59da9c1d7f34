// SPDX-License-Identifier: MIT
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <lgm/detail/device.hpp>
#include <lgm/group.hpp>
#include <lgm/types.hpp>

#include "support/emulated_group.hpp"
#include "support/thread_group.hpp"

// Devices whose memory is the host's (detail/device.hpp says what a device is): a driver that runs on them is the driver
// that runs on a GPU, kernel by kernel, with the groups' barriers, their lanes' own variables and the order of lanes and
// tasks under the test's control.

namespace support {

// Naive products, summed in parts as all that are in use are.
template <class T>
void multiply_plainly(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
                      T alpha, const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T beta, T* c,
                      std::int64_t ldc) {
  constexpr std::int64_t chunk = 32;
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      T sum = 0;
      for (std::int64_t first = 0; first < k; first += chunk) {
        T part = 0;
        for (std::int64_t p = first; p < std::min(k, first + chunk); ++p)
          part += (transpose_a ? a[p * lda + i] : a[i * lda + p]) *
                  (transpose_b ? b[j * ldb + p] : b[p * ldb + j]);
        sum += part;
      }
      c[i * ldc + j] = beta == T(0) ? alpha * sum : alpha * sum + beta * c[i * ldc + j];
    }
}

enum class task_groups { serial, emulated, threads };

struct device_counts {
  std::int64_t launches = 0, products = 0;
};

// Every kernel runs at once, its tasks in order or, where `backwards`, in reverse order.
class emulated_device {
 public:
  task_groups groups = task_groups::serial;
  bool backwards = false;
  int most_lanes =
      8;  // groups are emulated with no more: lane counts are the algorithms' to be indifferent to
  lane_order order = lane_order::shuffled;
  std::int64_t launches = 0, products = 0;  // so far
  device_counts* counts = nullptr;          // where not null, the same, of several devices

  template <int... Widths, class Kernel>
  void launch(int lanes, std::int64_t tasks, const Kernel& kernel) {
    static_assert(sizeof(Kernel) <= 4096, "a kernel's arguments are at most 4 KiB");
    REQUIRE(((lanes == Widths) || ...));
    if (tasks <= 0) return;
    ++launches;
    if (counts != nullptr) ++counts->launches;
    for (std::int64_t n = 0; n < tasks; ++n) {
      const std::int64_t task = backwards ? tasks - 1 - n : n;
      const int count = std::min(lanes, most_lanes);
      const auto one = [&](const auto& group, auto...) { kernel(group, task); };
      if (lanes == 1 || groups == task_groups::serial)
        one(lgm::serial_group{});
      else if (groups == task_groups::emulated)
        emulated_group{count, order}.run(one);
      else
        thread_group{count}.run(one);
    }
  }
  template <class T>
  void multiply(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, T alpha,
                const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T beta, T* c, std::int64_t ldc) {
    ++products;
    if (counts != nullptr) ++counts->products;
    multiply_plainly(transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  }
  lgm::status result() const { return lgm::status::success; }
};

}  // namespace support
