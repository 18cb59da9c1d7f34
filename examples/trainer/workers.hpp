// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace trainer {

// Threads that share out the slices of a loop. Those without work sleep: OpenMP's, and Eigen's own on top of
// them, wait in busy loops by default, which makes short loops many times slower as soon as anything else
// needs one of the cores.
class workers {
 public:
  // threads: the caller's own included; 0: as many as the machine runs at once.
  explicit workers(int threads) {
    const int hardware = static_cast<int>(std::thread::hardware_concurrency());
    count_ = std::max(1, threads > 0 ? threads : hardware);
    for (int i = 1; i < count_; ++i) threads_.emplace_back([this, i] { work(i); });
  }
  ~workers() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    start_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  workers(const workers&) = delete;
  workers& operator=(const workers&) = delete;

  int count() const { return count_; }

  // Calls function(begin, length) for slices of [0, items), a thread each and all at once, and waits for
  // them. Fewer than `least` items are not worth a thread. function must not throw. Which item falls into
  // which slice depends only on the arguments and count().
  template <class Function>
  void for_slices(std::int64_t items, std::int64_t least, const Function& function) {
    const std::int64_t slices = std::clamp<std::int64_t>(items / least, 1, count_);
    const auto run_slice = [&](std::int64_t slice) {
      const std::int64_t begin = slice * items / slices, end = (slice + 1) * items / slices;
      function(begin, end - begin);
    };
    if (slices > 1) {
      const std::lock_guard<std::mutex> lock(mutex_);
      job_ = std::cref(run_slice);
      slices_ = slices;
      unfinished_ = slices - 1;
      ++round_;
      start_.notify_all();
    }
    run_slice(0);
    if (slices > 1) {
      std::unique_lock<std::mutex> lock(mutex_);
      finished_.wait(lock, [this] { return unfinished_ == 0; });
    }
  }

 private:
  void work(std::int64_t slice) {
    std::uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      start_.wait(lock, [&] { return stopping_ || round_ != seen; });
      if (stopping_) return;
      seen = round_;
      if (slice >= slices_) continue;
      const std::function<void(std::int64_t)> job = job_;
      lock.unlock();
      job(slice);
      lock.lock();
      if (--unfinished_ == 0) finished_.notify_one();
    }
  }

  int count_ = 1;
  std::mutex mutex_;
  std::condition_variable start_, finished_;
  std::function<void(std::int64_t)> job_;
  std::int64_t slices_ = 0, unfinished_ = 0;
  std::uint64_t round_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

// out = left * right, the columns shared out.
template <class Out, class Left, class Right>
void multiply(workers& team, Out&& out, const Left& left, const Right& right) {
  team.for_slices(out.cols(), 64, [&](std::int64_t begin, std::int64_t columns) {
    out.middleCols(begin, columns).noalias() = left * right.middleCols(begin, columns);
  });
}

}  // namespace trainer
