// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <lgm/detail/host/gemm.hpp>
#include <lgm/detail/host/parallel.hpp>
#include <lgm/detail/host/plan.hpp>
#include <lgm/detail/number_format.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/detail/workspace.hpp>
#include <lgm/group.hpp>
#include <lgm/host_context.hpp>
#include <lgm/types.hpp>

namespace lgm::detail {

// The host as a Device (detail/device/launch.hpp), for drivers that are written once for both, because their products take
// nearly all of their time. Its groups are single threads; left operands are not transposed. T: the type of the products.
template <class T, class Threads>
class host_device {
 public:
  // Products have up to `rows` rows, and `most` columns and inner dimensions. Carves the scratch of as many threads as half of
  // the context's limit has room for, one at least.
  host_device(const host_context& ctx, int threads, std::int64_t rows, std::int64_t most, arena& a) {
    plan_.parallel = ctx.parallel_for;
    plan_.gemm = ctx.gemm;
    plan_.threads = threads_for(ctx, threads, most);
    scratch_ = a.take<gemm_scratch<T>>(plan_.threads);
    for (int slot = 0; slot < plan_.threads; ++slot) {
      gemm_scratch<T> g;
      g.carve(a, rows, most, most);
      if (scratch_ != nullptr) scratch_[slot] = g;
    }
  }

  template <int... Widths, class Kernel>
  void launch(int, std::int64_t tasks, const Kernel& kernel) {
    parallel_for<Threads>(plan_.parallel, plan_.threads, tasks,
                          [&](std::int64_t task, int) { kernel(serial_group{}, task); });
  }

  void multiply(number_format, bool, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
                T alpha, const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T beta, T* c,
                std::int64_t ldc) {
    if (external_gemm(plan_.gemm, false, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)) return;
    const host_plan::partition parts = plan_.partition_product(m, n, k);
    parallel_for<Threads>(plan_.parallel, plan_.threads, parts.tasks(), [&](std::int64_t task, int slot) {
      const std::int64_t i = task / parts.column_tasks * parts.rows,
                         j = task % parts.column_tasks * parts.columns;
      const std::int64_t rows = smaller(parts.rows, m - i), columns = smaller(parts.columns, n - j);
      T* const out = c + i * ldc + j;
      for (std::int64_t r = 0; beta == T(0) && r < rows; ++r)
        std::fill_n(out + r * ldc, std::max<std::int64_t>(columns, 0), T(0));
      if (transpose_b)
        gemm<transposed::no, transposed::yes>(rows, columns, k, alpha, a + i * lda, lda, b + j * ldb, ldb,
                                              out, ldc, scratch_[slot]);
      else
        gemm<transposed::no, transposed::no>(rows, columns, k, alpha, a + i * lda, lda, b + j, ldb, out, ldc,
                                             scratch_[slot]);
    });
  }

  status result() const { return status::success; }

 private:
  // Whatever the rows, so that a workspace for many of them is enough for fewer.
  static int threads_for(const host_context& ctx, int threads, std::int64_t most) {
    arena one;
    gemm_scratch<T> g;
    g.carve(one, gemm_scratch<T>::column_block, most, most);
    const auto room =
        static_cast<std::int64_t>(smaller(ctx.tile_bytes / 2 / one.bytes(), std::size_t(1) << 20));
    return static_cast<int>(std::clamp<std::int64_t>(room, 1, larger(threads, 1)));
  }

  host_plan plan_;
  gemm_scratch<T>* scratch_ = nullptr;
};

}  // namespace lgm::detail
