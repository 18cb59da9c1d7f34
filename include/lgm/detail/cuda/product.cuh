// SPDX-License-Identifier: MIT
#pragma once

#include <cublasLt.h>
#include <cstddef>
#include <cstdint>
#include <lgm/cuda_context.cuh>
#include <lgm/detail/number_format.hpp>
#include <lgm/types.hpp>
#include <type_traits>

// Matrix products by cuBLASLt: the host's code alone, which any C++ compiler compiles.

namespace lgm::detail {

// One product: where it runs, the scratch that it may use, and what cuBLASLt takes for it. T is float or double.
template <class T>
class cuda_product {
 public:
  // scratch: at least 256 bytes, of any alignment.
  cuda_product(const cuda_context& context, const workspace& scratch)
      : context_(context), scratch_(scratch) {}

  // Enqueues c = alpha op(a) op(b) + beta c. Returns the first status of cuBLASLt that is not success.
  // cuBLAS is column-major: row-major c = op(a) op(b) is its transpose, op(b)' op(a)', of the same memory.
  cublasStatus_t enqueue(number_format format, bool transpose_a, bool transpose_b, std::int64_t m,
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
    const auto lt = reinterpret_cast<cublasLtHandle_t>(context_.handle);
    const bool chosen = described && prefer(preference, b, a, c) &&
                        good(cublasLtMatmulAlgoGetHeuristic(lt, &operation, &left, &right, &out, &out,
                                                            &preference, 1, &algorithm, &found)) &&
                        good(found > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED);
    if (chosen)
      good(cublasLtMatmul(lt, &operation, &alpha, b, &left, a, &right, &beta, c, &out, c, &out,
                          &algorithm.algo, aligned_scratch(), scratch_size(), context_.stream));
    return answer_;
  }

 private:
  bool good(cublasStatus_t answer) {
    answer_ = answer;
    return answer == CUBLAS_STATUS_SUCCESS;
  }

  // Admits algorithms that fit the scratch and the operands' alignment, and whose sums are in a fixed order.
  bool prefer(cublasLtMatmulPreferenceOpaque_t& preference, const void* left, const void* right,
              const void* out) {
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t name, const auto& value) {
      return good(cublasLtMatmulPreferenceSetAttribute(&preference, name, &value, sizeof(value)));
    };
    const std::uint64_t bytes = scratch_size();
    const std::uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    return good(cublasLtMatmulPreferenceInit(&preference)) &&
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

  const cuda_context& context_;
  const workspace scratch_;
  cublasStatus_t answer_ = CUBLAS_STATUS_SUCCESS;
};

}  // namespace lgm::detail
