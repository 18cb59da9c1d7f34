// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <lgm/column.hpp>
#include <vector>

#include "support/group_runs.hpp"

// The column algorithms under every group, lanes and order (support/group_runs.hpp).

namespace {

using namespace support;
using reference::real;

struct centre_class_run {
  static constexpr int variants = 1;
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>& answers) {
    const auto c = in.parameters(lgm::covariance::spherical);
    answers.push_back(lgm::centre_class(group, in.n, c, in.centre.data(), T(1.375), out.a));
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    real_sum sum;
    for (std::size_t j = 0; j < size_of(in.n); ++j) {
      const real t = widen(in.mean[j]) - widen(in.centre[j]);
      e.a[j] = {1.375L * t, 2 * epsilon<T>() * std::fabs(t)};
      sum.add(1.375L * t * t);
    }
    e.answer(sum.value, sum.template bound<T>(in.n));
  }
};

struct begin_class_sum_run {
  static constexpr int variants = 1;
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>&) {
    lgm::begin_class_sum(group, in.n, in.mean.data(), in.centre.data(), T(0.875), out.a);
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    for (std::size_t j = 0; j < size_of(in.n); ++j) {
      const real moved = 0.875L * (widen(in.mean[j]) - widen(in.centre[j]));
      e.a[j] = {-moved, 2 * epsilon<T>() * std::fabs(moved)};
    }
  }
};

struct add_target_run {
  static constexpr int variants = 4;  // bit 0: the sum of differences; bit 1: of squares
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>& answers) {
    lgm::class_sums<T> sums{in.variant & 1 ? out.a : nullptr, in.variant & 2 ? out.b : nullptr, T(1), T(2),
                            T(4)};
    lgm::add_target(group, in.n, in.features.data(), in.mean.data(), T(0.5), T(0.25), T(8), T(3), sums);
    for (const T value : {sums.distance, sums.variance_weight, sums.probability}) answers.push_back(value);
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    for (std::size_t j = 0; j < size_of(in.n); ++j) {
      const real t = widen(in.features[j]) - widen(in.mean[j]), a = widen(in.a[j]), b = widen(in.b[j]);
      if (in.variant & 1) e.a[j] = {a + t / 2, 2 * epsilon<T>() * (std::fabs(a) + std::fabs(t))};
      if (in.variant & 2) e.b[j] = {b + t * t / 2, 2 * epsilon<T>() * (std::fabs(b) + t * t)};
    }
    for (const real exact : {2.5L, 2.25L, -4.0L}) e.answer(exact);
  }
};

// Each covariance, overwriting and adding.
struct mean_gradient_run {
  static constexpr int variants = 6;
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>&) {
    const lgm::class_sums<T> sums{out.b, nullptr};
    lgm::write_mean_gradient(group, in.n, in.parameters(form_of(in.variant)), sums, in.variant >= 3, out.a);
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    for (std::size_t j = 0; j < size_of(in.n); ++j) {
      const real before = in.variant >= 3 ? widen(in.a[j]) : static_cast<real>(0);
      const real own = -widen(in.b[j]) * std::exp(-in.log_variance_at(form_of(in.variant), j));
      e.a[j] = {before + own, 4 * epsilon<T>() * (std::fabs(before) + std::fabs(own))};
    }
  }
};

// Spherical, which is one number, and diagonal; overwriting and adding.
struct log_variance_gradient_run {
  static constexpr int variants = 4;
  static lgm::covariance form(int variant) {
    return variant % 2 == 0 ? lgm::covariance::spherical : lgm::covariance::diagonal;
  }
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>&) {
    const lgm::class_sums<T> sums{nullptr, out.b, T(3.5), T(0.75)};
    lgm::write_log_variance_gradient(group, in.n, in.parameters(form(in.variant)), sums, in.variant >= 2,
                                     out.a);
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    const bool one = in.variant % 2 == 0;
    const real share = 0.75L;
    for (std::size_t j = 0; j < (one ? 1 : size_of(in.n)); ++j) {
      const real before = in.variant >= 2 ? widen(in.a[j]) : static_cast<real>(0);
      const real first = one ? static_cast<real>(in.n) * share / 2 : share / 2;
      const real second =
          one ? 3.5L : widen(in.b[j]) * std::exp(-in.log_variance_at(lgm::covariance::diagonal, j)) / 2;
      e.a[j] = {before + first - second,
                4 * epsilon<T>() * (std::fabs(before) + std::fabs(first) + std::fabs(second))};
    }
  }
};

struct sgd_update_run {
  static constexpr int variants = 3;  // no momentum; momentum; Nesterov's
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>&) {
    const lgm::sgd_rule<T> rule{T(0.25), T(0.875), T(0.125), T(0.5), in.variant == 2, T(-1), T(1.25)};
    lgm::sgd_update(group, in.n, rule, in.gradient.data(), in.variant == 0 ? nullptr : out.b, out.a);
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    for (std::size_t i = 0; i < size_of(in.n); ++i) {
      const real p = widen(in.a[i]), v = widen(in.b[i]), g = widen(in.gradient[i]) / 2 + p / 8;
      const real size = std::fabs(p) + std::fabs(v) + std::fabs(g) + std::fabs(widen(in.gradient[i]));
      const real moved = 0.875L * v + g;
      const real step = in.variant == 0 ? g : in.variant == 1 ? moved : 0.875L * moved + g;
      e.a[i] = {std::min(std::max(p - step / 4, -1.0L), 1.25L), 4 * epsilon<T>() * size};
      if (in.variant > 0) e.b[i] = {moved, 4 * epsilon<T>() * size};
    }
  }
};

}  // namespace

TEST_CASE_TEMPLATE("column algorithms give the same under every group", Algorithm, centre_class_run,
                   begin_class_sum_run, add_target_run, mean_gradient_run, log_variance_gradient_run,
                   sgd_update_run) {
  check_algorithm<Algorithm>();
}
