// SPDX-License-Identifier: MIT
#include "support/compiled_cuda.cuh"

namespace lgm::detail {

LGM_TEST_CUDA_OTHERS(, cuda_device, double)
LGM_TEST_CUDA_OTHERS(, support::compiled_cuda_device, double)

}  // namespace lgm::detail
