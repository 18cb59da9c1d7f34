// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include "options.hpp"

namespace detector {

// The largest threshold that no more than this share of the scores is below. Throws std::runtime_error if there are none,
// or one is not a number.
double threshold_of(std::vector<double> scores, double share);

void calibrate(const calibrate_options& chosen);

}  // namespace detector
