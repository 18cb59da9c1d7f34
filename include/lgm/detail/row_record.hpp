// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/formula.hpp>
#include <lgm/row.hpp>

namespace lgm::detail {

template <class T>
struct row_losses {
  T total = 0, classification = 0, likelihood = 0;
  bool correct = false;
};

// What a driver keeps of each sample of a tile.
template <class T>
struct row_record {
  row_target<T> target;
  row_evidence<T> evidence;            // of the class tiles so far
  lgm::log_evidence<T> log_evidence;   // once all are in
  nearest_class<T> nearest;            // score
  label_coefficients<T> coefficients;  // of a labelled row
  T total = 0;                         // the sum of its c_k; of soft targets before the sample's weight
  T likelihood = 0;                    // eq:likelihood of soft targets, of the class tiles so far
  struct {
    std::int64_t index = -1;
    T value = 0;
  } best, wanted;  // soft targets: the class with the largest logit without margin, and target
  row_losses<T> losses;
  T half_norm = 0;                    // of the centred features; 0 with direct products
  T upstream = 0;                     // what the gradients of this row are multiplied by
  T weight = 0, share = 0, miss = 0;  // of the target, times upstream: w_z, lambda - g_z, -g_z
};

}  // namespace lgm::detail
