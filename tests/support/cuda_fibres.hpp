// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "support/emulated_group.hpp"
#include "support/fibres.hpp"
#include "support/race_watch.hpp"

// The device code itself on the host: support/cuda_fibres/cuda_runtime.h gives the host's compiler what block_group.cuh and
// run_tasks.cuh use of CUDA's language, and here are the threads. Each is a fibre, which another follows at barriers and
// shuffles only, so that a result that depends on their order shows. What CUDA leaves undefined is an exception.
//
// Loads and stores are seen where a file is compiled with -fsanitize=thread and linked with support/race_hooks.cpp in place of
// the sanitizer's own functions: race_watch.hpp says what is a race.

namespace support {

struct cuda_index {
  unsigned x = 0, y = 0, z = 0;
};

// A kernel does what CUDA leaves undefined, or would never end.
struct cuda_misuse : std::logic_error {
  using std::logic_error::logic_error;
};

class cuda_fibres {
 public:
  // forward: the first of those that can go on does, so that the first warp gets as far ahead of the others as it may; reverse:
  // the last; shuffled: any. watched: races are looked for, which takes ten times as long.
  explicit cuda_fibres(lane_order order = lane_order::forward, std::uint64_t seed = 1, bool watched = true)
      : order_(order), state_(seed), watched_(watched) {}
  cuda_fibres(const cuda_fibres&) = delete;

  // kernel() by each of `threads` of each of `blocks`, one block after the other. Throws what a thread threw first, and else
  // what the first race is. Kernels launch none.
  void launch(unsigned blocks, unsigned threads, const std::function<void()>& kernel);

  // ---- for the thread that runs ----

  static cuda_fibres& running();
  cuda_index thread() const { return {static_cast<unsigned>(current_)}; }
  cuda_index block() const { return {block_}; }
  cuda_index threads() const { return {static_cast<unsigned>(states_.size())}; }
  cuda_index blocks() const { return {blocks_}; }

  // How often the thread has met others of its block so far.
  unsigned meetings() { return state(current_).meetings; }

  // Memory is loaded, or stored. Without a launch under way nothing is done.
  static void touch(std::uintptr_t address, std::size_t bytes, bool store, std::uintptr_t where);
  // Is told of all that is touched. where: an address of the code.
  using observer =
      std::function<void(std::uintptr_t address, std::size_t bytes, bool store, std::uintptr_t where)>;
  void observe(observer o) { observer_ = std::move(o); }

  void sync_threads();
  void sync_warp(unsigned mask);
  // Of a plain value of at most 8 bytes.
  template <class T>
  T shuffle_xor(unsigned mask, T value, int step) {
    static_assert(sizeof(T) <= sizeof(std::uint64_t), "what a register or two holds");
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    bits = exchange(mask, bits, static_cast<unsigned>(step));
    std::memcpy(&value, &bits, sizeof(T));
    return value;
  }

 private:
  enum class call { none, sync_threads, sync_warp, shuffle };
  struct thread_state {
    call waits = call::none;
    unsigned mask = 0, step = 0, meetings = 0;
    std::uint64_t value = 0;
    bool through = false;
  };
  struct abandoned {};  // unwinds a thread whose block has failed elsewhere

  static constexpr int warp = 32;
  static std::size_t index(int n) { return static_cast<std::size_t>(n); }
  thread_state& state(int thread) { return states_[index(thread)]; }

  void run_block(const std::function<void()>& kernel);
  std::uint64_t exchange(unsigned mask, std::uint64_t value, unsigned step);
  void meet_warp(call which, unsigned mask, std::uint64_t value, unsigned step);
  // Another thread that can go on, or this one; -1: there is none.
  int next();
  void give_way();

  lane_order order_;
  std::uint64_t state_;
  bool watched_;
  unsigned block_ = 0, blocks_ = 0;
  int current_ = 0, at_barrier_ = 0;
  int none_before_ = 0;  // in forward or reverse order: threads before this place all wait or are through
  std::vector<thread_state> states_;
  bool failed_ = false;
  std::exception_ptr error_;
  race_watch watch_;
  observer observer_;
  static thread_local fibres fibres_;
};

}  // namespace support
