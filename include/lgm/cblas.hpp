// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <initializer_list>
#include <lgm/host_context.hpp>
#include <limits>
#include <type_traits>

// The matrix products of any CBLAS (OpenBLAS, MKL, BLIS, Accelerate, ...) for host_context::gemm:
//
//   #include <cblas.h>
//   #include <lgm/cblas.hpp>
//   context.gemm = lgm::cblas_gemm<cblas_sgemm, cblas_dgemm>();
//
// It takes the two functions rather than a header, so that the library's name for its header, a suffix (cblas_sgemm64_)
// and the width of its integers do not matter. Threads are the BLAS's own: context.threads does not reach it.

namespace lgm {
namespace detail {

// A cblas_?gemm as a gemm_hook::function<T>.
template <auto Gemm>
struct cblas_call;

template <class T, class Order, class Transpose, class Int, class Alpha, class Result,
          Result (*Gemm)(Order, Transpose, Transpose, Int, Int, Int, Alpha, const T*, Int, const T*, Int,
                         Alpha, T*, Int)>
struct cblas_call<Gemm> {
  static bool run(void*, bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
                  T alpha, const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T beta, T* c,
                  std::int64_t ldc) {
    for (const std::int64_t size : {m, n, k, lda, ldb, ldc})
      if (size > static_cast<std::int64_t>((std::numeric_limits<std::remove_const_t<Int>>::max)()))
        return false;
    // The values of CBLAS's enums, the same in every library.
    const auto transpose = [](bool is) { return static_cast<Transpose>(is ? 112 : 111); };
    const auto size = [](std::int64_t s) { return static_cast<Int>(s); };
    Gemm(static_cast<Order>(101), transpose(transpose_a), transpose(transpose_b), size(m), size(n), size(k),
         alpha, a, size(lda), b, size(ldb), beta, c, size(ldc));
    return true;
  }
};

}  // namespace detail

template <auto Sgemm, auto Dgemm>
gemm_hook cblas_gemm() {
  gemm_hook hook;
  hook.sgemm = detail::cblas_call<Sgemm>::run;
  hook.dgemm = detail::cblas_call<Dgemm>::run;
  return hook;
}

}  // namespace lgm
