// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "support/lane_group.hpp"

// Lanes released one at a time, in a chosen order, that change places at barriers only. A phase in which one
// lane reads what another stores gives other bits in another order; an algorithm whose bits are the same in
// every order has its stores and loads in the right phases.

namespace support {

enum class lane_order { forward, reverse, shuffled };

inline const char* to_string(lane_order order) {
  return order == lane_order::forward ? "forward" : order == lane_order::reverse ? "reverse" : "shuffled";
}

class ordered_team : public lane_team {
 public:
  // shuffled: anew for each phase, from the seed.
  ordered_team(int lanes, lane_order order, std::uint64_t seed, held_rows rows)
      : lane_team(lanes, rows),
        order_(order),
        state_(seed),
        turns_(static_cast<std::size_t>(lanes)),
        through_(static_cast<std::size_t>(lanes), false) {
    for (int lane = 0; lane < lanes; ++lane) wake_.push_back(std::make_unique<wake_up>());
    std::iota(turns_.begin(), turns_.end(), 0);
    if (order == lane_order::reverse) std::reverse(turns_.begin(), turns_.end());
    shuffle();
  }

  // Only one lane runs between two of its waits, so that nothing below needs a lock.
  void start() override { release(turns_[0]); }
  void enter(int lane) override { wait(lane); }
  void arrive(int lane, const group_call& call) override {
    check(lane, call);
    pass_on();
    wait(lane);
  }
  bool elect(int) override { return arrived_ == 0; }
  void finish(int lane) override {
    check(lane, last_call);
    through_[index(lane)] = true;
    if (arrived_ + 1 < lanes()) pass_on();
  }
  // The lanes that are left unwind one after the other.
  void fail(int lane, std::exception_ptr error) override {
    failed_ = true;
    if (error != nullptr && error_ == nullptr) error_ = error;
    through_[index(lane)] = true;
    for (int other = 0; other < lanes(); ++other)
      if (!through_[index(other)]) return release(other);
  }

 private:
  static std::size_t index(int lane) { return static_cast<std::size_t>(lane); }
  void release(int lane) { wake_[index(lane)]->post(); }
  void wait(int lane) {
    wake_[index(lane)]->wait();
    if (failed_) throw lane_abandoned{};
  }
  void pass_on() {
    if (++arrived_ == lanes()) {
      arrived_ = 0;
      shuffle();
    }
    release(turns_[index(arrived_)]);
  }
  void shuffle() {
    if (order_ != lane_order::shuffled) return;
    for (std::size_t n = turns_.size(); n > 1; --n) {
      state_ = state_ * 6364136223846793005u + 1442695040888963407u;
      std::swap(turns_[n - 1], turns_[(state_ >> 33) % n]);
    }
  }

  const lane_order order_;
  std::uint64_t state_;
  std::vector<int> turns_;
  std::vector<bool> through_;
  std::vector<std::unique_ptr<wake_up>> wake_;
  bool failed_ = false;
};

struct emulated_group {
  int lane_count;
  lane_order order;
  held_rows rows = held_rows::in_registers;
  std::uint64_t seed = 1;

  int lanes() const { return lane_count; }
  template <class F>
  void run(F f) const {
    ordered_team team(lane_count, order, seed, rows);
    run_lanes(team, f);
  }
};

}  // namespace support
