// SPDX-License-Identifier: MIT
#include "support/lane_group.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/emulated_group.hpp"
#include "support/fibres.hpp"
#include "support/thread_group.hpp"

namespace support {

std::string group_call::text() const {
  return std::string(name) + " of " + std::to_string(n) + " (" + std::to_string(value_bytes) + " bytes)";
}

void lane_team::check(int lane, const group_call& call) {
  if (arrived_ == 0) {
    call_ = call;
    first_ = lane;
  } else if (!(call == call_)) {
    throw group_misuse("lane " + std::to_string(lane) + " is at " + call.text() + ", lane " +
                       std::to_string(first_) + " at " + call_.text());
  }
}

void lane_group::refuse(const char* name, const char* inside) {
  throw group_misuse(std::string(name) + " inside " + inside);
}

namespace {

// Wakes one thread, once a post.
class wake_up {
 public:
  void post() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      posted_ = true;
    }
    ready_.notify_one();  // after the lock, which the woken thread takes at once
  }
  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    ready_.wait(lock, [this] { return posted_; });
    posted_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  bool posted_ = false;
};

// Threads that outlive a run: starting 128 of them for each would take most of the time.
class lane_threads {
 public:
  ~lane_threads() {
    stopping_ = true;
    for (const auto& worker : workers_) worker->go.post();
    for (const auto& worker : workers_) worker->thread.join();
  }

  // work(lane) on a thread a lane; returns when all are through. One run at a time.
  void run(int lanes, const std::function<void(int)>& work) {
    for (int lane = static_cast<int>(workers_.size()); lane < lanes; ++lane) {
      workers_.push_back(std::make_unique<worker_thread>());
      workers_.back()->thread =
          std::thread([this, lane, worker = workers_.back().get()] { serve(lane, *worker); });
    }
    work_ = &work;
    running_ = lanes;
    for (int lane = 0; lane < lanes; ++lane) workers_[static_cast<std::size_t>(lane)]->go.post();
    done_.wait();
  }

  static lane_threads& shared() {
    static lane_threads threads;
    return threads;
  }

 private:
  struct worker_thread {
    wake_up go;
    std::thread thread;
  };

  void serve(int lane, worker_thread& worker) {
    for (;;) {
      worker.go.wait();
      if (stopping_) return;
      (*work_)(lane);
      if (--running_ == 0) done_.post();
    }
  }

  std::vector<std::unique_ptr<worker_thread>> workers_;
  const std::function<void(int)>* work_ = nullptr;
  std::atomic<int> running_{0};
  std::atomic<bool> stopping_{false};
  wake_up done_;
};

class ordered_team : public lane_team {
 public:
  // shuffled: anew for each phase, from the seed.
  ordered_team(int lanes, lane_order order, std::uint64_t seed, held_rows rows)
      : lane_team(lanes, rows),
        order_(order),
        state_(seed),
        turns_(static_cast<std::size_t>(lanes)),
        through_(static_cast<std::size_t>(lanes), false) {
    std::iota(turns_.begin(), turns_.end(), 0);
    if (order == lane_order::reverse) std::reverse(turns_.begin(), turns_.end());
    shuffle();
  }

  void run(const lane_function& f) {
    fibres_.run(lanes(), turns_[0], [&](int lane) {
      try {
        if (!failed_) {
          const lane_group group(*this, lane);
          f(group, lane);
          check(lane, last_call);
        }
      } catch (const lane_abandoned&) {
      } catch (...) {
        failed_ = true;
        if (error_ == nullptr) error_ = std::current_exception();
      }
      through_[index(lane)] = true;
      return after_the_end();
    });
    rethrow();
  }
  void arrive(int lane, const group_call& call) override {
    check(lane, call);
    if (++arrived_ == lanes()) {
      arrived_ = 0;
      shuffle();
    }
    fibres_.go_on(lane, turns_[index(arrived_)]);
    if (failed_) throw lane_abandoned{};
  }
  bool elect(int) override { return arrived_ == 0; }

 private:
  static std::size_t index(int lane) { return static_cast<std::size_t>(lane); }
  // Who goes on once a lane is through. After a failure those that are left unwind one after the other.
  int after_the_end() {
    if (!failed_) return ++arrived_ < lanes() ? turns_[index(arrived_)] : -1;
    for (int lane = 0; lane < lanes(); ++lane)
      if (!through_[index(lane)]) return lane;
    return -1;
  }
  void shuffle() {
    if (order_ != lane_order::shuffled) return;
    for (std::size_t n = turns_.size(); n > 1; --n) {
      state_ = state_ * 6364136223846793005u + 1442695040888963407u;
      std::swap(turns_[n - 1], turns_[(state_ >> 33) % n]);
    }
  }

  static thread_local fibres fibres_;
  const lane_order order_;
  std::uint64_t state_;
  std::vector<int> turns_;
  std::vector<bool> through_;
  bool failed_ = false;
};
thread_local fibres ordered_team::fibres_;

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
  void run(const lane_function& f) {
    lane_threads::shared().run(lanes(), [&](int lane) {
      try {
        const lane_group group(*this, lane);
        f(group, lane);
        const std::lock_guard<std::mutex> lock(mutex_);
        enter_barrier(lane, last_call);
      } catch (const lane_abandoned&) {
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex_);
        failed_ = true;
        if (error_ == nullptr) error_ = std::current_exception();
        next_phase_.notify_all();
      }
    });
    rethrow();
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

}  // namespace

void emulated_group::run(const lane_function& f) const { ordered_team(lane_count, order, seed, rows).run(f); }

void thread_group::run(const lane_function& f) const { free_team(lane_count, rows).run(f); }

}  // namespace support
