// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <cstdint>
#include <lgm/detail/host/gemm.hpp>
#include <lgm/detail/host/parallel.hpp>
#include <lgm/detail/host/plan.hpp>
#include <lgm/host.hpp>
#include <vector>

#include "support/array.hpp"

// The matrix products of a head, and nothing else: features times means, weights times means, and weights transposed
// times features. A linear layer does the same three. They are the products that the library makes: its kernel or the
// caller's hook, and its threads.

namespace bench {

// c [m, n] += a b on one thread, a and b transposed where their Orders are column-major: the kernel of Eigen's
// product, cut as Eigen cuts it for this machine's caches. Unlike the product itself it keeps its packing buffers.
template <class T>
class packed_gemm {
 public:
  template <int OrderA, int OrderB>
  void add(std::int64_t m, std::int64_t n, std::int64_t k, const T* a, std::int64_t lda, const T* b,
           std::int64_t ldb, T* c, std::int64_t ldc) {
    if (m == 0 || n == 0 || k == 0) return;
    struct sizes : Eigen::internal::level3_blocking<T, T> {
      sizes(packed_gemm& g, Eigen::Index rows, Eigen::Index columns, Eigen::Index inner) {
        // The kernel takes a row-major product for its transpose.
        this->m_kc = inner;
        this->m_mc = columns;
        this->m_nc = rows;
        Eigen::internal::computeProductBlockingSizes<T, T>(this->m_kc, this->m_mc, this->m_nc,
                                                           Eigen::Index(1));
        this->m_blockA = buffer(g.left_, this->m_kc * this->m_mc);
        this->m_blockB = buffer(g.right_, this->m_kc * this->m_nc);
      }
    } blocking(*this, m, n, k);
    Eigen::internal::general_matrix_matrix_product<Eigen::Index, T, OrderA, false, T, OrderB, false,
                                                   Eigen::RowMajor, 1>::run(m, n, k, a, lda, b, ldb, c, 1,
                                                                            ldc, T(1), blocking);
  }

  std::int64_t bytes() const { return (left_.size() + right_.size()) * std::int64_t(sizeof(T)); }

 private:
  static T* buffer(array<T>& memory, std::int64_t size) {
    if (memory.size() < size) memory = array<T>(size);
    return memory.data();
  }

  array<T> left_, right_;
};

// The three products over a tile of samples and classes. All matrices are packed.
template <class T>
class tile_products {
 public:
  tile_products(const lgm::host_context& context, std::int64_t dims)
      : context_(context),
        threads_(lgm::detail::host::threads(context)),
        dims_(dims),
        gemm_(static_cast<std::size_t>(threads_)) {}

  std::int64_t bytes() const {
    std::int64_t sum = 0;
    for (const auto& gemm : gemm_) sum += gemm.bytes();
    return sum;
  }

  // out [samples, classes] = features [samples, dims] mean [classes, dims]^T
  void logits(std::int64_t samples, std::int64_t classes, const T* features, const T* mean, T* out) {
    if (lgm::detail::external_gemm(context_.gemm, false, true, samples, classes, dims_, T(1), features, dims_,
                                   mean, dims_, T(0), out, classes))
      return;
    const std::int64_t work = samples * classes * dims_, parts = threads_for(work),
                       tasks = parts > 1 ? 2 * parts : 1;
    const bool by_rows = samples >= classes;
    run(work, tasks, [&](std::int64_t task, int slot) {
      const range i = by_rows ? part(samples, task, tasks) : range{0, samples};
      const range k = by_rows ? range{0, classes} : part(classes, task, tasks);
      T* const to = out + i.begin * classes + k.begin;
      if (by_rows)
        std::fill(to, to + i.size() * classes, T(0));
      else
        for (std::int64_t r = 0; r < samples; ++r)
          std::fill(to + r * classes, to + r * classes + k.size(), T(0));
      gemm(slot).template add<Eigen::RowMajor, Eigen::ColMajor>(i.size(), k.size(), dims_,
                                                                features + i.begin * dims_, dims_,
                                                                mean + k.begin * dims_, dims_, to, classes);
    });
  }

  // feature [samples, dims] = weights [samples, classes] mean, and gradient [classes, dims] = weights^T features,
  // each added to what is there where add_... says so.
  void gradients(std::int64_t samples, std::int64_t classes, const T* weights, const T* features,
                 const T* mean, bool add_feature, T* feature, bool add_gradient, T* gradient) {
    const T keep_feature = add_feature ? T(1) : T(0), keep_gradient = add_gradient ? T(1) : T(0);
    // Both take the same sizes, so that both are done or neither.
    if (lgm::detail::external_gemm(context_.gemm, false, false, samples, dims_, classes, T(1), weights,
                                   classes, mean, dims_, keep_feature, feature, dims_) &&
        lgm::detail::external_gemm(context_.gemm, true, false, classes, dims_, samples, T(1), weights,
                                   classes, features, dims_, keep_gradient, gradient, dims_))
      return;
    const std::int64_t work = samples * classes * dims_, parts = threads_for(work);
    run(work, 2 * parts, [&](std::int64_t task, int slot) {
      if (task < parts) {
        const range i = part(samples, task, parts);
        T* const to = feature + i.begin * dims_;
        if (!add_feature) std::fill(to, to + i.size() * dims_, T(0));
        gemm(slot).template add<Eigen::RowMajor, Eigen::RowMajor>(
            i.size(), dims_, classes, weights + i.begin * classes, classes, mean, dims_, to, dims_);
      } else {
        const range k = part(classes, task - parts, parts);
        T* const to = gradient + k.begin * dims_;
        if (!add_gradient) std::fill(to, to + k.size() * dims_, T(0));
        gemm(slot).template add<Eigen::ColMajor, Eigen::RowMajor>(k.size(), dims_, samples, weights + k.begin,
                                                                  classes, features, dims_, to, dims_);
      }
    });
  }

  // body(part, begin, end) for even parts of [0, rows), each on a thread of its own; work: multiply-adds or as much.
  template <class Body>
  void for_rows(std::int64_t rows, std::int64_t work, Body body) {
    const std::int64_t parts = row_parts(work);
    run(work, parts, [&](std::int64_t p, int) { body(p, rows * p / parts, rows * (p + 1) / parts); });
  }
  std::int64_t row_parts(std::int64_t work) const { return threads_for(work); }

 private:
  struct range {
    std::int64_t begin, end;
    std::int64_t size() const { return end - begin; }
  };

  // Parts that begin with a whole step of the kernel; some of a small size are empty.
  static range part(std::int64_t size, std::int64_t index, std::int64_t parts) {
    const std::int64_t step = 16, steps = (size + step - 1) / step;
    return {std::min(size, steps * index / parts * step), std::min(size, steps * (index + 1) / parts * step)};
  }
  int threads_for(std::int64_t work) const { return work < 2 * lgm::detail::host_plan::grain ? 1 : threads_; }
  packed_gemm<T>& gemm(int slot) { return gemm_[static_cast<std::size_t>(slot)]; }

  template <class Body>
  void run(std::int64_t work, std::int64_t count, Body body) {
    lgm::detail::parallel_for<lgm::detail::host_threads>(context_.parallel_for, threads_for(work), count,
                                                         body);
  }

  lgm::host_context context_;
  int threads_;
  std::int64_t dims_;
  std::vector<packed_gemm<T>> gemm_;
};

// The floor: the products of a whole batch, in tiles of all samples and some classes that keep to the context's
// limit. What a tile holds after the first product stands for the weights.
template <class T>
class products {
 public:
  products(const lgm::host_context& context, std::int64_t samples, std::int64_t classes, std::int64_t dims)
      : samples_(samples),
        classes_(classes),
        dims_(dims),
        rows_(std::min<std::int64_t>(samples, 4096)),
        multiply_(context, dims) {
    const std::int64_t limit = static_cast<std::int64_t>(context.tile_bytes / sizeof(T));
    const std::int64_t tiles = (classes - 1) / std::clamp<std::int64_t>(limit / rows_, 1, classes) + 1;
    columns_ = (classes - 1) / tiles + 1;
    tile_ = array<T>(rows_ * columns_);
  }

  std::int64_t bytes() const { return tile_.size() * std::int64_t(sizeof(T)) + multiply_.bytes(); }

  // The first product alone.
  void forward(const T* features, const T* mean) {
    for_tiles(features, mean, [](std::int64_t, std::int64_t, std::int64_t, std::int64_t) {});
  }
  // All three.
  void all(const T* features, const T* mean, T* feature_gradient, T* mean_gradient) {
    for_tiles(features, mean, [&](std::int64_t i, std::int64_t n, std::int64_t k, std::int64_t m) {
      multiply_.gradients(n, m, tile_.data(), features + i * dims_, mean + k * dims_, k > 0,
                          feature_gradient + i * dims_, i > 0, mean_gradient + k * dims_);
    });
  }

 private:
  template <class F>
  void for_tiles(const T* features, const T* mean, F f) {
    for (std::int64_t i = 0; i < samples_; i += rows_)
      for (std::int64_t k = 0; k < classes_; k += columns_) {
        const std::int64_t n = std::min(rows_, samples_ - i), m = std::min(columns_, classes_ - k);
        multiply_.logits(n, m, features + i * dims_, mean + k * dims_, tile_.data());
        f(i, n, k, m);
      }
  }

  std::int64_t samples_, classes_, dims_, rows_, columns_ = 1;
  array<T> tile_;
  tile_products<T> multiply_;
};

// The same as anyone would write them: one product a call of Eigen or of the BLAS, with whole logits and threads of
// its own.
template <class T>
class plain_products {
 public:
  plain_products(const lgm::host_context& context, std::int64_t samples, std::int64_t classes,
                 std::int64_t dims)
      : context_(context), samples_(samples), classes_(classes), dims_(dims), logits_(samples * classes) {}

  std::int64_t bytes() const { return logits_.size() * std::int64_t(sizeof(T)); }

  void all(const T* features, const T* mean, T* feature_gradient, T* mean_gradient) {
    if (const auto gemm = context_.gemm.template of<T>(); gemm != nullptr) {
      void* const user = context_.gemm.user;
      T* const w = logits_.data();
      gemm(user, false, true, samples_, classes_, dims_, T(1), features, dims_, mean, dims_, T(0), w,
           classes_);
      gemm(user, false, false, samples_, dims_, classes_, T(1), w, classes_, mean, dims_, T(0),
           feature_gradient, dims_);
      gemm(user, true, false, classes_, dims_, samples_, T(1), w, classes_, features, dims_, T(0),
           mean_gradient, dims_);
      return;
    }
    using matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const int before = Eigen::nbThreads();
    Eigen::setNbThreads(lgm::detail::host::threads(context_));
    const Eigen::Map<const matrix> x(features, samples_, dims_), mu(mean, classes_, dims_);
    Eigen::Map<matrix> w(logits_.data(), samples_, classes_);
    w.noalias() = x * mu.transpose();
    Eigen::Map<matrix>(feature_gradient, samples_, dims_).noalias() = w * mu;
    Eigen::Map<matrix>(mean_gradient, classes_, dims_).noalias() = w.transpose() * x;
    Eigen::setNbThreads(before);
  }

 private:
  lgm::host_context context_;
  std::int64_t samples_, classes_, dims_;
  array<T> logits_;
};

}  // namespace bench
