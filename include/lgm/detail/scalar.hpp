// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <lgm/config.hpp>

// The operations that formulas and reductions need beyond + - *, for scalars. Packets bring their own, found
// by argument-dependent lookup (detail/host/packet_group.hpp).

namespace lgm::detail {

// T, where it is not deduced: the argument may then be nullptr or braces.
template <class T>
struct named {
  using type = T;
};
template <class T>
using named_t = typename named<T>::type;

// a * b + c, rounded once.
LGM_HD inline float fused(float a, float b, float c) { return std::fma(a, b, c); }
LGM_HD inline double fused(double a, double b, double c) { return std::fma(a, b, c); }

template <class T>
LGM_HD T smaller(T a, T b) {
  return b < a ? b : a;
}
template <class T>
LGM_HD T larger(T a, T b) {
  return b > a ? b : a;
}

// The smaller of v and the bound; NaN stays NaN.
template <class T>
LGM_HD T bounded_above(T v, T bound) {
  return v > bound ? bound : v;
}

// exp(v), and exactly zero for v below bound.
template <class T>
LGM_HD T exp_above(T v, T bound) {
  return v < bound ? T(0) : std::exp(v);
}

// weight * v; exactly zero where the weight is zero, whatever v is.
template <class T>
LGM_HD T product_or_zero(T weight, T v) {
  return weight == T(0) ? T(0) : weight * v;
}

// The largest of a value's lanes.
LGM_HD inline float largest(float value) { return value; }
LGM_HD inline double largest(double value) { return value; }

}  // namespace lgm::detail
