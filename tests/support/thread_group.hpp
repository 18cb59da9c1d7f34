// SPDX-License-Identifier: MIT
#pragma once

#include "support/lane_group.hpp"

// Lanes that run freely between real barriers. ThreadSanitizer sees a phase in which one lane reads or writes
// what another writes; without it, the bits have to be those of the emulated group of as many lanes.

namespace support {

struct thread_group {
  int lane_count;
  held_rows rows = held_rows::in_registers;

  int lanes() const { return lane_count; }
  void run(const lane_function& f) const;
};

}  // namespace support
