// SPDX-License-Identifier: MIT
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <cstddef>
#include <cstdint>
#include <lgm/cuda_context.cuh>
#include <lgm/detail/device.hpp>
#include <lgm/detail/launch_shape.hpp>
#include <lgm/detail/number_format.hpp>
#include <lgm/detail/run_tasks.cuh>
#include <lgm/detail/workspace.hpp>
#include <lgm/group.hpp>
#include <lgm/types.hpp>
#include <type_traits>

namespace lgm::detail {

// The Device (detail/device.hpp) behind a cuda_context.
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
    if (!enqueue_product(format, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc))
      result_ = status::product_failed;
  }

  status result() const { return result_; }

  // Enough for the partial sums of what is cut along its inner dimension, of which only small products are.
  static std::size_t scratch_bytes(const shape& s) {
    constexpr std::int64_t most = std::int64_t(32) << 20;
    const auto at_most = [&](std::int64_t rows, std::int64_t columns) {
      return smaller(most, bounded_product(bounded_product(rows, columns), 16 * sizeof(double)));
    };
    const std::int64_t bytes =
        larger(larger(at_most(s.samples, s.classes), at_most(s.samples, s.dims)), at_most(s.classes, s.dims));
    return static_cast<std::size_t>(bytes) / 256 * 256 + 256;
  }

 private:
  template <int Lanes, class Kernel>
  void launch_groups(std::int64_t tasks, const Kernel& kernel) {
    const launch_shape shape = launch_shape::make(Lanes, tasks);
    Kernel argument = kernel;
    void* arguments[] = {&argument, &tasks};
    const auto function = reinterpret_cast<const void*>(&run_tasks<Lanes, Kernel>);
    // Answers for this launch alone, and leaves the caller's last error as it is.
    if (cudaLaunchKernel(function, dim3(static_cast<unsigned>(shape.blocks)),
                         dim3(static_cast<unsigned>(shape.threads)), arguments, 0,
                         context_.stream) != cudaSuccess)
      result_ = status::launch_failed;
  }

  // cuBLAS is column-major: row-major c = op(a) op(b) is its transpose, op(b)' op(a)', of the same memory.
  template <class T>
  bool enqueue_product(number_format format, bool transpose_a, bool transpose_b, std::int64_t m,
                       std::int64_t n, std::int64_t k, T alpha, const void* a, std::int64_t lda,
                       const void* b, std::int64_t ldb, T beta, T* c, std::int64_t ldc) {
    constexpr bool is_float = std::is_same<T, float>::value;
    constexpr cudaDataType_t type = is_float ? CUDA_R_32F : CUDA_R_64F;
    const cudaDataType_t operand = format == number_format::half       ? CUDA_R_16F
                                   : format == number_format::bfloat16 ? CUDA_R_16BF
                                                                       : type;
    const cublasComputeType_t compute = !is_float                       ? CUBLAS_COMPUTE_64F
                                        : format == number_format::tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                                        : CUBLAS_COMPUTE_32F;
    const auto good = [](cublasStatus_t s) { return s == CUBLAS_STATUS_SUCCESS; };
    cublasLtMatmulDescOpaque_t operation;
    cublasLtMatrixLayoutOpaque_t left, right, out;
    const cublasOperation_t op_left = transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                            op_right = transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const auto rows = [](std::int64_t count) { return static_cast<std::uint64_t>(count); };
    const bool described = good(cublasLtMatmulDescInit(&operation, compute, type)) &&
                           good(cublasLtMatmulDescSetAttribute(&operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                                               &op_left, sizeof(op_left))) &&
                           good(cublasLtMatmulDescSetAttribute(&operation, CUBLASLT_MATMUL_DESC_TRANSB,
                                                               &op_right, sizeof(op_right))) &&
                           good(cublasLtMatrixLayoutInit(&left, operand, rows(transpose_b ? k : n),
                                                         rows(transpose_b ? n : k), ldb)) &&
                           good(cublasLtMatrixLayoutInit(&right, operand, rows(transpose_a ? m : k),
                                                         rows(transpose_a ? k : m), lda)) &&
                           good(cublasLtMatrixLayoutInit(&out, type, rows(n), rows(m), ldc));
    cublasLtMatmulPreferenceOpaque_t preference;
    cublasLtMatmulHeuristicResult_t algorithm{};
    int found = 0;
    void* const scratch = aligned_scratch();
    const auto lt = reinterpret_cast<cublasLtHandle_t>(context_.handle);
    return described && prefer(preference, b, a, c) &&
           good(cublasLtMatmulAlgoGetHeuristic(lt, &operation, &left, &right, &out, &out, &preference, 1,
                                               &algorithm, &found)) &&
           found > 0 &&
           good(cublasLtMatmul(lt, &operation, &alpha, b, &left, a, &right, &beta, c, &out, c, &out,
                               &algorithm.algo, scratch, scratch_size(), context_.stream));
  }

  // Algorithms that take our scratch, whatever the operands' alignment, and whose sums do not depend on who is first.
  bool prefer(cublasLtMatmulPreferenceOpaque_t& preference, const void* left, const void* right,
              const void* out) const {
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
      return cublasLtMatmulPreferenceSetAttribute(&preference, name, &value, sizeof(value)) ==
             CUBLAS_STATUS_SUCCESS;
    };
    const std::uint64_t bytes = scratch_size();
    const std::uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    return cublasLtMatmulPreferenceInit(&preference) == CUBLAS_STATUS_SUCCESS &&
           set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, bytes) &&
           set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, schemes) &&
           set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(left)) &&
           set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(right)) &&
           set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(out)) &&
           set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(out));
  }
  static std::uint32_t alignment_of(const void* pointer) {
    const auto address = reinterpret_cast<std::uintptr_t>(pointer);
    std::uint32_t alignment = 256;
    while (address % alignment != 0) alignment /= 2;
    return alignment;
  }
  // cuBLAS wants its scratch aligned to 256 bytes.
  void* aligned_scratch() const {
    const auto address = reinterpret_cast<std::uintptr_t>(scratch_.data);
    return reinterpret_cast<void*>((address + 255) / 256 * 256);
  }
  std::size_t scratch_size() const { return scratch_.bytes / 256 * 256 - 256; }

  const cuda_context context_;
  const workspace scratch_;
  status result_ = status::success;
};

}  // namespace lgm::detail
