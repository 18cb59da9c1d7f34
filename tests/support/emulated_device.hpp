// SPDX-License-Identifier: MIT
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <lgm/detail/device.hpp>
#include <lgm/detail/number_format.hpp>
#include <lgm/group.hpp>
#include <lgm/types.hpp>
#include <type_traits>
#include <vector>

#include "support/emulated_group.hpp"
#include "support/narrow.hpp"
#include "support/thread_group.hpp"

// Devices whose memory is the host's (detail/device.hpp says what a device is): a driver that runs on them is the driver
// that runs on a GPU, kernel by kernel, with the groups' barriers, their lanes' own variables and the order of lanes and
// tasks under the test's control.

namespace support {

// What tensor cores take of a float in TF32: the lower 13 bits are not looked at.
inline float cut_to_tf32(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bits &= ~std::uint32_t{0x1fff};
  std::memcpy(&value, &bits, sizeof(bits));
  return value;
}

// Naive products, summed in parts as all that are in use are.
template <class T>
void multiply_plainly(lgm::detail::number_format format, bool transpose_a, bool transpose_b, std::int64_t m,
                      std::int64_t n, std::int64_t k, T alpha, const void* a, std::int64_t lda, const void* b,
                      std::int64_t ldb, T beta, T* c, std::int64_t ldc) {
  using lgm::detail::number_format;
  // Element i as the product takes it.
  const auto value = [&](const void* data, std::int64_t i) -> T {
    if constexpr (std::is_same<T, float>::value) {
      if (format == number_format::tf32) return cut_to_tf32(static_cast<const float*>(data)[i]);
      if (format == number_format::half) return static_cast<const half16*>(data)[i];
      if (format == number_format::bfloat16) return static_cast<const brain16*>(data)[i];
    }
    REQUIRE(format == number_format::full);
    return static_cast<const T*>(data)[i];
  };
  // Operands once, rather than each n or m times.
  std::vector<T> left, right;
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t p = 0; p < k; ++p) left.push_back(value(a, transpose_a ? p * lda + i : i * lda + p));
  for (std::int64_t j = 0; j < n; ++j)
    for (std::int64_t p = 0; p < k; ++p) right.push_back(value(b, transpose_b ? j * ldb + p : p * ldb + j));
  constexpr std::int64_t chunk = 32;
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      const T *const x = left.data() + i * k, *const y = right.data() + j * k;
      T sum = 0;
      for (std::int64_t first = 0; first < k; first += chunk) {
        T part = 0;
        for (std::int64_t p = first; p < std::min(k, first + chunk); ++p) part += x[p] * y[p];
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
  void multiply(lgm::detail::number_format format, bool transpose_a, bool transpose_b, std::int64_t m,
                std::int64_t n, std::int64_t k, T alpha, const void* a, std::int64_t lda, const void* b,
                std::int64_t ldb, T beta, T* c, std::int64_t ldc) {
    ++products;
    if (counts != nullptr) ++counts->products;
    multiply_plainly(format, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  }
  lgm::status result() const { return lgm::status::success; }
};

}  // namespace support
