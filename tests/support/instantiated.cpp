// SPDX-License-Identifier: MIT
#define LGM_TEST_INSTANTIATING
#include "instantiated.hpp"

namespace lgm::detail {

LGM_TEST_INSTANTIATE(, float)
LGM_TEST_INSTANTIATE(, double)

}  // namespace lgm::detail
