// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <string>
#include <vector>

#include "network.hpp"

namespace detector {

// What is done with rows that hold NaN or an infinity, or whose features do: --not-finite.
enum class not_finite { refuse, skip };

// Finds such rows: a single one has scores that are not numbers, and with it no measure of its set has a value.
class finite_rows {
 public:
  // source: what the rows are, for messages.
  finite_rows(std::string source, not_finite what);

  // Of rows that lie at `begin` and on in their source, the indexes of those that are finite. Throws std::runtime_error, "SOURCE:
  // row N ...", if they are to be refused.
  std::vector<Eigen::Index> among(const trainer::const_matrix_view<float>& rows, std::int64_t begin);

  // Says on stderr which rows were skipped, if any were. Throws std::runtime_error if there were no others.
  void finish() const;

 private:
  std::string source_;
  not_finite what_;
  std::int64_t seen_ = 0;
  std::vector<std::int64_t> skipped_;
};

// A line on stderr.
void warn(const std::string& text);

// "3, 8, 11 and 57 more", or all of them where they are not many.
std::string list_of(const std::vector<std::int64_t>& numbers);

}  // namespace detector
