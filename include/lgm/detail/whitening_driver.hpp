// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/check.hpp>
#include <lgm/detail/device/launch.hpp>
#include <lgm/detail/number_format.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/detail/workspace.hpp>
#include <lgm/group.hpp>
#include <lgm/types.hpp>
#include <lgm/whitening.hpp>

// The driver of a shared covariance, for the host (detail/host/as_device.hpp) and for devices alike: nearly all of the work is
// in its products. The Cholesky factor of the covariance is made one block of columns at a time, each from all before it. It is
// inverted in its own memory, the last block of columns first.

namespace lgm::detail {

// The side of a block. Its own factor is made by one group.
constexpr std::int64_t whitening_block = 64;

template <class A>
struct whitening_buffers {
  A* factor;     // [dims, dims]: the covariance's lower triangle, then L, then W; zeros above the diagonal
  A* panel;      // [dims, whitening_block], of products that replace one of their operands; a block's scratch
  A* deviation;  // [dims], the square roots of the covariance's diagonal
  A* sums;       // [3]: samples, trace of the scatter, and log |det W|

  whitening_buffers(arena& a, std::int64_t dims) {
    factor = a.take<A>(bounded_product(dims, dims));
    panel = a.take<A>(bounded_product(larger(dims, std::int64_t(1)), whitening_block));
    deviation = a.take<A>(dims);
    sums = a.take<A>(3);
  }
};

template <class A>
struct whitening_sums_kernel {
  std::int64_t classes, dims;
  class_moments<A> moments;
  A* sums;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t) const {
    const double samples = group.reduce(
        classes, 0.0, [&](std::int64_t k) { return static_cast<double>(moments.count[k]); }, plus{});
    const double trace = group.reduce(
        dims, 0.0, [&](std::int64_t j) { return static_cast<double>(moments.scatter[j * dims + j]); },
        plus{});
    group.one_lane([&] {
      sums[0] = static_cast<A>(samples);
      sums[1] = static_cast<A>(trace);
    });
  }
};

// Row i of the covariance, from the scatter's upper triangle, and its deviation.
template <class A>
struct covariance_kernel {
  std::int64_t dims;
  const A* scatter;
  A shrinkage, floor;
  whitening_buffers<A> b;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t i) const {
    const A samples = b.sums[0], share = (A(1) - shrinkage) / samples;
    const A added = shrinkage * (b.sums[1] / (samples * static_cast<A>(dims))) + floor;
    A* const row = b.factor + i * dims;
    group.for_each(dims, [&](std::int64_t j) {
      row[j] = j > i ? A(0) : share * scatter[j * dims + i] + (i == j ? added : A(0));
    });
    group.one_lane([&] { b.deviation[i] = std::sqrt(row[i]); });
  }
};

template <class A>
struct invert_block_kernel {
  std::int64_t dims, first, size;
  whitening_buffers<A> b;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t) const {
    invert_cholesky(group, size, b.factor + first * (dims + 1), dims, b.panel);
  }
};

// Row i of the panel moves to its place in the factor.
template <class A>
struct place_panel_kernel {
  std::int64_t columns, stride;
  const A* panel;
  A* out;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t i) const {
    group.for_each(columns, [&](std::int64_t j) { out[i * stride + j] = panel[i * columns + j]; });
  }
};

// Writes to the panel, which is free by now: 0, or 1 where row i of W is only rounding.
template <class A>
struct check_row_kernel {
  std::int64_t dims;
  whitening_buffers<A> b;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t i) const {
    const A* const row = b.factor + i * dims;
    const bool good = is_determined(group, i, row, static_cast<const A*>(b.deviation));
    group.one_lane([&] { b.panel[i] = A(good ? 0 : 1); });
  }
};

template <class A>
struct log_abs_det_kernel {
  std::int64_t dims;
  whitening_buffers<A> b;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t) const {
    const A bad = group.reduce(
        dims, A(0), [&](std::int64_t i) { return b.panel[i]; }, plus{});
    const double sum = group.reduce(
        dims, 0.0, [&](std::int64_t j) { return static_cast<double>(std::log(b.factor[j * (dims + 1)])); },
        plus{});
    group.one_lane([&] { b.sums[2] = bad == A(0) ? static_cast<A>(sum) : numeric<A>::not_a_number; });
  }
};

// Row i of W, and with row 0 log |det W|. All of it is NaN where the covariance was not positive definite.
template <class A, class T>
struct write_whitening_kernel {
  std::int64_t dims;
  whitening_buffers<A> b;
  whitening<T> out;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t i) const {
    const bool usable = std::isfinite(b.sums[2]);
    group.for_each(dims, [&](std::int64_t j) {
      const std::int64_t at = i * dims + j;
      out.matrix[at] = usable ? static_cast<T>(b.factor[at]) : numeric<T>::not_a_number;
    });
    if (i == 0 && out.log_abs_det != nullptr)
      group.one_lane(
          [&] { *out.log_abs_det = usable ? static_cast<T>(b.sums[2]) : numeric<T>::not_a_number; });
  }
};

// The mean of all samples, some dimensions to a task.
constexpr std::int64_t offset_columns = 128;
template <class A, class T>
struct offset_kernel {
  std::int64_t classes, dims;
  class_moments<A> moments;
  const A* sums;
  T* offset;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t begin = task * offset_columns;
    group.for_each(smaller(offset_columns, dims - begin), [&](std::int64_t c) {
      A sum = 0;
      for (std::int64_t k = 0; k < classes; ++k)
        if (moments.count[k] != A(0))
          sum = fused(moments.count[k] / sums[0], moments.mean[k * dims + begin + c], sum);
      offset[begin + c] = static_cast<T>(sum);
    });
  }
};

template <class A, class T>
status check_whitening(const shape& s, const class_moments<A>& m, const whitening_options<T>& o,
                       const whitening<T>& out) {
  const bool usable = usable_factor(o.variance_floor) && o.shrinkage >= T(0) && o.shrinkage <= T(1);
  const bool missing = s.dims > 0 && (m.scatter == nullptr || out.matrix == nullptr);
  return first_failure(
      check_shape(s), check_moments(s, m), out.offset != nullptr ? check_mean(s, m.mean) : status::success,
      missing ? status::null_pointer : status::success, usable ? status::success : status::invalid_option,
      addressable(s.dims, s.dims) ? status::success : status::size_too_large);
}

template <class Device, class A, class T>
class whitening_driver {
 public:
  whitening_driver(Device& device, const shape& s, const class_moments<A>& moments, const whitening<T>& out,
                   const whitening_buffers<A>& b)
      : device_(device), classes_(s.classes), dims_(s.dims), moments_(moments), out_(out), b_(b) {}

  // W, and its logarithm in sums[2], into the buffers.
  void factor(const whitening_options<T>& o) {
    device_.template launch<256>(256, 1, whitening_sums_kernel<A>{classes_, dims_, moments_, b_.sums});
    launch_rows(device_, dims_, dims_,
                covariance_kernel<A>{dims_, moments_.scatter, static_cast<A>(o.shrinkage),
                                     static_cast<A>(o.variance_floor), b_});
    for (std::int64_t first = 0; first < dims_; first += whitening_block) factor_columns(first);
    for (std::int64_t first = dims_ == 0 ? 0 : (dims_ - 1) / whitening_block * whitening_block; first > 0;
         first -= whitening_block)
      invert_columns(first - whitening_block);
    launch_rows(device_, dims_, dims_, check_row_kernel<A>{dims_, b_});
    device_.template launch<256>(256, 1, log_abs_det_kernel<A>{dims_, b_});
  }

  void write() {
    // Also without dimensions, for the logarithm.
    launch_rows(device_, dims_, larger(dims_, std::int64_t(1)),
                write_whitening_kernel<A, T>{dims_, b_, out_});
    if (out_.offset != nullptr)
      launch_rows(device_, smaller(dims_, offset_columns), ceil_divide(dims_, offset_columns),
                  offset_kernel<A, T>{classes_, dims_, moments_, b_.sums, out_.offset});
  }

 private:
  A* at(std::int64_t i, std::int64_t j) const { return b_.factor + i * dims_ + j; }
  void multiply(bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k, A alpha, const A* a,
                std::int64_t lda, const A* b, std::int64_t ldb, A beta, A* c, std::int64_t ldc) {
    device_.multiply(number_format::full, false, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  }

  // Columns [first, first + size) of L, but of the block on the diagonal its inverse.
  void factor_columns(std::int64_t first) {
    const std::int64_t size = smaller(whitening_block, dims_ - first), end = first + size,
                       below = dims_ - end;
    if (first > 0)
      multiply(true, dims_ - first, size, first, A(-1), at(first, 0), dims_, at(first, 0), dims_, A(1),
               at(first, first), dims_);
    device_.template launch<256>(256, 1, invert_block_kernel<A>{dims_, first, size, b_});
    if (below == 0) return;
    multiply(true, below, size, size, A(1), at(end, first), dims_, at(first, first), dims_, A(0), b_.panel,
             size);
    launch_rows(device_, size, below, place_panel_kernel<A>{size, dims_, b_.panel, at(end, first)});
  }

  // The same columns of W, where those after them are W's already: -W_22 L_21 W_11.
  void invert_columns(std::int64_t first) {
    const std::int64_t size = whitening_block, end = first + size, below = dims_ - end;
    multiply(false, below, size, below, A(1), at(end, end), dims_, at(end, first), dims_, A(0), b_.panel,
             size);
    multiply(false, below, size, size, A(-1), b_.panel, size, at(first, first), dims_, A(0), at(end, first),
             dims_);
  }

  Device& device_;
  const std::int64_t classes_, dims_;
  const class_moments<A> moments_;
  const whitening<T> out_;
  const whitening_buffers<A> b_;
};

// ---- y = W (x - c) ----

// Samples in a tile. Does not shrink as samples grow, so that a workspace for some samples is enough for fewer.
inline std::int64_t whiten_rows(const shape& s, std::size_t tile_bytes) {
  const std::int64_t limit = static_cast<std::int64_t>(smaller(tile_bytes, std::size_t(1) << 60));
  const std::int64_t each = bounded_product(larger(s.dims, std::int64_t(1)), sizeof(double));
  return smaller(s.samples, std::clamp<std::int64_t>(limit / 2 / each, 1, 4096));
}

// Features: number_array<T>, or on the host const T*.
template <class T, class Features>
struct centre_kernel {
  std::int64_t dims;
  Features features;  // of the tile
  std::int64_t stride;
  const T* offset;
  T* out;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t i) const {
    T* const row = out + i * dims;
    using lgm::load;
    const Features in = row_of(features, i * stride);
    group.for_each(dims, [&](std::int64_t j) {
      const T x = load(in, j);
      row[j] = offset != nullptr ? x - offset[j] : x;
    });
  }

 private:
  LGM_HD static number_array<T> row_of(const number_array<T>& all, std::int64_t first) {
    return all.from(first);
  }
  LGM_HD static const T* row_of(const T* all, std::int64_t first) { return all + first; }
};

template <class T>
status check_whiten(const shape& s, const whitening<T>& w, const void* in, const T* out) {
  return first_failure(check_shape(s),
                       s.samples > 0 && s.dims > 0 && (w.matrix == nullptr || in == nullptr || out == nullptr)
                           ? status::null_pointer
                           : status::success);
}

// from(features, first): the features from number `first` on. tile [rows, dims].
template <class Device, class T, class Features, class From>
void run_whiten(Device& device, const shape& s, const whitening<T>& w, const Features& in, From from, T* out,
                std::int64_t rows, T* tile) {
  // W has nothing above its diagonal: columns of y need no more of x than comes before them.
  constexpr std::int64_t block = 256;
  const std::int64_t dims = s.dims, in_stride = row_stride(s.feature_stride, dims),
                     out_stride = row_stride(s.gradient_stride, dims);
  for (std::int64_t first = 0; first < s.samples && dims > 0; first += rows) {
    const std::int64_t n = smaller(rows, s.samples - first);
    launch_rows(device, dims, n,
                centre_kernel<T, Features>{dims, from(in, first * in_stride), in_stride, w.offset, tile});
    for (std::int64_t begin = 0; begin < dims; begin += block) {
      const std::int64_t columns = smaller(block, dims - begin);
      device.multiply(number_format::full, false, true, n, columns, begin + columns, T(1),
                      static_cast<const T*>(tile), dims, static_cast<const T*>(w.matrix + begin * dims), dims,
                      T(0), out + first * out_stride + begin, out_stride);
    }
  }
}

// ---- on a device ----

template <class Device, class A, class T>
status device_estimate_whitening(Device& device, const shape& s, const class_moments<A>& moments,
                                 const whitening_options<T>& o, const whitening<T>& out, const workspace& w) {
  const status checked = check_whitening(s, moments, o, out);
  if (checked != status::success) return checked;
  arena a(w);
  const whitening_buffers<A> buffers(a, s.dims);
  if (w.bytes < a.bytes()) return status::workspace_too_small;
  whitening_driver<Device, A, T> driver(device, s, moments, out, buffers);
  driver.factor(o);
  driver.write();
  return device.result();
}

template <class T>
T* device_whiten_tile(arena& a, const shape& s, std::size_t tile_bytes) {
  return a.take<T>(bounded_product(whiten_rows(s, tile_bytes), s.dims));
}

template <class Device, class T>
status device_whiten(Device& device, std::size_t tile_bytes, const shape& s, const whitening<T>& map,
                     const number_array<T>& in, T* out, const workspace& w) {
  const status checked = check_whiten(s, map, in.data, out);
  if (checked != status::success) return checked;
  arena a(w);
  T* const tile = device_whiten_tile<T>(a, s, tile_bytes);
  if (w.bytes < a.bytes()) return status::workspace_too_small;
  run_whiten(
      device, s, map, in, [](const number_array<T>& all, std::int64_t first) { return all.from(first); }, out,
      whiten_rows(s, tile_bytes), tile);
  return device.result();
}

}  // namespace lgm::detail
