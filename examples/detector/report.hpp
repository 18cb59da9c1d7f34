// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "../trainer/metrics.hpp"
#include "metrics.hpp"
#include "options.hpp"

// What was measured, as a table and as JSON.

namespace detector {

// The test samples against one outside set.
struct set_result {
  std::string name;
  std::vector<detection> scores;  // in the order of model_result::scores
  // Of an attack: the share of its images that are still classified correctly; else not a number.
  double accuracy = std::numeric_limits<double>::quiet_NaN();
};

struct seed_result {
  std::uint64_t seed = 0;
  double accuracy = 0, calibration_error = 0;  // of the test samples; not a number without labels
  double training_seconds = 0;
  std::int64_t without_gradient = 0;  // test images that no attack can move
  std::vector<set_result> sets;       // the same ones for every seed and model
};

struct model_result {
  std::string key, name;  // "lgm", "L-GM"
  std::vector<std::string> scores;
  std::vector<seed_result> seeds;

  trainer::spread accuracy() const;
  trainer::spread calibration_error() const;
  trainer::spread accuracy_under(std::size_t set) const;
  trainer::spread of(std::size_t set, std::size_t score, double detection::*measure) const;
};

// Tables of AUROC and FPR, a row a score, a column a set, the best score of each set marked; accuracies, those under
// attack too; and, where there are both models, where the densities of L-GM lose to softmax's scores.
std::string table_text(const std::vector<model_result>& models);

// The content of results.json but for the options: means and spreads, and every seed's numbers.
nlohmann::ordered_json results_json(const std::vector<model_result>& models);

nlohmann::ordered_json to_json(const trainer::spread& value);

}  // namespace detector
