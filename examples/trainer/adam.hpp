// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <cmath>
#include <cstdint>

#include "network.hpp"
#include "workers.hpp"

// The optimiser that network and heads share: Adam under a one-cycle rate.

namespace trainer {

template <class Scalar>
class adam {
 public:
  adam(Eigen::Index count, workers& team) : team_(&team), first_(count), second_(count) {
    first_.setZero();
    second_.setZero();
  }

  void step(Scalar rate, const vector<Scalar>& gradient, vector<Scalar>& parameters) {
    ++steps_;
    const double first_correction = 1 - std::pow(first_decay, steps_);
    const double second_correction = 1 - std::pow(second_decay, steps_);
    const auto b1 = static_cast<Scalar>(first_decay), b2 = static_cast<Scalar>(second_decay);
    // rate m / c1 / (sqrt(v / c2) + epsilon), the corrections taken out of the loop.
    const auto scale = static_cast<Scalar>(rate * std::sqrt(second_correction) / first_correction);
    const auto shifted = static_cast<Scalar>(epsilon * std::sqrt(second_correction));
    team_->for_slices(parameters.size(), 4096, [&](std::int64_t begin, std::int64_t length) {
      const auto slope = gradient.segment(begin, length).array();
      auto first = first_.segment(begin, length).array();
      auto second = second_.segment(begin, length).array();
      first = b1 * first + (1 - b1) * slope;
      second = b2 * second + (1 - b2) * slope.square();
      parameters.segment(begin, length).array() -= scale * first / (second.sqrt() + shifted);
    });
  }

  // What a step leaves to the next one: both moments of every parameter, and how many steps there were.
  vector<Scalar>& first() { return first_; }
  vector<Scalar>& second() { return second_; }
  void set_steps(std::int64_t steps) { steps_ = steps; }

 private:
  static constexpr double first_decay = 0.9, second_decay = 0.999, epsilon = 1e-8;
  workers* team_;
  vector<Scalar> first_, second_;
  std::int64_t steps_ = 0;
};

// The rate at a step of [0, steps): from peak / 25 up to peak over the first 30 %, then down to almost
// nothing, both along a cosine.
inline double one_cycle_rate(double peak, std::int64_t step, std::int64_t steps) {
  const double pi = std::acos(-1.0);
  const auto between = [&](double from, double to, double part) {
    return to + (from - to) * 0.5 * (1 + std::cos(pi * part));
  };
  const double low = peak / 25, end = low / 1e4;
  const double last = steps > 1 ? static_cast<double>(steps - 1) : 1;
  const double part = static_cast<double>(step) / last;
  constexpr double rising = 0.3;
  return part < rising ? between(low, peak, part / rising)
                       : between(peak, end, (part - rising) / (1 - rising));
}

}  // namespace trainer
