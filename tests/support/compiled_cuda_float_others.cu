// SPDX-License-Identifier: MIT
#include "support/compiled_cuda.cuh"

namespace lgm::detail {

LGM_TEST_CUDA_OTHERS(, cuda_device, float)
LGM_TEST_CUDA_OTHERS(, support::compiled_cuda_device, float)
LGM_TEST_CUDA_WHITENING(, cuda_device, double, float)
LGM_TEST_CUDA_WHITENING(, support::compiled_cuda_device, double, float)

}  // namespace lgm::detail
