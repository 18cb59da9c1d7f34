// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <lgm/device.hpp>
#include <lgm/host_context.hpp>

#include "support/emulated_device.hpp"

// The contexts that suites run on: the host's; an emulated device's; and suite_context, which is the host's, or in a suite
// compiled a second time with LGM_TEST_DEVICE the device's.

namespace support {

// How an emulated device runs its kernels.
struct device_context {
  int threads = 0;  // means nothing to a device; suites set it all the same
  std::size_t tile_bytes = std::size_t(64) << 20;
  lgm::precision precision = lgm::precision::highest;
  task_groups groups = task_groups::serial;
  bool backwards = false;
  lane_order order = lane_order::shuffled;
  device_counts* counts = nullptr;  // where not null, what was launched is added here
};

inline device_context device_context_of(task_groups groups, std::size_t tile_bytes = std::size_t(64) << 20,
                                        bool backwards = false) {
  device_context c;
  c.groups = groups;
  c.tile_bytes = tile_bytes;
  c.backwards = backwards;
  return c;
}

// The device of a context. Its products need no scratch.
struct context_device : emulated_device {
  context_device(const device_context& c, const lgm::workspace&) {
    groups = c.groups;
    backwards = c.backwards;
    order = c.order;
    counts = c.counts;
  }
};

#if defined(LGM_TEST_DEVICE)
using suite_context = device_context;
#else
using suite_context = lgm::host_context;
#endif

}  // namespace support

namespace lgm::detail {

template <>
struct device_traits<support::device_context> {
  using device_type = support::context_device;
  static std::size_t scratch_bytes(const support::device_context&, const shape&) { return 0; }
};

}  // namespace lgm::detail
