// SPDX-License-Identifier: MIT
#define LGM_TEST_INSTANTIATING
#include "support/instantiated.hpp"

namespace lgm::detail {

LGM_TEST_DEVICE_DRIVER(, support::emulated_device, float)
LGM_TEST_DEVICE_DRIVER(, support::emulated_device, double)

}  // namespace lgm::detail
