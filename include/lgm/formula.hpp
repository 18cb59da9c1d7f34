// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/scalar.hpp>
#include <limits>

// Every scalar equation of the loss, once. V is a floating point type, or a packet of one on the host
// (detail/host/packet_group.hpp): one formula, two widths. The README's table names the function of each tag.

namespace lgm {

// Constants and cut-offs that depend on the floating point type. A packet takes those of its scalar.
template <class T>
struct numeric {
  // Unit roundoff.
  static constexpr T epsilon = std::numeric_limits<T>::epsilon() / 2;
  static constexpr T infinity = std::numeric_limits<T>::infinity();
  static constexpr T lowest = std::numeric_limits<T>::lowest();
  static constexpr T not_a_number = std::numeric_limits<T>::quiet_NaN();
  static constexpr T half_log_two_pi = static_cast<T>(0.918938533204672741780329736405617640L);
  // A class whose share of the evidence is below exp(negligible) has weight zero. That is far below rounding, and so far above
  // the smallest normal number that scaled weights are never subnormal: matrix products are slow on those.
  static constexpr T negligible = sizeof(T) == 4 ? static_cast<T>(-80) : static_cast<T>(-650);
  // Multiplied by this, any number has a square that does not overflow, and neither does a long sum of such squares.
  static constexpr T shrinking = sizeof(T) == 4 ? static_cast<T>(0x1p-80) : static_cast<T>(0x1p-600);
  // Below this exp is subnormal: it takes ten times as long, and contributes nothing.
  static constexpr T vanishing = sizeof(T) == 4 ? static_cast<T>(-87) : static_cast<T>(-708);
};

// eq:distance and eq:log_det read the variance through its logarithm.
template <class V>
LGM_HD V inverse_variance(V log_variance) {
  using std::exp;
  return exp(-log_variance);
}

// The square root of the inverse.
template <class V>
LGM_HD V inverse_deviation(V log_variance) {
  using std::exp;
  return exp(V(-0.5f) * log_variance);
}

// One dimension of 2 d_k (eq:distance), before division by the variance.
template <class V>
LGM_HD V squared_difference(V x, V mean) {
  const V t = x - mean;
  return t * t;
}

// eq:log_det of one dimension.
template <class V>
LGM_HD V half_log_det(V log_variance) {
  return V(0.5f) * log_variance;
}

// The factor of d_k in eq:logit, 1 + alpha delta_kz.
template <class T>
LGM_HD T margin(T alpha, bool is_target) {
  return is_target ? T(1) + alpha : T(1);
}

// eq:logit; bias is log p_k - h_k.
template <class V>
LGM_HD V logit(V bias, V distance, V margin) {
  return bias - margin * distance;
}

// log sum exp of a set of logits, mergeable: the largest logit, and the sum of exp(l - max). Empty: -infinity
// and 0.
template <class T>
struct log_sum {
  T max = -numeric<T>::infinity;
  T sum = 0;

  // The value that logits are taken relative to. Finite for the empty set too, so that no infinity is subtracted from another.
  LGM_HD T anchor() const { return max == -numeric<T>::infinity ? T(0) : max; }
  LGM_HD T value() const { return max + std::log(sum); }

  LGM_HD void merge(const log_sum& other) {
    if (other.sum == T(0)) return;
    if (sum == T(0)) {
      *this = other;
      return;
    }
    // Not std::max: a NaN has to stay, whichever side it comes from.
    const T top = other.max > max ? other.max : max;
    sum = sum * std::exp(max - top) + other.sum * std::exp(other.max - top);
    max = top;
  }
};

// The logarithm of a sum of exp l in two parts: the largest l, and the rest, which would be lost to rounding in one number.
template <class T>
struct log_parts {
  T max = -numeric<T>::infinity;
  T log = -numeric<T>::infinity;

  log_parts() = default;
  LGM_HD log_parts(const log_sum<T>& sum) : max{sum.max}, log{std::log(sum.sum)} {}
  LGM_HD log_parts(T largest, T rest) : max{largest}, log{rest} {}
  LGM_HD bool is_empty() const { return max == -numeric<T>::infinity; }
  LGM_HD T value() const { return max + log; }
};

// log(e^a + e^b); either may be -infinity.
template <class T>
LGM_HD T merged_log_sum(T a, T b) {
  if (a == -numeric<T>::infinity) return b;
  if (b == -numeric<T>::infinity) return a;
  return detail::larger(a, b) + std::log1p(std::exp(-std::fabs(a - b)));
}

// row_state [2] of other classes into that of some (see loss_result).
template <class T>
LGM_HD void merge_state(const T* from, T* into) {
  if (into[0] == -numeric<T>::infinity)
    into[0] = from[0];
  else if (from[0] != -numeric<T>::infinity)
    into[0] += from[0];
  into[1] = merged_log_sum(into[1], from[1]);
}

// eq:rest. others: of l_k over k != z. A logit of -infinity at the target (its distance overflows, or its prior is zero) gives
// R = infinity: the other classes have all the probability.
template <class T>
LGM_HD T rest(const log_parts<T>& others, T target) {
  if (target == -numeric<T>::infinity) return numeric<T>::infinity;
  return others.is_empty() ? others.value() : (others.max - target) + others.log;
}

// Loss and residual from R, with full relative accuracy for small losses as well as large ones.
template <class T>
struct rest_terms {
  T rest;
  T tail;        // e^-|R|
  T correction;  // log(1 + e^-|R|)

  LGM_HD explicit rest_terms(T r)
      : rest(r),
        tail(detail::exp_above(-std::fabs(r), numeric<T>::vanishing)),
        correction(std::log1p(tail)) {}

  // eq:classification, log(1 + e^R).
  LGM_HD T classification_loss() const { return rest > T(0) ? rest + correction : correction; }
  // eq:weight, -g_z = sigmoid(R): the probability of all classes but the target's.
  LGM_HD T target_residual() const { return (rest > T(0) ? T(1) : tail) / (T(1) + tail); }
};

template <class T>
LGM_HD T classification_loss(T rest) {
  return rest_terms<T>(rest).classification_loss();
}

// eq:likelihood.
template <class T>
LGM_HD T likelihood_loss(T distance, T half_log_det) {
  return distance + half_log_det;
}

// eq:loss.
template <class T>
LGM_HD T total_loss(T classification, T lambda, T likelihood) {
  // With lambda = 0 a likelihood that overflows does not matter.
  return lambda == T(0) ? classification : classification + lambda * likelihood;
}

template <class T>
LGM_HD T target_residual(T rest) {
  return rest_terms<T>(rest).target_residual();
}

// eq:weight, w_z. lambda: times the weight of the sample's likelihood.
template <class T>
LGM_HD T target_weight(T target_residual, T alpha, T lambda) {
  return target_residual * margin(alpha, true) + lambda;
}

// What class and sample weights and label smoothing make of a labelled sample: its eq:classification is
// sum_k c_k (log sum exp l - l_k), and g_k = (sum c) p_k - c_k (torch.nn.CrossEntropyLoss weighs and smooths likewise).
template <class T>
struct label_coefficients {
  T target = 1;      // c_z
  T smoothing = 0;   // c_k of another class is this times the class's weight
  T others = 0;      // sum of c_k over k != z
  T likelihood = 1;  // factor of eq:likelihood, which smoothing does not touch

  label_coefficients() = default;
  // class_weight is that of the target, class_weight_sum that of all `classes` classes of the mixture.
  LGM_HD label_coefficients(T sample_weight, T class_weight, T class_weight_sum, T label_smoothing,
                            std::int64_t classes) {
    likelihood = target = sample_weight * class_weight;
    if (label_smoothing == T(0)) return;
    smoothing = sample_weight * label_smoothing / static_cast<T>(classes);
    target = (T(1) - label_smoothing) * likelihood + smoothing * class_weight;
    others = smoothing * (class_weight_sum - class_weight);
  }
  LGM_HD T total() const { return target + others; }
  // -g_z, from the probability of all classes but the target's.
  LGM_HD T residual(T target_residual) const { return total() * target_residual - others; }
};

// log sum exp l_k over all classes, in two parts: anchor, the larger of the target's logit and the others' largest, and the
// rest. In one number the rest would be rounded away where logits are large, and l_k - log_evidence would be wrong where it is
// near zero.
template <class T>
struct log_evidence {
  T anchor = -numeric<T>::infinity;
  T correction = 0;

  log_evidence() = default;
  LGM_HD log_evidence(T target, const log_parts<T>& others)
      : log_evidence(target, others, rest_terms<T>(rest(others, target))) {}
  // terms: those of rest(others, target).
  LGM_HD log_evidence(T target, const log_parts<T>& others, const rest_terms<T>& terms)
      : anchor(terms.rest > T(0) ? others.max : target),
        correction(terms.rest > T(0) && !others.is_empty() ? others.log + terms.correction
                                                           : terms.correction) {}
  LGM_HD T value() const { return anchor + correction; }
  // The value that logits are taken relative to. Finite where all of them are -infinity too, so that no infinity is subtracted
  // from another.
  LGM_HD T finite_anchor() const { return anchor == -numeric<T>::infinity ? T(0) : anchor; }
};

// eq:weight, g_k of a class other than the target's, as it is after multiplication by scale = -upstream: w_k. Zero where
// log g_k is below log_cutoff.
template <class V, class T>
LGM_HD V competitor_weight(V logit, const log_evidence<T>& evidence, T scale,
                           detail::named_t<T> log_cutoff = numeric<T>::negligible) {
  using detail::exp_above;
  return V(scale) * exp_above((logit - V(evidence.finite_anchor())) - V(evidence.correction), V(log_cutoff));
}

// One dimension of eq:grad_mean: minus the weighted sum of x - mu, over the variance.
template <class V>
LGM_HD V mean_gradient(V weighted_difference, V inverse_variance) {
  return -(inverse_variance * weighted_difference);
}

// One dimension of eq:grad_log_variance. variance_weight is sum_i [lambda delta_kz - g_ik], weighted_square is
// sum_i w_ik (x_ij - mu_kj)^2.
template <class V>
LGM_HD V log_variance_gradient(V variance_weight, V weighted_square, V inverse_variance) {
  using detail::fused;
  return V(0.5f) * fused(-inverse_variance, weighted_square, variance_weight);
}

// eq:grad_log_variance summed over the dimensions of a spherical class; weighted_distance is sum_i w_ik d_ik.
template <class T>
LGM_HD T spherical_log_variance_gradient(T variance_weight, T weighted_distance, std::int64_t dims) {
  return T(0.5) * static_cast<T>(dims) * variance_weight - weighted_distance;
}

// eq:log_density. log_abs_det is that of eq:whitening, 0 where nothing was whitened.
template <class T>
LGM_HD T log_density(T distance, T half_log_det, std::int64_t dims, T log_abs_det = T(0)) {
  return log_abs_det - distance - half_log_det - static_cast<T>(dims) * numeric<T>::half_log_two_pi;
}

// eq:log_mixture. evidence is log sum exp l_k, log_prior_sum is log sum exp log p_k; log_abs_det as above.
template <class T>
LGM_HD T log_mixture(T evidence, T log_prior_sum, std::int64_t dims, T log_abs_det = T(0)) {
  return (evidence - log_prior_sum) + (log_abs_det - static_cast<T>(dims) * numeric<T>::half_log_two_pi);
}

// eq:entropy, from the sums over all classes of exp(l_k - max) and of exp(l_k - max) (max - l_k).
template <class T>
LGM_HD T entropy(T sum, T spread) {
  return std::log(sum) + spread / sum;
}

// A normal number with mean 0 and variance 1 that depends on nothing but seed and index: the sum of twelve
// uniform numbers less six (Irwin-Hall; within 0.003 of the normal distribution function). Integer arithmetic
// until the last step, so that every compiler and device gives the same bits. The generator is SplitMix64
// (Steele et al., 2014).
LGM_HD inline double normal_at(std::uint64_t seed, std::uint64_t index) {
  const std::uint64_t gamma = 0x9e3779b97f4a7c15u;
  std::uint64_t state = seed * 0xd1342543de82ef95u + index * 6u * gamma;
  std::uint64_t sum = 0;
  for (int i = 0; i < 6; ++i) {
    state += gamma;
    std::uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    sum += (z >> 32) + (z & 0xffffffffu);
  }
  // 12 half-steps centre the twelve truncated numbers.
  return (static_cast<double>(sum) + 6.0) * (1.0 / 4294967296.0) - 6.0;
}

}  // namespace lgm
