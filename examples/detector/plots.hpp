// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "metrics.hpp"

// Pictures of a detector's results. Each is written with its script and its data into a directory, by gnuplot.

namespace detector {

// roc.png: ROC curves, a panel each for what is told apart, a line a score.
struct roc_line {
  std::string name;  // for the legend
  curve points;
};
struct roc_panel {
  std::string title;
  std::vector<roc_line> lines;
};
void draw_roc(const std::filesystem::path& directory, const std::vector<roc_panel>& panels);

// histograms.png: the scores of the sets, a panel a score.
struct histogram_set {
  std::string name;  // for the legend
  std::vector<double> scores;
};
struct histogram_panel {
  std::string title, axis;
  std::vector<histogram_set> sets;
};
void draw_histograms(const std::filesystem::path& directory, const std::vector<histogram_panel>& panels);

// sweep.png: a measure over settings. Along a panel's axis lie its ticks, all the same distance apart; a line has a
// value for each (NaN: none), and may have deviations, drawn as bars.
struct sweep_line {
  std::string name;  // for the legend
  std::vector<double> values, deviations;
};
struct sweep_panel {
  std::string title, axis;
  std::vector<std::string> ticks;
  std::vector<sweep_line> lines;
  double baseline = 0;  // a level across the panel, with its deviation as a band
  double baseline_deviation = 0;
  std::string baseline_name;  // for the legend; empty: no baseline
};
// measure: what the values are, for the vertical axis, which all panels share.
void draw_sweep(const std::filesystem::path& directory, const std::string& measure,
                const std::vector<sweep_panel>& panels);

}  // namespace detector
