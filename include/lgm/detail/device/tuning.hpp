// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

// The numbers that a measurement has to choose. They change a device's speed, its workspace and the order of sums, and no
// algorithm. bench/variants.txt lists other values; `tests/gpu_check --variants` measures them.

namespace lgm::detail::tuning {

// Rows of up to this many elements have groups of few lanes, or of a warp's; longer ones have a block each.
constexpr std::int64_t narrow_row = 16, warp_row = 256;
// Lanes of these groups.
constexpr int narrow_lanes = 4, warp_lanes = 32, block_lanes = 256;
// Elements of a row that a lane keeps in registers; 0: rows stay in memory (block_group.cuh).
constexpr int held = 0;
// Threads of a block of groups within a warp.
constexpr int shared_block = 128;
// Rows of a tile: fewer make the products inefficient; more gain nothing where classes are cut as well.
constexpr std::int64_t useful_rows = 256, enough_rows = 4096;
// Rows and columns of a task of a diagonal covariance's loops.
constexpr int direct_rows = 8;
constexpr std::int64_t direct_columns = 256;

}  // namespace lgm::detail::tuning
