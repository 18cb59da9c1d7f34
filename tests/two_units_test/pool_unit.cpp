// SPDX-License-Identifier: MIT
#include <atomic>
#include <thread>
#include <vector>

#include "unit.hpp"

// Compiled without OpenMP; threads of its own through the hook.

namespace two_units {

namespace {

void run_on_threads(void* user, int slots, void (*call)(void* state, int slot), void* state) {
  ++*static_cast<std::atomic<long>*>(user);
  std::vector<std::thread> threads;
  for (int slot = 0; slot < slots; ++slot) threads.emplace_back(call, state, slot);
  for (std::thread& thread : threads) thread.join();
}

template <class T>
results<T> compute_on_threads(lgm::covariance covariance) {
  std::atomic<long> calls{0};
  lgm::host_context context = three_threads();
  context.parallel_for = {run_on_threads, &calls};
  results<T> r = compute<T>(context, covariance);
  r.hook_calls = calls;
  return r;
}

}  // namespace

results<float> pool_float(lgm::covariance covariance) { return compute_on_threads<float>(covariance); }
results<double> pool_double(lgm::covariance covariance) { return compute_on_threads<double>(covariance); }

}  // namespace two_units
