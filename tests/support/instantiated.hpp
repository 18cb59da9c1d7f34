// SPDX-License-Identifier: MIT
#pragma once

#include <lgm/lgm.hpp>

#include "support/context.hpp"
#include "support/instantiated_host.hpp"

// The kernels of an emulated device, too, are shared by the tests in one copy: instantiated_device.cpp; those of suites that are
// compiled for a device: instantiated_blocks.cpp.

namespace lgm::detail {

#define LGM_TEST_DEVICE_DRIVER(prefix, Device, T)                                                  \
  prefix template status device_run_loss(Device&, const device_limits&, const loss_call<T>&,       \
                                         const workspace&);                                        \
  prefix template status device_run_logits(Device&, const device_limits&, const loss_call<T>&, T*, \
                                           const workspace&);                                      \
  prefix template status device_run_score(Device&, const device_limits&, const loss_call<T>&,      \
                                          const score_result<T>&, const workspace&);               \
  prefix template status device_merge_row_state(Device&, const shape&, const T*, T*);              \
  prefix template status device_sgd_step(Device&, const shape&, const sgd_options<T>&,             \
                                         const gradients<T, T>&, const parameters<T>&,             \
                                         const parameters<T>&);                                    \
  prefix template status device_initialize_means(Device&, const shape&, std::uint64_t, T,          \
                                                 const parameters<T>&);

#if !defined(LGM_TEST_INSTANTIATING)
LGM_TEST_DEVICE_DRIVER(extern, support::emulated_device, float)
LGM_TEST_DEVICE_DRIVER(extern, support::emulated_device, double)
#if defined(LGM_TEST_DEVICE)
LGM_TEST_DEVICE_DRIVER(extern, support::block_device, float)
LGM_TEST_DEVICE_DRIVER(extern, support::block_device, double)
#endif
#endif

}  // namespace lgm::detail
