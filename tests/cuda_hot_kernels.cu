// SPDX-License-Identifier: MIT

// The kernels that read and write the tile's rows, for cuda_vectors.py to look at in PTX: a lane has 16 bytes of a row at
// a time.

#include <cstdint>
#include <lgm/lgm.cuh>

namespace lgm::detail {

#define LGM_TEST_KERNEL(lanes, kernel)                                                              \
  template __global__ void run_tasks<lanes, kernel<float>>(const __grid_constant__ kernel<float>,   \
                                                           std::int64_t);                           \
  template __global__ void run_tasks<lanes, kernel<double>>(const __grid_constant__ kernel<double>, \
                                                            std::int64_t);

LGM_TEST_KERNEL(32, gather_kernel)
LGM_TEST_KERNEL(256, gather_kernel)
LGM_TEST_KERNEL(32, visit_kernel)
LGM_TEST_KERNEL(256, visit_kernel)
LGM_TEST_KERNEL(256, logits_kernel)
LGM_TEST_KERNEL(256, score_kernel)

}  // namespace lgm::detail
