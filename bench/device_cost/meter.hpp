// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/cuda_fibres.hpp"

// What the threads of a block load and store, seen through the functions that the compiler calls where -fsanitize=thread is given
// (tests/support/race_hooks.cpp). Only a device's arrays are counted: stacks stand for registers and local memory,
// the program's variables for shared memory.

namespace bench {

// Memory of a device: an array that is there in full as addresses, and takes memory where it is stored to alone.
class device_array {
 public:
  explicit device_array(std::size_t bytes);
  ~device_array();
  device_array(const device_array&) = delete;
  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  void* data_;
  std::size_t bytes_;
};

// Of some tasks of a kernel, by array: in bytes.
struct traffic {
  double loaded = 0, stored = 0;  // sectors of 32 bytes, each once for a block
  double requested =
      0;  // sectors that the warps' instructions ask for: what lanes of one share is asked for once
};

class meter {
 public:
  static constexpr std::uintptr_t sector = 32;

  // An array that counts, or a piece of one: [begin, end).
  void watch(const void* begin, std::size_t bytes);
  // Sees what the threads of these fibres touch.
  void observe(support::cuda_fibres& fibres);

  // Between the two, threads' loads and stores are counted; a block at a time.
  void begin();
  void end();

  // Sums over the blocks that were metered since the last reset, for each array in the order of watch().
  const std::vector<traffic>& arrays() const { return sums_; }
  std::size_t bytes_of(std::size_t array) const { return pieces_[array].end - pieces_[array].begin; }
  std::int64_t accesses() const { return accesses_; }
  // The most loads by one thread of one block.
  std::int64_t most_loads() const { return most_loads_; }
  void reset();

 private:
  // An instruction at `where` of the thread that runs.
  void touch(std::uintptr_t address, std::size_t bytes, bool store, std::uintptr_t where);

  struct piece {
    std::uintptr_t begin, end;
  };
  // How often each number was counted.
  class number_counts {
   public:
    std::uint32_t& operator[](std::uint64_t number);
    void clear();

   private:
    struct slot {
      std::uint64_t number;  // 0: empty
      std::uint32_t count;
    };
    std::vector<slot> slots_ = std::vector<slot>(1024);
    std::size_t used_ = 0;
  };

  std::vector<piece> pieces_;  // in the order of their addresses
  std::vector<traffic> sums_;
  std::int64_t accesses_ = 0, most_loads_ = 0;
  bool counting_ = false;
  number_counts loaded_, stored_, requests_;
  number_counts times_;              // by thread and instruction: how often it was run
  std::vector<std::int64_t> loads_;  // by thread
};

}  // namespace bench
