// SPDX-License-Identifier: MIT
#include "support/cuda_fibres.hpp"

#include <cstdint>
#include <exception>
#include <functional>

extern "C" char data_start, end;  // the linker's: end(3)

namespace support {

namespace {

thread_local cuda_fibres* of_this_thread = nullptr;

// The program's variables, of which those that device code has are a block's own.
bool is_variable(std::uintptr_t address) {
  return address >= reinterpret_cast<std::uintptr_t>(&data_start) &&
         address < reinterpret_cast<std::uintptr_t>(&end);
}

}  // namespace

thread_local fibres cuda_fibres::fibres_;

cuda_fibres& cuda_fibres::running() {
  if (of_this_thread == nullptr) throw cuda_misuse("device code outside a launch");
  return *of_this_thread;
}

void cuda_fibres::launch(unsigned blocks, unsigned threads, const std::function<void()>& kernel) {
  if (threads == 0 || threads > 1024) throw cuda_misuse("a block has 1 to 1024 threads");
  if (of_this_thread != nullptr) throw cuda_misuse("a launch within a launch");
  of_this_thread = this;
  blocks_ = blocks;
  states_.resize(threads);
  error_ = nullptr;
  for (block_ = 0; block_ < blocks && error_ == nullptr; ++block_) run_block(kernel);
  of_this_thread = nullptr;
  if (error_ != nullptr) std::rethrow_exception(error_);
  if (!watch_.race().empty()) throw cuda_misuse(watch_.race());
}

void cuda_fibres::run_block(const std::function<void()>& kernel) {
  for (thread_state& s : states_) s = {};
  at_barrier_ = none_before_ = 0;
  failed_ = false;
  const int count = static_cast<int>(states_.size());
  const auto fail = [&](const std::exception_ptr& error) {
    failed_ = true;
    if (error_ == nullptr) error_ = error;
  };
  if (watched_) watch_.begin_block(block_ == 0, block_, count);
  current_ = order_ == lane_order::reverse ? count - 1 : 0;
  fibres_.run(count, current_, [&](int thread) {
    current_ = thread;
    try {
      if (!failed_) kernel();
    } catch (const abandoned&) {
    } catch (...) {
      fail(std::current_exception());
    }
    state(thread).through = true;
    const int other = failed_ ? -1 : next();
    if (other >= 0) return other;
    // Those that are left can only unwind, one after the other.
    for (int left = 0; left < count; ++left) {
      if (state(left).through) continue;
      fail(std::make_exception_ptr(cuda_misuse("a part of a block has ended, the others wait for it")));
      return left;
    }
    return -1;
  });
}

void cuda_fibres::touch(std::uintptr_t address, std::size_t bytes, bool store, std::uintptr_t where) {
  cuda_fibres* const own = of_this_thread;
  if (own != nullptr && own->observer_) own->observer_(address, bytes, store, where);
  if (own == nullptr || !own->watched_ || fibres_.is_in_stack(own->current_, address)) return;
  own->watch_.touch(own->current_, address, bytes, store, is_variable(address));
}

void cuda_fibres::sync_threads() {
  thread_state& own = state(current_);
  ++own.meetings;
  if (++at_barrier_ < static_cast<int>(states_.size())) {
    own.waits = call::sync_threads;
  } else {
    for (thread_state& s : states_) s.waits = call::none;
    at_barrier_ = 0;
    none_before_ = 0;
    if (watched_) watch_.all_met();
  }
  give_way();
}

void cuda_fibres::sync_warp(unsigned mask) { meet_warp(call::sync_warp, mask, 0, 0); }

std::uint64_t cuda_fibres::exchange(unsigned mask, std::uint64_t value, unsigned step) {
  const int own = current_;
  meet_warp(call::shuffle, mask, value, step);
  return state(own).value;
}

void cuda_fibres::meet_warp(call which, unsigned mask, std::uint64_t value, unsigned step) {
  const int first = current_ / warp * warp, lane = current_ % warp;
  const auto in_mask = [mask](unsigned n) { return n < unsigned(warp) && (mask >> n & 1) != 0; };
  if (!in_mask(static_cast<unsigned>(lane))) throw cuda_misuse("a lane is not in its own mask");
  thread_state& own = state(current_);
  ++own.meetings;
  own.mask = mask;
  own.step = step;
  own.value = value;
  own.waits = which;
  bool all = true;
  for (unsigned left = mask; left != 0; left &= left - 1) {
    const int n = __builtin_ctz(left);
    if (first + n >= static_cast<int>(states_.size()))
      throw cuda_misuse("a mask has lanes that the block has not");
    const thread_state& other = state(first + n);
    if (other.through) throw cuda_misuse("a lane of a mask has ended");
    if (other.waits == call::none)
      all = false;
    else if (other.waits != which || other.mask != mask || other.step != step)
      throw cuda_misuse("the lanes of a mask disagree");
  }
  if (all) {
    if (watched_ && which == call::sync_warp) watch_.met(first, mask);
    std::uint64_t values[warp] = {};
    for (int n = 0; n < warp; ++n) {
      if (!in_mask(static_cast<unsigned>(n))) continue;
      const unsigned from = static_cast<unsigned>(n) ^ step;
      if (!in_mask(from)) throw cuda_misuse("a shuffle reads a lane that its mask has not");
      values[n] = state(first + static_cast<int>(from)).value;
    }
    for (int n = 0; n < warp; ++n) {
      if (!in_mask(static_cast<unsigned>(n))) continue;
      state(first + n).value = values[n];
      state(first + n).waits = call::none;
    }
    none_before_ = 0;
  }
  give_way();
}

int cuda_fibres::next() {
  const int count = static_cast<int>(states_.size());
  int first = none_before_;
  if (order_ == lane_order::shuffled) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    first = static_cast<int>((state_ >> 33) % static_cast<unsigned>(count));
  }
  for (int n = 0; n < count; ++n) {
    const int place = (first + n) % count, thread = order_ == lane_order::reverse ? count - 1 - place : place;
    if (state(thread).through || state(thread).waits != call::none) continue;
    none_before_ = place;
    return thread;
  }
  return -1;
}

void cuda_fibres::give_way() {
  const int own = current_, other = next();
  if (other < 0) throw cuda_misuse("a barrier is reached by a part of those that it is for");
  fibres_.go_on(own, other);
  current_ = own;
  if (failed_) throw abandoned{};
}

}  // namespace support
