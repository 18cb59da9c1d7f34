// SPDX-License-Identifier: MIT
#include "unit.hpp"

// Compiled without OpenMP; matrix products of its own through the hook.

namespace two_units {

namespace {

// c = alpha op(a) op(b) + beta c by its definition, summed in double.
template <class T>
bool multiply(void* user, bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
              T alpha, const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T beta, T* c,
              std::int64_t ldc) {
  ++*static_cast<long*>(user);
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (std::int64_t l = 0; l < k; ++l)
        sum += static_cast<double>(a[transpose_a ? l * lda + i : i * lda + l]) *
               static_cast<double>(b[transpose_b ? j * ldb + l : l * ldb + j]);
      T& out = c[i * ldc + j];
      out = static_cast<T>(static_cast<double>(alpha) * sum) + (beta == T(0) ? T(0) : beta * out);
    }
  return true;
}

template <class T>
results<T> compute_with_products(lgm::covariance covariance) {
  long calls = 0;
  lgm::host_context context = three_threads();
  context.gemm = {multiply<float>, multiply<double>, &calls};
  results<T> r = compute<T>(context, covariance);
  r.hook_calls = calls;
  return r;
}

}  // namespace

results<float> gemm_float(lgm::covariance covariance) { return compute_with_products<float>(covariance); }
results<double> gemm_double(lgm::covariance covariance) { return compute_with_products<double>(covariance); }

}  // namespace two_units
