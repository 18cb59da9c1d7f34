// SPDX-License-Identifier: MIT
#pragma once

#include <lgm/lgm.hpp>

#include "support/context.hpp"
#include "support/instantiated_host.hpp"

// The kernels of an emulated device, too, are shared by the tests in one copy: instantiated_device.cpp.

namespace lgm::detail {

#define LGM_TEST_DEVICE_DRIVER(prefix, T)                                                                   \
  prefix template status device_run_loss(support::emulated_device&, const device_limits&,                   \
                                         const loss_call<T>&, const workspace&);                            \
  prefix template status device_run_logits(support::emulated_device&, const device_limits&,                 \
                                           const loss_call<T>&, T*, const workspace&);                      \
  prefix template status device_run_score(support::emulated_device&, const device_limits&,                  \
                                          const loss_call<T>&, const score_result<T>&, const workspace&);   \
  prefix template status device_merge_row_state(support::emulated_device&, const shape&, const T*, T*);     \
  prefix template status device_sgd_step(support::emulated_device&, const shape&, const sgd_options<T>&,    \
                                         const gradients<T, T>&, const parameters<T>&,                      \
                                         const parameters<T>&);                                             \
  prefix template status device_initialize_means(support::emulated_device&, const shape&, std::uint64_t, T, \
                                                 const parameters<T>&);

#if !defined(LGM_TEST_INSTANTIATING)
LGM_TEST_DEVICE_DRIVER(extern, float)
LGM_TEST_DEVICE_DRIVER(extern, double)
#endif

}  // namespace lgm::detail
