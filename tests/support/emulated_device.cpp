// SPDX-License-Identifier: MIT
#include "support/emulated_device.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>

#include "support/thread_group.hpp"

namespace support {

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

template void multiply_plainly(bool, bool, std::int64_t, std::int64_t, std::int64_t, float, const float*,
                               std::int64_t, const float*, std::int64_t, float, float*, std::int64_t);
template void multiply_plainly(bool, bool, std::int64_t, std::int64_t, std::int64_t, double, const double*,
                               std::int64_t, const double*, std::int64_t, double, double*, std::int64_t);

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
