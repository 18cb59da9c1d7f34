// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

// Numbers that sum up a run: the area under the ROC curve, and mean and spread over seeds.

namespace trainer {

// The probability that a sample of `inside` scores higher than one of `outside`, a tie counting one half: the
// area under the ROC curve of telling the two apart. NaN if a set is empty or a score is NaN.
inline double auroc(const std::vector<float>& inside, const std::vector<float>& outside) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  if (inside.empty() || outside.empty()) return nan;
  std::vector<std::pair<float, bool>> scores;  // and whether the sample is inside
  scores.reserve(inside.size() + outside.size());
  for (const float score : inside) scores.emplace_back(score, true);
  for (const float score : outside) scores.emplace_back(score, false);
  if (std::any_of(scores.begin(), scores.end(), [](const auto& s) { return std::isnan(s.first); }))
    return nan;
  std::sort(scores.begin(), scores.end());

  double wins = 0, outside_below = 0;
  for (std::size_t begin = 0; begin < scores.size();) {
    double tied_inside = 0, tied_outside = 0;
    std::size_t end = begin;
    for (; end < scores.size() && scores[end].first == scores[begin].first; ++end) {
      (scores[end].second ? tied_inside : tied_outside) += 1;
    }
    wins += tied_inside * (outside_below + 0.5 * tied_outside);
    outside_below += tied_outside;
    begin = end;
  }
  return wins / (static_cast<double>(inside.size()) * static_cast<double>(outside.size()));
}

struct spread {
  double mean = 0;
  double deviation = 0;       // sample standard deviation; 0 for a single value
  double standard_error = 0;  // of the mean
};

inline spread spread_of(const std::vector<double>& values) {
  spread result;
  const auto count = static_cast<double>(values.size());
  if (values.empty()) return result;
  for (const double value : values) result.mean += value / count;
  if (values.size() < 2) return result;
  double squares = 0;
  for (const double value : values) squares += (value - result.mean) * (value - result.mean);
  result.deviation = std::sqrt(squares / (count - 1));
  result.standard_error = result.deviation / std::sqrt(count);
  return result;
}

// The q-quantile (0 <= q <= 1) of the finite values, the nearest one from below; 0 if there is none.
inline double quantile(std::vector<double> values, double q) {
  values.erase(std::remove_if(values.begin(), values.end(), [](double v) { return !std::isfinite(v); }),
               values.end());
  if (values.empty()) return 0;
  const auto at = static_cast<std::ptrdiff_t>(q * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + at, values.end());
  return values[static_cast<std::size_t>(at)];
}

}  // namespace trainer
