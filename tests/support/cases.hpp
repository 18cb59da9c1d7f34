// SPDX-License-Identifier: MIT
#pragma once

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "support/problem.hpp"
#include "support/tolerance.hpp"

// The sizes and contexts that several tests go through, and the three ways to the same losses and gradients.

namespace support {

// Where tools make all slow, and look for other mistakes than wrong numbers (their presets set LGM_SWEEP), loops over many like
// cases take every n-th.
inline std::size_t every(std::size_t n) { return std::getenv("LGM_SWEEP") != nullptr ? n : 1; }

struct sizes3 {
  std::int64_t samples, classes, dims;
};

// None and one of each, and sizes around the widths of vector units.
constexpr sizes3 edge_sizes[] = {{0, 4, 3},   {1, 1, 1},  {1, 2, 3},   {2, 1, 5},  {3, 3, 8},
                                 {5, 7, 4},   {9, 8, 7},  {4, 9, 9},   {8, 15, 5}, {17, 16, 2},
                                 {7, 17, 16}, {5, 3, 17}, {33, 33, 9}, {40, 65, 6}};

// f(covariance, reduction, sizes) at every edge size.
template <class F>
void for_each_edge(F f) {
  std::size_t n = 0;
  for (const auto covariance : covariances)
    for (const auto reduction : reductions)
      for (const auto& size : edge_sizes) {
        if (n++ % every(3) != 0) continue;
        CAPTURE(name_of(covariance));
        CAPTURE(name_of(reduction));
        CAPTURE(size.samples);
        CAPTURE(size.classes);
        CAPTURE(size.dims);
        f(covariance, reduction, size);
      }
}

// One tile; two sizes of tiles that cut rows, classes or both at the sizes above; the smallest tiles there are. (More than
// one thread works only on larger problems: threads_test.)
inline std::vector<suite_context> tiled_contexts() {
  return {context_of(1), context_of(3, std::size_t{1} << 13), context_of(1, std::size_t{1} << 14),
          context_of(1, 1)};
}

// A shape whose rows have padding.
inline lgm::shape strided_shape(const sizes3& sizes, lgm::covariance covariance) {
  lgm::shape shape = make_shape(sizes.samples, sizes.classes, sizes.dims, covariance);
  shape.feature_stride = sizes.dims + 3;
  shape.gradient_stride = sizes.dims + 1;
  shape.logits_stride = sizes.classes + 2;
  return shape;
}

// forward_backward, and forward followed by backward, in guarded memory and a workspace of exactly the size asked for.
template <class T, class Context>
void check_both_ways(const Context& context, const problem<T>& p, const expectation<T>& expected) {
  outputs<T> fused(p), apart(p);
  REQUIRE(forward_backward(context, p, fused) == lgm::status::success);
  fused.check_intact();
  expected.check_all(fused);
  REQUIRE(forward(context, p, apart.result()) == lgm::status::success);
  REQUIRE(backward(context, p, apart.row_state.data(), apart.gradients()) == lgm::status::success);
  apart.check_intact();
  expected.check_all(apart);
}

// The extras that the bits of a number stand for; 32 combinations with soft targets, 16 without.
constexpr unsigned no_extras = 0, class_weights = 1, sample_weights = 2,
                   weights = class_weights | sample_weights, normalizer = 4, smoothing = 8, soft = 16;
inline extras extras_of(unsigned mask) {
  return {(mask & class_weights) != 0, (mask & sample_weights) != 0, (mask & normalizer) != 0,
          (mask & smoothing) != 0 ? 0.1 : 0.0, (mask & soft) != 0};
}

// The largest |a - b| in steps of eps of the largest |b|: what reordered sums of one array may differ by.
template <class Buffer, class Other>
double steps_apart(const Buffer& a, const Other& b) {
  using T = std::decay_t<decltype(a[0])>;
  REQUIRE(a.size() == b.size());
  double worst = 0, scale = 0;
  for (std::size_t n = 0; n < a.size(); ++n) {
    if (a[n] == b[n]) continue;
    const double difference = std::fabs(static_cast<double>(a[n]) - static_cast<double>(b[n]));
    if (std::isnan(difference)) return difference;
    worst = std::max(worst, difference);
  }
  for (std::size_t n = 0; n < b.size(); ++n)
    if (std::isfinite(b[n])) scale = std::max(scale, std::fabs(static_cast<double>(b[n])));
  return worst == 0 ? 0 : worst / (scale * shown(epsilon<T>()));
}

}  // namespace support
