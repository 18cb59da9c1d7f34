// SPDX-License-Identifier: MIT
#pragma once

// For the files that compile the CUDA driver for compiled_cuda.hpp: what that one only declares.

#define LGM_TEST_INSTANTIATING
#include "support/compiled_cuda.hpp"

namespace support {

cublasHandle_t shared_handle();

template <class F>
void compiled_cuda_device::on_cuda(F f) {
  if (result_ != lgm::status::success) return;
  const cublasHandle_t handle = context_.handle != nullptr ? context_.handle : shared_handle();
  lgm::detail::cuda_device device({context_.stream, handle, context_.precision, context_.tile_bytes},
                                  scratch_);
  f(device);
  result_ = device.result();
}

template <int... Widths, class Kernel>
void compiled_cuda_device::launch(int lanes, std::int64_t tasks, const Kernel& kernel) {
  on_cuda([&](lgm::detail::cuda_device& device) { device.launch<Widths...>(lanes, tasks, kernel); });
}

template <class T>
void compiled_cuda_device::multiply(lgm::detail::number_format format, bool transpose_a, bool transpose_b,
                                    std::int64_t m, std::int64_t n, std::int64_t k, T alpha, const void* a,
                                    std::int64_t lda, const void* b, std::int64_t ldb, T beta, T* c,
                                    std::int64_t ldc) {
  on_cuda([&](lgm::detail::cuda_device& device) {
    device.multiply(format, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  });
}

}  // namespace support
