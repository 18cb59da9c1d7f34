// SPDX-License-Identifier: MIT
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "support/lane_group.hpp"

// Lanes that run freely between real barriers. ThreadSanitizer sees a phase in which one lane reads or writes
// what another writes; without it, the bits have to be those of the emulated group of as many lanes.

namespace support {

class free_team : public lane_team {
 public:
  using lane_team::lane_team;

  void arrive(int lane, const group_call& call) override {
    std::unique_lock<std::mutex> lock(mutex_);
    if (enter_barrier(lane, call)) return;
    const std::int64_t phase = phase_;
    next_phase_.wait(lock, [&] { return phase_ != phase || failed_; });
    if (phase_ == phase) throw lane_abandoned{};
  }
  bool elect(int) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    const bool first = elected_ != phase_;
    elected_ = phase_;
    return first;
  }
  void finish(int lane) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    enter_barrier(lane, last_call);
  }
  void fail(int, std::exception_ptr error) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    failed_ = true;
    if (error != nullptr && error_ == nullptr) error_ = error;
    next_phase_.notify_all();
  }

 private:
  // True in the last lane, which opens the barrier.
  bool enter_barrier(int lane, const group_call& call) {
    if (failed_) throw lane_abandoned{};
    check(lane, call);
    if (++arrived_ < lanes()) return false;
    arrived_ = 0;
    ++phase_;
    next_phase_.notify_all();
    return true;
  }

  std::mutex mutex_;
  std::condition_variable next_phase_;
  std::int64_t phase_ = 0, elected_ = -1;
  bool failed_ = false;
};

struct thread_group {
  int lane_count;
  held_rows rows = held_rows::in_registers;

  int lanes() const { return lane_count; }
  template <class F>
  void run(F f) const {
    free_team team(lane_count, rows);
    run_lanes(team, f);
  }
};

}  // namespace support
