// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <string>
#include <vector>

// likelihood.png: how confident a head is in test images and in images that belong to no class, a panel a
// head.

namespace trainer {

struct score_set {
  std::string name;  // for the legend
  std::vector<float> scores;
};

struct likelihood_panel {
  std::string title, axis;
  std::vector<score_set> sets;
};

// Draws the panels side by side. Writes likelihood.png, its script and its data into the directory.
void draw_likelihood(const std::filesystem::path& directory, const std::vector<likelihood_panel>& panels);

}  // namespace trainer
