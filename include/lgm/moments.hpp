// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/group.hpp>
#include <type_traits>

// Moments of the features of one class, and the parameters that follow from them. Each function is run by one group,
// whose lanes take the dimensions.
//
// A mean is kept as the sum of two numbers, mean + residual. Far from zero the rounding of one number would be larger than the
// step that one sample makes. At a mean of 1e6 standard deviations, with samples one by one, one double keeps ten digits of the
// squares; two keep all but the last two or three.

namespace lgm {

// high + low is the exact value; low is at most half a unit in the last place of high.
template <class V>
struct double_word {
  V high, low;
};

// a + b without rounding, whichever is larger (Knuth). Additions only: a compiler may not reorder them.
template <class V>
LGM_HD double_word<V> two_sum(V a, V b) {
  const V sum = a + b, b_as_added = sum - a;
  return {sum, (a - (sum - b_as_added)) + (b - b_as_added)};
}

// The same where a is the larger, or b as small as what rounding leaves out (Dekker).
template <class V>
LGM_HD double_word<V> quick_two_sum(V a, V b) {
  const V sum = a + b;
  return {sum, b - (sum - a)};
}

// (1 - t) a + t b: a at t = 0, b at t = 1.
template <class V, class A>
LGM_HD V mixed(V a, V b, A t) {
  using detail::fused;
  return fused(V(t), b, V(A(1) - t) * a);
}

// What a merge of n_a and n_b samples weighs with (Chan, Golub and LeVeque, 1983): the mean moves by share * delta, and
// the sum of squares grows by square * delta^2, where delta is the difference of the means.
template <class A>
struct merge_weights {
  A share;   // n_b / (n_a + n_b)
  A square;  // n_a n_b / (n_a + n_b)

  LGM_HD merge_weights(A n_a, A n_b) : share(n_b / (n_a + n_b)), square(n_a * share) {}
};

// The moments of one class, as they are written.
template <class A>
struct class_moment_rows {
  A* mean;      // [dims]
  A* residual;  // [dims], what rounding left out of mean; null: dropped
  A* m2;        // [dims]; null: not computed
};

// Merges other samples of the class into its moments.
//   from_count  of the others, not 0; into_count: of the class so far. Where that is 0, nothing of `into` is read.
//   mean        [dims] of the others, with residual [dims] (null: 0) and m2 [dims] (null: 0). One sample is a mean of
//               its own, in any type: it becomes A before anything is subtracted
//   deviation   [dims], out: sqrt(n_a n_b / n) times the difference of the means, whose products with itself are what
//               the merge adds to the class's scatter; null: not wanted
template <class Group, class Mean, class A>
LGM_HD void merge_class(const Group& group, std::int64_t dims, A from_count, const Mean& mean,
                        const A* residual, const A* m2, A into_count, const class_moment_rows<A>& into,
                        A* deviation) {
  using detail::fused;
  const merge_weights<A> weights(into_count, from_count);
  if (into_count == A(0)) {
    group.for_each(dims, [&](auto j) {
      const auto high = load_as<A>(mean, j);
      const std::decay_t<decltype(high)> zero(A(0));
      store(into.mean, j, high);
      if (into.residual != nullptr) store(into.residual, j, residual != nullptr ? load(residual, j) : zero);
      if (into.m2 != nullptr) store(into.m2, j, m2 != nullptr ? load(m2, j) : zero);
      if (deviation != nullptr) store(deviation, j, zero);
    });
    return;
  }
  const A root = std::sqrt(weights.square);
  // Adds to the squares what the merge does, from the difference of the means.
  const auto add_squares = [&](auto j, auto delta) {
    using V = decltype(delta);
    if (into.m2 != nullptr) {
      V squares = load(static_cast<const A*>(into.m2), j);
      if (m2 != nullptr) squares = squares + load(m2, j);
      store(into.m2, j, fused(V(weights.square) * delta, delta, squares));
    }
    if (deviation != nullptr) store(deviation, j, V(root) * delta);
  };
  if (into.residual == nullptr && residual == nullptr) {
    group.for_each(dims, [&](auto j) {
      const auto old = load(static_cast<const A*>(into.mean), j);
      using V = std::decay_t<decltype(old)>;
      const V delta = load_as<A>(mean, j) - old;
      store(into.mean, j, fused(V(weights.share), delta, old));
      add_squares(j, delta);
    });
    return;
  }
  group.for_each(dims, [&](auto j) {
    const auto old = load(static_cast<const A*>(into.mean), j);
    using V = std::decay_t<decltype(old)>;
    const V zero(A(0));
    const V old_low = into.residual != nullptr ? load(static_cast<const A*>(into.residual), j) : zero;
    const V low = residual != nullptr ? load(residual, j) - old_low : -old_low;
    const V delta = (load_as<A>(mean, j) - old) + low;
    const double_word<V> moved = two_sum(old, V(weights.share) * delta);
    const double_word<V> merged = quick_two_sum(moved.high, moved.low + old_low);
    store(into.mean, j, merged.high);
    if (into.residual != nullptr) store(into.residual, j, merged.low);
    add_squares(j, delta);
  });
}

// How moments become parameters, as estimate_options describe it.
template <class A>
struct estimate_rule {
  A shrinkage, floor, decay;
};

// The logarithm of a variance; NaN stays NaN.
//   variance  of the class
//   pooled    of all classes; read where shrinkage is not 0
//   present   the logarithm so far; read where decay is not 0
template <class V, class A>
LGM_HD V estimated_log_variance(V variance, V pooled, V present, const estimate_rule<A>& rule) {
  using detail::larger;
  using std::exp;
  using std::log;
  const V floor(rule.floor);
  if (rule.shrinkage != A(0)) variance = mixed(variance, pooled, rule.shrinkage);
  variance = larger(variance, floor);
  // A present variance below the floor must not take the result below it.
  if (rule.decay != A(0)) variance = larger(mixed(variance, exp(present), rule.decay), floor);
  return log(variance);
}

// The logarithm of a prior; present as above.
template <class A>
LGM_HD A estimated_log_prior(A prior, A present, const estimate_rule<A>& rule) {
  return std::log(rule.decay != A(0) ? mixed(prior, std::exp(present), rule.decay) : prior);
}

// The mean of one class. mean, out: [dims]; out is read where decay is not 0.
template <class Group, class A, class T>
LGM_HD void estimate_mean(const Group& group, std::int64_t dims, const A* mean, const estimate_rule<A>& rule,
                          T* out) {
  group.for_each(dims, [&](auto j) {
    auto value = load(mean, j);
    if (rule.decay != A(0)) value = mixed(value, load_as<A>(static_cast<const T*>(out), j), rule.decay);
    store_as(out, j, value);
  });
}

// The logarithms of the variances of one class with a diagonal covariance.
//   m2      [dims], with the inverse of the class's count
//   pooled  [dims], variances of all classes; read where shrinkage is not 0
//   out     [dims], read where decay is not 0
template <class Group, class A, class T>
LGM_HD void estimate_log_variance(const Group& group, std::int64_t dims, const A* m2, A inverse_count,
                                  const A* pooled, const estimate_rule<A>& rule, T* out) {
  group.for_each(dims, [&](auto j) {
    const auto squares = load(m2, j);
    using V = std::decay_t<decltype(squares)>;
    const V zero(A(0));
    const V together = rule.shrinkage != A(0) ? load(pooled, j) : zero;
    const V present = rule.decay != A(0) ? load_as<A>(static_cast<const T*>(out), j) : zero;
    store_as(out, j, estimated_log_variance(V(inverse_count) * squares, together, present, rule));
  });
}

}  // namespace lgm
