// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/config.hpp>

namespace cuda_trainer {

// Where index i of [0, n) goes in the order number `key`: a permutation that needs no memory, so that each thread finds
// its own image. A Feistel network permutes the next power of four; what lands beyond n goes round again.
LGM_HD inline std::int64_t shuffled(std::int64_t i, std::int64_t n, std::uint64_t key) {
  int half = 1;
  while ((std::int64_t(1) << 2 * half) < n) ++half;
  const std::uint64_t mask = (std::uint64_t(1) << half) - 1;
  auto at = static_cast<std::uint64_t>(i);
  do {
    std::uint64_t left = at >> half, right = at & mask;
    for (std::uint64_t round = 0; round < 4; ++round) {
      std::uint64_t mixed = (right + 1) * 0x9E3779B97F4A7C15u + (key * 4 + round) * 0xD1B54A32D192ED03u;
      mixed = (mixed ^ (mixed >> 31)) * 0x94D049BB133111EBu;
      const std::uint64_t next = (left ^ (mixed >> 32)) & mask;
      left = right;
      right = next;
    }
    at = left << half | right;
  } while (at >= static_cast<std::uint64_t>(n));
  return static_cast<std::int64_t>(at);
}

}  // namespace cuda_trainer
