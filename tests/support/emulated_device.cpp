// SPDX-License-Identifier: MIT
#include "support/emulated_device.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "support/thread_group.hpp"

namespace support {

namespace {

// What tensor cores take of a float in TF32: the lower 13 bits are not looked at.
float cut_to_tf32(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bits &= ~std::uint32_t{0x1fff};
  std::memcpy(&value, &bits, sizeof(bits));
  return value;
}

}  // namespace

template <class T>
void multiply_plainly(lgm::detail::number_format format, bool transpose_a, bool transpose_b, std::int64_t m,
                      std::int64_t n, std::int64_t k, T alpha, const void* a, std::int64_t lda, const void* b,
                      std::int64_t ldb, T beta, T* c, std::int64_t ldc) {
  using lgm::detail::number_format;
  REQUIRE((format == number_format::full || std::is_same<T, float>::value));
  // Element i as the product takes it.
  const auto value = [&](const void* data, std::int64_t i) -> T {
    if constexpr (std::is_same<T, float>::value) {
      if (format == number_format::tf32) return cut_to_tf32(static_cast<const float*>(data)[i]);
      if (format == number_format::half) return static_cast<const half16*>(data)[i];
      if (format == number_format::bfloat16) return static_cast<const brain16*>(data)[i];
    }
    return static_cast<const T*>(data)[i];
  };
  // Operands once, rather than each n or m times; the right one [k, n], so that columns of c are summed side by side.
  std::vector<T> left(static_cast<std::size_t>(m * k)), right(static_cast<std::size_t>(k * n));
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t p = 0; p < k; ++p)
      left[static_cast<std::size_t>(i * k + p)] = value(a, transpose_a ? p * lda + i : i * lda + p);
  for (std::int64_t p = 0; p < k; ++p)
    for (std::int64_t j = 0; j < n; ++j)
      right[static_cast<std::size_t>(p * n + j)] = value(b, transpose_b ? j * ldb + p : p * ldb + j);
  constexpr std::int64_t chunk = 32;
  std::vector<T> sums(static_cast<std::size_t>(n)), parts(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < m; ++i) {
    std::fill(sums.begin(), sums.end(), T(0));
    for (std::int64_t first = 0; first < k; first += chunk) {
      std::fill(parts.begin(), parts.end(), T(0));
      T* const part = parts.data();
      for (std::int64_t p = first; p < std::min(k, first + chunk); ++p) {
        const T x = left[static_cast<std::size_t>(i * k + p)];
        const T* const y = right.data() + p * n;
        for (std::int64_t j = 0; j < n; ++j) part[j] += x * y[j];
      }
      for (std::int64_t j = 0; j < n; ++j) sums[static_cast<std::size_t>(j)] += part[j];
    }
    for (std::int64_t j = 0; j < n; ++j) {
      const T sum = alpha * sums[static_cast<std::size_t>(j)];
      c[i * ldc + j] = beta == T(0) ? sum : sum + beta * c[i * ldc + j];
    }
  }
}

template void multiply_plainly<float>(lgm::detail::number_format, bool, bool, std::int64_t, std::int64_t,
                                      std::int64_t, float, const void*, std::int64_t, const void*,
                                      std::int64_t, float, float*, std::int64_t);
template void multiply_plainly<double>(lgm::detail::number_format, bool, bool, std::int64_t, std::int64_t,
                                       std::int64_t, double, const void*, std::int64_t, const void*,
                                       std::int64_t, double, double*, std::int64_t);

emulated_device::emulated_device(const device_context& c, const lgm::workspace&)
    : groups(c.groups), backwards(c.backwards), order(c.order), counts(c.counts) {}

void emulated_device::run_tasks(bool known_width, int lanes, std::int64_t tasks, const void* kernel,
                                void (*serial)(const void*, std::int64_t),
                                void (*in_lanes)(const void*, const lane_group&, std::int64_t)) {
  REQUIRE(known_width);
  if (tasks <= 0) return;
  ++launches;
  if (counts != nullptr) ++counts->launches;
  const int count = std::min(lanes, most_lanes);
  for (std::int64_t n = 0; n < tasks; ++n) {
    const std::int64_t task = backwards ? tasks - 1 - n : n;
    const auto one = [&](const lane_group& group, int) { in_lanes(kernel, group, task); };
    if (lanes == 1 || groups == task_groups::serial)
      serial(kernel, task);
    else if (groups == task_groups::emulated)
      emulated_group{count, order}.run(one);
    else
      thread_group{count}.run(one);
  }
}

}  // namespace support
