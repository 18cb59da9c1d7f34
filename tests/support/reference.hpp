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
  real alpha = 0, lambda = 0;
  std::vector<real> features;       // [samples, dims]
  std::vector<real> mean;           // [classes, dims]
  std::vector<real> log_variance;   // spherical: [classes]; diagonal: [classes, dims]; identity: empty
  std::vector<real> log_prior;      // [classes]
  std::vector<real> upstream;       // [samples]
  std::vector<std::int64_t> label;  // [samples]
};

inline real log_variance_at(const input& in, std::size_t k, std::size_t j) {
  if (in.form == variances::identity) return 0;
  return in.form == variances::spherical ? in.log_variance[k] : in.log_variance[k * in.dims + j];
}

struct output {
  std::vector<real> distance;        // [samples, classes], eq:distance
  std::vector<real> logit;           // [samples, classes], eq:logit without margin
  std::vector<real> half_log_det;    // [classes], eq:log_det
  std::vector<real> total;           // [samples], eq:loss; zero for ignored samples, as the next two
  std::vector<real> classification;  // [samples], eq:classification
  std::vector<real> likelihood;      // [samples], eq:likelihood
  std::vector<real> target_logit;    // [samples], with margin; -infinity for ignored samples
  std::vector<real> rest;          // [samples], log sum of exp l_k over k != z; -infinity for ignored samples
  std::vector<real> log_evidence;  // [samples], with margin; zero for ignored samples
  std::int64_t counted = 0;        // samples that are not ignored
  std::int64_t correct = 0;        // of these, arg max without margin is the label, lowest index on ties
  std::vector<real> posterior_slope;  // [samples, classes], g of eq:weight
  std::vector<real> weight;           // [samples, classes], w of eq:weight
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

inline void losses(const input& in, output& out) {
  out.total.assign(in.samples, 0);
  out.classification.assign(in.samples, 0);
  out.likelihood.assign(in.samples, 0);
  out.target_logit.assign(in.samples, -std::numeric_limits<real>::infinity());
  out.rest.assign(in.samples, -std::numeric_limits<real>::infinity());
  out.log_evidence.assign(in.samples, 0);
  out.factor.assign(in.samples, 0);
  out.posterior_slope.assign(in.samples * in.classes, 0);
  out.weight.assign(in.samples * in.classes, 0);
  out.counted = out.correct = 0;
  for (std::size_t i = 0; i < in.samples; ++i) {
    if (in.label[i] < 0) continue;
    const std::size_t z = static_cast<std::size_t>(in.label[i]);
    const real* logit = out.logit.data() + i * in.classes;
    const real d_z = out.distance[i * in.classes + z];
    const real l_z = logit[z] - in.alpha * d_z;
    const real rest = log_sum_exp(
        in.classes, [&](std::size_t k) { return logit[k]; }, [&](std::size_t k) { return k != z; });
    const real r = rest - l_z;
    const real loss = r > 0 ? r + std::log1p(std::exp(-r)) : std::log1p(std::exp(r));
    out.classification[i] = loss;
    out.likelihood[i] = d_z + out.half_log_det[z];
    out.total[i] = loss + in.lambda * out.likelihood[i];
    out.target_logit[i] = l_z;
    out.rest[i] = rest;
    out.log_evidence[i] = l_z + loss;
    for (std::size_t k = 0; k < in.classes; ++k) {
      const real g = k == z ? -1 / (1 + std::exp(-r)) : std::exp(logit[k] - l_z - loss);
      out.posterior_slope[i * in.classes + k] = g;
      out.weight[i * in.classes + k] = k == z ? -g * (1 + in.alpha) + in.lambda : -g;
    }
    ++out.counted;
    if (static_cast<std::size_t>(std::max_element(logit, logit + in.classes) - logit) == z) ++out.correct;
  }
  for (std::size_t i = 0; i < in.samples; ++i)
    if (in.label[i] >= 0)
      out.factor[i] = in.upstream[i] /
                      (in.over == averaging::mean ? static_cast<real>(out.counted) : static_cast<real>(1));
}

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
    if (in.label[i] < 0) continue;
    const real f = out.factor[i];
    for (std::size_t k = 0; k < in.classes; ++k) {
      const real g = out.posterior_slope[i * in.classes + k];
      const real w = out.weight[i * in.classes + k];
      const real own = k == static_cast<std::size_t>(in.label[i]) ? in.lambda : static_cast<real>(0);
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

// A per-sample loss as `averaging` reports it: one value, or one a sample.
inline std::vector<real> reduced(const input& in, const output& out, const std::vector<real>& loss) {
  if (in.over == averaging::none) return loss;
  real sum = 0;
  for (const real value : loss) sum += value;
  return {in.over == averaging::sum ? sum : sum / static_cast<real>(out.counted)};
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
