// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <cstdint>
#include <cstring>
#include <lgm/lgm.hpp>
#include <string>
#include <vector>

#include "support/array.hpp"
#include "support/memory_pass.hpp"
#include "support/naive_lgm.hpp"
#include "support/products.hpp"
#include "support/softmax_head.hpp"

#if defined(LGM_BENCH_CBLAS)
#include <cblas.h>

#include <lgm/cblas.hpp>
#endif
#if defined(LGM_BENCH_CBLAS_SET_THREADS)
extern "C" void LGM_BENCH_CBLAS_SET_THREADS(int);
#endif

namespace bench {

// A context to measure in. Another kind (a device) is a class with the same members, named in support/subject.hpp.
struct host {
  std::string name;
  lgm::host_context context;

  // As many as are timed together where one is very short.
  static constexpr double most_calls = 100;

  // Each with one thread and with all.
  static std::vector<host> all() {
    const int most = lgm::detail::host_threads::available();
    std::vector<int> counts{1};
    if (most > 1) counts.push_back(most);
    std::vector<host> hosts;
    for (const int threads : counts) {
      lgm::host_context context;
      context.threads = threads;
      hosts.push_back({"host-eigen", context});
#if defined(LGM_BENCH_CBLAS)
#if !defined(LGM_BENCH_CBLAS_SET_THREADS)
      if (threads != most) continue;
#endif
      context.gemm = lgm::cblas_gemm<cblas_sgemm, cblas_dgemm>();
      hosts.push_back({"host-blas", context});
#endif
    }
    return hosts;
  }

  std::string threads() const { return std::to_string(context.threads); }

  // Called before anything is measured in the context.
  void enter() const {
#if defined(LGM_BENCH_CBLAS_SET_THREADS)
    LGM_BENCH_CBLAS_SET_THREADS(context.threads);
#endif
  }

  // The time that f() takes.
  template <class F>
  static double seconds(F f) {
    const auto start = std::chrono::steady_clock::now();
    f();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  // The type of features and of their gradients where parameters are T.
  template <class T>
  using feature = T;

  // Memory of the context, and a copy of n elements of host memory in it.
  template <class T>
  using array = bench::array<T>;
  template <class T>
  static void copy(const T* from, std::int64_t n, T* to) {
    std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(T));
  }

  // What the library is measured against.
  template <class T>
  using products = bench::products<T>;
  template <class T>
  using plain_products = bench::plain_products<T>;
  template <class T>
  using memory_pass = bench::memory_pass<T>;
  template <class T>
  using softmax_head = bench::softmax_head<T>;
  template <class T>
  using naive_lgm = bench::naive_lgm<T>;
};

}  // namespace bench
