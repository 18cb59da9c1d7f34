// SPDX-License-Identifier: MIT
#include "finite_rows.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace detector {

finite_rows::finite_rows(std::string source, not_finite what) : source_(std::move(source)), what_(what) {}

std::vector<Eigen::Index> finite_rows::among(const trainer::const_matrix_view<float>& rows,
                                             std::int64_t begin) {
  std::vector<Eigen::Index> kept;
  for (Eigen::Index i = 0; i < rows.rows(); ++i) {
    if (rows.row(i).allFinite()) {
      kept.push_back(i);
      continue;
    }
    if (what_ == not_finite::refuse) {
      throw std::runtime_error(fmt::format("{}: row {} is not finite; --not-finite skip leaves such rows out",
                                           source_, begin + i));
    }
    skipped_.push_back(begin + i);
  }
  seen_ += rows.rows();
  return kept;
}

void finite_rows::finish() const {
  const auto count = static_cast<std::int64_t>(skipped_.size());
  if (count == 0) return;
  if (count == seen_) throw std::runtime_error(source_ + ": no row is finite");
  warn(fmt::format("{}: left out {} of {} rows, which {} not finite: {}", source_, count, seen_,
                   count == 1 ? "is" : "are", list_of(skipped_)));
}

void warn(const std::string& text) { fmt::print(stderr, "detector: warning: {}\n", text); }

std::string list_of(const std::vector<std::int64_t>& numbers) {
  constexpr std::size_t most = 20;
  const std::size_t shown = numbers.size() > most + 1 ? most : numbers.size();
  std::string text = fmt::format(
      "{}", fmt::join(numbers.begin(), numbers.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
  if (shown < numbers.size()) text += fmt::format(" and {} more", numbers.size() - shown);
  return text;
}

}  // namespace detector
