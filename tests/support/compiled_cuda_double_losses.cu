// SPDX-License-Identifier: MIT
#include "support/compiled_cuda.cuh"

namespace lgm::detail {

LGM_TEST_CUDA_LOSSES(, cuda_device, double)
LGM_TEST_CUDA_LOSSES(, support::compiled_cuda_device, double)

}  // namespace lgm::detail
