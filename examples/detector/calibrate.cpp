// SPDX-License-Identifier: MIT
#include "calibrate.hpp"

#include <fmt/format.h>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "../trainer/idx.hpp"
#include "../trainer/model_file.hpp"
#include "deployed_model.hpp"
#include "npy.hpp"
#include "scores.hpp"

namespace detector {

namespace {

namespace fs = std::filesystem;

bool names_directory(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

// Training rows and their labels.
struct training_files {
  fs::path rows, labels;
};

training_files training_of(const calibrate_options& chosen) {
  if (!names_directory(chosen.train)) {
    if (chosen.train_labels.empty()) {
      trainer::fail_file(chosen.train, "a file of training data needs --train-labels");
    }
    return {chosen.train, chosen.train_labels};
  }
  return {trainer::find_idx(chosen.train, "train-images", "idx3-ubyte"),
          chosen.train_labels.empty() ? trainer::find_idx(chosen.train, "train-labels", "idx1-ubyte")
                                      : chosen.train_labels};
}

// A model of Gaussians of features, without a network.
trainer::model_file file_of(const feature_gaussians& gaussians) {
  const gaussian_head& by_class = gaussians.by_class;
  const std::int64_t classes = by_class.mean.rows(), dims = by_class.mean.cols();
  trainer::model_file file;
  file.metadata = {{"format", "lgm-detector"}, {"version", "1"}};
  file.put("head.mean", {classes, dims}, by_class.mean.data());
  file.put("head.log_variance", {classes, dims}, by_class.log_variance.data());
  file.put("head.log_prior", {classes}, by_class.log_prior.data());
  return file;
}

bool needs_gaussians(const std::string& score) {
  return score == "mahalanobis" || score == "gaussian_density";
}

}  // namespace

double threshold_of(std::vector<double> scores, double share) {
  if (scores.empty()) throw std::runtime_error("no held-out data");
  if (std::any_of(scores.begin(), scores.end(), [](double score) { return std::isnan(score); })) {
    throw std::runtime_error("held-out data with a score that is not a number");
  }
  // Of a share that is a whole number of scores but for rounding, that number: 0.07 of 100 is 7, not 6.
  const double below = std::floor(share * static_cast<double>(scores.size()) + 1e-9);
  std::sort(scores.begin(), scores.end());
  auto at = std::min(static_cast<std::size_t>(below), scores.size() - 1);
  // In the middle between that score and the next lower one. Between equal scores, as between infinities, there is no middle:
  // then further down.
  for (; at > 0 && std::isfinite(scores[at - 1]); --at) {
    const double low = scores[at - 1], high = scores[at], middle = low + (high - low) / 2;
    if (low < middle && middle < high) return middle;
  }
  // Below all finite scores, or all scores.
  while (at > 0 && scores[at] == scores[at - 1]) --at;
  const double least = scores[at];
  if (!std::isfinite(least)) return least;
  const auto above = std::upper_bound(scores.begin(), scores.end(), least);
  const double gap = above != scores.end() && std::isfinite(*above) ? *above - least : 0;
  return least - std::max(gap / 2, 1e-6 * std::max(std::abs(least), 1.0));
}

void calibrate(const calibrate_options& chosen) {
  Eigen::setNbThreads(1);
  trainer::model_file file;
  std::optional<deployed_model> model;
  if (!chosen.model.empty()) {
    file = trainer::load_model(chosen.model);
    try {
      model.emplace(file, chosen.threads);
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(chosen.model.string() + ": " + error.what());
    }
  }

  const std::string asked = chosen.score;
  if (!chosen.train.empty() && (!model || needs_gaussians(asked))) {
    const training_files training = training_of(chosen);
    const std::vector<std::int64_t> labels = read_labels(training.labels, model ? model->classes() : 0);
    const std::int64_t classes =
        model ? model->classes() : 1 + *std::max_element(labels.begin(), labels.end());
    const std::unique_ptr<row_reader> rows = open_rows(training.rows);
    feature_gaussians gaussians =
        estimate_rows(model ? &*model : nullptr, *rows, labels, training.labels, classes,
                      {chosen.variance_floor, chosen.odd_rows, chosen.threads});
    if (!model) {
      file = file_of(gaussians);
      model.emplace(file, chosen.threads);
    }
    if (needs_gaussians(asked)) {
      write_gaussians(gaussians, file);
      model->set_gaussians(std::move(gaussians));
    }
  }

  scorer& scores = model->scores();
  const std::string score = !asked.empty() ? asked : scores.names().front() == "msp" ? "msp" : "log_density";
  if (needs_gaussians(score) && !scores.gaussians()) {
    throw std::runtime_error("--score " + score + ": needs --train, whose features it is estimated from");
  }
  const std::size_t column = scores.index_of(score);
  const fs::path data = names_directory(chosen.data)
                            ? trainer::find_idx(chosen.data, "t10k-images", "idx3-ubyte")
                            : chosen.data;
  std::vector<double> held_out;
  const std::unique_ptr<row_reader> rows = open_rows(data);
  for_finite_batches(&*model, *rows, chosen.odd_rows,
                     [&](const trainer::const_matrix_view<float>& features, const auto&) {
                       const std::vector<double> values = std::move(scores(features).columns[column]);
                       held_out.insert(held_out.end(), values.begin(), values.end());
                     });

  double threshold = 0;
  try {
    threshold = threshold_of(held_out, chosen.fpr);
  } catch (const std::runtime_error& error) {
    trainer::fail_file(data, error.what());
  }
  const auto below = std::count_if(held_out.begin(), held_out.end(), [&](double s) { return s < threshold; });
  file.metadata["detector.score"] = score;
  file.metadata["detector.threshold"] = fmt::format("{}", threshold);
  file.metadata["detector.fpr"] = fmt::format("{}", chosen.fpr);
  file.metadata["detector.held_out"] = fmt::format("{}", held_out.size());
  trainer::save_model(chosen.out, file);

  fmt::print("{}: accepts {} >= {:.6g}, which rejects {} of {} held-out rows ({:.2f} %)\n",
             chosen.out.string(), score, threshold, below, held_out.size(),
             100 * static_cast<double>(below) / static_cast<double>(held_out.size()));
  if (chosen.fpr > 0 && chosen.fpr * static_cast<double>(held_out.size()) < 10) {
    fmt::print(
        "so few held-out rows say little about a share of {:g}: fewer than 10 of them are to fall below\n",
        chosen.fpr);
  }
  if (std::fflush(stdout) != 0) throw std::runtime_error("standard output: cannot be written");
}

}  // namespace detector
