// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/group.hpp>

// The samples of a tile by class.

namespace lgm::detail {

// Sorts the rows of a tile by their keys, stably, by counting for each row how many come before it. Each pair is compared once.
// For the rows of a tile that is little work, in one launch and without scratch; a radix sort takes several launches. A task
// counts for several rows in one pass over the keys, each in 16 bits of a sum.
struct rank_kernel {
  static constexpr std::int64_t task_rows = 4, most_rows = std::int64_t(1) << 14;

  std::int64_t rows;           // up to most_rows
  const std::int64_t* key;     // [rows]: the row's class, the number of classes where it has none
  std::int64_t *row, *ranked;  // [rows], out: rows in the order of their keys, and the keys

  LGM_HD static constexpr std::int64_t tasks(std::int64_t rows) { return (rows + task_rows - 1) / task_rows; }

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t first = task * task_rows, n = smaller(task_rows, rows - first);
    std::int64_t mine[task_rows] = {};
    for (int r = 0; r < task_rows; ++r) mine[r] = key[first + smaller(n - 1, std::int64_t(r))];
    const std::int64_t before = group.reduce(
        rows, std::int64_t(0),
        [&](std::int64_t j) {
          const std::int64_t other = key[j];
          std::int64_t counts = 0;
          for (int r = 0; r < task_rows; ++r)
            counts |= std::int64_t(other < mine[r] || (other == mine[r] && j < first + r) ? 1 : 0) << 16 * r;
          return counts;
        },
        plus{});
    group.for_each(n, [&](std::int64_t r) {
      const std::int64_t rank = (before >> 16 * r) & 0xffff;
      row[rank] = first + r;
      ranked[rank] = key[first + r];
    });
  }
};

// Where class k begins among the ranked rows.
LGM_HD inline std::int64_t first_of_class(const std::int64_t* ranked, std::int64_t rows, std::int64_t k) {
  std::int64_t low = 0, high = rows;
  while (low < high) {
    const std::int64_t middle = low + (high - low) / 2;
    if (ranked[middle] < k)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

}  // namespace lgm::detail
