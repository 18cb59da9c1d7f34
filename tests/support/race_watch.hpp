// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

// Who has touched which memory in a launch, and whether a barrier lies between those who have: two threads that touch one byte, one
// of them storing, without one is a race, whatever the order in which they ran. Barriers order memory, shuffles do not; blocks
// are never ordered.

namespace support {

class race_watch {
 public:
  // A block of so many threads. The first of a launch forgets what there was.
  void begin_block(bool first, unsigned block, int threads);
  // All threads of the block, or those of [first, first + 32) that are in the mask, have met.
  void all_met();
  void met(int first, unsigned mask);

  // Memory that a block has to itself, as its threads' stacks are, is the caller's to leave out. shared: every block has its own
  // at the same address.
  void touch(int thread, std::uintptr_t address, std::size_t bytes, bool store, bool shared);

  // The first race of the launch, in words; empty: none.
  const std::string& race() const { return race_; }

 private:
  // 8 bytes of memory in the block at work: the last store of each byte, and the last load by each thread.
  struct access {
    std::int32_t thread = -1;
    std::uint32_t time = 0;
  };
  struct cell {
    unsigned block = 0;
    unsigned stored_before = 0, loaded_before = 0;  // which bytes, by earlier blocks
    unsigned stored = 0, loaded = 0;                // by this one
    std::array<access, 8> stores;
    std::vector<std::uint32_t> loads;  // [threads], by time; 0: none
    std::vector<std::uint8_t> bytes;   // [threads], which of the 8
  };

  std::uint32_t& seen(int by, int of) { return clocks_[index(by) * index(threads_) + index(of)]; }
  static std::size_t index(int n) { return static_cast<std::size_t>(n); }
  void touch_cell(int thread, std::uintptr_t at, unsigned bytes, bool store, bool shared);
  void report(int thread, int other, std::uintptr_t at, bool store);

  unsigned block_ = 0;
  int threads_ = 0;
  std::vector<std::uint32_t> clocks_;  // [threads, threads]: what each knows of each
  std::unordered_map<std::uintptr_t, cell> cells_;
  std::string race_;
};

}  // namespace support
