// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <lgm/formula.hpp>
#include <limits>
#include <vector>

// The scalar equations against long double, at the ends of their ranges: where a naive formula cancels or
// overflows.

namespace {

using real = long double;

// Units in the last place of T between two numbers.
template <class T>
real ulps(T value, real exact) {
  if (static_cast<real>(value) == exact) return 0;
  const real unit = std::fabs(exact) * static_cast<real>(std::numeric_limits<T>::epsilon());
  return std::fabs(static_cast<real>(value) - exact) / unit;
}

template <class T>
std::vector<T> rests() {
  std::vector<T> values = {T(0)};
  for (T r = T(1e-6); r < T(80); r *= T(1.7)) {
    values.push_back(r);
    values.push_back(-r);
  }
  return values;
}

}  // namespace

TEST_CASE_TEMPLATE("the classification loss keeps its relative accuracy from e^-80 to 1e4", T, float,
                   double) {
  for (const T r : rests<T>()) {
    const real exact = std::log1p(std::exp(static_cast<real>(r)));
    CHECK(ulps(lgm::classification_loss(r), exact) < 4);
  }
  CHECK(lgm::classification_loss(T(1e4)) == T(1e4));
  CHECK(lgm::classification_loss(-lgm::numeric<T>::infinity) == T(0));
  CHECK(std::isnan(lgm::classification_loss(std::numeric_limits<T>::quiet_NaN())));
}

TEST_CASE_TEMPLATE("the target's miss is the sigmoid of the rest, and the derivative of the loss", T, float,
                   double) {
  for (const T r : rests<T>()) {
    const real exact = 1 / (1 + std::exp(-static_cast<real>(r)));
    CHECK(ulps(lgm::target_residual(r), exact) < 4);
  }
  CHECK(lgm::target_residual(-lgm::numeric<T>::infinity) == T(0));
  CHECK(lgm::target_residual(lgm::numeric<T>::infinity) == T(1));
}

TEST_CASE_TEMPLATE("weights of a row add up to the target's miss, far from zero as well", T, float, double) {
  // eq:weight: sum of g_k over k != z equals -g_z. At logits near -1e4 in float, a plain log sum exp is off
  // by 5e-4.
  for (const T level : {T(0), T(-256), T(-10000)}) {
    for (const T gap : {T(-8), T(-1), T(0), T(1), T(8)}) {
      const T target = level, first = level + gap, second = level + gap - T(2);
      lgm::log_sum<T> others;
      others.merge({first, T(1)});
      others.merge({second, T(1)});
      const lgm::log_evidence<T> evidence(target, others);
      const T sum =
          lgm::competitor_weight(first, evidence, T(1)) + lgm::competitor_weight(second, evidence, T(1));
      const real exact_rest = static_cast<real>(gap) + std::log1p(std::exp(static_cast<real>(-2)));
      const real exact = 1 / (1 + std::exp(-exact_rest));
      CHECK(std::fabs(static_cast<real>(sum) - exact) <=
            exact * 12 * static_cast<real>(lgm::numeric<T>::epsilon));
    }
  }
}

TEST_CASE_TEMPLATE("weights below rounding are zero, not subnormal", T, float, double) {
  const lgm::log_evidence<T> evidence(T(0), lgm::log_sum<T>{T(-1), T(1)});
  CHECK(lgm::competitor_weight(lgm::numeric<T>::negligible - T(2), evidence, T(1)) == T(0));
  CHECK(lgm::competitor_weight(-lgm::numeric<T>::infinity, evidence, T(1)) == T(0));
  const T smallest = lgm::competitor_weight(lgm::numeric<T>::negligible + T(1), evidence, T(1));
  CHECK(smallest > std::numeric_limits<T>::min() * T(1000));
}

TEST_CASE_TEMPLATE("log sums merge in any order", T, float, double) {
  const std::vector<T> logits = {T(3), T(-500), T(2.5), T(-1), T(700)};
  real exact = 0;
  for (const T l : logits) exact += std::exp(static_cast<real>(l) - 700);
  exact = 700 + std::log(exact);
  lgm::log_sum<T> forward, backward, left, right;
  for (std::size_t k = 0; k < logits.size(); ++k) {
    forward.merge({logits[k], T(1)});
    backward.merge({logits[logits.size() - 1 - k], T(1)});
    (k < 2 ? left : right).merge({logits[k], T(1)});
  }
  left.merge(right);
  for (const lgm::log_sum<T>& sum : {forward, backward, left}) CHECK(ulps(sum.value(), exact) < 2);

  lgm::log_sum<T> empty;
  CHECK(empty.value() == -lgm::numeric<T>::infinity);
  empty.merge(lgm::log_sum<T>());
  CHECK(empty.value() == -lgm::numeric<T>::infinity);
  forward.merge(lgm::log_sum<T>());
  CHECK(ulps(forward.value(), exact) < 2);
  backward.merge({T(0), std::numeric_limits<T>::quiet_NaN()});
  CHECK(std::isnan(backward.value()));
}

TEST_CASE("log densities integrate to one") {
  // One dimension, variance 4: a Riemann sum of exp(log density).
  const double log_variance = std::log(4.0), step = 0.01;
  double sum = 0;
  for (double x = -40; x < 40; x += step) {
    const double distance = 0.5 * lgm::squared_difference(x, 1.0) * lgm::inverse_variance(log_variance);
    sum += std::exp(lgm::log_density(distance, lgm::half_log_det(log_variance), 1)) * step;
  }
  CHECK(sum == doctest::Approx(1).epsilon(1e-9));
}

TEST_CASE_TEMPLATE("a likelihood without weight may overflow, and one with a weight counts", T, float,
                   double) {
  for (const T likelihood : {lgm::numeric<T>::infinity, std::numeric_limits<T>::quiet_NaN(), T(3)})
    CHECK(lgm::total_loss(T(2), T(0), likelihood) == T(2));
  CHECK(lgm::total_loss(T(2), T(0.5), T(3)) == T(3.5));
  CHECK(lgm::total_loss(T(2), T(0.5), lgm::numeric<T>::infinity) == lgm::numeric<T>::infinity);
}

TEST_CASE_TEMPLATE("the margin is the target's alone", T, float, double) {
  CHECK(lgm::margin(T(0.25), true) == T(1.25));
  CHECK(lgm::margin(T(0.25), false) == T(1));
}

TEST_CASE("the inverse deviation squares to the inverse variance") {
  for (const double v : {-20.0, -1.0, 0.0, 0.3, 20.0}) {
    const double deviation = lgm::inverse_deviation(v);
    CHECK(deviation * deviation == doctest::Approx(lgm::inverse_variance(v)).epsilon(1e-14));
  }
}

TEST_CASE("normal numbers have the moments of the normal distribution, and do not depend on each other") {
  constexpr int n = 200000;
  double sum = 0, square = 0, fourth = 0, neighbour = 0, other_seed = 0;
  for (int i = 0; i < n; ++i) {
    const auto at = static_cast<std::uint64_t>(i);
    const double x = lgm::normal_at(7, at);
    sum += x;
    square += x * x;
    fourth += x * x * x * x;
    neighbour += x * lgm::normal_at(7, at + 1);
    other_seed += x * lgm::normal_at(8, at);
  }
  // Five standard errors of each; the sum of twelve uniform numbers has a fourth moment of 2.9.
  const double error = 5 / std::sqrt(static_cast<double>(n));
  CHECK(std::fabs(sum / n) < error);
  CHECK(std::fabs(square / n - 1) < error * std::sqrt(2.0));
  CHECK(std::fabs(fourth / n - 2.9) < error * 9);
  CHECK(std::fabs(neighbour / n) < error);
  CHECK(std::fabs(other_seed / n) < error);
  // The numbers are part of the interface: the same on every machine.
  CHECK(lgm::normal_at(0, 0) == -0x1.aef5a2f8p-2);
  CHECK(lgm::normal_at(1, 5) == 0x1.b0db5c65p+0);
}
