// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/formula.hpp>
#include <lgm/group.hpp>

// A full covariance that all classes share, eq:whitening: the parts that a group computes. Lanes are scalars (a group of
// packets will not do).

namespace lgm {

// W of a small matrix: the inverse of its Cholesky factor L, Sigma = L L^T. Not numbers where it is not positive definite.
//   matrix  [n, n], row stride `stride`; its lower triangle is Sigma's on entry. On return W, zeros above its diagonal
//   factor  [n, n], scratch
template <class Group, class A>
LGM_HD void invert_cholesky(const Group& group, std::int64_t n, A* matrix, std::int64_t stride, A* factor) {
  using detail::fused;
  group.for_each(n * n, [&](std::int64_t at) { factor[at] = matrix[at / n * stride + at % n]; });
  for (std::int64_t j = 0; j < n; ++j) {
    group.one_lane([&] {
      A& pivot = factor[j * n + j];
      pivot = pivot > A(0) ? std::sqrt(pivot) : numeric<A>::not_a_number;
    });
    group.for_each(n - j - 1, [&](std::int64_t r) { factor[(j + 1 + r) * n + j] /= factor[j * n + j]; });
    const std::int64_t rest = n - j - 1;
    group.for_each(rest * rest, [&](std::int64_t at) {
      const std::int64_t i = j + 1 + at / rest, k = j + 1 + at % rest;
      if (k <= i) factor[i * n + k] = fused(-factor[i * n + j], factor[k * n + j], factor[i * n + k]);
    });
  }
  // Column j of L W = I, from the top.
  group.for_each(n, [&](std::int64_t j) {
    for (std::int64_t i = 0; i < n; ++i) {
      A sum = i == j ? A(1) : A(0);
      for (std::int64_t k = j; k < i; ++k) sum = fused(-factor[i * n + k], matrix[k * stride + j], sum);
      matrix[i * stride + j] = i < j ? A(0) : sum / factor[i * n + i];
    }
  });
}

// Whether row i of W is more than rounding. 1 / W_ii^2 is the variance of x_i that is left once all x_j before it are known. An
// entry of Sigma is off by a few epsilon times the deviations of its row and its column. So this variance is off by a few
// epsilon times the square of sum_j |W_ij| deviation_j. That error has to stay below the variance.
//   row        [i + 1], of W; deviation: the square roots of Sigma's diagonal
template <class Group, class A>
LGM_HD bool is_determined(const Group& group, std::int64_t i, const A* row, const A* deviation) {
  const A reach = group.reduce(
      i + 1, A(0), [&](std::int64_t j) { return std::fabs(row[j]) * deviation[j]; }, plus{});
  return A(16) * numeric<A>::epsilon * reach * reach <= A(1);
}

// y = W (x - c) of one sample.
//   matrix  [dims, dims], lower triangular; offset [dims], null: 0
//   x       [dims] in any form that load takes; y [dims], out, apart from x
template <class Group, class Row, class T>
LGM_HD void whiten_row(const Group& group, std::int64_t dims, const T* matrix, const T* offset, const Row& x,
                       T* y) {
  using detail::fused;
  group.for_each(dims, [&](std::int64_t i) {
    T sum = 0;
    for (std::int64_t j = 0; j <= i; ++j) {
      const T centred = offset != nullptr ? load(x, j) - offset[j] : load(x, j);
      sum = fused(matrix[i * dims + j], centred, sum);
    }
    y[i] = sum;
  });
}

}  // namespace lgm
