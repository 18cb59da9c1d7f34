// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/formula.hpp>
#include <lgm/group.hpp>
#include <lgm/types.hpp>
#include <limits>
#include <type_traits>

// What is computed for one sample: its distance to one class, the evidence of a range of classes, the losses,
// the weights of eq:weight, the scores. Each function is run by one group. A range of classes is a tile of a
// matrix product, a part of a row shared by several groups, or a shard: the state that comes out of one
// merges into another's.

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

// |values|^2 of [dims].
template <class Group, class T>
LGM_HD T squared_norm(const Group& group, std::int64_t dims, const T* values) {
  return group.reduce(
      dims, T(0), [&](auto j) { return load(values, j) * load(values, j); }, plus{});
}

// Stores value - offset, and answers it. Where `out` is no pointer but an operand of reduced precision, it has an
// overload of its own.
template <class T, class Index, class V>
LGM_HD V keep_centred(T* out, Index j, V value, V offset) {
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
                        const auto t = keep_centred(out, j, load(features, j), load(offset, j));
                        return t * t;
                      },
                      plus{});
}

// Where a product may be trusted: d_k expanded into norms and a product is wrong by about
// epsilon (|x'| |mu'_k| + |mu'_k|^2) / Lambda_k. (|x'|^2 does not cancel by itself: where it dominates, d_k is as
// large, and rounded no worse.) Beyond `trusted`, in units of epsilon, 1e-4 in float, a logit within `window` of the row's
// largest is computed again from the differences.
template <class T>
struct cancellation {
  static constexpr T trusted = static_cast<T>(1678);
  static constexpr T window = static_cast<T>(20);

  // The bound in units of epsilon, from |x'|^2 / 2, 1 / Lambda_k and |mu'_k|^2 / Lambda_k.
  LGM_HD static T bound(T half_norm, T scale, T norm) {
    return std::sqrt(T(2) * half_norm * scale * norm) + norm;
  }
};

// The constants of a range of classes, [classes] each, that turn a row of a matrix product into logits:
// product + offset - half_norm * scale, where half_norm is the sample's centred |x'|^2 / 2, or 0 where the
// product already is the whole of -d_k.
template <class T>
struct class_constants {
  T* bias;          // log p_k - h_k
  T* offset;        // bias less what the product leaves out of d_k
  T* scale;         // 1 / Lambda_k; null: 1
  T* norm;          // |mu'_k|^2 / Lambda_k of the centred mean
  T* half_log_det;  // h_k
  T max_scale;      // the largest of scale and of norm in the range: bounds of a row's cancellation
  T max_norm;
  // Where features are not centred before the product: what it has too much, offset' mu'_k / Lambda_k; null: nothing.
  const T* uncentred = nullptr;
  // Of the products: their unit roundoff, cancellation::trusted, and what rounding its features as they are adds to |x'|.
  T epsilon = numeric<T>::epsilon;
  T trusted = cancellation<T>::trusted;
  T reach = 0;

  // cancellation::bound of these products.
  LGM_HD T bound(T half_norm, T of_scale, T of_norm) const {
    const T b = cancellation<T>::bound(half_norm, of_scale, of_norm);
    return reach == T(0) ? b : b + reach * std::sqrt(of_scale * of_norm);
  }
  // Of class k of the range.
  LGM_HD T bound_of(T half_norm, std::int64_t k) const {
    return bound(half_norm, scale == nullptr ? T(1) : scale[k], norm[k]);
  }
};

// Turns a row of products into logits (eq:logit, alpha = 0), in place, and returns the largest.
//   row         held [n]: products in, logits out; index `target` (none: -1) becomes -infinity, which leaves
//               it out of sums, maxima and weights: its logit is known exactly from elsewhere
//   half_norm   of the sample
//   known_max   a lower bound of the row's largest logit over all classes; -infinity where none is known
//   direct      direct(k): d_k of the sample and class k of the range, from the differences; called by the lane that
//               has the class, alone, and so makes no call of the group
template <class Group, class Row, class T, class Direct>
LGM_HD T finish_logits(const Group& group, Row& row, const class_constants<T>& c, T half_norm,
                       std::int64_t target, T known_max, Direct direct) {
  using detail::fused;
  using detail::largest;
  const T none = -numeric<T>::infinity;
  if (c.scale == nullptr) {
    group.for_each(row, [&](auto& l, auto k) {
      using V = std::decay_t<decltype(l)>;
      l = (l + load(c.offset, k)) - V(half_norm);
      replace(l, k, target, none);
    });
  } else {
    group.for_each(row, [&](auto& l, auto k) {
      using V = std::decay_t<decltype(l)>;
      l = fused(V(-half_norm), load(c.scale, k), l + load(c.offset, k));
      replace(l, k, target, none);
    });
  }
  const auto value = [](auto l, auto) { return l; };
  T top = group.reduce(row, none, value, maximum{});
  const T worst = c.bound(half_norm, c.max_scale, c.max_norm);
  if (!(worst > c.trusted)) return top;
  // Both the largest logit and the one that is held against it may be off by the bound.
  const T threshold = detail::larger(top, known_max) - cancellation<T>::window - T(2) * c.epsilon * worst;
  group.for_each(row, [&](auto& l, auto k) {
    if (!(largest(l) >= threshold)) return;
    for_lanes(l, k, [&](T& lane, std::int64_t i) {
      if (i == target || !(lane >= threshold)) return;
      if (c.bound_of(half_norm, i) > c.trusted) lane = logit(c.bias[i], direct(i), T(1));
    });
  });
  return group.reduce(row, none, value, maximum{});
}

// What a range of classes says about one sample: the classes other than the target's, and the best of them.
// Merges with the state of another range; ranges in any order, the lowest class wins ties.
template <class T>
struct row_evidence {
  log_sum<T> others;       // over k != z; others.max is the best logit
  std::int64_t best = -1;  // its class, of the whole mixture; -1: none, or not asked for
  // Where classes other than the target's have a coefficient c_k in the loss (label smoothing, soft targets): the sum of
  // c_k, and of c_k (max - l_k), of which no term is negative.
  T coefficient = 0;
  T excess = 0;

  // sum_k c_k (log sum exp l - l_k) of the range, given the evidence of all classes.
  LGM_HD T excess_under(const log_evidence<T>& evidence) const {
    return excess +
           detail::product_or_zero(coefficient, (evidence.anchor - others.anchor()) + evidence.correction);
  }

  LGM_HD void merge(const row_evidence& other) {
    if (other.best >= 0 &&
        (best < 0 || other.others.max > others.max || (other.others.max == others.max && other.best < best)))
      best = other.best;
    const T mine = others.anchor(), theirs = other.others.anchor();
    others.merge(other.others);
    excess = (excess + detail::product_or_zero(coefficient, others.anchor() - mine)) +
             (other.excess + detail::product_or_zero(other.coefficient, others.anchor() - theirs));
    coefficient += other.coefficient;
  }
};

// The evidence of a row of finished logits. `top` is their maximum; first_class is added to the index of the
// best; find_best: whether the best class is looked for.
template <class Group, class Row, class T>
LGM_HD row_evidence<T> evidence_of(const Group& group, const Row& row, T top, std::int64_t first_class,
                                   bool find_best) {
  row_evidence<T> e;
  e.others.max = top;
  const T anchor = e.others.anchor();
  e.others.sum = group.reduce(
      row, T(0),
      [&](auto l, auto) {
        using V = std::decay_t<decltype(l)>;
        using detail::exp_above;
        return exp_above(l - V(anchor), V(numeric<T>::negligible));
      },
      plus{});
  if (find_best && row.size > 0) {
    const std::int64_t i = group.find(row, top);
    // A row without a largest logit is not a number throughout, or has the target alone.
    e.best = i < row.size && top > -numeric<T>::infinity ? first_class + i : -1;
  }
  return e;
}

// Adds to e what c_k makes of a row of finished logits; e is their evidence_of. coefficient(k): c_k, of a class or a
// packet of them.
template <class Group, class Row, class T, class Coefficient>
LGM_HD void add_excess(const Group& group, const Row& row, Coefficient coefficient, row_evidence<T>& e) {
  const T anchor = e.others.anchor();
  e.coefficient = group.reduce(
      row, T(0), [&](auto l, auto k) { return decltype(l)(coefficient(k)); }, plus{});
  e.excess = group.reduce(
      row, T(0),
      [&](auto l, auto k) {
        using V = std::decay_t<decltype(l)>;
        using detail::product_or_zero;
        return product_or_zero(V(coefficient(k)), V(anchor) - l);
      },
      plus{});
}

// The class of a range with the smallest d_k; index -1: none.
template <class T>
struct nearest_class {
  T distance = numeric<T>::infinity;
  std::int64_t index = -1;
};

// The nearest class of a row of products, not yet logits: priors and determinants, however large, have no say in it.
//   row          held [n], left as it is
//   first_class  added to the index
//   distances    [n], scratch
template <class Group, class Row, class T, class Direct>
LGM_HD nearest_class<T> nearest_of(const Group& group, const Row& row, const class_constants<T>& c,
                                   T half_norm, std::int64_t first_class, Direct direct, T* distances) {
  using detail::fused;
  using detail::largest;
  auto held = group.hold(distances, row.size);
  const T* const products = row.data;
  group.for_each(held, [&](auto& d, auto k) {
    using V = std::decay_t<decltype(d)>;
    const V norm = c.scale == nullptr ? V(half_norm) : V(half_norm) * load(c.scale, k);
    d = fused(V(T(0.5)), load(c.norm, k), norm) - load(products, k);
    if (c.uncentred != nullptr) d = d + load(c.uncentred, k);
  });
  const auto value = [](auto d, auto) { return d; };
  T least = group.reduce(held, numeric<T>::infinity, value, minimum{});
  const T worst = c.bound(half_norm, c.max_scale, c.max_norm);
  if (worst > c.trusted) {
    const T threshold = least + T(2) * c.epsilon * worst;
    group.for_each(held, [&](auto& d, auto k) {
      if (!(-largest(-d) <= threshold)) return;
      for_lanes(d, k, [&](T& lane, std::int64_t i) {
        if (lane <= threshold) lane = direct(i);
      });
    });
    least = group.reduce(held, numeric<T>::infinity, value, minimum{});
  }
  const std::int64_t i = group.find(held, least);
  return i < row.size ? nearest_class<T>{least, first_class + i} : nearest_class<T>{};
}

// The target's side of one sample.
template <class T>
struct row_target {
  T distance = 0;      // d_z
  T half_log_det = 0;  // h_z
  T logit = 0;         // l_z with the margin
  T logit_without_margin = 0;
};

// d_z, h_z and l_z, from the differences. log_prior is log p_z.
template <class Group, class Features, class T>
LGM_HD row_target<T> target_of(const Group& group, std::int64_t dims, const Features& features,
                               const class_parameters<T>& c, T log_prior, T alpha) {
  row_target<T> t;
  t.distance = T(0.5) * squared_distance(group, dims, features, c);
  t.half_log_det = half_log_det(group, dims, c);
  const T bias = log_prior - t.half_log_det;
  t.logit = logit(bias, t.distance, margin(alpha, true));
  t.logit_without_margin = logit(bias, t.distance, T(1));
  return t;
}

// Weights that the gradients' products take as they are.
struct unrounded {
  template <class V>
  LGM_HD V operator()(V weight) const {
    return weight;
  }
};

// Where a row of weights adds to the sums by class; [n] each, null: not wanted.
template <class T>
struct class_sum_rows {
  T* weight = nullptr;       // w_k
  T* distance = nullptr;     // w_k d_k
  T* share = nullptr;        // soft targets: the likelihood's weight less g_k
  T* probability = nullptr;  // soft targets: g_k
};

namespace detail {

template <class T, class Index, class V>
LGM_HD void add_to(T* sums, Index k, V value) {
  using lgm::load;  // packets have theirs in this namespace
  using lgm::store;
  if (sums != nullptr) store(sums, k, load(sums, k) + value);
}

}  // namespace detail

// The sum of w_k / Lambda_k (scale null: of w_k) over a row of weights.
template <class Group, class Row, class T>
LGM_HD T sum_of_weights(const Group& group, const Row& row, const class_constants<T>& c) {
  if (c.scale == nullptr)
    return group.reduce(
        row, T(0), [](auto w, auto) { return w; }, plus{});
  return group.reduce(
      row, T(0), [&](auto w, auto k) { return w * load(c.scale, k); }, plus{});
}

// Turns a row of finished logits into weights (eq:weight), in place: scale * exp(l_k - log_evidence), scale
// being minus the sample's upstream gradient times the sum of its c_k; plus smoothing * class_weight_k (class_weight
// null: smoothing); index `target` becomes 0. Returns sum_of_weights, from the weights as rounded.
//   least         the logarithm of a share of the evidence: classes with less are left out
//   class_weight  [n]
//   sums          only weight and distance: the others follow from them
//   round         a weight as the products will take it
template <class Group, class Row, class T, class Round = unrounded>
LGM_HD T finish_weights(const Group& group, Row& row, const class_constants<T>& c,
                        const log_evidence<T>& evidence, T scale, T smoothing,
                        const detail::named_t<T>* class_weight, std::int64_t target,
                        const class_sum_rows<detail::named_t<T>>& sums,
                        detail::named_t<T> least = numeric<T>::negligible, Round round = {}) {
  group.for_each(row, [&](auto& l, auto k) {
    using V = std::decay_t<decltype(l)>;
    using detail::fused;
    using detail::product_or_zero;
    const V distance = load(c.bias, k) - l;
    l = competitor_weight(l, evidence, scale, least);
    if (smoothing != T(0))
      l = class_weight == nullptr ? l + V(smoothing) : fused(V(smoothing), load(class_weight, k), l);
    l = round(l);
    replace(l, k, target, T(0));
    detail::add_to(sums.weight, k, l);
    if (sums.distance != nullptr) detail::add_to(sums.distance, k, product_or_zero(l, distance));
  });
  return sum_of_weights(group, row, c);
}

// One sample's soft targets q_k over a range of classes, and what weighs them.
template <class T>
struct soft_row {
  const T* target;        // [n], q_k
  const T* class_weight;  // [n], null: 1
  T keep, smoothing;      // c_k = class_weight_k (keep q_k + smoothing)
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
    return weight(k) * fused(V(keep), load(target, k), V(smoothing));
  }
  // 1 + alpha q_k.
  template <class Index>
  LGM_HD auto margin(Index k) const {
    using detail::fused;
    using V = decltype(load(target, k));
    return fused(V(alpha), load(target, k), V(T(1)));
  }
};

namespace detail {

// d_k from a logit, margin (b - l) / m; also where the class is excluded by a log prior of -infinity.
template <class T, class Index, class V>
LGM_HD V distance_of(const class_constants<T>& c, Index k, V l, V margin) {
  using lgm::load;
  return (larger(load(c.bias, k), V(numeric<T>::lowest)) - l) / margin;
}

}  // namespace detail

// Turns a row of logits without margin (of finish_logits, with no target) into eq:logit with each class's margin, in
// place, and returns the largest. Distances are computed again from the differences where a rounded product would show:
// near the row's largest, and where q_k is not zero and either q_k d_k is uncertain by 1e-4, or d_k by 1e-4 of itself.
template <class Group, class Row, class T, class Direct>
LGM_HD T add_soft_margin(const Group& group, Row& row, const class_constants<T>& c, T half_norm,
                         const soft_row<T>& soft, T known_max, Direct direct) {
  const auto value = [](auto l, auto) { return l; };
  const T none = -numeric<T>::infinity;
  group.for_each(row, [&](auto& l, auto k) {
    using V = std::decay_t<decltype(l)>;
    using detail::product_or_zero;
    l = l - product_or_zero(V(soft.alpha) * load(soft.target, k), detail::distance_of(c, k, l, V(T(1))));
  });
  const T top = group.reduce(row, none, value, maximum{});
  const T worst = c.bound(half_norm, c.max_scale, c.max_norm);
  if (!(worst > c.trusted)) return top;
  const T threshold = detail::larger(top, known_max) - cancellation<T>::window - T(2) * c.epsilon * worst;
  group.for_each(row, [&](auto& l, auto k) {
    for_lanes(l, k, [&](T& lane, std::int64_t i) {
      const T bound = c.bound_of(half_norm, i);
      if (!(bound > c.trusted)) return;
      const T margin = soft.margin(i), q = std::fabs(soft.target[i]);
      const T allowed = c.trusted * (T(1) + detail::distance_of(c, i, lane, margin));
      if (lane >= threshold || (q != T(0) && (q * bound > c.trusted || bound > allowed)))
        lane = logit(c.bias[i], direct(i), margin);
    });
  });
  return group.reduce(row, none, value, maximum{});
}

// sum_k class_weight_k q_k (d_k + h_k), eq:likelihood of soft targets, over a row of logits with their margins.
template <class Group, class Row, class T>
LGM_HD T soft_likelihood(const Group& group, const Row& row, const class_constants<T>& c,
                         const soft_row<T>& soft) {
  return group.reduce(
      row, T(0),
      [&](auto l, auto k) {
        using V = std::decay_t<decltype(l)>;
        using detail::product_or_zero;
        return product_or_zero(
            soft.weight(k) * load(soft.target, k),
            likelihood_loss(detail::distance_of(c, k, l, V(soft.margin(k))), load(c.half_log_det, k)));
      },
      plus{});
}

// Turns a row of logits with their margins into weights (eq:weight), in place. Returns sum_of_weights.
//   evidence  of all classes
//   total     the sum of c_k over all classes
//   lambda    times the sample's weight
//   upstream  what the sample's gradients are multiplied by
//   round     a weight as the products will take it
template <class Group, class Row, class T, class Round = unrounded>
LGM_HD T finish_soft_weights(const Group& group, Row& row, const class_constants<T>& c,
                             const log_evidence<T>& evidence, const soft_row<T>& soft, T total, T lambda,
                             T upstream, const class_sum_rows<detail::named_t<T>>& sums, Round round = {}) {
  group.for_each(row, [&](auto& l, auto k) {
    using V = std::decay_t<decltype(l)>;
    using detail::fused;
    using detail::product_or_zero;
    const V margin = soft.margin(k);
    const V distance = detail::distance_of(c, k, l, margin);
    const V g = V(upstream) * (competitor_weight(l, evidence, total) - soft.coefficient(k));
    const V own = V(upstream * lambda) * (soft.weight(k) * load(soft.target, k));
    l = round(own - g * margin);
    detail::add_to(sums.weight, k, l);
    detail::add_to(sums.share, k, own - g);
    detail::add_to(sums.probability, k, g);
    if (sums.distance != nullptr) detail::add_to(sums.distance, k, product_or_zero(l, distance));
  });
  return sum_of_weights(group, row, c);
}

// Turns a row of logits without margin into the weights of any gradient of them, in place: scale * slope_k, scale being
// minus the sample's upstream gradient; index `target` becomes 0. Returns sum_of_weights.
//   slope  [n], in place of g_k
//   sums   only weight and distance; without distance the row's contents are not read
//   round  a weight as the products will take it
template <class Group, class Row, class T, class Round = unrounded>
LGM_HD T finish_given_weights(const Group& group, Row& row, const class_constants<T>& c, const T* slope,
                              T scale, std::int64_t target, const class_sum_rows<detail::named_t<T>>& sums,
                              Round round = {}) {
  group.for_each(row, [&](auto& l, auto k) {
    using V = std::decay_t<decltype(l)>;
    using detail::product_or_zero;
    const V distance = detail::distance_of(c, k, l, V(T(1)));
    l = round(V(scale) * load(slope, k));
    replace(l, k, target, T(0));
    detail::add_to(sums.weight, k, l);
    if (sums.distance != nullptr) detail::add_to(sums.distance, k, product_or_zero(l, distance));
  });
  return sum_of_weights(group, row, c);
}

// What eq:grad_feature has besides the products: out [dims] = (add: +=) weight_sum x' and the target's own term. The
// products then add minus the sum of w_k mu'_k / Lambda_k over the range's other classes, or, where they work on
// differences (weight_sum = 0, centred unused), the whole sum of w_k (x - mu_k) / Lambda_k.
//   weight_sum  the range's sum of w_k / Lambda_k, without the target's
//   target      the target's class; not read where has_target says that the range does not have it
template <class Group, class Features, class Centred, class T>
LGM_HD void begin_feature_gradient(const Group& group, std::int64_t dims, const Features& features,
                                   const Centred& centred, T weight_sum, bool has_target,
                                   const class_parameters<T>& target, T target_weight, bool add, T* out) {
  using detail::fused;
  const bool diagonal = has_target && target.log_variance != nullptr && target.diagonal;
  const T weight = !has_target || target.log_variance == nullptr || diagonal
                       ? target_weight
                       : target_weight * inverse_variance(*target.log_variance);
  group.for_each(dims, [&](auto j) {
    using V = decltype(load(features, j));
    V sum = add ? load(static_cast<const T*>(out), j) : V(T(0));
    if (weight_sum != T(0)) sum = fused(V(weight_sum), load(centred, j), sum);
    if (has_target) {
      V t = load(features, j) - load(target.mean, j);
      if (diagonal) t = t * inverse_variance(load(target.log_variance, j));
      sum = fused(V(weight), t, sum);
    }
    store(out, j, sum);
  });
}

}  // namespace lgm
