// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <lgm/device.hpp>
#include <lgm/host_context.hpp>
#include <type_traits>
#include <vector>

#include "support/emulated_device.hpp"
#if defined(LGM_TEST_CUDA)
#include "support/compiled_cuda.hpp"
#elif defined(LGM_TEST_DEVICE)
#include "support/block_device.hpp"
#endif

// The contexts that tests run on: the host's; an emulated device's; and suite_context. That is the host's, or in a suite that is
// compiled again with LGM_TEST_DEVICE that of a device of fibres, with LGM_TEST_CUDA that of a CUDA device.

namespace support {

inline device_context device_context_of(task_groups groups, std::size_t tile_bytes = std::size_t(64) << 20,
                                        bool backwards = false) {
  device_context c;
  c.groups = groups;
  c.tile_bytes = tile_bytes;
  c.backwards = backwards;
  return c;
}

#if defined(LGM_TEST_CUDA)
using suite_context = compiled_cuda;
#elif defined(LGM_TEST_DEVICE)
using suite_context = block_context;
#else
using suite_context = lgm::host_context;
#endif

// Whether that is a device, real or emulated.
constexpr bool suite_is_device = !std::is_same<suite_context, lgm::host_context>::value;

// Tells the device of fibres that another problem begins.
inline void begin_problem() {
#if defined(LGM_TEST_DEVICE) && !defined(LGM_TEST_CUDA)
  ++block_device::problem;
#endif
}

// The numbers of threads that a suite tries: to a device they mean nothing, and one is enough.
inline std::vector<int> thread_counts(std::vector<int> counts) {
  if (suite_is_device) counts.resize(1);
  return counts;
}

}  // namespace support

namespace lgm::detail {

template <>
struct device_traits<support::device_context> {
  using device_type = support::emulated_device;
  static std::size_t scratch_bytes(const support::device_context&, const shape&) { return 0; }
};

}  // namespace lgm::detail
