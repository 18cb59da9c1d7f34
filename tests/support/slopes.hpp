// SPDX-License-Identifier: MIT
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "support/problem.hpp"
#include "support/tolerance.hpp"

// Gradients against central differences.

namespace support {

// Moves one number at a time by +-h and compares the slope of `loss` with `expected`.
template <class Number, class Loss>
void check_slopes(const std::string& name, std::vector<Number>& values, const std::vector<std::size_t>& at,
                  const std::vector<real>& expected, Loss loss, real h, real tolerance) {
  REQUIRE(at.size() == expected.size());
  real scale = 1, worst = 0;
  for (const real e : expected) scale = std::max(scale, std::fabs(e));
  for (std::size_t n = 0; n < at.size(); ++n) {
    Number& value = values[at[n]];
    const Number before = value;
    const Number above = before + static_cast<Number>(h), below = before - static_cast<Number>(h);
    value = above;
    const real up = loss();
    value = below;
    const real down = loss();
    value = before;
    const real slope = (up - down) / (static_cast<real>(above) - static_cast<real>(below));
    worst = std::max(worst, std::fabs(slope - expected[n]));
  }
  CHECK_MESSAGE(shown(worst) <= shown(tolerance * scale),
                name << ": " << shown(worst) << " at scale " << shown(scale));
}

inline std::vector<std::size_t> all_of(std::size_t n) {
  std::vector<std::size_t> at(n);
  for (std::size_t i = 0; i < n; ++i) at[i] = i;
  return at;
}

template <class Buffer>
std::vector<real> values_of(const Buffer& buffer) {
  std::vector<real> values;
  for (std::size_t n = 0; n < buffer.size(); ++n) values.push_back(static_cast<real>(buffer[n]));
  return values;
}

// All gradients of a problem in double with packed features against the slopes of `loss`, which reads the problem.
// The truncation error of a central difference is h^2 / 6 times the third derivative, here of order 1 to 1000
// (losses of order 10, features a few deviations away), and its rounding error eps |loss| / h: 1e-7 or so in
// double at h = 1e-5.
template <class Loss>
void check_all_slopes(problem<double>& p, const outputs<double>& out, Loss loss) {
  REQUIRE(p.feature_stride() == p.dims());
  const real h = 1e-5L, tolerance = 1e-6L;
  check_slopes("features", p.features, all_of(p.features.size()), values_of(out.feature), loss, h, tolerance);
  check_slopes("mean", p.mean, all_of(p.mean.size()), values_of(out.mean), loss, h, tolerance);
  check_slopes("log_variance", p.log_variance, all_of(p.log_variance.size()), values_of(out.log_variance),
               loss, h, tolerance);
  check_slopes("log_prior", p.log_prior, all_of(p.log_prior.size()), values_of(out.log_prior), loss, h,
               tolerance);
}

// The library's own total, weighted by upstream under reduction none.
inline real objective_of(const suite_context& context, const problem<double>& p) {
  std::vector<double> total(p.options.reduction == lgm::reduction::none ? p.samples() : 1);
  lgm::loss_result<double> result;
  result.total = total.data();
  REQUIRE(forward(context, p, result) == lgm::status::success);
  real sum = 0;
  for (std::size_t n = 0; n < total.size(); ++n)
    sum += static_cast<real>(total[n]) * static_cast<real>(p.upstream_given ? p.upstream[n] : 1.0);
  return sum;
}

// Gradients of forward_backward, and of forward followed by backward, against the slopes of the library's own losses.
inline void check_slopes_both_ways(const suite_context& context, problem<double>& p) {
  const auto loss = [&] { return objective_of(context, p); };
  outputs<double> fused(p), apart(p);
  REQUIRE(forward_backward(context, p, fused) == lgm::status::success);
  check_all_slopes(p, fused, loss);
  REQUIRE(forward(context, p, apart.result()) == lgm::status::success);
  REQUIRE(backward(context, p, apart.row_state.data(), apart.gradients()) == lgm::status::success);
  check_all_slopes(p, apart, loss);
}

// The same for the reference in long double, where the rounding part is 1e-13 at this h, the truncation part 1e-9.
template <class Loss>
void check_reference_slopes(reference::input& in, const reference::output& out, Loss loss) {
  const real h = 1e-6L, tolerance = 1e-8L;
  check_slopes("features", in.features, all_of(in.features.size()), out.feature, loss, h, tolerance);
  check_slopes("mean", in.mean, all_of(in.mean.size()), out.mean, loss, h, tolerance);
  check_slopes("log_variance", in.log_variance, all_of(in.log_variance.size()), out.log_variance, loss, h,
               tolerance);
  check_slopes("log_prior", in.log_prior, all_of(in.log_prior.size()), out.log_prior, loss, h, tolerance);
}

}  // namespace support
