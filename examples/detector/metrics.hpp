// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

// How well a score tells samples of the known classes (inside) from others (outside), and how well a classifier
// knows how often it is right. A sample counts as inside where its score is at least a threshold; samples with
// the same score fall on the same side of every threshold.

namespace detector {

struct detection {
  double auroc = 0;          // area under the ROC curve: a tie counts one half
  double fpr_at_95_tpr = 0;  // least share of outside that passes where at least 95% of inside do
  double aupr_in = 0;        // average precision, inside taken as positive
  double aupr_out = 0;       // the same, outside taken as positive
  double accuracy = 0;       // largest mean of the two shares that are told right, over all thresholds
};

// From (0, 0) to (1, 1): a point for every score that occurs, highest first.
struct curve {
  std::vector<double> fpr, tpr;
};

namespace detail {

// How many samples pass a threshold, for every threshold that matters: first none, then from the highest score
// down.
struct passed {
  double inside = 0, outside = 0;
};

// Nothing if a set is empty or a score is NaN: then there is nothing to measure.
inline std::vector<passed> passed_thresholds(const std::vector<double>& inside,
                                             const std::vector<double>& outside) {
  std::vector<passed> result;
  if (inside.empty() || outside.empty()) return result;
  std::vector<std::pair<double, bool>> scores;  // and whether the sample is inside
  scores.reserve(inside.size() + outside.size());
  for (const double score : inside) scores.emplace_back(score, true);
  for (const double score : outside) scores.emplace_back(score, false);
  if (std::any_of(scores.begin(), scores.end(), [](const auto& s) { return std::isnan(s.first); }))
    return result;
  std::sort(scores.begin(), scores.end(), [](const auto& a, const auto& b) { return a.first > b.first; });

  passed now;
  result.push_back(now);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    (scores[i].second ? now.inside : now.outside) += 1;
    if (i + 1 == scores.size() || scores[i + 1].first != scores[i].first) result.push_back(now);
  }
  return result;
}

}  // namespace detail

// All NaN if a set is empty or a score is NaN.
inline detection measure(const std::vector<double>& inside, const std::vector<double>& outside) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<detail::passed> thresholds = detail::passed_thresholds(inside, outside);
  if (thresholds.empty()) return {nan, nan, nan, nan, nan};
  const auto all_inside = static_cast<double>(inside.size());
  const auto all_outside = static_cast<double>(outside.size());

  detection result;
  result.fpr_at_95_tpr = 1;
  result.accuracy = 0.5;
  for (std::size_t i = 1; i < thresholds.size(); ++i) {
    const detail::passed before = thresholds[i - 1], now = thresholds[i];
    const double tpr = now.inside / all_inside, fpr = now.outside / all_outside;
    result.auroc += (now.outside - before.outside) * (before.inside + now.inside) / 2;
    if (tpr >= 0.95) result.fpr_at_95_tpr = std::min(result.fpr_at_95_tpr, fpr);
    result.accuracy = std::max(result.accuracy, (tpr + (1 - fpr)) / 2);

    // Average precision: the precision at each threshold, weighted by the recall that it adds. With outside as
    // positive the thresholds come in the opposite order: what does not pass `before` is called outside.
    result.aupr_in += (now.inside - before.inside) / all_inside * now.inside / (now.inside + now.outside);
    const double out_of_inside = all_inside - before.inside, out_of_outside = all_outside - before.outside;
    result.aupr_out +=
        (now.outside - before.outside) / all_outside * out_of_outside / (out_of_outside + out_of_inside);
  }
  result.auroc /= all_inside * all_outside;
  return result;
}

// No points if a set is empty or a score is NaN.
inline curve roc(const std::vector<double>& inside, const std::vector<double>& outside) {
  curve result;
  for (const detail::passed& now : detail::passed_thresholds(inside, outside)) {
    result.fpr.push_back(now.outside / static_cast<double>(outside.size()));
    result.tpr.push_back(now.inside / static_cast<double>(inside.size()));
  }
  return result;
}

// The expected calibration error: over equal bins (low, high] of the confidence, the distance between how often the
// samples are right and how confident they are on average, weighted by the samples. A confidence of 0 falls into the
// first bin. NaN without samples, or if a confidence is outside [0, 1].
inline double expected_calibration_error(const std::vector<double>& confidence,
                                         const std::vector<bool>& correct, int bins = 15) {
  if (bins < 1 || confidence.size() != correct.size())
    throw std::invalid_argument("expected_calibration_error: sizes do not fit");
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  if (confidence.empty()) return nan;
  std::vector<double> sum(
      static_cast<std::size_t>(bins));  // of the confidences, minus 1 for each that is right
  for (std::size_t i = 0; i < confidence.size(); ++i) {
    if (!(confidence[i] >= 0 && confidence[i] <= 1)) return nan;
    const auto bin = static_cast<std::size_t>(std::max(std::ceil(confidence[i] * bins) - 1, 0.0));
    sum[bin] += confidence[i] - (correct[i] ? 1 : 0);
  }
  double error = 0;
  for (const double each : sum) error += std::abs(each);
  return error / static_cast<double>(confidence.size());
}

}  // namespace detector
