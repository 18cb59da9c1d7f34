// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/device/tuning.hpp>

namespace lgm::detail {

// How tasks become a grid. Groups within a warp share a block; a wider group has a block of its own. Beyond the grid's limit,
// groups take several tasks in turn.
struct launch_shape {
  std::int64_t blocks;
  int threads;  // of a block
  int groups;   // of a block

  static constexpr std::int64_t most_blocks = (std::int64_t(1) << 31) - 1;

  // A group of more than a warp is a whole block, whose barrier it uses.
  LGM_HD static constexpr int threads_of(int lanes) { return lanes > 32 ? lanes : tuning::shared_block; }
  LGM_HD static constexpr int groups_of(int lanes) { return threads_of(lanes) / lanes; }

  static constexpr launch_shape make(int lanes, std::int64_t tasks) {
    const std::int64_t groups = groups_of(lanes), blocks = tasks / groups + (tasks % groups != 0);
    return {blocks < most_blocks ? blocks : most_blocks, threads_of(lanes), static_cast<int>(groups)};
  }
};

}  // namespace lgm::detail
