// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <cstdint>
#include <lgm/host_context.hpp>
#if defined(_OPENMP)
#include <omp.h>
#endif

// The host's threads. What differs between translation units with and without OpenMP carries a different
// name, so that both can be linked into one program.

namespace lgm::detail {

struct one_thread {
  static int available() { return 1; }
  template <class F>
  static void run(int, F f) {
    f(0);
  }
};

#if defined(_OPENMP)
struct openmp_threads {
  static int available() { return omp_get_max_threads(); }
  // OpenMP may give a smaller team than asked for (inside a parallel region, for one): f works with any.
  template <class F>
  static void run(int threads, F f) {
#pragma omp parallel num_threads(threads)
    f(omp_get_thread_num());
  }
};
using host_threads = openmp_threads;
#else
using host_threads = one_thread;
#endif

// call(state, task, slot) for every task of [0, tasks): see parallel_for.
template <class Threads>
[[gnu::noinline]] void run_tasks(const parallel_for_hook& hook, int threads, std::int64_t tasks, void* state,
                                 void (*call)(void* state, std::int64_t task, int slot)) {
  if (threads <= 1 || tasks <= 1) {
    for (std::int64_t task = 0; task < tasks; ++task) call(state, task, 0);
    return;
  }
  std::atomic<std::int64_t> next{0};
  auto work = [&](int slot) {
    for (;;) {
      const std::int64_t task = next.fetch_add(1, std::memory_order_relaxed);
      if (task >= tasks) return;
      call(state, task, slot);
    }
  };
  if (hook.run == nullptr) {
    Threads::run(threads, work);
    return;
  }
  hook.run(
      hook.user, threads, [](void* of, int slot) { (*static_cast<decltype(work)*>(of))(slot); }, &work);
}

// body(task, slot) for every task of [0, tasks), in any order; no two tasks run with the same slot of [0,
// threads) at a time. What a task computes must not depend on its slot. The body is compiled once for all kinds of threads.
template <class Threads, class Body>
void parallel_for(const parallel_for_hook& hook, int threads, std::int64_t tasks, Body body) {
  run_tasks<Threads>(hook, threads, tasks, &body, [](void* state, std::int64_t task, int slot) {
    (*static_cast<Body*>(state))(task, slot);
  });
}

}  // namespace lgm::detail
