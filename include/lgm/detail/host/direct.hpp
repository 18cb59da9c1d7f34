// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/detail/host/packet_group.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/detail/workspace.hpp>
#include <type_traits>

// The three loops over samples, classes and dims of a diagonal covariance, on one thread. They work on differences, so that
// nothing cancels. They cost as much as the matrix products of the expanded form: two multiply-adds for each of samples x
// classes x dims, and three more additions for the variances' gradient.

namespace lgm::detail {

// An operand of the loops below: pairs of numbers for each (outer, inner) index, the outer ones in groups of one packet,
// [groups, inner, 2, packet], so that a loop over the inner index reads consecutive packets.
template <class T>
struct interleaved {
  static constexpr std::int64_t width = packet<T>::size;

  static std::int64_t size(std::int64_t outer_count, std::int64_t inner_count) {
    const std::int64_t packets = outer_count / width + (outer_count % width != 0);
    return bounded_product(bounded_product(packets, 2 * width), inner_count);
  }
  // The pair's numbers are at [0] and [width].
  static T* at(T* operand, std::int64_t inner_count, std::int64_t outer, std::int64_t inner) {
    return operand + (outer / width * inner_count + inner) * 2 * width + outer % width;
  }
};

// Samples or classes that a loop takes at a time: as many as leave all of the loop's packets in registers.
template <class T>
struct direct_blocks {
  static constexpr bool many = EIGEN_ARCH_DEFAULT_NUMBER_OF_REGISTERS >= 32;
  static constexpr int logits = many ? 8 : 12, feature_gradient = many ? 8 : 6, class_sums = many ? 8 : 4;
};

// f(first, integral_constant<count>) for all of [first, n), Largest at a time, the last ones fewer.
template <int Largest, class F>
void for_blocks(std::int64_t first, std::int64_t n, F f) {
  for (; first + Largest <= n; first += Largest) f(first, std::integral_constant<int, Largest>{});
  if constexpr (Largest > 1) for_blocks<(Largest > 3 ? Largest / 3 : 1)>(first, n, f);
}

// A block of Rows samples against one packet of classes; see direct_logits.
template <int Rows, class T>
void direct_logits_block(std::int64_t dims, const T* features, std::int64_t stride, const T* operand, T* out,
                         std::int64_t out_stride, packet_index classes) {
  using P = packet<T>;
  // Partial sums over this many dimensions keep the rounding of long sums down.
  constexpr std::int64_t chunk = 64;
  P total[std::size_t(Rows)];
  for (auto& t : total) t = P(T(0));
  for (std::int64_t begin = 0; begin < dims; begin += chunk) {
    const std::int64_t end = smaller(dims, begin + chunk);
    P sum[std::size_t(Rows)];
    for (auto& s : sum) s = P(T(0));
    for (std::int64_t j = begin; j < end; ++j) {
      const P inverse = P::load(operand + 2 * j * P::size);
      const P shift = P::load(operand + (2 * j + 1) * P::size);
      for (int r = 0; r < Rows; ++r) {
        const P t = fused(P(features[r * stride + j]), inverse, -shift);
        sum[r] = fused(t, t, sum[r]);
      }
    }
    for (int r = 0; r < Rows; ++r) total[r] = total[r] + sum[r];
  }
  for (int r = 0; r < Rows; ++r) store(out + r * out_stride, classes, P(T(-0.5)) * total[r]);
}

// out [rows, classes] = -d_ik (eq:distance). features [rows, dims] centred; operand: interleaved, classes
// by dims, 1 / sigma and mu' / sigma.
template <class T>
void direct_logits(std::int64_t rows, std::int64_t classes, std::int64_t dims, const T* features,
                   std::int64_t stride, const T* operand, T* out, std::int64_t out_stride) {
  packet_group<T>{}.for_each(classes, [&](packet_index k) {
    const T* group = operand + k.first * dims * 2;
    for_blocks<direct_blocks<T>::logits>(0, rows, [&](std::int64_t i, auto count) {
      direct_logits_block<decltype(count)::value>(dims, features + i * stride, stride, group,
                                                  out + i * out_stride, out_stride, k);
    });
  });
}

// The classes' part of eq:grad_feature: out [rows, dims] += sum_k w_ik (x'_ij / Lambda_kj - mu'_kj /
// Lambda_kj). weights [rows, classes]; operand: interleaved, dims by classes, 1 / Lambda and mu' / Lambda.
template <class T>
void direct_feature_gradient(std::int64_t rows, std::int64_t classes, std::int64_t dims, const T* weights,
                             std::int64_t weights_stride, const T* features, std::int64_t stride,
                             const T* operand, T* out, std::int64_t out_stride) {
  using P = packet<T>;
  packet_group<T>{}.for_each(dims, [&](packet_index j) {
    const T* const slab = operand + j.first * classes * 2;
    for_blocks<direct_blocks<T>::feature_gradient>(0, rows, [&](std::int64_t first, auto count) {
      constexpr int n = decltype(count)::value;
      const T* w = weights + first * weights_stride;
      P x[std::size_t(n)], sum[std::size_t(n)];
      for (int r = 0; r < n; ++r) {
        x[r] = load(features + (first + r) * stride, j);
        sum[r] = P(T(0));
      }
      for (std::int64_t k = 0; k < classes; ++k) {
        const P inverse = P::load(slab + 2 * k * P::size), shift = P::load(slab + (2 * k + 1) * P::size);
        for (int r = 0; r < n; ++r)
          sum[r] = fused(P(w[r * weights_stride + k]), fused(x[r], inverse, -shift), sum[r]);
      }
      for (int r = 0; r < n; ++r) {
        T* to = out + (first + r) * out_stride;
        store(to, j, load(to, j) + sum[r]);
      }
    });
  });
}

// The samples' part of eq:grad_mean and eq:grad_log_variance: difference [classes, dims] = sum_i w_ik (x_ij -
// mu_kj) and, where square is not null, square [classes, dims] = sum_i w_ik (x_ij - mu_kj)^2. features as the
// caller has them; rows with counts[i] == 0 are not read. slab: [rows, packet] of scratch, in which a packet
// of dims lies together.
template <class T>
void direct_class_sums(std::int64_t rows, std::int64_t classes, std::int64_t dims, const T* weights,
                       std::int64_t weights_stride, const T* features, std::int64_t stride,
                       const std::int64_t* counts, const T* mean, T* difference, T* square, T* slab) {
  using P = packet<T>;
  packet_group<T>{}.for_each(dims, [&](packet_index j) {
    for (std::int64_t i = 0; i < rows; ++i)
      (counts[i] != 0 ? load(features + i * stride, j) : P(T(0))).store(slab + i * P::size);
    for_blocks<direct_blocks<T>::class_sums>(0, classes, [&](std::int64_t first, auto count) {
      constexpr int n = decltype(count)::value;
      P mu[std::size_t(n)], sum[std::size_t(n)], sum_square[std::size_t(n)];
      for (int c = 0; c < n; ++c) {
        mu[c] = load(mean + (first + c) * dims, j);
        sum[c] = sum_square[c] = P(T(0));
      }
      const T* w = weights + first;
      for (std::int64_t i = 0; i < rows; ++i, w += weights_stride) {
        const P x = P::load(slab + i * P::size);
        for (int c = 0; c < n; ++c) {
          const P t = x - mu[c];
          const P u = P(w[c]) * t;
          sum[c] = sum[c] + u;
          sum_square[c] = fused(u, t, sum_square[c]);
        }
      }
      for (int c = 0; c < n; ++c) {
        store(difference + (first + c) * dims, j, sum[c]);
        if (square != nullptr) store(square + (first + c) * dims, j, sum_square[c]);
      }
    });
  });
}

}  // namespace lgm::detail
