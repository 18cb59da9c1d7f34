// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/distance.hpp>
#include <lgm/formula.hpp>
#include <lgm/group.hpp>
#include <lgm/row.hpp>
#include <lgm/types.hpp>
#include <type_traits>

// One sample with soft targets: margins, the likelihood and the weights. row.hpp has what needs no target. Each function is run
// by one group.

namespace lgm {

// One sample's soft targets q_k over a range of classes, and what weighs them.
template <class T>
struct soft_row {
  const T* target;          // [n], q_k
  const T* class_weight;    // [n], null: 1
  T unsmoothed, smoothing;  // c_k = class_weight_k (unsmoothed q_k + smoothing)
  T alpha;

  template <class Index>
  LGM_HD auto weight(Index k) const {
    using V = decltype(load(target, k));
    return class_weight == nullptr ? V(T(1)) : load(class_weight, k);
  }
  template <class Index>
  LGM_HD auto coefficient(Index k) const {
    using detail::fused;
    using V = decltype(load(target, k));
    return weight(k) * fused(V(unsmoothed), load(target, k), V(smoothing));
  }
  // 1 + alpha q_k.
  template <class Index>
  LGM_HD auto margin(Index k) const {
    using detail::fused;
    using V = decltype(load(target, k));
    return fused(V(alpha), load(target, k), V(T(1)));
  }
  // d_k from a logit with its margin, b - d - alpha q d less what its frame omits.
  template <class Index, class V>
  LGM_HD V distance(const class_constants<T>& c, Index k, V l, T omitted) const {
    return detail::distance_of(c, k, l, V(margin(k)), omitted);
  }
};

// The sum of c_k of the first `classes` of a range.
template <class Group, class T>
LGM_HD T sum_of_coefficients(const Group& group, std::int64_t classes, const soft_row<T>& soft) {
  return group.reduce(
      classes, T(0), [&](auto k) { return soft.coefficient(k); }, plus{});
}

// Turns a row of logits without margin (of finish_logits, with no target) into eq:logit with each class's margin, in
// place, and returns the largest. Distances are computed again from the differences where a rounded product would matter:
// near the row's largest, and where q_k is not zero and the error of q_k d_k may reach 1e-4, or that of d_k 1e-4 of d_k.
template <class Group, class Row, class T, class Direct>
LGM_HD T add_soft_margin(const Group& group, Row& row, const class_constants<T>& c, const row_frame<T>& frame,
                         const soft_row<T>& soft, T known_max, Direct direct) {
  const T none = -numeric<T>::infinity, half_norm = frame.half_norm, omitted = frame.omitted;
  const auto add_margin = [&](auto& l, auto k) {
    using V = std::decay_t<decltype(l)>;
    using detail::product_or_zero;
    l = l -
        product_or_zero(V(soft.alpha) * load(soft.target, k), detail::distance_of(c, k, l, V(T(1)), omitted));
  };
  const T top = group.for_each_reduce(row, add_margin, none, maximum{});
  const T worst = c.bound(half_norm, c.max_scale, c.max_norm);
  if (!(worst > c.trusted)) return top;
  const T threshold = c.threshold(worst, detail::larger(top, known_max));
  const auto compute_again = [&](auto& l, auto k) {
    for_lanes(l, k, [&](T& lane, std::int64_t i) {
      const T bound = c.bound_of(half_norm, i);
      if (!(bound > c.trusted)) return;
      const T margin = soft.margin(i), q = std::fabs(soft.target[i]);
      const T allowed = c.trusted * (T(1) + soft.distance(c, i, lane, omitted));
      if (lane >= threshold || (q != T(0) && (q * bound > c.trusted || bound > allowed))) {
        const T beyond = direct(i);
        lane = logit(c.bias[i], beyond, T(1)) - detail::product_or_zero(margin - T(1), beyond + omitted);
      }
    });
  };
  return group.for_each_reduce(row, compute_again, none, maximum{});
}

// sum_k class_weight_k q_k (d_k + h_k), eq:likelihood of soft targets, over a row of logits with their margins.
template <class Group, class Row, class T>
LGM_HD T soft_likelihood(const Group& group, const Row& row, const class_constants<T>& c,
                         const row_frame<T>& frame, const soft_row<T>& soft) {
  return group.reduce(
      row, T(0),
      [&](auto l, auto k) {
        using V = std::decay_t<decltype(l)>;
        using detail::product_or_zero;
        return product_or_zero(
            soft.weight(k) * load(soft.target, k),
            likelihood_loss(soft.distance(c, k, V(l), frame.omitted), load(c.half_log_det, k)));
      },
      plus{});
}

// Turns a row of logits with their margins into weights (eq:weight), in place. Returns their sums.
//   evidence  of all classes, in the same frame
//   total     the sum of c_k over all classes
//   lambda    times the sample's weight
//   upstream  what the sample's gradients are multiplied by
//   round     of finish_weights
template <class Group, class Row, class T, class Round = unrounded>
LGM_HD weight_sums<T> finish_soft_weights(const Group& group, Row& row, const class_constants<T>& c,
                                          const row_frame<T>& frame, const log_evidence<T>& evidence,
                                          const soft_row<T>& soft, T total, T lambda, T upstream,
                                          const class_sum_rows<detail::named_t<T>>& sums, Round round = {}) {
  weight_sums<T> of = make_weights(group, row, c, [&](auto& l, auto k) {
    using V = std::decay_t<decltype(l)>;
    using detail::product_or_zero;
    const V margin = soft.margin(k);
    const V distance = soft.distance(c, k, l, frame.omitted);
    const V g = V(upstream) * (competitor_weight(l, evidence, total) - soft.coefficient(k));
    const V own = V(upstream * lambda) * (soft.weight(k) * load(soft.target, k));
    l = round(own - g * margin, k);
    detail::add_to(sums.weight, k, l);
    detail::add_to(sums.variance_weight, k, own - g);
    detail::add_to(sums.probability, k, g);
    if (sums.distance != nullptr) detail::add_to(sums.distance, k, product_or_zero(l, distance));
  });
  // w + g of w = own - g m.
  of.extra = group.reduce(
      row, T(0),
      [&](auto w, auto k) {
        using V = std::decay_t<decltype(w)>;
        using detail::fused;
        const V margin = soft.margin(k);
        const V own = V(upstream * lambda) * (soft.weight(k) * load(soft.target, k));
        return fused(w, margin - V(T(1)), own) / margin;
      },
      plus{});
  return of;
}

}  // namespace lgm
