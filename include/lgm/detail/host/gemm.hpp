// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstdint>
#include <lgm/detail/host/eigen.hpp>
#include <lgm/detail/host/packet_group.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/detail/workspace.hpp>
#include <lgm/host_context.hpp>

// Matrix products on one thread, by the kernel inside Eigen's product. Eigen's product itself allocates memory and starts
// threads; the kernel takes its packing buffers from the caller.

namespace lgm::detail {

// Packing buffers of one thread, and how a product is cut to fit the caches. Eigen's own sizes follow the machine's caches.
// These are fixed, so that a workspace has the same size on every machine, and a larger one never holds less.
template <class T>
struct gemm_scratch {
  static constexpr std::int64_t inner_block = 192;  // a panel of both operands stays in the first-level cache
  static constexpr std::int64_t row_block = 480;    // of b's columns, which the kernel takes as its rows
  static constexpr std::int64_t column_block = 512;  // of a's rows

  // The kernel's panels: what it takes at once of b's columns, in packets and in all.
  using traits = Eigen::internal::gebp_traits<T, T>;
  static constexpr std::int64_t packet = traits::LhsProgress, panel = traits::mr;
  static_assert(panel == 2 * packet || panel == 3 * packet, "a kernel of another kind");
  static_assert(row_block % panel == 0 && column_block % traits::nr == 0, "blocks are whole panels");
  static constexpr std::int64_t strip = 64;  // of a's rows, against the last panel

  T* lhs = nullptr;
  T* rhs = nullptr;
  T* last = nullptr;  // [strip, panel]

  // Carves buffers for products of up to m x n with inner dimensions of up to k.
  void carve(arena& a, std::int64_t m, std::int64_t n, std::int64_t k) {
    const std::int64_t inner = smaller(k, inner_block);
    lhs = a.take<T>(inner * (smaller(n, row_block - 1) / panel + 1) * panel);
    rhs = a.take<T>(inner * smaller(m, column_block));
    last = a.take<T>(strip * panel);
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

// The rows of a matrix as Eigen's packing reads them; below the last one there is the last one again.
template <class T>
struct padded_rows {
  using LinearMapper = const T*;  // asked for, but not used

  const T* data;
  std::int64_t stride, last;

  const T* at(std::int64_t row, std::int64_t column) const {
    return data + smaller(row, last) * stride + column;
  }
  T operator()(std::int64_t row, std::int64_t column) const { return *at(row, column); }
  template <class Packet>
  Packet loadPacket(std::int64_t row, std::int64_t column) const {
    return Eigen::internal::ploadu<Packet>(at(row, column));
  }
};

// Panels of a product that the kernel takes in one call: `count` columns from `first` on, filled up to `padded`.
struct gemm_panels {
  std::int64_t first = 0, count = 0, padded = 0;
};

// How n columns are cut into panels of three packets and of two (panel: the widest, in elements): as many of the widest as
// leave no single packet. At most three parts; those behind are empty.
inline std::array<gemm_panels, 3> cut_panels(std::int64_t n, std::int64_t panel, std::int64_t packet) {
  const std::int64_t pair = 2 * packet;
  std::int64_t whole = n / panel * panel, between = 0;
  if (panel > pair && whole > 0 && n > whole && n - whole <= packet) {
    whole -= panel;
    between = pair;
  }
  const std::int64_t first = whole + between, rest = n - first;
  return {{{0, whole, whole},
           {whole, between, between},
           {first, rest,
            rest == 0      ? 0
            : rest <= pair ? pair
                           : panel}}};
}

// The first columns of some rows from one matrix into another.
template <class T>
void copy_columns(std::int64_t columns, std::int64_t rows, const T* from, std::int64_t from_stride, T* to,
                  std::int64_t to_stride) {
  using P = packet<T>;
  for (; rows > 0; --rows, from += from_stride, to += to_stride) {
    for (std::int64_t k = 0; k + P::size <= columns; k += P::size) P::load(from + k).store(to + k);
    if (columns >= P::size)
      P::load(from + columns - P::size).store(to + columns - P::size);
    else
      for (std::int64_t k = 0; k < columns; ++k) to[k] = from[k];
  }
}

// c [m, n] += a b^T, all row-major with row strides lda, ldb, ldc; a [m, k], b [n, k]. An element of the product has the same
// bits wherever it lies and whatever m and n are: it follows from its two vectors alone.
//
// Eigen's kernel sums over k in order in panels of three or two packets of b's rows, however many rows a has. In the narrower
// panels that take the rest it keeps several partial sums. Here there is no rest.
template <class T>
void ordered_gemm(std::int64_t m, std::int64_t n, std::int64_t k, const T* a, std::int64_t lda, const T* b,
                  std::int64_t ldb, T* c, std::int64_t ldc, const gemm_scratch<T>& scratch) {
  using namespace Eigen::internal;
  using sizes = gemm_scratch<T>;
  using traits = typename sizes::traits;
  using rows_of = padded_rows<T>;
  using columns_of = const_blas_data_mapper<T, Eigen::Index, Eigen::ColMajor>;
  using result = blas_data_mapper<T, Eigen::Index, Eigen::ColMajor, Eigen::Unaligned, 1>;
  gemm_pack_lhs<T, Eigen::Index, rows_of, traits::mr, traits::LhsProgress, typename traits::LhsPacket4Packing,
                Eigen::RowMajor>
      pack_panels;
  gemm_pack_rhs<T, Eigen::Index, columns_of, traits::nr, Eigen::ColMajor> pack_columns;
  gebp_kernel<T, T, Eigen::Index, result, traits::mr, traits::nr, false, false> multiply;

  for (std::int64_t i = 0; i < n; i += sizes::row_block) {
    const auto parts = cut_panels(smaller(sizes::row_block, n - i), sizes::panel, sizes::packet);
    for (std::int64_t l = 0; l < k; l += sizes::inner_block) {
      const std::int64_t depth = smaller(sizes::inner_block, k - l);
      for (const gemm_panels& p : parts) {
        pack_panels(scratch.lhs + p.first * depth, rows_of{b + (i + p.first) * ldb + l, ldb, p.count - 1},
                    depth, p.padded);
      }
      for (std::int64_t j = 0; j < m; j += sizes::column_block) {
        const std::int64_t rows = smaller(sizes::column_block, m - j);
        pack_columns(scratch.rhs, columns_of(a + j * lda + l, lda), depth, rows);
        for (const gemm_panels& p : parts) {
          const T* const packed = scratch.lhs + p.first * depth;
          T* const out = c + j * ldc + i + p.first;
          if (p.count == p.padded) {
            if (p.count > 0) multiply(result(out, ldc), packed, scratch.rhs, p.count, depth, rows, T(1));
            continue;
          }
          for (std::int64_t s = 0; s < rows; s += sizes::strip) {
            const std::int64_t strip = smaller(sizes::strip, rows - s);
            copy_columns(p.count, strip, out + s * ldc, ldc, scratch.last, p.padded);
            multiply(result(scratch.last, p.padded), packed, scratch.rhs + s * depth, p.padded, depth, strip,
                     T(1));
            copy_columns(p.count, strip, scratch.last, p.padded, out + s * ldc, ldc);
          }
        }
      }
    }
  }
}

// The same by the caller's hook. Returns false where there is none, or where it declined; c then is as it was.
template <class T>
bool external_gemm(const gemm_hook& hook, bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n,
                   std::int64_t k, T alpha, const T* a, std::int64_t lda, const T* b, std::int64_t ldb,
                   T beta, T* c, std::int64_t ldc) {
  const auto function = hook.of<T>();
  if (function == nullptr || m <= 0 || n <= 0 || k <= 0) return false;
  return function(hook.user, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

}  // namespace lgm::detail
