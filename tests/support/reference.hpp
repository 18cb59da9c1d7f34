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
  bool soft = false;         // the targets are `target`, and no sample is ignored
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
  // [samples], the two numbers of row_state. Labels: l_z with margin, and log sum of exp l_k over k != z. Soft targets:
  // log of the sum of c_k / s_i, and E. Both -infinity for ignored samples.
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

inline void distances(const input& in, output& out) {
  out.half_log_det.assign(in.classes, 0);
  std::vector<real> precision(in.classes * in.dims);
  for (std::size_t k = 0; k < in.classes; ++k)
    for (std::size_t j = 0; j < in.dims; ++j) {
      out.half_log_det[k] += log_variance_at(in, k, j) / 2;
      precision[k * in.dims + j] = std::exp(-log_variance_at(in, k, j));
    }
  out.distance.assign(in.samples * in.classes, 0);
  out.logit.assign(in.samples * in.classes, 0);
  for (std::size_t i = 0; i < in.samples; ++i)
    for (std::size_t k = 0; k < in.classes; ++k) {
      real sum = 0;
      for (std::size_t j = 0; j < in.dims; ++j) {
        const real difference = in.features[i * in.dims + j] - in.mean[k * in.dims + j];
        sum += difference * difference * precision[k * in.dims + j];
      }
      out.distance[i * in.classes + k] = sum / 2;
      out.logit[i * in.classes + k] = in.log_prior[k] - out.half_log_det[k] - sum / 2;
    }
}

// What averaging::mean divides by: the weights of the samples that count.
inline real divisor_of(const input& in) {
  if (in.over != averaging::mean) return 1;
  if (in.normalized) return in.normalizer;
  real sum = 0;
  for (std::size_t i = 0; i < in.samples; ++i)
    if (counts(in, i))
      sum += in.sample_weight[i] * (in.soft ? 1 : in.class_weight[static_cast<std::size_t>(in.label[i])]);
  return sum;
}

// What targets and weights say before any loss is computed: c, own and the logits with margin.
inline void targets(const input& in, output& out) {
  const std::size_t size = in.samples * in.classes;
  out.coefficient.assign(size, 0);
  out.own.assign(size, 0);
  out.coefficient_sum.assign(in.samples, 0);
  out.logit_with_margin = out.logit;
  for (std::size_t i = 0; i < in.samples; ++i)
    for (std::size_t k = 0; k < in.classes && counts(in, i); ++k) {
      const std::size_t n = i * in.classes + k;
      const real q = target_at(in, i, k), weight = in.sample_weight[i] * in.class_weight[k];
      const real uniform = in.label_smoothing / static_cast<real>(in.classes);
      out.coefficient[n] = weight * ((1 - in.label_smoothing) * q + uniform);
      out.coefficient_sum[i] += out.coefficient[n];
      out.own[n] = in.lambda * weight * q;
      out.logit_with_margin[n] -= in.alpha * q * out.distance[n];
    }
}

inline void losses(const input& in, output& out) {
  const real none = -std::numeric_limits<real>::infinity();
  targets(in, out);
  out.divisor = divisor_of(in);
  out.total.assign(in.samples, 0);
  out.classification.assign(in.samples, 0);
  out.likelihood.assign(in.samples, 0);
  out.target_logit.assign(in.samples, none);
  out.rest.assign(in.samples, none);
  out.log_evidence.assign(in.samples, 0);
  out.factor.assign(in.samples, 0);
  out.posterior_slope.assign(in.samples * in.classes, 0);
  out.weight.assign(in.samples * in.classes, 0);
  out.counted = out.correct = 0;
  for (std::size_t i = 0; i < in.samples; ++i) {
    if (!counts(in, i)) continue;
    const std::size_t row = i * in.classes;
    const real* l = out.logit_with_margin.data() + row;
    const real* c = out.coefficient.data() + row;
    const auto rest_of = [&](std::size_t z) {
      return log_sum_exp(
          in.classes, [&](std::size_t k) { return l[k]; }, [&](std::size_t k) { return k != z; });
    };
    const real evidence = rest_of(in.classes);
    real state = 0;
    for (std::size_t k = 0; k < in.classes; ++k) {
      const real q = target_at(in, i, k);
      real loss = evidence - l[k], g = out.coefficient_sum[i] * std::exp(l[k] - evidence) - c[k];
      if (c[k] != 0 && loss < 1) {
        // Relative to a class with a good part of the evidence, so that what is left keeps its digits: log(1 + e^R) and
        // sigmoid(R), the others' part; g = (S - c_k) p_k - c_k (1 - p_k).
        const real r = rest_of(k) - l[k];
        loss = r > 0 ? r + std::log1p(std::exp(-r)) : std::log1p(std::exp(r));
        real others = 0;
        for (std::size_t j = 0; j < in.classes; ++j) others += j == k ? 0 : c[j];
        g = others * std::exp(l[k] - evidence) - c[k] / (1 + std::exp(-r));
      }
      if (c[k] != 0) out.classification[i] += c[k] * loss;
      if (q != 0)
        out.likelihood[i] +=
            in.sample_weight[i] * in.class_weight[k] * q * (out.distance[row + k] + out.half_log_det[k]);
      state += in.class_weight[k] *
               ((1 - in.label_smoothing) * q + in.label_smoothing / static_cast<real>(in.classes));
      out.posterior_slope[row + k] = g;
      out.weight[row + k] = -g * (1 + in.alpha * q) + out.own[row + k];
    }
    out.total[i] = out.classification[i] + in.lambda * out.likelihood[i];
    out.log_evidence[i] = evidence;
    if (in.soft) {
      out.target_logit[i] = std::log(state);
      out.rest[i] = evidence;
    } else {
      out.target_logit[i] = l[in.label[i]];
      out.rest[i] = rest_of(static_cast<std::size_t>(in.label[i]));
    }
    out.factor[i] = in.upstream[i] / out.divisor;
    ++out.counted;
    const real* logit = out.logit.data() + row;
    out.correct += in.classes > 0 && std::max_element(logit, logit + in.classes) - logit == in.label[i];
  }
}

// From posterior_slope, weight, own and factor. A sample that has none of them has no say, whatever its features are.
inline void gradients(const input& in, output& out) {
  out.feature.assign(in.samples * in.dims, 0);
  out.mean.assign(in.classes * in.dims, 0);
  out.log_variance.assign(in.log_variance.size(), 0);
  out.log_prior.assign(in.classes, 0);
  std::vector<real> precision(in.classes * in.dims);
  for (std::size_t k = 0; k < in.classes; ++k)
    for (std::size_t j = 0; j < in.dims; ++j)
      precision[k * in.dims + j] = std::exp(-log_variance_at(in, k, j));
  for (std::size_t i = 0; i < in.samples; ++i) {
    bool silent = true;
    for (std::size_t n = i * in.classes; n < (i + 1) * in.classes; ++n)
      silent = silent && out.posterior_slope[n] == 0 && out.own[n] == 0;
    if (silent) continue;
    const real f = out.factor[i];
    for (std::size_t k = 0; k < in.classes; ++k) {
      const real g = out.posterior_slope[i * in.classes + k];
      const real w = out.weight[i * in.classes + k];
      const real own = out.own[i * in.classes + k];
      out.log_prior[k] += f * g;
      for (std::size_t j = 0; j < in.dims; ++j) {
        const real difference = in.features[i * in.dims + j] - in.mean[k * in.dims + j];
        const real pull = f * w * precision[k * in.dims + j] * difference;
        out.feature[i * in.dims + j] += pull;
        out.mean[k * in.dims + j] -= pull;
        if (in.form == variances::identity) continue;
        out.log_variance[in.form == variances::spherical ? k : k * in.dims + j] +=
            (f * (own - g) - pull * difference) / 2;
      }
    }
  }
}

inline output evaluate(const input& in) {
  output out;
  distances(in, out);
  losses(in, out);
  gradients(in, out);
  return out;
}

// The scalar whose gradients evaluate() gives: the samples' losses times their factors.
inline real objective(const input& in) {
  output out;
  distances(in, out);
  losses(in, out);
  real sum = 0;
  for (std::size_t i = 0; i < in.samples; ++i) sum += out.factor[i] * out.total[i];
  return sum;
}

// The gradients of any loss of the logits, G = its slopes [samples, classes], and of the likelihood: a sample's
// part is upstream_i (sum_k G_ik l_ik + lambda L_lkd_i / divisor).
inline output evaluate_logits_backward(const input& in, const std::vector<real>& grad_logits) {
  output out;
  distances(in, out);
  targets(in, out);
  out.divisor = divisor_of(in);
  out.posterior_slope = grad_logits;
  out.weight.assign(in.samples * in.classes, 0);
  out.factor = in.upstream;
  for (std::size_t i = 0; i < in.samples; ++i)
    for (std::size_t k = 0; k < in.classes; ++k) {
      const std::size_t n = i * in.classes + k;
      const real q = target_at(in, i, k);
      if (q != 0) out.own[n] /= out.divisor;
      out.weight[n] = -grad_logits[n] * (1 + in.alpha * q) + out.own[n];
    }
  gradients(in, out);
  return out;
}

// The scalar whose gradients evaluate_logits_backward() gives.
inline real logits_objective(const input& in, const std::vector<real>& grad_logits) {
  output out;
  distances(in, out);
  losses(in, out);
  real sum = 0;
  for (std::size_t i = 0; i < in.samples; ++i) {
    for (std::size_t n = i * in.classes; n < (i + 1) * in.classes; ++n)
      sum += in.upstream[i] * grad_logits[n] * out.logit_with_margin[n];
    if (counts(in, i)) sum += in.upstream[i] * in.lambda * out.likelihood[i] / out.divisor;
  }
  return sum;
}

// A per-sample loss as `averaging` reports it: one value, or one a sample.
inline std::vector<real> reduced(const input& in, const output& out, const std::vector<real>& loss) {
  if (in.over == averaging::none) return loss;
  real sum = 0;
  for (const real value : loss) sum += value;
  return {sum / out.divisor};
}

struct scores {
  std::vector<std::int64_t> predicted;
  std::vector<real> posterior, log_density, log_mixture, squared_mahalanobis, nearest_squared_mahalanobis;
};

// Without margin; one class at least.
inline scores score(const input& in) {
  output out;
  distances(in, out);
  scores result;
  const real log_two_pi = std::log(8 * std::atan(static_cast<real>(1)));
  const auto all = [](std::size_t) { return true; };
  const real log_prior_sum = log_sum_exp(
      in.classes, [&](std::size_t k) { return in.log_prior[k]; }, all);
  for (std::size_t i = 0; i < in.samples; ++i) {
    const real* logit = out.logit.data() + i * in.classes;
    const real* distance = out.distance.data() + i * in.classes;
    const std::size_t best = static_cast<std::size_t>(std::max_element(logit, logit + in.classes) - logit);
    const real evidence = log_sum_exp(
        in.classes, [&](std::size_t k) { return logit[k]; }, all);
    const real constant = static_cast<real>(in.dims) / 2 * log_two_pi;
    result.predicted.push_back(static_cast<std::int64_t>(best));
    result.posterior.push_back(std::exp(logit[best] - evidence));
    result.log_density.push_back(-distance[best] - out.half_log_det[best] - constant);
    result.log_mixture.push_back(evidence - log_prior_sum - constant);
    result.squared_mahalanobis.push_back(2 * distance[best]);
    result.nearest_squared_mahalanobis.push_back(2 * *std::min_element(distance, distance + in.classes));
  }
  return result;
}

}  // namespace reference
