// SPDX-License-Identifier: MIT
#pragma once

#include "options.hpp"

namespace detector {

// Trains L-GM along four lines through the settings that evaluate has by default, and softmax at each number of
// features:
//
//   lambda    0, 0.01, 0.03, 0.1, 0.3, 1
//   alpha     0, 0.1, rising from 0.1 to 0.3 (the trainer's schedule), 0.3, 1
//   dims      2, 8, 32, 128
//   variance  fixed at 1; one a class or one a class and feature, each learned by its gradient or estimated from the
//             running moments of the features
//
// Measures each against the outside sets; draws the AUROC, its mean over the sets, as sweep.png; writes all numbers to
// sweep.json.
void sweep(const sweep_options& chosen);

}  // namespace detector
