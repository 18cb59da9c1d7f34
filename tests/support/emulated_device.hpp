// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <lgm/detail/device/launch.hpp>
#include <lgm/detail/number_format.hpp>
#include <lgm/group.hpp>
#include <lgm/types.hpp>

#include "support/emulated_group.hpp"
#include "support/narrow.hpp"

// Devices whose memory is the host's (detail/device/launch.hpp says what a device is): a driver that runs on them is the driver
// that runs on a GPU, kernel by kernel, with the groups' barriers, their lanes' own variables and the order of lanes and
// tasks under the test's control.

namespace support {

// c = alpha op(a) op(b) + beta c of matrices whose operands are in a format: naive products, summed in parts as all that are
// in use are. T is float or double.
template <class T>
void multiply_plainly(lgm::detail::number_format format, bool transpose_a, bool transpose_b, std::int64_t m,
                      std::int64_t n, std::int64_t k, T alpha, const void* a, std::int64_t lda, const void* b,
                      std::int64_t ldb, T beta, T* c, std::int64_t ldc);

enum class task_groups { serial, emulated, threads };

struct device_counts {
  std::int64_t launches = 0, products = 0;
};

// A device as the library's functions take it: how it runs its kernels.
struct device_context {
  int threads = 0;  // means nothing to a device; suites set it all the same
  std::size_t tile_bytes = std::size_t(64) << 20;
  lgm::precision precision = lgm::precision::highest;
  task_groups groups = task_groups::serial;
  bool backwards = false;
  lane_order order = lane_order::shuffled;
  device_counts* counts = nullptr;  // where not null, what was launched is added here
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

  emulated_device() = default;
  // Its products need no scratch.
  emulated_device(const device_context& c, const lgm::workspace&);

  // Every kernel is compiled for two groups; all else is the same for all of them, and compiled once.
  template <int... Widths, class Kernel>
  void launch(int lanes, std::int64_t tasks, const Kernel& kernel) {
    static_assert(sizeof(Kernel) <= 4096, "a kernel's arguments are at most 4 KiB");
    run_tasks(((lanes == Widths) || ...), lanes, tasks, &kernel,
              [](const void* each, std::int64_t task) {
                (*static_cast<const Kernel*>(each))(lgm::serial_group{}, task);
              },
              [](const void* each, const lane_group& group, std::int64_t task) {
                (*static_cast<const Kernel*>(each))(group, task);
              });
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

 private:
  void run_tasks(bool known_width, int lanes, std::int64_t tasks, const void* kernel,
                 void (*serial)(const void*, std::int64_t),
                 void (*in_lanes)(const void*, const lane_group&, std::int64_t));
};

}  // namespace support
