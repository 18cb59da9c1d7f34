// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/detail/device/launch.hpp>
#include <lgm/detail/device/tuning.hpp>
#include <lgm/detail/number_format.hpp>
#include <lgm/detail/scalar.hpp>

// The three loops over samples, classes and dims of a diagonal covariance, detail/host/direct.hpp's counterpart: on
// differences, so that nothing cancels. A lane has one column of the result and a block of its rows in registers. Lanes read
// neighbouring addresses of what belongs to columns, and the same address of what belongs to rows.

namespace lgm::detail {

using tuning::direct_columns;
using tuning::direct_rows;

// Tasks of [rows, columns] results.
constexpr std::int64_t direct_tasks(std::int64_t rows, std::int64_t columns) {
  return ceil_divide(rows, direct_rows) * ceil_divide(columns, direct_columns);
}

// f(column, first_row, rows) for the columns of a task, a lane each; rows <= direct_rows.
template <class Group, class F>
LGM_HD void for_direct_block(const Group& group, std::int64_t task, std::int64_t rows, std::int64_t columns,
                             F f) {
  const std::int64_t blocks = ceil_divide(rows, direct_rows), first = task % blocks * direct_rows;
  const std::int64_t begin = task / blocks * direct_columns;
  const std::int64_t n = smaller(direct_columns, columns - begin);
  const std::int64_t count = smaller(std::int64_t(direct_rows), rows - first);
  group.for_each(n, [&](std::int64_t c) { f(begin + c, first, static_cast<int>(count)); });
}

// out [rows, classes] = -d_ik (eq:distance). deviation, shift: [dims, classes], row stride class_stride, 1 / sigma and
// mu' / sigma.
template <class T>
struct direct_logits_kernel {
  std::int64_t rows, classes, dims, class_stride, out_stride;
  const T *features, *deviation, *shift;  // features: [rows, dims], centred
  T* out;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    for_direct_block(group, task, rows, classes, [&](std::int64_t k, std::int64_t first, int count) {
      // Partial sums over this many dimensions keep the rounding of long sums down.
      constexpr std::int64_t chunk = 64;
      T total[direct_rows] = {};
      for (std::int64_t begin = 0; begin < dims; begin += chunk) {
        const std::int64_t end = smaller(dims, begin + chunk);
        T sum[direct_rows] = {};
        for (std::int64_t j = begin; j < end; ++j) {
          const T inverse = deviation[j * class_stride + k], shifted = shift[j * class_stride + k];
          for (int r = 0; r < direct_rows; ++r) {
            // Rows beyond the last are computed as the last once more.
            const T t = fused(features[(first + smaller(r, count - 1)) * dims + j], inverse, -shifted);
            sum[r] = fused(t, t, sum[r]);
          }
        }
        for (int r = 0; r < direct_rows; ++r) total[r] += sum[r];
      }
      for (int r = 0; r < direct_rows; ++r)
        if (r < count) out[(first + r) * out_stride + k] = T(-0.5) * total[r];
    });
  }
};

// The classes' part of eq:grad_feature: out [rows, dims] += sum_k w_ik (x'_ij / Lambda_kj - mu'_kj / Lambda_kj).
template <class T>
struct direct_feature_kernel {
  std::int64_t rows, classes, dims, weight_stride, out_stride;
  const T *weights, *features, *inverse,
      *scaled_mean;  // features [rows, dims], centred; inverse, ... [classes, dims]
  T* out;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    for_direct_block(group, task, rows, dims, [&](std::int64_t j, std::int64_t first, int count) {
      T x[direct_rows], sum[direct_rows] = {};
      for (int r = 0; r < direct_rows; ++r) x[r] = features[(first + smaller(r, count - 1)) * dims + j];
      for (std::int64_t k = 0; k < classes; ++k) {
        const T a = inverse[k * dims + j], m = scaled_mean[k * dims + j];
        for (int r = 0; r < direct_rows; ++r)
          sum[r] =
              fused(weights[(first + smaller(r, count - 1)) * weight_stride + k], fused(x[r], a, -m), sum[r]);
      }
      for (int r = 0; r < direct_rows; ++r)
        if (r < count) out[(first + r) * out_stride + j] += sum[r];
    });
  }
};

// The samples' part of eq:grad_mean and eq:grad_log_variance: difference [classes, dims] = sum_i w_ik (x_ij - mu_kj), and
// square, where not null, the same of the squares. Rows with counts[i] == 0 are not read. The samples are in parts, whose sums are
// apart: [classes, parts, dims].
template <class T>
struct direct_sums_kernel {
  std::int64_t rows, classes, dims, parts, weight_stride, feature_stride;
  const T *weights, *mean;   // mean [classes, dims]
  number_array<T> features;  // as the caller has them
  const std::int64_t* counts;
  T *difference, *square;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t part = task % parts, begin = rows * part / parts, end = rows * (part + 1) / parts;
    for_direct_block(group, task / parts, classes, dims, [&](std::int64_t j, std::int64_t first, int count) {
      T mu[direct_rows], sum[direct_rows] = {}, sum_square[direct_rows] = {};
      for (int c = 0; c < direct_rows; ++c) mu[c] = mean[(first + smaller(c, count - 1)) * dims + j];
      for (std::int64_t i = begin; i < end; ++i) {
        if (counts[i] == 0) continue;
        const T x = load(features, i * feature_stride + j);
        for (int c = 0; c < direct_rows; ++c) {
          const T t = x - mu[c];
          const T u = weights[i * weight_stride + first + smaller(c, count - 1)] * t;
          sum[c] += u;
          sum_square[c] = fused(u, t, sum_square[c]);
        }
      }
      for (int c = 0; c < direct_rows; ++c) {
        if (c >= count) continue;
        const std::int64_t at = ((first + c) * parts + part) * dims + j;
        difference[at] = sum[c];
        if (square != nullptr) square[at] = sum_square[c];
      }
    });
  }
};

}  // namespace lgm::detail
