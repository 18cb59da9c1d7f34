// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

// Where host functions run, and what a program may bring in place of OpenMP and Eigen.

namespace lgm {

// A thread pool in place of OpenMP. A child of fork() needs one, or host_context::threads = 1, if its parent has run anything
// on several threads of GNU OpenMP: those threads do not exist in the child, which would wait for them forever.
struct parallel_for_hook {
  // Has call(state, slot) run for every slot of [0, slots), at the same time or one after the other, on any
  // threads, and returns once all have returned. No slot twice.
  void (*run)(void* user, int slots, void (*call)(void* state, int slot), void* state) = nullptr;
  void* user = nullptr;
};

// Matrix products in place of Eigen's (lgm/cblas.hpp makes a hook of any CBLAS). The thread that called the library calls it,
// one product at a time; it may use threads of its own.
struct gemm_hook {
  // c [m, n] = alpha op(a) op(b) + beta c, all row-major with row strides lda, ldb, ldc; op(a) is [m, k], op(b)
  // [k, n], each the matrix itself or, where transpose says so, its transpose. beta is 0 or 1; with 0, c is not
  // read. False: not done (sizes beyond what the BLAS takes), and c is as it was; Eigen then does it.
  template <class T>
  using function = bool (*)(void* user, bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n,
                            std::int64_t k, T alpha, const T* a, std::int64_t lda, const T* b,
                            std::int64_t ldb, T beta, T* c, std::int64_t ldc);
  function<float> sgemm = nullptr;
  function<double> dgemm = nullptr;
  void* user = nullptr;

  // The one for T; null: none.
  template <class T>
  function<T> of() const {
    if constexpr (std::is_same<T, float>::value)
      return sgemm;
    else
      return dgemm;
  }
};

// Where host functions run. Calls only read it, so that any number of them may share one at the same time. Several threads then
// call the hooks at once.
struct host_context {
  // 0: as many as OpenMP would take; without OpenMP one. With a parallel_for hook: the slots it is asked for.
  int threads = 0;
  // What the workspace is kept within, where the shape allows it.
  std::size_t tile_bytes = std::size_t(64) << 20;
  parallel_for_hook parallel_for;  // null: OpenMP where the file is compiled with it
  gemm_hook gemm;                  // null: Eigen
  // A row's results have the same bits in every batch, whatever the other rows, the tiles and the threads. false: products are
  // summed in the order that is fastest for their sizes, which gains a little where classes are few.
  bool batch_invariant = true;
};

}  // namespace lgm
