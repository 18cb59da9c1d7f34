// SPDX-License-Identifier: MIT
#include "support/compiled_cuda.cuh"

#include <lgm/detail/cuda/product_scratch.hpp>

// What is not a template.

namespace support {

cublasHandle_t shared_handle() {
  static const cublasHandle_t handle = [] {
    cublasHandle_t made = nullptr;
    return cublasCreate(&made) == CUBLAS_STATUS_SUCCESS ? made : nullptr;
  }();
  return handle;
}

lgm::status compiled_cuda_device::result() const {
  if (result_ != lgm::status::success || !context_.waits) return result_;
  return cudaStreamSynchronize(context_.stream) == cudaSuccess ? result_ : lgm::status::launch_failed;
}

// For the benchmarks' products.
template void compiled_cuda_device::multiply<float>(lgm::detail::number_format, bool, bool, std::int64_t,
                                                    std::int64_t, std::int64_t, float, const void*,
                                                    std::int64_t, const void*, std::int64_t, float, float*,
                                                    std::int64_t);
template void compiled_cuda_device::multiply<double>(lgm::detail::number_format, bool, bool, std::int64_t,
                                                     std::int64_t, std::int64_t, double, const void*,
                                                     std::int64_t, const void*, std::int64_t, double, double*,
                                                     std::int64_t);

}  // namespace support

std::size_t lgm::detail::device_traits<support::compiled_cuda>::scratch_bytes(const support::compiled_cuda&,
                                                                              const shape& s) {
  return product_scratch_bytes(s);
}
