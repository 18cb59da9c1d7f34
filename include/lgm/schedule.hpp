// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <lgm/config.hpp>

namespace lgm {

// How a stepped schedule moves with the iteration t; n = floor(t / step).
enum class schedule_policy {
  constant,  // value
  step_up,   // value * gamma^n
  add_up,    // value + gamma * n
  ramp,      // linear from value at t = 0 to max at t = step, then max
};

// The margin alpha (or any other scalar) as a pure function of the iteration, so that resuming needs no
// state. The result is clamped to [min, max]. step must be positive (a step below 1 counts as 1); negative
// iterations count as iteration 0.
template <class T>
struct stepped_schedule {
  schedule_policy policy = schedule_policy::constant;
  T value = 0;
  std::int64_t step = 1000;
  T gamma = 1;
  T min = 0;
  T max = 1;

  LGM_HD T operator()(std::int64_t iteration) const {
    const std::int64_t t = iteration < 0 ? 0 : iteration;
    const std::int64_t length = step < 1 ? 1 : step;
    const T steps = static_cast<T>(t / length);  // NOLINT(bugprone-integer-division): rounded down
    T at = value;
    switch (policy) {
      case schedule_policy::constant: break;
      case schedule_policy::step_up:
        // 0 stays 0, also once gamma^n is infinite.
        if (value != T(0)) at = value * std::pow(gamma, steps);
        break;
      case schedule_policy::add_up: at = value + gamma * steps; break;
      case schedule_policy::ramp:
        at = t >= length ? max : value + (max - value) * (static_cast<T>(t) / static_cast<T>(length));
        break;
    }
    if (at < min) at = min;
    if (at > max) at = max;
    return at;
  }
};

}  // namespace lgm
