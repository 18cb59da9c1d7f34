// SPDX-License-Identifier: MIT
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "support/problem.hpp"
#include "support/reference.hpp"

// How far a result in T may be from the reference, by the sizes of the numbers that went into it.
//
// A sum of n rounded terms is off by at most n u sum |term| (u = eps / 2), and by sqrt(n) u times a small
// factor but for a chance that is negligible (Higham and Mary, 2019). growth(n) = 4 (1 + sqrt(n)) eps is 8
// times sqrt(n) u, and more where n is small and a term itself takes several roundings.
//
// A logit l_k is off by E_k, for which there are two ways:
// - direct: sum of t^2, t = (x - mu) s, each t off by a few eps of s (|x - c| + |mu - c|), c the centre;
// - product: |x|^2 - 2 x mu + |mu|^2, all centred, off by 8 eps (|x - c|^2 + |mu - c|^2) / Lambda.
//
// Targets must be direct. Others may be products, except near the row's maximum (within 20), where a product
// may stand only if eps (|x - c| |mu - c| + |mu - c|^2) / Lambda is at most 1e-4. Entries count as near within 18 of
// the maximum here, so that rounding does not decide which side they fall on.
//
// The rest is what E does to each formula, as exp and log spread it, plus growth of each sum's own terms. No
// bound here was found by trying.

namespace support {

template <class T>
real epsilon() {
  return static_cast<real>(std::numeric_limits<T>::epsilon());
}

template <class T>
real growth(std::size_t n) {
  return 4 * (1 + std::sqrt(static_cast<real>(n))) * epsilon<T>();
}

// A share of the evidence that may count as none: near the smallest normal numbers, where scaled weights
// would be subnormal. About 6e-35 in float, 3e-277 in double, against shares that add to 1.
template <class T>
real negligible_share() {
  return std::pow(static_cast<real>(std::numeric_limits<T>::min()), static_cast<real>(0.9));
}

// exp(log_share) expm1(error), where one factor may overflow while the product does not.
inline real spread(real log_share, real error) {
  return error < 1 ? std::exp(log_share) * std::expm1(error) : std::exp(log_share + error);
}

constexpr real product_factor = 8;

struct loss_bounds {
  std::vector<real> total, classification, likelihood;  // as reported
  std::vector<real> row_state;                          // [samples, 2]
  std::vector<real> log_evidence;
  std::vector<real> feature, mean, log_variance, log_prior;
  std::int64_t correct_low = 0, correct_high = 0;
};

// E of every logit without margin [samples, classes], of every target with margin [samples], and of every
// logit if it were direct.
struct logit_bounds {
  std::vector<real> logit, target;
  std::vector<real> feature_size, mean_size;  // |x - c| [samples, dims] and |mu - c| [classes, dims]
  std::vector<real> determinant;              // [classes]: of h_k
};

template <class T>
logit_bounds bound_logits(const reference::input& in, const reference::output& out) {
  const real eps = epsilon<T>();
  const std::size_t n_classes = in.classes, dims = in.dims;
  logit_bounds e;
  std::vector<real> centre(dims, 0);
  for (std::size_t k = 0; k < n_classes; ++k)
    for (std::size_t j = 0; j < dims; ++j) centre[j] += in.mean[k * dims + j] / static_cast<real>(n_classes);
  for (std::size_t i = 0; i < in.samples; ++i)
    for (std::size_t j = 0; j < dims; ++j)
      e.feature_size.push_back(std::fabs(in.features[i * dims + j] - centre[j]));
  std::vector<real> precision;
  for (std::size_t k = 0; k < n_classes; ++k) {
    real sum = 0;
    for (std::size_t j = 0; j < dims; ++j) {
      e.mean_size.push_back(std::fabs(in.mean[k * dims + j] - centre[j]));
      precision.push_back(std::exp(-reference::log_variance_at(in, k, j)));
      sum += std::fabs(reference::log_variance_at(in, k, j)) / 2;
    }
    e.determinant.push_back(growth<T>(dims) * sum);
  }
  e.logit.assign(in.samples * n_classes, 0);
  e.target.assign(in.samples, 0);
  for (std::size_t i = 0; i < in.samples; ++i) {
    real largest = -std::numeric_limits<real>::infinity();
    for (std::size_t k = 0; k < n_classes; ++k) largest = std::max(largest, out.logit[i * n_classes + k]);
    for (std::size_t k = 0; k < n_classes; ++k) {
      real norms = 0, cross = 0;
      for (std::size_t j = 0; j < dims; ++j) {
        const real x = e.feature_size[i * dims + j], mu = e.mean_size[k * dims + j];
        const real s2 = precision[k * dims + j];
        norms += s2 * (x * x + mu * mu);
        cross += s2 * std::fabs(in.features[i * dims + j] - in.mean[k * dims + j]) * (x + mu);
      }
      const real d = out.distance[i * n_classes + k], l = out.logit[i * n_classes + k];
      const real direct = growth<T>(dims) * d + 4 * eps * cross;
      real product = product_factor * eps * norms;
      if (l >= largest - 18) product = std::min(product, product_factor * static_cast<real>(1e-4));
      const real other = e.determinant[k] + 4 * eps * (std::fabs(in.log_prior[k]) + std::fabs(l));
      e.logit[i * n_classes + k] = direct + product + other;
      if (in.label[i] == static_cast<std::int64_t>(k))
        e.target[i] = (1 + in.alpha) * direct + other + 4 * eps * std::fabs(out.target_logit[i]);
    }
  }
  return e;
}

template <class T>
loss_bounds bound_losses(const reference::input& in, const reference::output& out) {
  const real eps = epsilon<T>();
  const real tiny = negligible_share<T>();
  const std::size_t n_classes = in.classes, dims = in.dims;
  const logit_bounds e = bound_logits<T>(in, out);
  loss_bounds b;
  std::vector<real> classification(in.samples, 0), likelihood(in.samples, 0), total(in.samples, 0);
  b.row_state.assign(in.samples * 2, 0);
  b.log_evidence.assign(in.samples, 0);
  b.feature.assign(in.samples * dims, 0);
  b.mean.assign(n_classes * dims, 0);
  b.log_variance.assign(in.log_variance.size(), 0);
  b.log_prior.assign(n_classes, 0);
  std::vector<real> feature_terms(b.feature), mean_terms(b.mean), variance_terms(b.log_variance),
      prior_terms(b.log_prior);
  for (std::size_t i = 0; i < in.samples; ++i) {
    if (in.label[i] < 0) continue;
    const std::size_t z = static_cast<std::size_t>(in.label[i]);
    const real* logit = out.logit.data() + i * n_classes;
    const real* error = e.logit.data() + i * n_classes;
    // eq:rest: each term of the sum is off by a factor exp(+-E), its logarithm by at most log sum q exp(E).
    real rest = 0, evidence = spread(out.target_logit[i] - out.log_evidence[i], e.target[i]);
    real largest = -std::numeric_limits<real>::infinity();
    for (std::size_t k = 0; k < n_classes; ++k) {
      largest = std::max(largest, logit[k]);
      if (k == z) continue;
      rest += spread(logit[k] - out.rest[i], error[k]);
      evidence += spread(logit[k] - out.log_evidence[i], error[k]);
    }
    rest = std::log1p(rest);
    evidence = std::log1p(evidence);
    const bool alone = n_classes == 1;
    const real rest_size = alone ? 0 : std::fabs(out.rest[i]);
    const real rest_rounding = alone ? 0 : growth<T>(n_classes) + 4 * eps * rest_size;
    b.row_state[2 * i] = e.target[i];
    b.row_state[2 * i + 1] = rest + rest_rounding;
    b.log_evidence[i] = evidence + growth<T>(n_classes) + 4 * eps * std::fabs(out.log_evidence[i]);
    const real relative = alone ? 0 : rest + rest_rounding + e.target[i];
    // log sigmoid(R): what L_cls changes by where R does.
    const real log_slope_z = out.rest[i] - out.log_evidence[i];
    classification[i] = spread(log_slope_z, relative) + 4 * eps * out.classification[i] + (alone ? 0 : tiny);
    likelihood[i] = e.target[i] + 4 * eps * std::fabs(out.likelihood[i]);
    total[i] = classification[i] + in.lambda * likelihood[i] +
               4 * eps * (out.classification[i] + in.lambda * std::fabs(out.likelihood[i]));
    // arg max: certain when no other class can reach it.
    bool certain = true, possible = true;
    for (std::size_t k = 0; k < n_classes; ++k) {
      if (k == z) continue;
      const real gap = logit[z] - logit[k], slack = error[z] + error[k];
      if (!(gap > slack)) certain = false;
      if (gap < -slack) possible = false;
    }
    b.correct_low += certain;
    b.correct_high += possible;

    const real f = std::fabs(out.factor[i]);
    for (std::size_t k = 0; k < n_classes; ++k) {
      const real g = std::fabs(out.posterior_slope[i * n_classes + k]);
      const real w = std::fabs(out.weight[i * n_classes + k]);
      const real log_share = k == z ? log_slope_z : logit[k] - out.log_evidence[i];
      const real exponent = k == z ? relative : error[k] + e.target[i] + classification[i];
      const real g_error = f * (spread(log_share, exponent) + 4 * eps * g + (alone ? 0 : tiny));
      const real w_error = g_error * (k == z ? 1 + in.alpha : 1) + 4 * eps * f * w;
      const real own = k == z ? in.lambda : 0;
      b.log_prior[k] += g_error;
      prior_terms[k] += f * g;
      for (std::size_t j = 0; j < dims; ++j) {
        const real precision = std::exp(-reference::log_variance_at(in, k, j));
        const real difference = std::fabs(in.features[i * dims + j] - in.mean[k * dims + j]);
        const real x = e.feature_size[i * dims + j], mu = e.mean_size[k * dims + j];
        b.feature[i * dims + j] += w_error * precision * difference;
        feature_terms[i * dims + j] += f * w * precision * (x + mu);
        b.mean[k * dims + j] += w_error * precision * difference;
        mean_terms[k * dims + j] += f * w * precision * (x + mu);
        if (in.form == reference::variances::identity) continue;
        const std::size_t at = in.form == reference::variances::spherical ? k : k * dims + j;
        b.log_variance[at] += (g_error + w_error * precision * difference * difference) / 2;
        variance_terms[at] += (f * (own + g) + f * w * precision * (x * x + mu * mu)) / 2;
      }
    }
  }
  // The sums' own roundings.
  for (std::size_t n = 0; n < b.feature.size(); ++n) b.feature[n] += growth<T>(n_classes) * feature_terms[n];
  for (std::size_t n = 0; n < b.mean.size(); ++n) b.mean[n] += growth<T>(in.samples) * mean_terms[n];
  for (std::size_t n = 0; n < b.log_variance.size(); ++n)
    b.log_variance[n] += growth<T>(in.samples + dims) * variance_terms[n];
  for (std::size_t k = 0; k < n_classes; ++k) b.log_prior[k] += growth<T>(in.samples) * prior_terms[k];
  const auto reduce = [&](const std::vector<real>& bound,
                          const std::vector<real>& loss) -> std::vector<real> {
    if (in.over == reference::averaging::none) return bound;
    real sum = 0;
    for (std::size_t i = 0; i < in.samples; ++i) sum += bound[i] + growth<T>(in.samples) * std::fabs(loss[i]);
    return {in.over == reference::averaging::sum ? sum : sum / static_cast<real>(out.counted)};
  };
  b.total = reduce(total, out.total);
  b.classification = reduce(classification, out.classification);
  b.likelihood = reduce(likelihood, out.likelihood);
  return b;
}

// max |got - expected| / bound. NaN must answer NaN, infinity itself, and where the bound is zero the value
// must be exact.
template <class Buffer>
real worst_ratio(const Buffer& got, const std::vector<real>& expected, const std::vector<real>& bound) {
  if (got.size() != expected.size() || got.size() != bound.size())
    return std::numeric_limits<real>::infinity();
  real worst = 0;
  for (std::size_t n = 0; n < got.size(); ++n) {
    const real value = static_cast<real>(got[n]);
    if (std::isnan(expected[n])) {
      if (!std::isnan(value)) return std::numeric_limits<real>::infinity();
      continue;
    }
    if (value == expected[n]) continue;
    const real ratio = std::fabs(value - expected[n]) / bound[n];
    if (std::isnan(ratio)) return std::numeric_limits<real>::infinity();
    worst = std::max(worst, ratio);
  }
  return worst;
}

// A number as a message shows it: doctest does not print long double everywhere.
inline double shown(real value) { return static_cast<double>(value); }

template <class Buffer>
void check_within(const std::string& name, const Buffer& got, const std::vector<real>& expected,
                  const std::vector<real>& bound) {
  const double worst = shown(worst_ratio(got, expected, bound));
  CHECK_MESSAGE(worst <= 1.0, name << " is off by " << worst << " times what is allowed");
}

// The reference's answer to a problem, and the bounds that go with it.
template <class T>
struct expectation {
  reference::input in;
  reference::output out;
  loss_bounds bound;

  explicit expectation(const problem<T>& p)
      : in(to_reference(p)), out(reference::evaluate(in)), bound(bound_losses<T>(in, out)) {}

  void check_results(const outputs<T>& got) const {
    check_within("total", got.total, reference::reduced(in, out, out.total), bound.total);
    check_within("classification", got.classification, reference::reduced(in, out, out.classification),
                 bound.classification);
    check_within("likelihood", got.likelihood, reference::reduced(in, out, out.likelihood), bound.likelihood);
    std::vector<real> row_state;
    for (std::size_t i = 0; i < in.samples; ++i) {
      row_state.push_back(out.target_logit[i]);
      row_state.push_back(out.rest[i]);
    }
    check_within("row_state", got.row_state, row_state, bound.row_state);
    check_within("log_evidence", got.log_evidence, out.log_evidence, bound.log_evidence);
    CHECK(got.counted[0] == out.counted);
    CHECK(got.correct[0] >= bound.correct_low);
    CHECK(got.correct[0] <= bound.correct_high);
  }
  void check_gradients(const outputs<T>& got) const {
    check_within("feature gradient", got.feature, out.feature, bound.feature);
    check_within("mean gradient", got.mean, out.mean, bound.mean);
    check_within("log_variance gradient", got.log_variance, out.log_variance, bound.log_variance);
    check_within("log_prior gradient", got.log_prior, out.log_prior, bound.log_prior);
  }
  void check_all(const outputs<T>& got) const {
    check_results(got);
    check_gradients(got);
  }
};

template <class T>
void check_results(const problem<T>& p, const outputs<T>& got) {
  expectation<T>(p).check_results(got);
}

template <class T>
void check_gradients(const problem<T>& p, const outputs<T>& got) {
  expectation<T>(p).check_gradients(got);
}

template <class T>
void check_all(const problem<T>& p, const outputs<T>& got) {
  expectation<T>(p).check_all(got);
}

// Logits [samples, classes], with the margin at the targets or without.
template <class T>
void check_logits(const problem<T>& p, const guarded<T>& got, bool margin) {
  const reference::input in = to_reference(p);
  const reference::output out = reference::evaluate(in);
  const logit_bounds e = bound_logits<T>(in, out);
  std::vector<real> expected = out.logit, bound = e.logit;
  for (std::size_t i = 0; i < in.samples && margin; ++i)
    if (in.label[i] >= 0) {
      const std::size_t n = i * in.classes + static_cast<std::size_t>(in.label[i]);
      expected[n] = out.target_logit[i];
      bound[n] = (1 + in.alpha) * e.logit[n] + 4 * epsilon<T>() * std::fabs(out.target_logit[i]);
    }
  check_within("logits", got, expected, bound);
}

// Scores; one class at least. The predicted class may be any that rounding can make the largest, and what
// belongs to it is compared with the reference's for that class.
template <class T>
void check_scores(const problem<T>& p, const score_outputs<T>& got) {
  reference::input in = to_reference(p);
  in.alpha = in.lambda = 0;
  const reference::output out = reference::evaluate(in);
  const reference::scores expected = reference::score(in);
  const logit_bounds e = bound_logits<T>(in, out);
  const real eps = epsilon<T>();
  const real constant = static_cast<real>(in.dims) / 2 * std::log(8 * std::atan(static_cast<real>(1)));
  const std::size_t n_classes = in.classes;
  std::vector<real> posterior, density, mahalanobis;
  std::vector<real> posterior_bound, density_bound, mixture_bound, mahalanobis_bound;
  for (std::size_t i = 0; i < in.samples; ++i) {
    const real* logit = out.logit.data() + i * n_classes;
    const real* error = e.logit.data() + i * n_classes;
    const std::int64_t answered = got.predicted[i];
    const bool in_range = answered >= 0 && answered < static_cast<std::int64_t>(n_classes);
    CHECK(in_range);
    if (!in_range) return;
    const std::size_t k = static_cast<std::size_t>(answered);
    const std::size_t best = static_cast<std::size_t>(expected.predicted[i]);
    CHECK(logit[k] >= logit[best] - error[k] - error[best]);
    const real evidence = expected.log_mixture[i] + constant + [&] {
      return reference::log_sum_exp(
          n_classes, [&](std::size_t c) { return in.log_prior[c]; }, [](std::size_t) { return true; });
    }();
    real total_spread = 0, low = std::numeric_limits<real>::infinity(), high = low, priors = 0;
    for (std::size_t c = 0; c < n_classes; ++c) {
      total_spread += spread(logit[c] - evidence, error[c]);
      const real d = out.distance[i * n_classes + c];
      low = std::min(low, d - error[c]);
      high = std::min(high, d + error[c]);
      priors = std::max(priors, std::fabs(in.log_prior[c]));
    }
    total_spread = std::log1p(total_spread);
    const real p_k = std::exp(logit[k] - evidence);
    posterior.push_back(p_k);
    posterior_bound.push_back(spread(logit[k] - evidence, error[k] + total_spread) +
                              growth<T>(n_classes) * p_k);
    density.push_back(-out.distance[i * n_classes + k] - out.half_log_det[k] - constant);
    density_bound.push_back(error[k] + 4 * eps * (std::fabs(density.back()) + constant));
    mixture_bound.push_back(
        total_spread + growth<T>(n_classes) +
        4 * eps * (std::fabs(expected.log_mixture[i]) + constant + std::fabs(evidence) + priors));
    mahalanobis.push_back(2 * out.distance[i * n_classes + k]);
    mahalanobis_bound.push_back(2 * error[k]);
    const real nearest = static_cast<real>(got.nearest_squared_mahalanobis[i]) / 2;
    CHECK(nearest >= low);
    CHECK(nearest <= high);
  }
  check_within("posterior", got.posterior, posterior, posterior_bound);
  check_within("log_density", got.log_density, density, density_bound);
  check_within("log_mixture", got.log_mixture, expected.log_mixture, mixture_bound);
  check_within("squared_mahalanobis", got.squared_mahalanobis, mahalanobis, mahalanobis_bound);
}

// max |got - expected| over an array, as a share of the array's own largest magnitude.
template <class Buffer>
real error_over_scale(const Buffer& got, const std::vector<real>& expected) {
  real error = 0, scale = 0;
  for (std::size_t n = 0; n < expected.size(); ++n) {
    const real difference = std::fabs(static_cast<real>(got[n]) - expected[n]);
    if (std::isnan(difference)) return std::numeric_limits<real>::infinity();
    error = std::max(error, difference);
    scale = std::max(scale, std::fabs(expected[n]));
  }
  return error == 0 ? 0 : error / scale;
}

}  // namespace support
