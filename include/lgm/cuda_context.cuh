// SPDX-License-Identifier: MIT
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <cstddef>
#include <lgm/types.hpp>

// Where CUDA functions run.

namespace lgm {

// The code of a call that could not be enqueued.
struct cuda_failure {
  cudaError_t cuda = cudaSuccess;                 // of a kernel (status::launch_failed)
  cublasStatus_t cublas = CUBLAS_STATUS_SUCCESS;  // of a product (status::product_failed)
};

struct cuda_context {
  // Work is enqueued here and nowhere else; may be capturing. Calls on two streams do not disturb each other, each with a
  // workspace of its own.
  cudaStream_t stream = nullptr;
  // Of the device that the stream and all pointers belong to. Its state (stream, workspace, modes) is neither read nor
  // written: products take their stream and workspace with each call.
  cublasHandle_t handle = nullptr;
  // How matrix products are made.
  lgm::precision precision = lgm::precision::highest;
  // What the workspace is kept within, where the shape allows it. It takes no more than a call has use for: all classes of up to
  // 16,384 samples at a time. Less makes heads of many classes slower, which then compute their logits twice.
  std::size_t tile_bytes = std::size_t(6) << 30;
  // Where not null, on the host: a call that returns launch_failed or product_failed says why; others leave it as it is.
  cuda_failure* failure = nullptr;
};

}  // namespace lgm
