// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "detector_model.hpp"
#include "idx.hpp"
#include "options.hpp"
#include "report.hpp"
#include "scores.hpp"

// The commands that measure.

namespace detector {

// Images of no class, as floats [count, pixels].
struct outside_set {
  std::string name;
  std::vector<std::uint8_t> bytes;  // or, where these are none:
  trainer::row_matrix<float> pixels;
};

// Noise, shuffled pixels, blur and inversion of the test images, and the files that are given.
std::vector<outside_set> outside_sets(const trainer::image_set& test, double blur,
                                      const std::vector<named_file>& files, not_finite odd_rows);

// Throws std::runtime_error if it cannot be made and is not there.
void make_directory(const std::filesystem::path& directory);

// The scores of a model's test images and of the outside sets, kept for pictures.
struct scored_sets {
  row_scores inside;
  std::vector<row_scores> outside;  // in the order of seed_result::sets
};

// Measures a model on the sets, then under the attacks.
seed_result measure_model(trained_model& model, scorer& scores, const trainer::image_set& test,
                          const std::vector<outside_set>& sets, const std::vector<attack>& attacks,
                          scored_sets* kept);

void evaluate(const evaluate_options& chosen);
void evaluate_features(const features_options& chosen);

}  // namespace detector
