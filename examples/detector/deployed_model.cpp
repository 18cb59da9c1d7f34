// SPDX-License-Identifier: MIT
#include "deployed_model.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace detector {

std::vector<std::int64_t> read_widths(const trainer::model_file& file) {
  std::vector<std::int64_t> widths;
  for (std::size_t layer = 0;; ++layer) {
    const auto found = file.tensors.find(fmt::format("network.{}.weight", layer));
    if (found == file.tensors.end()) break;
    const std::vector<std::int64_t>& shape = found->second.shape;
    if (shape.size() != 2 || shape[0] < 1 || shape[1] < 1 || (layer > 0 && shape[0] != widths.back())) {
      throw std::runtime_error("tensor '" + found->first + "' does not fit the layer before it");
    }
    if (layer == 0) widths.push_back(shape[0]);
    widths.push_back(shape[1]);
  }
  if (widths.empty()) throw std::runtime_error("has no tensor 'network.0.weight'");
  return widths;
}

deployed_model::deployed_model(const trainer::model_file& file, int threads) : threads_(threads) {
  trainer::require_format(file, {"lgm-trainer", "lgm-detector"});
  head_ = read_head(file);
  scores_.emplace(head_, read_gaussians(file, threads), threads);
  inputs_ = scores_->dims();
  if (file.tensors.count("network.0.weight") == 0) return;

  const std::vector<std::int64_t> widths = read_widths(file);
  if (widths.back() != scores_->dims()) throw std::runtime_error("its network and its head do not fit");
  inputs_ = widths.front();
  file.get("input.shift", {1}, &shift_);
  file.get("input.scale", {1}, &scale_);
  team_ = std::make_unique<trainer::workers>(threads);
  network_.emplace(widths, max_rows, 0, *team_);
  network_->for_each_array(
      [&](const std::string& name, const std::vector<std::int64_t>& shape, std::int64_t begin) {
        file.get("network." + name, shape, network_->parameters().data() + begin);
      });
}

trainer::row_matrix<float> deployed_model::features(const trainer::const_matrix_view<float>& rows) {
  if (!network_) return rows;
  const trainer::row_matrix<float> input = ((rows.array() - shift_) * scale_).matrix();
  return network_->forward(input);
}

void deployed_model::set_gaussians(feature_gaussians gaussians) {
  scores_.emplace(head_, std::move(gaussians), threads_);
}

acceptance read_acceptance(const trainer::model_file& file) {
  const auto score = file.metadata.find("detector.score");
  const auto threshold = file.metadata.find("detector.threshold");
  if (score == file.metadata.end() || threshold == file.metadata.end()) {
    throw std::runtime_error("has no threshold; `detector calibrate` gives it one");
  }
  acceptance result;
  result.score = score->second;
  const std::string& text = threshold->second;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), result.threshold);
  if (error != std::errc() || end != text.data() + text.size() || std::isnan(result.threshold)) {
    throw std::runtime_error("__metadata__: detector.threshold is " + trainer::printable(text) +
                             ", not a number");
  }
  return result;
}

std::vector<std::int64_t> read_labels(const std::filesystem::path& path, std::int64_t classes) {
  const std::unique_ptr<row_reader> reader = open_rows(path);
  require_columns(*reader, 1, "labels");
  std::vector<std::int64_t> labels = reader->read_all_whole();
  constexpr std::int64_t max_classes = 1 << 20;
  for (const std::int64_t label : labels) {
    if (label < 0) trainer::fail_file(path, fmt::format("label {} is negative", label));
    if (classes == 0 && label >= max_classes)
      trainer::fail_file(path, fmt::format("label {} is too large", label));
    if (classes > 0 && label >= classes) {
      trainer::fail_file(path, fmt::format("label {}, but there are {} classes", label, classes));
    }
  }
  return labels;
}

feature_gaussians estimate_rows(deployed_model* model, row_reader& rows,
                                const std::vector<std::int64_t>& labels,
                                const std::filesystem::path& labels_path, std::int64_t classes,
                                const estimation& how) {
  const auto count = static_cast<std::int64_t>(labels.size());
  if (rows.rows() != count) {
    trainer::fail_file(labels_path, fmt::format("{} labels for the {} rows of {}", count, rows.rows(),
                                                rows.path().filename().string()));
  }
  const std::string path = rows.path().string();
  gaussian_estimator estimator(classes, model != nullptr ? model->dims() : rows.columns(), how.threads,
                               how.variance_floor);
  std::vector<std::int64_t> kept_labels;
  for_finite_batches(
      model, rows, how.odd_rows,
      [&](const trainer::const_matrix_view<float>& features, const std::vector<Eigen::Index>& indexes) {
        kept_labels.clear();
        for (const Eigen::Index each : indexes) kept_labels.push_back(labels[static_cast<std::size_t>(each)]);
        estimator.add(features, kept_labels.data());
      });
  try {
    feature_gaussians result = estimator.finish();
    if (!estimator.flat_features().empty()) {
      warn(
          fmt::format("{}: constant, or all but constant, in these rows: {} {}; --variance-floor decides how "
                      "far a row may be from that",
                      path, estimator.flat_features().size() == 1 ? "feature" : "features",
                      list_of(estimator.flat_features())));
    }
    return result;
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(path + ": " + error.what());
  }
}

void require_columns(const row_reader& rows, std::int64_t expected, const std::string& of) {
  if (rows.columns() == expected) return;
  trainer::fail_file(rows.path(), fmt::format("rows of {} {}, but {} have {}", rows.columns(),
                                              rows.columns() == 1 ? "number" : "numbers", of, expected));
}

}  // namespace detector
