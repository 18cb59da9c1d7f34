// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/problem.hpp"
#include "support/tolerance.hpp"

// Problems that plain versions of the formulas get wrong, and what the errors are measured by.

namespace support {

inline std::vector<float> centre_of(const problem<float>& p) {
  std::vector<float> centre(p.dims(), 0.0f);
  for (std::size_t j = 0; j < p.dims(); ++j) {
    for (std::size_t k = 0; k < p.classes(); ++k) centre[j] += p.mean[k * p.dims() + j];
    centre[j] /= static_cast<float>(p.classes());
  }
  return centre;
}

// The classification losses that distances lead to; everything after the distances is exact.
inline std::vector<real> losses_from(const reference::input& in, const reference::output& out,
                                     const std::vector<float>& distances) {
  std::vector<real> losses;
  for (std::size_t i = 0; i < in.samples; ++i) {
    const std::size_t z = size_of(in.label[i]);
    const auto logit = [&](std::size_t k) -> real {
      const real d = distances[i * in.classes + k];
      return in.log_prior[k] - out.half_log_det[k] - (k == z ? 1 + in.alpha : 1) * d;
    };
    losses.push_back(reference::log_sum_exp(in.classes, logit, [](std::size_t) { return true; }) - logit(z));
  }
  return losses;
}

template <class A, class B>
double worst_difference(const A& got, const B& expected) {
  double worst = 0;
  for (std::size_t n = 0; n < got.size(); ++n)
    worst = std::max(worst, std::fabs(shown(static_cast<real>(got[n]) - static_cast<real>(expected[n]))));
  return worst;
}

// Samples at distance `radius`^2 / 2 from their class 0, with two competitors that leave a loss of about
// 0.01.
inline problem<float> far_sample_problem(lgm::covariance covariance, double radius) {
  lgm::loss_options<float> options;
  options.reduction = lgm::reduction::none;
  const std::size_t samples = 200, dims = 16;
  auto p = make_problem<float>(61, make_shape(200, 3, 16, covariance), options, {0, 1, 0, 0, 0});
  const double deviation = covariance == lgm::covariance::identity ? 1 : 2;
  std::fill(p.log_variance.begin(), p.log_variance.end(), static_cast<float>(std::log(4.0)));
  std::fill(p.log_prior.begin(), p.log_prior.end(), 0.0f);
  std::fill(p.mean.begin(), p.mean.end(), 0.0f);
  p.mean[1 * dims] = static_cast<float>(1.00 * deviation);
  p.mean[2 * dims] = static_cast<float>(1.11 * deviation);
  generator random(62);
  for (std::size_t i = 0; i < samples; ++i) {
    p.labels[i] = 0;
    double direction[16], norm = 0;
    for (std::size_t j = 1; j < dims; ++j) {
      direction[j] = random.normal();
      norm += direction[j] * direction[j];
    }
    const double first = -4.8 + 0.2 * random.uniform();
    const double others = std::sqrt(radius * radius - first * first) / std::sqrt(norm);
    p.feature(i, 0) = static_cast<float>(first * deviation);
    for (std::size_t j = 1; j < dims; ++j)
      p.feature(i, j) = static_cast<float>(direction[j] * others * deviation);
  }
  return p;
}

inline double worst_relative(const std::vector<real>& got, const std::vector<real>& expected) {
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i)
    worst = std::max(worst, std::fabs(shown((got[i] - expected[i]) / expected[i])));
  return worst;
}

// Pairs of classes 0.1 deviations apart in every dimension, the pairs `separation` deviations apart; every
// sample a deviation from its class.
inline problem<float> near_duplicate_problem(std::uint64_t seed, lgm::covariance covariance,
                                             double separation) {
  lgm::loss_options<float> options;
  options.reduction = lgm::reduction::none;
  options.alpha = 0.005f;  // of a distance of 256: as much as the competitor is away
  options.lambda = 0.1f;
  auto p = make_problem<float>(seed, make_shape(64, 16, 512, covariance), options, {1, 1, 0.5, 0, 0});
  generator random(seed + 1);
  const std::size_t dims = p.dims(), per_class = p.log_variance.size() / 16;
  std::fill(p.log_prior.begin(), p.log_prior.end(), 0.0f);
  for (std::size_t k = 0; k < 16; k += 2) {
    for (std::size_t j = 0; j < per_class; ++j)
      p.log_variance[(k + 1) * per_class + j] = p.log_variance[k * per_class + j];
    for (std::size_t j = 0; j < dims; ++j) {
      const double mean = separation * random.normal();
      p.mean[k * dims + j] = static_cast<float>(mean);
      p.mean[(k + 1) * dims + j] = static_cast<float>(mean + 0.1 * random.normal());
    }
  }
  for (std::size_t i = 0; i < 64; ++i) {
    const std::size_t k = i % 16;
    p.labels[i] = static_cast<std::int64_t>(k);
    for (std::size_t j = 0; j < dims; ++j) {
      const float log_variance =
          per_class == 0 ? 0.0f : p.log_variance[k * per_class + (per_class == 1 ? 0 : j)];
      p.feature(i, j) = static_cast<float>(static_cast<double>(p.mean[k * dims + j]) +
                                           std::exp(static_cast<double>(log_variance) / 2) * random.normal());
    }
  }
  return p;
}

}  // namespace support
