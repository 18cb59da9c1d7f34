// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <lgm/moments.hpp>
#include <type_traits>
#include <vector>

#include "support/group_runs.hpp"

// The algorithms of moments under every group, lanes and order (support/group_runs.hpp).

namespace {

using namespace support;
using reference::real;

// One sample; other moments; either into none; only means.
struct merge_class_run {
  static constexpr int variants = 4;
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>&) {
    const bool others = in.variant != 0, all = in.variant != 3;
    const lgm::class_moment_rows<T> into{out.a, all ? out.b : nullptr, all ? out.c : nullptr};
    lgm::merge_class(group, in.n, T(3), in.features.data(), others ? in.centre.data() : nullptr,
                     others ? in.gradient.data() : nullptr, T(in.variant == 2 ? 0 : 5), into,
                     all ? out.d : nullptr);
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    const bool others = in.variant != 0, all = in.variant != 3;
    const real eps = epsilon<T>(), share = 0.375L, square = 1.875L;  // 3 / 8 and 15 / 8
    for (std::size_t j = 0; j < size_of(in.n); ++j) {
      const real high = widen(in.features[j]), low = others ? widen(in.centre[j]) : static_cast<real>(0);
      const real squares = others ? widen(in.gradient[j]) : static_cast<real>(0);
      if (in.variant == 2) {
        e.a[j] = {high, 0};
        e.b[j] = {low, 0};
        e.c[j] = {squares, 0};
        e.d[j] = {0, 0};
        continue;
      }
      const real old = widen(in.a[j]), old_low = all ? widen(in.b[j]) : static_cast<real>(0);
      const real delta = (high - old) + (low - old_low);
      const real size = std::fabs(high) + std::fabs(low) + std::fabs(old) + std::fabs(old_low);
      e.a[j] = {old + old_low + share * delta, 2 * eps * size};
      if (!all) continue;
      e.b[j] = {0, eps * size};  // at most half a unit of the mean
      e.c[j] = {e.c[j].value + squares + square * delta * delta,
                2 * eps * (std::fabs(e.c[j].value) + std::fabs(squares) + 4 * size * std::fabs(delta))};
      e.d[j] = {std::sqrt(square) * delta, 4 * eps * size};
    }
  }
};

template <class T>
using other_type = std::conditional_t<std::is_same_v<T, float>, double, float>;

// Overwriting; a running average; the same from moments of the other type.
struct estimate_mean_run {
  static constexpr int variants = 3;
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>&) {
    if (in.variant < 2) {
      const lgm::estimate_rule<T> rule{T(0), T(0), T(in.variant == 0 ? 0 : 0.25)};
      lgm::estimate_mean(group, in.n, in.mean.data(), rule, out.a);
    } else if constexpr (!std::is_same_v<Group, lgm::detail::packet_group<T>>) {
      using A = other_type<T>;
      const std::vector<A> mean(in.mean.begin(), in.mean.end());
      lgm::estimate_mean(group, in.n, mean.data(), lgm::estimate_rule<A>{A(0), A(0), A(0.25)}, out.a);
    } else {
      using A = other_type<T>;  // a register has the lanes of the moments' type
      const std::vector<A> mean(in.mean.begin(), in.mean.end());
      lgm::estimate_mean(lgm::detail::packet_group<A>{}, in.n, mean.data(),
                         lgm::estimate_rule<A>{A(0), A(0), A(0.25)}, out.a);
    }
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    const real eps = static_cast<real>(in.variant < 2 ? std::numeric_limits<T>::epsilon()
                                                      : std::numeric_limits<float>::epsilon());
    for (std::size_t j = 0; j < size_of(in.n); ++j) {
      const real mean = widen(in.mean[j]), before = widen(in.a[j]);
      if (in.variant == 0)
        e.a[j] = {mean, 0};
      else
        e.a[j] = {0.75L * mean + 0.25L * before, 2 * eps * (std::fabs(mean) + std::fabs(before))};
    }
  }
};

// Of the class alone; shrunk to all classes'; a running average. Some variances are below the floor.
struct estimate_log_variance_run {
  static constexpr int variants = 3;
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>&) {
    const lgm::estimate_rule<T> rule{T(in.variant == 1 ? 0.25 : 0), T(0.125), T(in.variant == 2 ? 0.25 : 0)};
    // Any positive numbers.
    lgm::estimate_log_variance(group, in.n, in.class_weight.data(), T(0.125), in.class_weight.data() + 1,
                               rule, out.a);
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    for (std::size_t j = 0; j < size_of(in.n); ++j) {
      real variance = widen(in.class_weight[j]) / 8;
      if (in.variant == 1) variance = 0.75L * variance + 0.25L * widen(in.class_weight[j + 1]);
      variance = std::max(variance, 0.125L);
      if (in.variant == 2) variance = std::max(0.75L * variance + 0.25L * std::exp(widen(in.a[j])), 0.125L);
      const real log = std::log(variance);
      e.a[j] = {log, epsilon<T>() * (8 + 2 * std::fabs(log))};
    }
  }
};

}  // namespace

TEST_CASE_TEMPLATE("algorithms of moments give the same under every group", Algorithm, merge_class_run,
                   estimate_mean_run, estimate_log_variance_run) {
  check_algorithm<Algorithm>();
}
