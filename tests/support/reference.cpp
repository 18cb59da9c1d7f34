// SPDX-License-Identifier: MIT
#include "support/reference.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace reference {
namespace {

void distances(const input& in, output& out) {
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
real divisor_of(const input& in) {
  if (in.over != averaging::mean) return 1;
  if (in.normalized) return in.normalizer;
  real sum = 0;
  for (std::size_t i = 0; i < in.samples; ++i)
    if (counts(in, i))
      sum += in.sample_weight[i] * (in.soft ? 1 : in.class_weight[static_cast<std::size_t>(in.label[i])]);
  return sum;
}

// What targets and weights say before any loss is computed: c, own and the logits with margin.
void targets(const input& in, output& out) {
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

void losses(const input& in, output& out) {
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
      out.target_logit[i] = state;
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
void gradients(const input& in, output& out) {
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

}  // namespace

output evaluate(const input& in) {
  output out;
  distances(in, out);
  losses(in, out);
  gradients(in, out);
  return out;
}

real objective(const input& in) {
  output out;
  distances(in, out);
  losses(in, out);
  real sum = 0;
  for (std::size_t i = 0; i < in.samples; ++i) sum += out.factor[i] * out.total[i];
  return sum;
}

output evaluate_logits_backward(const input& in, const std::vector<real>& grad_logits) {
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

real logits_objective(const input& in, const std::vector<real>& grad_logits) {
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

std::vector<real> reduced(const input& in, const output& out, const std::vector<real>& loss) {
  if (in.over == averaging::none) return loss;
  real sum = 0;
  for (const real value : loss) sum += value;
  return {sum / out.divisor};
}

scores score(const input& in) {
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
    real entropy = 0;
    for (std::size_t k = 0; k < in.classes; ++k) {
      const real log_probability = logit[k] - evidence, probability = std::exp(log_probability);
      if (probability > 0) entropy -= probability * log_probability;
    }
    result.entropy.push_back(entropy);
  }
  return result;
}

}  // namespace reference
