// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/formula.hpp>
#include <lgm/group.hpp>
#include <lgm/types.hpp>
#include <type_traits>

// One sample and one class: the distance between them (eq:distance), the class's determinant (eq:log_det), and the part of the
// distance that a sample's logits leave out. Each function is run by one group.

namespace lgm {

// The parameters of one class: pointers to [dims] (diagonal) or [1] (spherical) logarithms of variances.
template <class T>
struct class_parameters {
  const T* mean;          // [dims]
  const T* log_variance;  // identity, or unit variances: null
  bool diagonal;

  // Parameters of class k of a mixture.
  LGM_HD class_parameters(const shape& s, const mixture<T>& m, std::int64_t k)
      : mean(m.mean + k * s.dims), log_variance(nullptr), diagonal(s.covariance == covariance::diagonal) {
    if (m.log_variance != nullptr && s.covariance != covariance::identity)
      log_variance = m.log_variance + (diagonal ? k * s.dims : k);
  }
};

// 2 d_k (eq:distance), from the differences themselves: nothing cancels. features [dims]: a pointer, or anything else whose
// load is T's.
template <class Group, class Features, class T>
LGM_HD T squared_distance(const Group& group, std::int64_t dims, const Features& features,
                          const class_parameters<T>& c) {
  if (c.log_variance == nullptr || !c.diagonal) {
    const T sum = group.reduce(
        dims, T(0), [&](auto j) { return squared_difference(load(features, j), load(c.mean, j)); }, plus{});
    return c.log_variance == nullptr ? sum : sum * inverse_variance(*c.log_variance);
  }
  return group.reduce(
      dims, T(0),
      [&](auto j) {
        return squared_difference(load(features, j), load(c.mean, j)) *
               inverse_variance(load(c.log_variance, j));
      },
      plus{});
}

// h_k (eq:log_det).
template <class Group, class T>
LGM_HD T half_log_det(const Group& group, std::int64_t dims, const class_parameters<T>& c) {
  if (c.log_variance == nullptr) return T(0);
  if (!c.diagonal) return static_cast<T>(dims) * half_log_det(*c.log_variance);
  return group.reduce(
      dims, T(0), [&](auto j) { return half_log_det(load(c.log_variance, j)); }, plus{});
}

// |values|^2 of [dims]: a pointer, or anything else that load takes.
template <class Group, class Values>
LGM_HD auto squared_norm(const Group& group, std::int64_t dims, const Values& values) {
  using T = std::decay_t<decltype(load(values, std::int64_t(0)))>;
  return group.reduce(
      dims, T(0), [&](auto j) { return load(values, j) * load(values, j); }, plus{});
}

// 0, or NaN where a feature is not finite.
template <class Group, class Features>
LGM_HD auto not_finite(const Group& group, std::int64_t dims, const Features& features) {
  using T = std::decay_t<decltype(load(features, std::int64_t(0)))>;
  return group.reduce(
      dims, T(0), [&](auto j) { return load(features, j) * decltype(load(features, j))(T(0)); }, plus{});
}

// Stores value - offset, and returns it. Where `out` is no pointer but an operand of reduced precision, it has an
// overload of its own.
template <class T, class Index, class V>
LGM_HD V store_centred(T* out, Index j, V value, V offset) {
  const V t = value - offset;
  store(out, j, t);
  return t;
}

// out = features - offset, [dims] each; returns |features - offset|^2 / 2, of pointers taken from
// out.
template <class Group, class Features, class T, class Out>
LGM_HD T centre_row(const Group& group, std::int64_t dims, const Features& features, const T* offset,
                    Out out) {
  return T(0.5) * group.reduce(
                      dims, T(0),
                      [&](auto j) {
                        const auto t = store_centred(out, j, load(features, j), load(offset, j));
                        return t * t;
                      },
                      plus{});
}

// d_k - H (eq:distance less what all classes share, see row_frame), from x' = x - origin and mu' = mu_k - origin themselves:
// (scale_k - base) |x'|^2 / 2 - scale_k mu' (x' - mu' / 2). Where |x'| exceeds |mu'|, rounding d_k would lose
// what tells the classes apart; this form keeps it.
//   origin      [dims]; null: 0
//   half_norm   |x'|^2 / 2
//   base_scale  class_constants::base_scale; the covariance is not diagonal
template <class Group, class Features, class T>
LGM_HD T distance_beyond(const Group& group, std::int64_t dims, const Features& features,
                         const class_parameters<T>& c, const detail::named_t<T>* origin,
                         detail::named_t<T> half_norm, detail::named_t<T> base_scale) {
  // Where squares overflow, so may products, of either sign: they are made smaller, and what still overflows is bounded.
  constexpr T most = -numeric<T>::lowest;
  const T factor = half_norm < most ? T(1) : numeric<T>::shrinking,
          inverse_factor = half_norm < most ? T(1) : T(1) / numeric<T>::shrinking;
  const T product = group.reduce(
                        dims, T(0),
                        [&](auto j) {
                          using detail::fused;
                          using V = decltype(load(c.mean, j));
                          V x = load(features, j), mean = load(c.mean, j);
                          if (origin != nullptr) {
                            x = x - load(origin, j);
                            mean = mean - load(origin, j);
                          }
                          return mean * fused(V(T(-0.5) * factor), mean, V(factor) * x);
                        },
                        plus{}) *
                    inverse_factor;
  const T scale = c.log_variance == nullptr ? T(1) : inverse_variance(*c.log_variance);
  const auto bounded = [](T v) { return detail::bounded_above(-detail::bounded_above(-v, most), most); };
  return bounded(bounded(detail::product_or_zero(scale - base_scale, half_norm)) - bounded(scale * product));
}

// What the logits of a sample leave out. H = base_scale |x'|^2 / 2 is a part of the distance to every class; under identity it
// is |x'|^2 / 2. It does not tell the classes apart, but far from all of them it is nearly all of d_k, and leaves a float no
// digits for the rest. So a row's logits are held as l_k + omitted. For a far sample omitted is H. It is 0 for a sample that
// lies so near a class that its d_k is smaller than H.
template <class T>
struct row_frame {
  T half_norm = 0;  // |x'|^2 / 2 of the centred features; 0 with direct products
  T omitted = 0;    // H or 0
  T pending = 0;    // what is not yet subtracted from the row's products: 0 or H

  row_frame() = default;
  LGM_HD row_frame(T half, T base_scale) : half_norm(half), pending(base_scale * half) {}

  // H.
  LGM_HD T shared() const { return omitted + pending; }
  // The other of the two becomes 0; where H is not finite, NaN.
  LGM_HD void omit_shared() {
    omitted = shared();
    pending *= T(0);
  }
  LGM_HD void omit_nothing() {
    pending = shared();
    omitted *= T(0);
  }
  // distance: d_k of the class that decides.
  LGM_HD void omit_unless_near(T distance) { distance < T(0.5) * shared() ? omit_nothing() : omit_shared(); }
  // Squares that overflow become the largest number, so that no infinity is subtracted from another.
  LGM_HD row_frame bounded() const {
    row_frame f;
    f.half_norm = detail::bounded_above(half_norm, -numeric<T>::lowest);
    f.pending = detail::bounded_above(shared(), -numeric<T>::lowest);
    return f;
  }
  LGM_HD bool overflows() const {
    return half_norm == -numeric<T>::lowest || shared() == -numeric<T>::lowest;
  }
  // A logit, or the logarithm of a sum of their exponentials, with what was left out put back.
  LGM_HD T complete(T value) const { return overflows() ? -numeric<T>::infinity : value - omitted; }
};

}  // namespace lgm
