// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/detail/eigen.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/detail/workspace.hpp>
#include <lgm/host_context.hpp>

// Matrix products on one thread through the kernel inside Eigen's product. The product itself would take
// memory from the heap and start threads of its own; the kernel takes its packing buffers from whoever calls
// it.

namespace lgm::detail {

// Packing buffers of one thread, and how a product is cut to fit the caches: fixed sizes rather than Eigen's,
// which follow the machine's caches, so that a workspace has the same size everywhere and a larger one never
// fits less.
template <class T>
struct gemm_scratch {
  static constexpr std::int64_t inner_block = 192;  // a panel of both operands stays in the first-level cache
  static constexpr std::int64_t row_block = 480;    // of b's columns, which the kernel takes as its rows
  static constexpr std::int64_t column_block = 512;  // of a's rows

  T* lhs = nullptr;
  T* rhs = nullptr;

  // Carves buffers for products of up to m x n with inner dimensions of up to k.
  void carve(arena& a, std::int64_t m, std::int64_t n, std::int64_t k) {
    const std::int64_t inner = smaller(k, inner_block);
    lhs = a.take<T>(inner * smaller(n, row_block));
    rhs = a.take<T>(inner * smaller(m, column_block));
  }
};

enum class transposed { no, yes };

// c [m, n] += alpha * a b, all row-major with row strides lda, ldb, ldc. a is [m, k], or [k, m] where
// transposed; b is [k, n], or [n, k] where transposed.
template <transposed A, transposed B, class T>
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, T alpha, const T* a, std::int64_t lda, const T* b,
          std::int64_t ldb, T* c, std::int64_t ldc, const gemm_scratch<T>& scratch) {
  if (m <= 0 || n <= 0 || k <= 0) return;
  struct carved : Eigen::internal::level3_blocking<T, T> {
    carved(const gemm_scratch<T>& s, std::int64_t rows, std::int64_t columns, std::int64_t inner) {
      this->m_kc = smaller(inner, s.inner_block);
      this->m_mc = smaller(columns, s.row_block);
      this->m_nc = smaller(rows, s.column_block);
      this->m_blockA = s.lhs;
      this->m_blockB = s.rhs;
    }
  } blocking(scratch, m, n, k);
  constexpr int a_order = A == transposed::yes ? Eigen::ColMajor : Eigen::RowMajor;
  constexpr int b_order = B == transposed::yes ? Eigen::ColMajor : Eigen::RowMajor;
  Eigen::internal::general_matrix_matrix_product<Eigen::Index, T, a_order, false, T, b_order, false,
                                                 Eigen::RowMajor, 1>::run(m, n, k, a, lda, b, ldb, c, 1, ldc,
                                                                          alpha, blocking);
}

// The same through the caller's hook; false: there is none, or it has not done it, and c is as it was.
template <class T>
bool external_gemm(const gemm_hook& hook, bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n,
                   std::int64_t k, T alpha, const T* a, std::int64_t lda, const T* b, std::int64_t ldb,
                   T beta, T* c, std::int64_t ldc) {
  const auto function = hook.of<T>();
  if (function == nullptr || m <= 0 || n <= 0 || k <= 0) return false;
  return function(hook.user, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

}  // namespace lgm::detail
