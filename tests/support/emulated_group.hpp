// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

#include "support/lane_group.hpp"

// Lanes that run one at a time, in a chosen order, and change places at barriers only. A phase in which one
// lane reads what another stores gives other bits in another order; an algorithm whose bits are the same in
// every order has its stores and loads in the right phases.

namespace support {

enum class lane_order { forward, reverse, shuffled };

inline const char* to_string(lane_order order) {
  return order == lane_order::forward ? "forward" : order == lane_order::reverse ? "reverse" : "shuffled";
}

struct emulated_group {
  int lane_count;
  lane_order order;
  held_rows rows = held_rows::in_registers;
  std::uint64_t seed = 1;

  int lanes() const { return lane_count; }
  void run(const lane_function& f) const;
};

}  // namespace support
