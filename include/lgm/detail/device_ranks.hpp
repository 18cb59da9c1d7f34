// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/scalar.hpp>

// The samples of a tile by class.

namespace lgm::detail {

// Sorts the rows of a tile by their keys, in their order where keys are equal, by counting for each how many come before it:
// each pair is compared once, which for the rows of a tile is little beside the rest, and takes one launch and no scratch.
constexpr std::int64_t rank_block = 32;
struct rank_kernel {
  std::int64_t rows;
  const std::int64_t* key;     // [rows]: the row's class, the number of classes where it has none
  std::int64_t *row, *ranked;  // [rows], out: rows in the order of their keys, and the keys

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t begin = task * rank_block;
    group.for_each(smaller(rank_block, rows - begin), [&](std::int64_t n) {
      const std::int64_t i = begin + n, mine = key[i];
      std::int64_t rank = 0;
      for (std::int64_t j = 0; j < rows; ++j) rank += key[j] < mine || (key[j] == mine && j < i) ? 1 : 0;
      row[rank] = i;
      ranked[rank] = mine;
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
