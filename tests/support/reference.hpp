// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

// The mixture loss, its gradients and scores once more, as slowly and plainly as possible: long double, loops
// over samples, classes and dimensions straight from the formulas. It includes nothing of the library, so
// that a mistake in one of them shows as a difference between them.

namespace reference {

using real = long double;

enum class variances { identity, spherical, diagonal };
enum class averaging { mean, sum, none };

// Everything is packed and explicit here: no strides, no null arrays, ignored samples have the label -1.
struct input {
  std::size_t samples = 0, classes = 0, dims = 0;
  variances form = variances::diagonal;
  averaging over = averaging::mean;
  real alpha = 0, lambda = 0, label_smoothing = 0;
  bool normalized = false;  // with averaging::mean: divide by `normalizer` instead of the weights
  real normalizer = 1;
  std::vector<real> features;       // [samples, dims]
  std::vector<real> mean;           // [classes, dims]
  std::vector<real> log_variance;   // spherical: [classes]; diagonal: [classes, dims]; identity: empty
  std::vector<real> log_prior;      // [classes]
  std::vector<real> class_weight;   // [classes], W_k
  std::vector<real> sample_weight;  // [samples], s_i
  std::vector<real> upstream;       // [samples]
  // [samples]: the targets; with soft targets the largest of each row, which is what a prediction is compared with.
  std::vector<std::int64_t> label;
  bool soft = false;  // the targets are `target`, and no sample is ignored
  // Not of the problem: whether the library is asked for it in shards, whose numbers count from zero.
  bool shards = false;
  std::vector<real> target;  // [samples, classes], q_ik
};

inline bool counts(const input& in, std::size_t i) { return in.soft || in.label[i] >= 0; }

// q_ik: a label is all of its sample's target.
inline real target_at(const input& in, std::size_t i, std::size_t k) {
  if (in.soft) return in.target[i * in.classes + k];
  return in.label[i] == static_cast<std::int64_t>(k) ? 1 : 0;
}

inline real log_variance_at(const input& in, std::size_t k, std::size_t j) {
  if (in.form == variances::identity) return 0;
  return in.form == variances::spherical ? in.log_variance[k] : in.log_variance[k * in.dims + j];
}

struct output {
  std::vector<real> distance;           // [samples, classes], eq:distance
  std::vector<real> logit;              // [samples, classes], eq:logit without margin
  std::vector<real> logit_with_margin;  // [samples, classes], log p_k - h_k - (1 + alpha q_k) d_k
  std::vector<real> half_log_det;       // [classes], eq:log_det
  std::vector<real> total;              // [samples], eq:loss; zero for ignored samples, as the next two
  std::vector<real> classification;     // [samples], sum_k c_k (E - l_k); eq:classification without weights
  std::vector<real> likelihood;  // [samples], s_i sum_k W_k q_k (d_k + h_k); eq:likelihood without weights
  // [samples], the two numbers of row_state, but for what it is relative to. Labels: l_z with margin, and log sum of
  // exp l_k over k != z. Soft targets: the sum of c_k / s_i, and E. Both -infinity for ignored samples.
  std::vector<real> target_logit, rest;
  std::vector<real> log_evidence;  // [samples], E = log sum_k exp l_k, with margin; zero for ignored samples
  std::int64_t counted = 0;        // samples that are not ignored
  std::int64_t correct = 0;        // of these, arg max without margin is the label, lowest index on ties
  real divisor = 1;                // of averaging::mean; else 1
  std::vector<real> coefficient;   // [samples, classes], c_k
  std::vector<real> coefficient_sum;  // [samples], S = sum_k c_k
  std::vector<real> own;  // [samples, classes], the likelihood's part of a weight: lambda s_i W_k q_k
  std::vector<real> posterior_slope;  // [samples, classes], g = S p_k - c_k; eq:weight without weights
  std::vector<real> weight;           // [samples, classes], w = -g (1 + alpha q_k) + own
  std::vector<real> factor;        // [samples]: what reduction and upstream multiply a sample's gradient by
  std::vector<real> feature;       // [samples, dims], eq:grad_feature
  std::vector<real> mean;          // [classes, dims], eq:grad_mean
  std::vector<real> log_variance;  // of the mixture's shape, eq:grad_log_variance
  std::vector<real> log_prior;     // [classes], eq:grad_log_prior
};

// log sum of exp over the values that `use` accepts; -infinity when there are none.
template <class Value, class Use>
real log_sum_exp(std::size_t n, Value value, Use use) {
  real largest = -std::numeric_limits<real>::infinity();
  for (std::size_t k = 0; k < n; ++k)
    if (use(k)) largest = std::max(largest, value(k));
  if (std::isinf(largest)) return largest;
  real sum = 0;
  for (std::size_t k = 0; k < n; ++k)
    if (use(k)) sum += std::exp(value(k) - largest);
  return largest + std::log(sum);
}

output evaluate(const input& in);

// The scalar whose gradients evaluate() gives: the samples' losses times their factors.
real objective(const input& in);

// The gradients of any loss of the logits, G = its slopes [samples, classes], and of the likelihood: a sample's
// part is upstream_i (sum_k G_ik l_ik + lambda L_lkd_i / divisor).
output evaluate_logits_backward(const input& in, const std::vector<real>& grad_logits);

// The scalar whose gradients evaluate_logits_backward() gives.
real logits_objective(const input& in, const std::vector<real>& grad_logits);

// A per-sample loss as `averaging` reports it: one value, or one a sample.
std::vector<real> reduced(const input& in, const output& out, const std::vector<real>& loss);

struct scores {
  std::vector<std::int64_t> predicted;
  std::vector<real> posterior, log_density, log_mixture, squared_mahalanobis, nearest_squared_mahalanobis,
      entropy;
};

// Without margin; one class at least.
scores score(const input& in);

}  // namespace reference
