// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/distance.hpp>
#include <lgm/formula.hpp>
#include <lgm/group.hpp>
#include <lgm/types.hpp>
#include <limits>
#include <type_traits>

// What is computed for one sample: the evidence of a range of classes, the losses, the weights of eq:weight, and the scores.
// Its distance to one class is in distance.hpp. Each function is run by one group. A range of classes is a tile of a matrix
// product, a part of a row that several groups share, or a shard. The states of ranges merge.

namespace lgm {

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
// product already is the whole of -d_k; less what the row's frame omits.
template <class T>
struct class_constants {
  T* bias;          // log p_k - h_k
  T* offset;        // bias less what the product leaves out of d_k
  T* scale;         // 1 / Lambda_k; null: 1
  T* norm;          // |mu'_k|^2 / Lambda_k of the centred mean
  T* half_log_det;  // h_k
  T max_scale;      // the largest of scale and of norm in the range: bounds of a row's cancellation
  T max_norm;
  // The least of 1 / Lambda_k of all classes: |x'|^2 / 2 times this is common to all d_k. 1 where scale is null; 0 where that
  // is not known, as on a shard.
  T base_scale = 0;
  // Where features are not centred before the product: what it has too much, offset' mu'_k / Lambda_k; null: nothing.
  const T* offset_product = nullptr;
  // Of the products: their unit roundoff, cancellation::trusted, and what rounding its features as they are adds to |x'|.
  T epsilon = numeric<T>::epsilon;
  T trusted = cancellation<T>::trusted;
  T extra_norm = 0;

  // cancellation::bound of these products.
  LGM_HD T bound(T half_norm, T of_scale, T of_norm) const {
    const T b = cancellation<T>::bound(half_norm, of_scale, of_norm);
    return extra_norm == T(0) ? b : b + extra_norm * std::sqrt(of_scale * of_norm);
  }
  // How far `largest` (of a row's logits or distances) and a value that is compared with it may be off. Rounding over the
  // dimensions sometimes exceeds the bound a few times, and the steps between numbers of this size count as well. backward
  // compares logits with the largest as computed again, and has to find that one.
  LGM_HD T slack(T worst, T largest) const {
    return T(8) * (epsilon * worst + numeric<T>::epsilon * std::fabs(largest));
  }
  // Logits above this are computed again: `largest` less window and slack.
  LGM_HD T threshold(T worst, T largest) const {
    return largest - cancellation<T>::window - slack(worst, largest);
  }
  // Of class k of the range.
  LGM_HD T bound_of(T half_norm, std::int64_t k) const {
    return bound(half_norm, scale == nullptr ? T(1) : scale[k], norm[k]);
  }
};

// Turns a row of products into logits (eq:logit, alpha = 0), in place, and returns the largest.
//   row         held [n]: products in, logits as the frame has them out; index `target` (none: -1) becomes -infinity,
//               which leaves it out of sums, maxima and weights: row_target has its logit, from the differences
//   frame       of the sample
//   known_max   a lower bound of the row's largest logit over all classes, in the same frame; -infinity where none is known
//   direct      direct(k): d_k - frame.omitted of the sample and class k of the range, from the differences. One lane calls it,
//               so that it makes no call of the group
template <class Group, class Row, class T, class Direct>
LGM_HD T finish_logits(const Group& group, Row& row, const class_constants<T>& c, const row_frame<T>& frame,
                       std::int64_t target, T known_max, Direct direct) {
  using detail::fused;
  using detail::largest;
  const T none = -numeric<T>::infinity, half_norm = frame.half_norm;
  T top = none;
  if (c.scale == nullptr) {
    const auto finish = [&](auto& l, auto k) {
      using V = std::decay_t<decltype(l)>;
      l = (l + load(c.offset, k)) - V(frame.pending);
      replace(l, k, target, none);
    };
    top = group.for_each_reduce(row, finish, none, maximum{});
  } else {
    const auto finish = [&](auto& l, auto k) {
      using V = std::decay_t<decltype(l)>;
      l = fused(V(-half_norm), load(c.scale, k) - V(c.base_scale), l + load(c.offset, k)) - V(frame.pending);
      replace(l, k, target, none);
    };
    top = group.for_each_reduce(row, finish, none, maximum{});
  }
  // Where squares overflow, so may products.
  if (half_norm >= -numeric<T>::lowest) {
    const auto bound = [&](auto& l, auto k) {
      for_lanes(l, k, [&](T& lane, std::int64_t) {
        lane = frame.pending <= -numeric<T>::lowest && lane > none
                   ? detail::smaller(lane, -numeric<T>::lowest)
                   : none;
      });
    };
    top = group.for_each_reduce(row, bound, none, maximum{});
  }
  const T worst = c.bound(half_norm, c.max_scale, c.max_norm);
  if (!(worst > c.trusted)) return top;
  const T threshold = c.threshold(worst, detail::larger(top, known_max));
  const auto compute_again = [&](auto& l, auto k) {
    if (!(largest(l) >= threshold)) return;
    for_lanes(l, k, [&](T& lane, std::int64_t i) {
      if (i == target || !(lane >= threshold)) return;
      if (c.bound_of(half_norm, i) > c.trusted) lane = logit(c.bias[i], direct(i), T(1));
    });
  };
  return group.for_each_reduce(row, compute_again, none, maximum{});
}

// The evidence of a range of classes for one sample: that of the classes other than the target's, and the best of them. States
// of ranges merge in any order; the lowest class wins ties.
template <class T>
struct row_evidence {
  log_sum<T> others;       // over k != z; others.max is the best logit
  std::int64_t best = -1;  // its class, of the whole mixture; -1: none, or not asked for
  // Where classes other than the target's have a coefficient c_k in the loss (label smoothing, soft targets): the sum of
  // c_k, and of c_k (max - l_k), of which no term is negative.
  T coefficient = 0;
  T gap = 0;
  // For eq:entropy: the sum of exp(l_k - max) (max - l_k), of which no term is negative.
  T spread = 0;

  // The spread of both ranges together, before they merge.
  LGM_HD T merged_spread(const row_evidence& other) const {
    const T top = detail::larger(others.max, other.others.max);
    const auto moved = [&](const row_evidence& e) {
      const T drop = top - e.others.max;
      return e.others.sum == T(0) ? T(0)
                                  : detail::product_or_zero(std::exp(-drop), e.spread + drop * e.others.sum);
    };
    return moved(*this) + moved(other);
  }

  // sum_k c_k (log sum exp l - l_k) of the range, given the evidence of all classes.
  LGM_HD T classification_loss(const log_evidence<T>& evidence) const {
    return gap + detail::product_or_zero(coefficient,
                                         (evidence.finite_anchor() - others.anchor()) + evidence.correction);
  }

  LGM_HD void merge(const row_evidence& other) {
    if (other.best >= 0 &&
        (best < 0 || other.others.max > others.max || (other.others.max == others.max && other.best < best)))
      best = other.best;
    const T mine = others.anchor(), theirs = other.others.anchor();
    others.merge(other.others);
    gap = (gap + detail::product_or_zero(coefficient, others.anchor() - mine)) +
          (other.gap + detail::product_or_zero(other.coefficient, others.anchor() - theirs));
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
    // A row without a largest logit is all NaN, or has no class but the target.
    e.best = i < row.size && top > -numeric<T>::infinity ? first_class + i : -1;
  }
  return e;
}

// Adds the spread of a row of finished logits; e is their evidence_of.
template <class Group, class Row, class T>
LGM_HD void add_spread(const Group& group, const Row& row, row_evidence<T>& e) {
  const T anchor = e.others.anchor();
  e.spread = group.reduce(
      row, T(0),
      [&](auto l, auto) {
        using V = std::decay_t<decltype(l)>;
        using detail::exp_above;
        using detail::product_or_zero;
        return product_or_zero(exp_above(l - V(anchor), V(numeric<T>::negligible)), V(anchor) - l);
      },
      plus{});
}

// Adds to e what c_k makes of a row of finished logits; e is their evidence_of. coefficient(k): c_k, of a class or a
// packet of them.
template <class Group, class Row, class T, class Coefficient>
LGM_HD void add_gap(const Group& group, const Row& row, Coefficient coefficient, row_evidence<T>& e) {
  const T anchor = e.others.anchor();
  e.coefficient = group.reduce(
      row, T(0), [&](auto l, auto k) { return decltype(l)(coefficient(k)); }, plus{});
  e.gap = group.reduce(
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
  T distance = numeric<T>::infinity;  // d_k - omitted
  std::int64_t index = -1;
  T omitted = 0;  // of the row's frame

  // The first found stays where another is as near.
  LGM_HD void take_nearer(const nearest_class& other) {
    if (other.index < 0) return;
    const bool nearer = omitted == other.omitted ? other.distance < distance
                                                 : other.distance + other.omitted < distance + omitted;
    if (index < 0 || nearer) *this = other;
  }
};

namespace detail {

// d_k - H from a row of products.
template <class T, class Products, class Index>
LGM_HD auto product_distance(const class_constants<T>& c, T half_norm, const Products& product, Index k) {
  using lgm::load;
  using V = std::decay_t<Products>;
  V d = fused(V(T(0.5)), load(c.norm, k), -product);
  if (c.scale != nullptr) d = fused(V(half_norm), load(c.scale, k) - V(c.base_scale), d);
  if (c.offset_product != nullptr) d = d + load(c.offset_product, k);
  return d;
}

}  // namespace detail

// The least d_k - H in a row of products, to the precision of the products. row: held [n], left as it is.
template <class Group, class Row, class T>
LGM_HD T least_beyond(const Group& group, const Row& row, const class_constants<T>& c, T half_norm) {
  return group.reduce(
      row, numeric<T>::infinity, [&](auto p, auto k) { return detail::product_distance(c, half_norm, p, k); },
      minimum{});
}

// The frame of a row of products, not yet logits. What all classes share is left out unless one of these classes is near. It is
// also left out wherever the products may be trusted either way. `of_row` has their half_norm. row: held [n], left as it is.
template <class Group, class Row, class T>
LGM_HD row_frame<T> frame_of(const Group& group, const Row& row, const class_constants<T>& c,
                             row_frame<T> of_row) {
  of_row.omit_shared();
  if (of_row.shared() > T(0) && c.bound(of_row.half_norm, c.max_scale, c.max_norm) > c.trusted)
    of_row.omit_unless_near(of_row.shared() + least_beyond(group, row, c, of_row.half_norm));
  return of_row;
}

// The nearest class of a row of products, not yet logits: without priors and determinants.
//   row          held [n], left as it is
//   frame        of the sample; the distances are d_k - frame.omitted
//   first_class  added to the index
//   direct       as of finish_logits
//   distances    [n], scratch
template <class Group, class Row, class T, class Direct>
LGM_HD nearest_class<T> nearest_of(const Group& group, const Row& row, const class_constants<T>& c,
                                   const row_frame<T>& frame, std::int64_t first_class, Direct direct,
                                   T* distances) {
  using detail::largest;
  auto held = group.load_row(distances, row.size);
  const T* const products = row.data;
  group.for_each(held, [&](auto& d, auto k) {
    using V = std::decay_t<decltype(d)>;
    d = detail::product_distance(c, frame.half_norm, load(products, k), k) + V(frame.pending);
  });
  T least = group.reduce(held, numeric<T>::infinity, row_value{}, minimum{});
  const T worst = c.bound(frame.half_norm, c.max_scale, c.max_norm);
  if (worst > c.trusted) {
    const T threshold = least + c.slack(worst, least);
    group.for_each(held, [&](auto& d, auto k) {
      if (!(-largest(-d) <= threshold)) return;
      for_lanes(d, k, [&](T& lane, std::int64_t i) {
        if (lane <= threshold) lane = direct(i);
      });
    });
    least = group.reduce(held, numeric<T>::infinity, row_value{}, minimum{});
  }
  const std::int64_t i = group.find(held, least);
  return i < row.size ? nearest_class<T>{least, first_class + i, frame.omitted} : nearest_class<T>{};
}

// The nearest of all classes where squares overflow, by distances of numbers that are scaled down; class 0 where features are
// not finite. Such samples are rare: every class is computed again.
//   features  [dims]; its load is a scalar
template <class Group, class Features, class T>
LGM_HD std::int64_t nearest_scaled(const Group& group, const shape& s, const mixture<T>& m,
                                   const Features& features) {
  const T factor = numeric<T>::shrinking;
  const auto distance = [&](std::int64_t k) {
    const class_parameters<T> c(s, m, k);
    T sum = 0;
    for (std::int64_t j = 0; j < s.dims; ++j) {
      const T x = factor * load(features, j), mean = factor * load(c.mean, j);
      if (c.log_variance == nullptr) {
        sum += mean * (T(0.5) * mean - x);  // of squares that all classes share
      } else {
        const T t = (x - mean) * inverse_deviation(c.log_variance[c.diagonal ? j : 0]);
        sum += t * t;
      }
    }
    return sum;
  };
  const T least = group.reduce(s.classes, numeric<T>::infinity, distance, minimum{});
  const std::int64_t k = group.reduce(
      s.classes, s.classes, [&](std::int64_t c) { return distance(c) == least ? c : s.classes; }, minimum{});
  return k < s.classes ? k : 0;
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

// Restates the target's logits in the sample's frame. origin, base_scale: of distance_beyond.
template <class Group, class Features, class T>
LGM_HD void omit_from(const Group& group, std::int64_t dims, const Features& features,
                      const class_parameters<T>& c, T log_prior, T alpha, const row_frame<T>& frame,
                      const detail::named_t<T>* origin, T base_scale, row_target<T>& t) {
  if (frame.omitted == T(0)) return;
  const T beyond = distance_beyond(group, dims, features, c, origin, frame.half_norm, base_scale);
  t.logit_without_margin = logit(log_prior - t.half_log_det, beyond, T(1));
  t.logit = t.logit_without_margin - detail::product_or_zero(alpha, t.distance);
}

// Weights that the gradients' products take as they are.
struct unrounded {
  template <class V, class Index>
  LGM_HD V operator()(V weight, Index) const {
    return weight;
  }
};

// Where a row of weights adds to the sums by class; [n] each, null: not wanted.
template <class T>
struct class_sum_rows {
  T* weight = nullptr;           // w_k
  T* distance = nullptr;         // w_k d_k
  T* variance_weight = nullptr;  // soft targets: the likelihood's weight less g_k
  T* probability = nullptr;      // soft targets: g_k
};

namespace detail {

template <class T, class Index, class V>
LGM_HD void add_to(T* sums, Index k, V value) {
  using lgm::load;  // packets have theirs in this namespace
  using lgm::store;
  if (sums != nullptr) store(sums, k, load(sums, k) + value);
}

}  // namespace detail

// Sums over a row of weights, of which the feature gradient is made.
template <class T>
struct weight_sums {
  T weight = 0;  // of w_k
  T beyond = 0;  // of w_k (1 / Lambda_k - base_scale)
  T extra = 0;   // soft targets: of w_k + g_k, which margin and likelihood alone add to
};
// Turns a row into weights by make(value&, k), and sums them.
template <class Group, class Row, class T, class Make>
LGM_HD weight_sums<T> make_weights(const Group& group, Row& row, const class_constants<T>& c, Make make) {
  weight_sums<T> s;
  s.weight = group.for_each_reduce(row, make, T(0), plus{});
  if (c.scale != nullptr)
    s.beyond = group.reduce(
        row, T(0),
        [&](auto w, auto k) {
          using V = std::decay_t<decltype(w)>;
          return w * (load(c.scale, k) - V(c.base_scale));
        },
        plus{});
  return s;
}

// Turns a row of finished logits into weights (eq:weight), in place: scale * exp(l_k - log_evidence), scale
// being minus the sample's upstream gradient times the sum of its c_k; plus smoothing * class_weight_k (class_weight
// null: smoothing); index `target` becomes 0. Returns their sums, from the weights as rounded.
//   log_cutoff    the logarithm of a share of the evidence: classes with a smaller share have weight zero
//   class_weight  [n]
//   sums          only weight and distance: the others follow from them
//   round         round(w, k): the weight as the products will take it; may store it for them
template <class Group, class Row, class T, class Round = unrounded>
LGM_HD weight_sums<T> finish_weights(const Group& group, Row& row, const class_constants<T>& c,
                                     const row_frame<T>& frame, const log_evidence<T>& evidence, T scale,
                                     T smoothing, const detail::named_t<T>* class_weight, std::int64_t target,
                                     const class_sum_rows<detail::named_t<T>>& sums,
                                     detail::named_t<T> log_cutoff = numeric<T>::negligible,
                                     Round round = {}) {
  return make_weights(group, row, c, [&](auto& l, auto k) {
    using V = std::decay_t<decltype(l)>;
    using detail::fused;
    using detail::product_or_zero;
    const V logit = l;
    l = competitor_weight(logit, evidence, scale, log_cutoff);
    if (smoothing != T(0))
      l = class_weight == nullptr ? l + V(smoothing) : fused(V(smoothing), load(class_weight, k), l);
    replace(l, k, target, T(0));
    l = round(l, k);
    detail::add_to(sums.weight, k, l);
    if (sums.distance != nullptr)
      detail::add_to(sums.distance, k, product_or_zero(l, (load(c.bias, k) - logit) + V(frame.omitted)));
  });
}

namespace detail {

// d_k from a logit, margin (b - l) / m; also where the class is excluded by a log prior of -infinity. omitted: of the
// logit's frame.
template <class T, class Index, class V>
LGM_HD V distance_of(const class_constants<T>& c, Index k, V l, V margin, T omitted) {
  using lgm::load;
  return ((larger(load(c.bias, k), V(numeric<T>::lowest)) - l) + V(omitted)) / margin;
}

}  // namespace detail

// Turns a row of logits without margin into the weights of any gradient of them, in place: scale * grad_logits_k, scale being
// minus the sample's upstream gradient; index `target` becomes 0. Returns their sums.
//   grad_logits  [n], in place of g_k
//   sums   only weight and distance; without distance the row's contents are not read
//   round  of finish_weights
template <class Group, class Row, class T, class Round = unrounded>
LGM_HD weight_sums<T> finish_given_weights(const Group& group, Row& row, const class_constants<T>& c,
                                           const row_frame<T>& frame, const T* grad_logits, T scale,
                                           std::int64_t target,
                                           const class_sum_rows<detail::named_t<T>>& sums, Round round = {}) {
  return make_weights(group, row, c, [&](auto& l, auto k) {
    using V = std::decay_t<decltype(l)>;
    using detail::product_or_zero;
    const V distance = detail::distance_of(c, k, l, V(T(1)), frame.omitted);
    l = V(scale) * load(grad_logits, k);
    replace(l, k, target, T(0));
    l = round(l, k);
    detail::add_to(sums.weight, k, l);
    if (sums.distance != nullptr) detail::add_to(sums.distance, k, product_or_zero(l, distance));
  });
}

// The part of eq:grad_feature that the products do not make. They add minus the sum of w_k mu'_k / Lambda_k over the classes
// other than the target's; a diagonal covariance's work on differences, and add the whole sum of w_k (x - mu_k) / Lambda_k.
//
// The g_k of all classes add up to 0. So where all 1 / Lambda_k are s, their part is s sum_{k != z} w_k (mu'_z - mu'_k): the
// sample cancels. As x' times the sum of the weights, the gradient of a far sample would be the rounding error of that sum.
template <class T>
struct feature_terms {
  T sample = 0;      // of x'
  T difference = 0;  // of x - mu_z; diagonal: divided by the variances
  T mean = 0;        // of mu'_z
};

// out [dims] = (add: +=) the terms.
//   c       class z; read where difference or mean are not 0
//   origin  [dims], of mu'; null: 0
template <class Group, class Features, class Centred, class T>
LGM_HD void init_feature_gradient(const Group& group, std::int64_t dims, const Features& features,
                                  const Centred& centred, const feature_terms<T>& terms,
                                  const class_parameters<T>& c, const detail::named_t<T>* origin, bool add,
                                  T* out) {
  using detail::fused;
  const bool diagonal = c.log_variance != nullptr && c.diagonal,
             of_class = terms.difference != T(0) || terms.mean != T(0);
  const T* const before = out;
  if (of_class || !add) {
    group.for_each(dims, [&](auto j) {
      using V = decltype(load(features, j));
      V sum = add ? load(before, j) : V(T(0));
      if (of_class) {
        const V mean = load(c.mean, j);
        V t = load(features, j) - mean;
        if (diagonal) t = t * inverse_variance(load(c.log_variance, j));
        sum = fused(V(terms.difference), t,
                    fused(V(terms.mean), origin == nullptr ? mean : mean - load(origin, j), sum));
      }
      store(out, j, sum);
    });
  }
  if (terms.sample == T(0)) return;
  group.for_each(dims, [&](auto j) {
    using V = decltype(load(features, j));
    store(out, j, fused(V(terms.sample), load(centred, j), load(before, j)));
  });
}

}  // namespace lgm
