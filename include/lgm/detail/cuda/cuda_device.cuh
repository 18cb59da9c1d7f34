// SPDX-License-Identifier: MIT
#pragma once

#include <cuda_runtime.h>
#include <cstddef>
#include <cstdint>
#include <lgm/cuda_context.cuh>
#include <lgm/detail/cuda/launch_shape.hpp>
#include <lgm/detail/cuda/product.cuh>
#include <lgm/detail/cuda/run_tasks.cuh>
#include <lgm/detail/device/launch.hpp>
#include <lgm/detail/number_format.hpp>
#include <lgm/detail/workspace.hpp>
#include <lgm/group.hpp>
#include <lgm/types.hpp>

namespace lgm::detail {

// The Device (detail/device/launch.hpp) behind a cuda_context.
class cuda_device {
 public:
  // scratch: for the products.
  cuda_device(const cuda_context& ctx, const workspace& scratch) : context_(ctx), scratch_(scratch) {}

  template <int... Widths, class Kernel>
  void launch(int lanes, std::int64_t tasks, const Kernel& kernel) {
    static_assert(sizeof(Kernel) <= 4000, "a kernel's arguments are at most 4 KiB");
    if (tasks <= 0 || result_ != status::success) return;
    ((lanes == Widths ? launch_groups<Widths>(tasks, kernel) : void()), ...);
  }

  template <class T>
  void multiply(number_format format, bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n,
                std::int64_t k, T alpha, const void* a, std::int64_t lda, const void* b, std::int64_t ldb,
                T beta, T* c, std::int64_t ldc) {
    if (m == 0 || n == 0 || result_ != status::success) return;
    if (k == 0) {
      if (beta == T(0)) launch_rows(*this, n, m, zero_kernel<T>{n, ldc, c});
      return;
    }
    const cublasStatus_t answer =
        cuda_product<T>(context_, scratch_)
            .enqueue(format, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    if (answer != CUBLAS_STATUS_SUCCESS) fail(status::product_failed, cudaSuccess, answer);
  }

  status result() const { return result_; }

 private:
  template <int Lanes, class Kernel>
  void launch_groups(std::int64_t tasks, const Kernel& kernel) {
    const launch_shape shape = launch_shape::make(Lanes, tasks);
    Kernel argument = kernel;
    void* arguments[] = {&argument, &tasks};
    const auto function = reinterpret_cast<const void*>(&run_tasks<Lanes, Kernel>);
    // The error of this launch alone; the caller's last error stays as it is.
    const cudaError_t answer =
        cudaLaunchKernel(function, dim3(static_cast<unsigned>(shape.blocks)),
                         dim3(static_cast<unsigned>(shape.threads)), arguments, 0, context_.stream);
    if (answer != cudaSuccess) fail(status::launch_failed, answer, CUBLAS_STATUS_SUCCESS);
  }

  // The first failure of a call is the call's.
  void fail(status result, cudaError_t cuda, cublasStatus_t cublas) {
    result_ = result;
    if (context_.failure != nullptr) *context_.failure = {cuda, cublas};
  }

  const cuda_context context_;
  const workspace scratch_;
  status result_ = status::success;
};

}  // namespace lgm::detail
