// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <lgm/types.hpp>

#include "support/array.hpp"

namespace bench {

// Near enough to a normal number, and fast: four uniform ones of 16 bits each, from one step of a generator.
class random_numbers {
 public:
  std::uint64_t bits() {
    state_ += 0x9E3779B97F4A7C15u;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  double normal() {
    const std::uint64_t b = bits();
    const std::uint64_t sum = (b & 0xFFFF) + (b >> 16 & 0xFFFF) + (b >> 32 & 0xFFFF) + (b >> 48);
    return (static_cast<double>(sum) * 0x1p-16 - 2) * std::sqrt(3.0);
  }

 private:
  std::uint64_t state_ = 1;
};

template <class T>
array<T> zeros(std::int64_t size) {
  array<T> values(size);
  std::fill(values.data(), values.data() + size, T(0));
  return values;
}

// What every function reads and where gradients go, in the memory of a Context. It is a head in the middle of its
// training: a sample is about 4 in eq:distance from its own class's mean and 8 further from the others, and priors
// and variances are near equal.
template <class Context, class T>
struct problem {
  template <class U>
  using array = typename Context::template array<U>;
  using feature = typename Context::template feature<T>;

  lgm::shape shape;
  lgm::loss_options<T> options;
  array<feature> features;
  array<T> mean, log_variance, log_prior;
  array<std::int64_t> labels;
  array<feature> feature_gradient;
  array<T> mean_gradient, log_variance_gradient, log_prior_gradient;

  explicit problem(const lgm::shape& s) : shape(s) {
    options.alpha = T(0.1);
    options.lambda = T(0.1);
    random_numbers random;
    const double spread = std::sqrt(8 / static_cast<double>(s.dims));
    const std::int64_t variances = lgm::log_variance_size(s);
    const double difference =
        s.covariance == lgm::covariance::diagonal ? 0.1 : 2 / static_cast<double>(s.dims);

    bench::array<T> means(s.classes * s.dims);
    bench::array<feature> values(s.samples * s.dims);
    bench::array<std::int64_t> classes(s.samples);
    fill(means, [&](std::int64_t) { return spread * random.normal(); });
    for (std::int64_t i = 0; i < s.samples; ++i)
      classes[i] = static_cast<std::int64_t>(random.bits() % static_cast<std::uint64_t>(s.classes));
    fill(values, [&](std::int64_t n) {
      return static_cast<double>(means[classes[n / s.dims] * s.dims + n % s.dims]) + spread * random.normal();
    });
    mean = given(means);
    features = given(values);
    labels = given(classes);
    bench::array<T> log_variances(variances), log_priors(s.classes);
    fill(log_variances, [&](std::int64_t) { return difference * random.normal(); });
    fill(log_priors,
         [&](std::int64_t) { return 0.1 * random.normal() - std::log(static_cast<double>(s.classes)); });
    log_variance = given(log_variances);
    log_prior = given(log_priors);

    feature_gradient = array<feature>(s.samples * s.dims);
    mean_gradient = array<T>(s.classes * s.dims);
    log_variance_gradient = array<T>(variances);
    log_prior_gradient = array<T>(s.classes);
  }

  lgm::mixture<T> mixture() const { return {mean.data(), log_variance.data(), log_prior.data()}; }
  lgm::gradients<feature, T> gradients() {
    return {feature_gradient.data(), mean_gradient.data(), log_variance_gradient.data(),
            log_prior_gradient.data()};
  }

 private:
  template <class U, class F>
  static void fill(bench::array<U>& values, F f) {
    for (std::int64_t n = 0; n < values.size(); ++n) values[n] = static_cast<U>(f(n));
  }
  template <class U>
  static array<U> given(const bench::array<U>& values) {
    array<U> out(values.size());
    Context::copy(values.data(), values.size(), out.data());
    return out;
  }
};

}  // namespace bench
