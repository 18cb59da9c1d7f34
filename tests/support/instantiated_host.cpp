// SPDX-License-Identifier: MIT
#define LGM_TEST_INSTANTIATING
#include "support/instantiated_host.hpp"

namespace lgm::detail {

LGM_TEST_HOST_DRIVER(, float)
LGM_TEST_HOST_DRIVER(, double)

}  // namespace lgm::detail
