// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "network.hpp"

// features.png: the test set in the plane of the features, a panel a head.

namespace trainer {

// One head's panel, projected to two dimensions.
struct feature_panel {
  std::string title, caption;
  std::string plane;        // which plane of the features this is, if they have more dimensions or fewer
  Eigen::MatrixX2d points;  // [samples, 2]
  Eigen::MatrixX2d means;   // [classes, 2]
  std::vector<Eigen::Matrix2d> covariances;  // [classes]
};

// A panel with the means and covariances of the test features themselves, for a head that has none.
feature_panel measured_panel(const row_matrix<float>& features, const std::vector<std::uint8_t>& labels,
                             std::int64_t classes);

// A panel with the means and variances [classes, dims] of a model.
feature_panel model_panel(const row_matrix<float>& features, const row_matrix<float>& means,
                          const row_matrix<float>& variances);

// Draws the panels side by side with one legend. Writes features.png, its script and its data into the
// directory.
void draw_features(const std::filesystem::path& directory, const std::vector<feature_panel>& panels,
                   const std::vector<std::uint8_t>& labels, const std::vector<std::string>& class_names);

}  // namespace trainer
