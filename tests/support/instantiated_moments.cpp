// SPDX-License-Identifier: MIT
#define LGM_TEST_INSTANTIATING
#include "support/instantiated_host.hpp"

namespace lgm {

LGM_TEST_HOST_ALL_MOMENTS()

}  // namespace lgm
