// SPDX-License-Identifier: MIT
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <lgm/types.hpp>
#include <stdexcept>
#include <string>

namespace cuda_trainer {

// Every answer of CUDA, cuBLAS and lgm is looked at: what is not a success is thrown.
inline void must(cudaError_t answer) {
  if (answer != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(answer));
}
inline void must(cublasStatus_t answer) {
  if (answer != CUBLAS_STATUS_SUCCESS)
    throw std::runtime_error(std::string("cuBLAS: ") + cublasGetStatusString(answer));
}
inline void must(lgm::status answer) {
  if (answer != lgm::status::success) throw std::runtime_error(std::string("lgm: ") + lgm::to_string(answer));
}

}  // namespace cuda_trainer
