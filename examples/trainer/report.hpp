// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "idx.hpp"
#include "metrics.hpp"
#include "options.hpp"
#include "training.hpp"

// What a run found, as a table and as JSON.

namespace trainer {

// One training of one head.
struct head_result {
  std::uint64_t seed = 0;
  training_record record;
  running_loss train, test;  // after training, as at inference
  double noise_auroc = 0, shuffled_auroc = 0;
  double epoch_seconds = 0;
};

// All trainings of one head, a seed each.
struct head_results {
  std::string key, name;  // "lgm", "L-GM"
  bool has_likelihood = false;
  std::vector<head_result> runs;

  spread over_runs(const std::function<double(const head_result&)>& value) const {
    std::vector<double> values;
    for (const head_result& run : runs) values.push_back(value(run));
    return spread_of(values);
  }
};

// The heads side by side; with several seeds each number is their mean.
std::string table_text(const std::vector<head_results>& heads);

// The test accuracies of several seeds, with mean and spread.
std::string seeds_text(const std::vector<head_results>& heads);

// The options of a training, under their names.
nlohmann::ordered_json to_json(const options& chosen);

// The content of results.json.
std::string results_text(const options& chosen, const data_set& data, const std::vector<head_results>& heads);

}  // namespace trainer
