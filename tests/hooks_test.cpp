// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "support/problem.hpp"

// Threads that a program brings in place of OpenMP: whatever runs the slots, in whatever order, the bits are the same.
// ThreadSanitizer runs this file (preset tsan).

namespace {

using lgm::status;
using namespace support;

// A pool that any number of callers share. Who waits works off what is queued, so that a call from inside a slot
// cannot wait for itself.
class thread_pool {
 public:
  explicit thread_pool(int threads) {
    for (int n = 0; n < threads; ++n) threads_.emplace_back([this] { work(nullptr); });
  }
  ~thread_pool() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;

  lgm::parallel_for_hook hook() { return {run, this}; }
  long calls() const { return calls_; }

 private:
  struct job {
    void (*call)(void*, int);
    void* state;
    int slot;
    int* left;
  };

  static void run(void* user, int slots, void (*call)(void*, int), void* state) {
    auto& self = *static_cast<thread_pool*>(user);
    ++self.calls_;
    int left = slots;
    {
      const std::lock_guard<std::mutex> lock(self.mutex_);
      for (int slot = 0; slot < slots; ++slot) self.queue_.push_back({call, state, slot, &left});
    }
    self.changed_.notify_all();
    self.work(&left);
  }

  // Runs jobs until none of the caller's own are left, or, without any of its own, until the pool stops.
  void work(const int* own) {
    std::unique_lock<std::mutex> lock(mutex_);
    const auto done = [&] { return own != nullptr ? *own == 0 : stopping_; };
    while (!done()) {
      if (queue_.empty()) {
        changed_.wait(lock, [&] { return done() || !queue_.empty(); });
        continue;
      }
      const job next = queue_.front();
      queue_.pop_front();
      lock.unlock();
      next.call(next.state, next.slot);
      lock.lock();
      if (--*next.left == 0) changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<job> queue_;
  bool stopping_ = false;
  std::atomic<long> calls_{0};
  std::vector<std::thread> threads_;
};

// Slots one after the other on the calling thread, upwards or downwards.
struct one_by_one {
  bool reverse = false;
  long calls = 0;
  int most_slots = 0;

  lgm::parallel_for_hook hook() {
    const auto run = [](void* user, int slots, void (*call)(void*, int), void* state) {
      auto& self = *static_cast<one_by_one*>(user);
      ++self.calls;
      self.most_slots = std::max(self.most_slots, slots);
      for (int n = 0; n < slots; ++n) call(state, self.reverse ? slots - 1 - n : n);
    };
    return {run, this};
  }
};

// A thread for each slot, all let go at once.
struct thread_each {
  lgm::parallel_for_hook hook() {
    const auto run = [](void*, int slots, void (*call)(void*, int), void* state) {
      std::atomic<int> ready{0};
      std::vector<std::thread> threads;
      for (int slot = 0; slot < slots; ++slot)
        threads.emplace_back([&, slot] {
          ++ready;
          while (ready < slots) std::this_thread::yield();
          call(state, slot);
        });
      for (std::thread& thread : threads) thread.join();
    };
    return {run, this};
  }
};

// What all functions that use threads compute of one problem.
template <class T>
struct everything {
  outputs<T> both, apart, soft, given;
  guarded<T> logits;
  score_outputs<T> scores;

  everything(const lgm::host_context& context, const problem<T>& p)
      : both(p), apart(p), soft(p), given(p), logits(p.shape.samples, p.shape.classes), scores(p.shape) {
    CHECK(forward_backward(context, p, both) == status::success);
    CHECK(forward(context, p, apart.result()) == status::success);
    CHECK(backward(context, p, apart.row_state.data(), apart.gradients()) == status::success);
    generator random(71);
    std::vector<T> targets(p.samples() * p.classes());
    for (T& target : targets) target = static_cast<T>(random.uniform() / static_cast<double>(p.classes()));
    CHECK(run<T>(context, p.shape, [&](lgm::workspace w) {
            return lgm::forward_backward(context, p.shape, p.mixture(), p.options, p.features.data(),
                                         lgm::soft_targets<T>{targets.data()}, p.upstream_data(),
                                         soft.result(), soft.gradients(), w);
          }) == status::success);
    CHECK(run<T>(context, p.shape, [&](lgm::workspace w) {
            return lgm::logits_backward(context, p.shape, p.mixture(), p.options, p.features.data(),
                                        p.labels.data(), targets.data(), p.upstream_data(), given.gradients(),
                                        w);
          }) == status::success);
    CHECK(run<T>(context, p.shape, [&](lgm::workspace w) {
            return lgm::logits(context, p.shape, p.mixture(), p.options, p.features.data(), p.labels.data(),
                               logits.data(), w);
          }) == status::success);
    CHECK(score(context, p, scores.result()) == status::success);
  }
  void check_same_bits(const everything& other) const {
    both.check_same_bits(other.both);
    apart.check_same_bits(other.apart);
    soft.check_same_bits(other.soft);
    given.check_same_bits(other.given);
    CHECK_MESSAGE(logits.same_bits(other.logits), "logits differ in their bits");
    scores.check_same_bits(other.scores);
  }
};

template <class T>
problem<T> make(std::uint64_t seed, lgm::covariance covariance) {
  return make_problem<T>(seed, make_shape(150, 90, 24, covariance), margin_options<T>(lgm::reduction::mean));
}

lgm::host_context with(const lgm::parallel_for_hook& hook, int threads) {
  lgm::host_context context = context_of(threads);
  context.parallel_for = hook;
  return context;
}

}  // namespace

TEST_CASE_TEMPLATE("any order of the slots gives the same bits", T, float, double) {
  thread_pool pool(2);
  for (const auto covariance : covariances)
    for (const int threads : {2, 5}) {
      CAPTURE(name_of(covariance));
      CAPTURE(threads);
      const auto p = make<T>(31, covariance);
      one_by_one upwards, downwards{true};
      thread_each each;
      const everything<T> expected(with(upwards.hook(), threads), p);
      CHECK(upwards.calls > 0);
      CHECK(upwards.most_slots == threads);
      expected.check_same_bits({with(downwards.hook(), threads), p});
      CHECK(downwards.calls == upwards.calls);
      expected.check_same_bits({with(each.hook(), threads), p});
      const long before = pool.calls();
      expected.check_same_bits({with(pool.hook(), threads), p});
      CHECK(pool.calls() == before + upwards.calls);
      // What this file is compiled with: OpenMP, or nothing.
      expected.check_same_bits({context_of(threads), p});
    }
}

TEST_CASE("one thread asks for none") {
  one_by_one hook;
  const auto p = make<float>(32, lgm::covariance::diagonal);
  const everything<float> alone(with(hook.hook(), 1), p);
  CHECK(hook.calls == 0);
}

TEST_CASE_TEMPLATE("several callers with contexts of their own share one pool", T, float, double) {
  thread_pool pool(3);
  constexpr std::size_t callers = 4;
  std::vector<problem<T>> problems;
  std::vector<std::unique_ptr<everything<T>>> alone, together(callers);
  for (std::size_t n = 0; n < callers; ++n) {
    problems.push_back(make<T>(40 + n, covariances[n % 3]));
    alone.push_back(std::make_unique<everything<T>>(context_of(static_cast<int>(n) + 2), problems[n]));
  }
  std::vector<std::thread> threads;
  for (std::size_t n = 0; n < callers; ++n)
    threads.emplace_back([&, n] {
      together[n] = std::make_unique<everything<T>>(with(pool.hook(), static_cast<int>(n) + 2), problems[n]);
    });
  for (std::thread& thread : threads) thread.join();
  for (std::size_t n = 0; n < callers; ++n) {
    CAPTURE(n);
    alone[n]->check_same_bits(*together[n]);
  }
}

TEST_CASE("several callers share one context and their inputs") {
  thread_pool pool(3);
  const problem<float> p = make<float>(45, lgm::covariance::diagonal);
  for (const lgm::host_context& context : {with(pool.hook(), 3), context_of(3)}) {
    const everything<float> alone(context, p);
    std::vector<std::unique_ptr<everything<float>>> together(4);
    std::vector<std::thread> threads;
    for (auto& result : together)
      threads.emplace_back([&] { result = std::make_unique<everything<float>>(context, p); });
    for (std::thread& thread : threads) thread.join();
    for (const auto& result : together) alone.check_same_bits(*result);
  }
}

TEST_CASE("a call from inside a pool's own slot works") {
  thread_pool pool(2);
  const auto p = make<double>(50, lgm::covariance::spherical);
  const everything<double> expected(context_of(3), p);
  struct inner_calls {
    thread_pool& pool;
    const problem<double>& p;
    std::vector<std::unique_ptr<everything<double>>> results;
  } calls{pool, p, {}};
  calls.results.resize(4);
  const auto call = [](void* state, int slot) {
    auto& self = *static_cast<inner_calls*>(state);
    self.results[size_of(slot)] = std::make_unique<everything<double>>(with(self.pool.hook(), 3), self.p);
  };
  const lgm::parallel_for_hook hook = pool.hook();
  hook.run(hook.user, 4, call, &calls);
  for (const auto& result : calls.results) {
    REQUIRE(result != nullptr);
    expected.check_same_bits(*result);
  }
}

TEST_CASE_TEMPLATE("an update's parts go to the hook", T, float, double) {
  // Beyond four parts of 32768 parameters, and a partial one.
  const lgm::shape shape = make_shape(0, 601, 250, lgm::covariance::diagonal);
  const std::size_t size = 601 * 250;
  generator random(60);
  std::vector<T> start(size), gradient(size), first_velocity(size);
  for (std::size_t n = 0; n < size; ++n) {
    start[n] = static_cast<T>(random.uniform(-1, 1));
    gradient[n] = static_cast<T>(random.uniform(-1, 1));
    first_velocity[n] = static_cast<T>(random.uniform(-1, 1));
  }
  lgm::sgd_options<T> options;
  options.mean_rate = T(0.125);
  options.momentum = T(0.5);
  options.nesterov = true;
  options.weight_decay = T(0.0625);
  lgm::gradients<T, T> gradients;
  gradients.mean = gradient.data();

  const auto step = [&](const lgm::host_context& context) {
    std::vector<T> moved = start, velocity = first_velocity;
    CHECK(lgm::sgd_step(context, shape, options, gradients, lgm::parameters<T>{velocity.data()},
                        lgm::parameters<T>{moved.data()}) == status::success);
    moved.insert(moved.end(), velocity.begin(), velocity.end());
    return moved;
  };
  const std::vector<T> expected = step(context_of(1));
  CHECK(expected[0] != start[0]);
  const auto same = [&](const std::vector<T>& found) {
    return std::memcmp(expected.data(), found.data(), expected.size() * sizeof(T)) == 0;
  };
  thread_pool pool(2);
  one_by_one downwards{true};
  thread_each each;
  CHECK(same(step(with(pool.hook(), 3))));
  CHECK(pool.calls() > 0);
  CHECK(same(step(with(downwards.hook(), 3))));
  CHECK(downwards.calls > 0);
  CHECK(same(step(with(each.hook(), 3))));
}
