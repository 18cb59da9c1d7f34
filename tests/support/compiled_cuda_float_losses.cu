// SPDX-License-Identifier: MIT
#include "support/compiled_cuda.cuh"

namespace lgm::detail {

LGM_TEST_CUDA_LOSSES(, cuda_device, float)
LGM_TEST_CUDA_LOSSES(, support::compiled_cuda_device, float)

}  // namespace lgm::detail
