// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/detail/host/packet_group.hpp>

// Products with weights of which most are zero, on one thread: a row of the other operand for each weight that is not.

namespace lgm::detail {

// f(k, weight) for the weights of a row, [n], that are not zero.
template <class T, class F>
void for_nonzero(std::int64_t n, const T* weights, F f) {
  constexpr int size = packet<T>::size;
  const packet<T> zero(T(0));
  for (std::int64_t k = 0; k < n; k += size) {
    const int count = static_cast<int>(n - k < size ? n - k : size);
    if (!any_different(load(weights, packet_index{k, count}), zero)) continue;
    for (std::int64_t i = k; i < k + count; ++i)
      if (weights[i] != T(0)) f(i, weights[i]);
  }
}

// Whether so few of weights [rows, columns] are not zero that a matrix product would be slower: its multiply-adds take
// their operands from registers, those of the functions below from memory.
template <class T>
bool is_sparse(std::int64_t rows, std::int64_t columns, const T* weights, std::int64_t stride) {
  std::int64_t left = rows * columns / 16;
  for (std::int64_t i = 0; i < rows && left >= 0; ++i)
    for_nonzero(columns, weights + i * stride, [&](std::int64_t, T) { --left; });
  return left >= 0;
}

// out += factor * row, [n] each.
template <class T>
void add_row(std::int64_t n, T factor, const T* row, T* out) {
  packet_group<T>{}.for_each(
      n, [&](packet_index j) { store(out, j, fused(packet<T>(factor), load(row, j), load(out, j))); });
}

// c [m, n] += alpha * a b: weights a [m, k], b [k, n], all row-major with row strides lda, ldb, ldc.
template <class T>
void sparse_gemm(std::int64_t m, std::int64_t n, std::int64_t k, T alpha, const T* a, std::int64_t lda,
                 const T* b, std::int64_t ldb, T* c, std::int64_t ldc) {
  for (std::int64_t i = 0; i < m; ++i)
    for_nonzero(k, a + i * lda,
                [&](std::int64_t l, T w) { add_row(n, alpha * w, b + l * ldb, c + i * ldc); });
}

// The same with a transposed: c [m, n] += a^T b, weights a [k, m].
template <class T>
void sparse_gemm_transposed(std::int64_t m, std::int64_t n, std::int64_t k, const T* a, std::int64_t lda,
                            const T* b, std::int64_t ldb, T* c, std::int64_t ldc) {
  for (std::int64_t l = 0; l < k; ++l)
    for_nonzero(m, a + l * lda, [&](std::int64_t i, T w) { add_row(n, w, b + l * ldb, c + i * ldc); });
}

}  // namespace lgm::detail
