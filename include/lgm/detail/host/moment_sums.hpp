// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <lgm/detail/check.hpp>
#include <lgm/detail/host/gemm.hpp>
#include <lgm/detail/host/packet_group.hpp>
#include <lgm/detail/host/parallel.hpp>
#include <lgm/detail/host/plan.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/detail/workspace.hpp>
#include <lgm/host_context.hpp>
#include <lgm/moments.hpp>
#include <lgm/types.hpp>
#include <limits>
#include <type_traits>
#include <utility>

// The host driver of the moments. A class's samples are merged into its moments one after the other, in the order of the call.
// So the bits of count, mean and m2 depend neither on threads nor on how samples are cut into tiles or batches, and the bits of
// the scatter do not depend on threads.

namespace lgm::detail {

// Dimensions in a task: what it reads and writes of a class's moments stays in the first-level cache.
constexpr std::int64_t moments_block = 512;

constexpr std::int64_t blocks_of(std::int64_t n, std::int64_t block) { return (n + block - 1) / block; }

// How accumulate_moments cuts a call. Nothing here shrinks as samples grow, so that a workspace for some samples is
// enough for fewer.
struct moments_plan {
  int threads = 1;
  int product_threads = 1;           // of the scatter's products, which take scratch each
  std::int64_t rows = 0;             // samples in a tile
  std::int64_t scatter_rows = 0;     // the same where the scatter is wanted
  std::int64_t most_deviations = 0;  // scatter_rows without regard to samples
  std::int64_t scatter_block = 0;    // a task's part of the scatter is a square of this side
  parallel_for_hook parallel;
  gemm_hook gemm;

  int threads_for(std::int64_t work) const { return work < 2 * host_plan::grain ? 1 : threads; }
};

// A sample that counts.
struct moments_sample {
  std::int64_t label;  // among the classes of the call
  std::int64_t index;
};

template <class A>
struct moments_buffers {
  moments_sample* order;     // [rows], the samples of a tile by class
  moments_sample* unsorted;  // [rows]
  std::int64_t* begin;       // [rows + 1], where each class's run begins in order
  A* deviation;              // [scatter_rows, dims], of merge_class
  gemm_scratch<A>* scratch;  // [product_threads]

  moments_buffers(arena& a, const moments_plan& p, std::int64_t dims) {
    order = a.take<moments_sample>(p.rows);
    unsorted = a.take<moments_sample>(p.rows);
    begin = a.take<std::int64_t>(p.rows + 1);
    deviation = a.take<A>(p.scatter_rows * dims);
    scratch = a.take<gemm_scratch<A>>(p.product_threads);
    for (int slot = 0; slot < p.product_threads; ++slot) {
      gemm_scratch<A> g;
      g.carve(a, p.scatter_block, p.scatter_block, p.scatter_rows);
      if (scratch != nullptr) scratch[slot] = g;
    }
  }
};

// The size for double accumulators, whatever their type is: workspace_size does not know it.
inline std::size_t moments_bytes(const moments_plan& p, const shape& s) {
  arena a;
  const moments_buffers<double> sizes(a, p, s.dims);
  static_cast<void>(sizes);
  return a.bytes();
}

inline moments_plan make_moments_plan(const host_context& ctx, const shape& s, int threads) {
  constexpr std::int64_t enough_rows = std::int64_t(1) << 16, enough_deviations = 512;
  constexpr auto number = static_cast<std::int64_t>(sizeof(double));
  const std::int64_t limit = static_cast<std::int64_t>(smaller(ctx.tile_bytes, std::size_t(1) << 60));
  moments_plan p;
  p.parallel = ctx.parallel_for;
  p.gemm = ctx.gemm;
  p.threads = larger(threads, 1);
  // An eighth of the limit for the order, half for the deviations, a quarter for the products' scratch.
  const std::int64_t each = 2 * sizeof(moments_sample) + sizeof(std::int64_t);
  p.rows = std::clamp<std::int64_t>(limit / 8 / each, 16, enough_rows);
  p.most_deviations = std::clamp<std::int64_t>(limit / 2 / number / std::max<std::int64_t>(s.dims, 1), 1,
                                               smaller(enough_deviations, p.rows));
  p.rows = smaller(p.rows, s.samples);
  p.scatter_rows = smaller(p.most_deviations, s.samples);
  p.scatter_block = std::min<std::int64_t>(s.dims, 256);
  const std::int64_t scratch = std::max<std::int64_t>(
      2 * smaller(p.most_deviations, gemm_scratch<double>::inner_block) * p.scatter_block * number, 1);
  // No more than there are tasks.
  const std::int64_t side = s.dims > 0 ? (s.dims - 1) / p.scatter_block + 1 : 0;
  p.product_threads = static_cast<int>(
      std::clamp<std::int64_t>(smaller(limit / 4 / scratch, bounded_product(side, side)), 1, p.threads));
  return p;
}

// f(first, last) for parts [first, last) of the classes, as many as `work` multiply-adds are worth. What f computes must
// not depend on where a part begins.
template <class Threads, class F>
void for_class_parts(const host_context& ctx, int threads, std::int64_t classes, std::int64_t work, F f) {
  const std::int64_t parts =
      std::clamp<std::int64_t>(work / host_plan::grain, 1, std::max<std::int64_t>(classes, 1));
  parallel_for<Threads>(ctx.parallel_for, threads, parts, [&](std::int64_t part, int) {
    f(classes * part / parts, classes * (part + 1) / parts);
  });
}

// The lower triangle of [dims, dims] becomes the upper's mirror image.
template <class Threads, class A>
void mirror_upper(const parallel_for_hook& hook, int threads, std::int64_t dims, A* matrix) {
  constexpr std::int64_t block = 64;
  const std::int64_t side = blocks_of(dims, block);
  parallel_for<Threads>(
      hook, dims * dims < host_plan::grain ? 1 : threads, side * side, [&](std::int64_t task, int) {
        const std::int64_t first = task / side * block, column = task % side * block;
        if (first > column) return;
        const std::int64_t last = smaller(first + block, dims), end = smaller(column + block, dims);
        for (std::int64_t i = first; i < last; ++i)
          for (std::int64_t j = larger(column, i + 1); j < end; ++j)
            matrix[j * dims + i] = matrix[i * dims + j];
      });
}

// Labels and options are those of the loss; T is the features' type, A the accumulators'.
template <class T, class L, class A, class Threads>
class moments_driver {
 public:
  moments_driver(const moments_plan& plan, const shape& s, const loss_options<T>& o, const T* features,
                 const L* labels, const class_moments<A>& moments, const workspace& w)
      : plan_(plan),
        shape_(s),
        options_(o),
        features_(features),
        labels_(labels),
        moments_(moments),
        arena_(w),
        b_(arena_, plan, s.dims) {}

  void run() {
    const bool scatter = moments_.scatter != nullptr && shape_.dims > 0;
    const std::int64_t rows = scatter ? plan_.scatter_rows : plan_.rows;
    for (std::int64_t first = 0; first < shape_.samples; first += rows) {
      sort(first, smaller(rows, shape_.samples - first));
      if (count_ == 0) continue;
      if (moments_.mean != nullptr && shape_.dims > 0) merge(scatter);
      add_counts();
      if (scatter) add_products();
    }
    if (scatter) mirror_upper<Threads>(plan_.parallel, plan_.threads, shape_.dims, moments_.scatter);
  }

 private:
  A weight(std::int64_t i) const {
    return options_.sample_weight != nullptr ? static_cast<A>(options_.sample_weight[i]) : A(1);
  }

  // The samples of [first, first + n) that count in a class of this call, by class and in their order, and where each
  // class's run begins.
  void sort(std::int64_t first, std::int64_t n) {
    count_ = runs_ = 0;
    for (std::int64_t i = first; i < first + n; ++i) {
      const auto label = static_cast<std::int64_t>(labels_[i]);
      if (label == options_.ignore_label || weight(i) == A(0)) continue;
      const std::int64_t k = local_class(shape_, label);
      if (k >= 0) b_.order[count_++] = {k, i};
    }
    sort_by_class();
    for (std::int64_t r = 0; r < count_; ++r)
      if (r == 0 || b_.order[r].label != b_.order[r - 1].label) b_.begin[runs_++] = r;
    b_.begin[runs_] = count_;
  }

  // Stable, digit by digit from the lowest.
  void sort_by_class() {
    constexpr int bits = 10;
    constexpr std::int64_t digits = std::int64_t(1) << bits;
    for (int shift = 0; shift < 63 && (shape_.classes - 1) >> shift > 0; shift += bits) {
      const auto digit = [&](const moments_sample& s) { return (s.label >> shift) & (digits - 1); };
      std::int64_t next[digits] = {};
      for (std::int64_t r = 0; r < count_; ++r) ++next[digit(b_.order[r])];
      std::int64_t before = 0;
      for (std::int64_t& n : next) before += std::exchange(n, before);
      for (std::int64_t r = 0; r < count_; ++r) b_.unsorted[next[digit(b_.order[r])]++] = b_.order[r];
      std::swap(b_.order, b_.unsorted);
    }
  }

  // Merges the sorted samples into means and sums of squares; the counts stay as they are, for all tasks to see.
  void merge(bool scatter) {
    const std::int64_t dims = shape_.dims, stride = row_stride(shape_.feature_stride, dims);
    const std::int64_t blocks = blocks_of(dims, moments_block);
    const int threads = plan_.threads_for(8 * count_ * dims);
    const std::int64_t parts = std::min<std::int64_t>(runs_, 16 * std::int64_t(threads));
    parallel_for<Threads>(plan_.parallel, threads, blocks * parts, [&](std::int64_t task, int) {
      const std::int64_t begin = task % blocks * moments_block, n = smaller(moments_block, dims - begin);
      const std::int64_t part = task / blocks;
      for (std::int64_t run = runs_ * part / parts; run < runs_ * (part + 1) / parts; ++run) {
        const std::int64_t k = b_.order[b_.begin[run]].label, at = k * dims + begin;
        class_moment_rows<A> into{moments_.mean + at, nullptr, nullptr};
        if (moments_.mean_residual != nullptr) into.residual = moments_.mean_residual + at;
        if (moments_.m2 != nullptr) into.m2 = moments_.m2 + at;
        A count = moments_.count[k];
        for (std::int64_t r = b_.begin[run]; r < b_.begin[run + 1]; ++r) {
          const std::int64_t i = b_.order[r].index;
          merge_class<packet_group<A>, const T*, A>({}, n, weight(i), features_ + i * stride + begin, nullptr,
                                                    nullptr, count, into,
                                                    scatter ? b_.deviation + r * dims + begin : nullptr);
          count += weight(i);
        }
      }
    });
  }

  void add_counts() {
    for (std::int64_t r = 0; r < count_; ++r) moments_.count[b_.order[r].label] += weight(b_.order[r].index);
  }

  // Adds the products of the deviations to the upper triangle of the scatter, a row of squares at a time where the
  // caller's products take it.
  void add_products() {
    const std::int64_t dims = shape_.dims, block = plan_.scatter_block, side = blocks_of(dims, block);
    if (plan_.gemm.template of<A>() == nullptr) {
      add_squares(0, side);
      return;
    }
    for (std::int64_t row = 0; row < side; ++row) {
      const std::int64_t begin = row * block, m = smaller(block, dims - begin);
      const A* deviation = b_.deviation + begin;
      if (!external_gemm(plan_.gemm, true, false, m, dims - begin, count_, A(1), deviation, dims, deviation,
                         dims, A(1), moments_.scatter + begin * dims + begin, dims))
        add_squares(row, row + 1);
    }
  }
  void add_squares(std::int64_t first_row, std::int64_t last_row) {
    const std::int64_t dims = shape_.dims, block = plan_.scatter_block, side = blocks_of(dims, block);
    parallel_for<Threads>(
        plan_.parallel, count_ * dims * dims < 4 * host_plan::grain ? 1 : plan_.product_threads,
        (last_row - first_row) * side, [&](std::int64_t task, int slot) {
          const std::int64_t i = (first_row + task / side) * block, j = task % side * block;
          if (i > j) return;
          gemm<transposed::yes, transposed::no>(smaller(block, dims - i), smaller(block, dims - j), count_,
                                                A(1), b_.deviation + i, dims, b_.deviation + j, dims,
                                                moments_.scatter + i * dims + j, dims, b_.scratch[slot]);
        });
  }

  const moments_plan& plan_;
  const shape& shape_;
  const loss_options<T>& options_;
  const T* features_;
  const L* labels_;
  const class_moments<A>& moments_;
  arena arena_;
  moments_buffers<A> b_;
  std::int64_t count_ = 0, runs_ = 0;  // of the tile
};

// into.scatter += from.scatter and what the merges of the classes add to it, from means that are not merged yet.
template <class A, class Threads>
void merge_scatter(const host_context& ctx, int threads, const shape& s, const class_moments<A>& from,
                   const class_moments<A>& into) {
  constexpr std::int64_t block = 64;
  const std::int64_t dims = s.dims, side = blocks_of(dims, block);
  const packet_group<A> group;
  parallel_for<Threads>(
      ctx.parallel_for, s.classes * dims * dims < 2 * host_plan::grain ? 1 : threads, side * side,
      [&](std::int64_t task, int) {
        const std::int64_t i0 = task / side * block, j0 = task % side * block;
        if (i0 > j0) return;
        const std::int64_t m = smaller(block, dims - i0), n = smaller(block, dims - j0);
        for (std::int64_t i = i0; i < i0 + m; ++i) {
          const A* added = from.scatter + i * dims + j0;
          A* out = into.scatter + i * dims + j0;
          group.for_each(
              n, [&](auto j) { store(out, j, load(static_cast<const A*>(out), j) + load(added, j)); });
        }
        for (std::int64_t k = 0; k < s.classes; ++k) {
          if (from.count[k] == A(0) || into.count[k] == A(0)) continue;
          const merge_weights<A> weights(into.count[k], from.count[k]);
          A left[block], right[block];
          const auto difference = [&](std::int64_t first, std::int64_t size, A* out) {
            const std::int64_t at = k * dims + first;
            group.for_each(size, [&](auto j) {
              packet<A> delta = load(from.mean + at, j) - load(static_cast<const A*>(into.mean) + at, j);
              if (from.mean_residual != nullptr)
                delta = delta + load(static_cast<const A*>(from.mean_residual) + at, j);
              if (into.mean_residual != nullptr)
                delta = delta - load(static_cast<const A*>(into.mean_residual) + at, j);
              store(out, j, delta);
            });
          };
          difference(i0, m, left);
          difference(j0, n, right);
          for (std::int64_t i = 0; i < m; ++i) {
            const packet<A> factor(weights.square * left[i]);
            A* out = into.scatter + (i0 + i) * dims + j0;
            group.for_each(n, [&](auto j) {
              store(
                  out, j,
                  fused(factor, load(static_cast<const A*>(right), j), load(static_cast<const A*>(out), j)));
            });
          }
        }
      });
  mirror_upper<Threads>(ctx.parallel_for, threads, dims, into.scatter);
}

template <class A, class Threads>
void run_merge(const host_context& ctx, int threads, const shape& s, const class_moments<A>& from,
               const class_moments<A>& into) {
  if (into.scatter != nullptr && s.dims > 0) merge_scatter<A, Threads>(ctx, threads, s, from, into);
  for_class_parts<Threads>(
      ctx, threads, s.classes, 8 * s.classes * s.dims, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t k = first; k < last; ++k) {
          if (from.count[k] == A(0)) continue;
          if (into.mean != nullptr) {
            const auto row = [&](A* array) { return array == nullptr ? nullptr : array + k * s.dims; };
            const A *mean = row(from.mean), *residual = row(from.mean_residual),
                    *m2 = into.m2 == nullptr ? nullptr : row(from.m2);
            const class_moment_rows<A> out{row(into.mean), row(into.mean_residual), row(into.m2)};
            merge_class<packet_group<A>, const A*, A>({}, s.dims, from.count[k], mean, residual, m2,
                                                      into.count[k], out, nullptr);
          }
          into.count[k] += from.count[k];
        }
      });
}

// Parameters from moments; p has only arrays that are to be written.
template <class A, class T, class Threads>
class estimate_driver {
 public:
  estimate_driver(const host_context& ctx, int threads, const shape& s, const class_moments<A>& moments,
                  const estimate_options<T>& o, const parameters<T>& p)
      : ctx_(ctx), threads_(threads), shape_(s), moments_(moments), parameters_(p) {
    rule_.shrinkage = static_cast<A>(o.shrinkage);
    rule_.decay = static_cast<A>(o.decay);
    // So that the logarithm is finite.
    const A smallest =
        larger(static_cast<A>((std::numeric_limits<T>::min)()), (std::numeric_limits<A>::min)());
    rule_.floor = larger(static_cast<A>(o.variance_floor), smallest);
    double total = 0;
    for (std::int64_t k = 0; k < s.classes; ++k) total += static_cast<double>(moments.count[k]);
    total_ = static_cast<A>(total);
  }

  void run() {
    const std::int64_t dims = shape_.dims;
    const bool spherical = shape_.covariance == covariance::spherical;
    const A pooled = spherical && rule_.shrinkage != A(0) && parameters_.log_variance != nullptr
                         ? pooled_spherical()
                         : A(0);
    for_class_parts<Threads>(
        ctx_, threads_, shape_.classes, 8 * shape_.classes * dims,
        [&](std::int64_t first, std::int64_t last) {
          for (std::int64_t k = first; k < last; ++k) {
            if (moments_.count[k] == A(0)) continue;
            if (parameters_.mean != nullptr)
              estimate_mean(group_type{}, dims, moments_.mean + k * dims, rule_, parameters_.mean + k * dims);
            if (parameters_.log_variance != nullptr && spherical) {
              T& out = parameters_.log_variance[k];
              const A variance = sum_of_squares(k) / (moments_.count[k] * static_cast<A>(dims));
              out = static_cast<T>(estimated_log_variance(variance, pooled, present(out), rule_));
            }
            if (parameters_.log_prior != nullptr) {
              T& out = parameters_.log_prior[k];
              out = static_cast<T>(estimated_log_prior(moments_.count[k] / total_, present(out), rule_));
            }
          }
        });
    if (parameters_.log_variance != nullptr && !spherical) write_diagonal();
  }

 private:
  using group_type = packet_group<A>;
  static constexpr std::int64_t block = 128;

  A present(T value) const { return rule_.decay != A(0) ? static_cast<A>(value) : A(0); }
  A sum_of_squares(std::int64_t k) const {
    const A* m2 = moments_.m2 + k * shape_.dims;
    return group_type{}.reduce(
        shape_.dims, A(0), [&](auto j) { return load(m2, j); }, plus{});
  }

  // The variance of all classes and dimensions together, each about its class's own mean. A fixed number of parts, so
  // that the bits do not depend on threads.
  A pooled_spherical() const {
    constexpr std::int64_t parts = 64;
    A partial[parts];
    parallel_for<Threads>(ctx_.parallel_for, shape_.classes * shape_.dims < host_plan::grain ? 1 : threads_,
                          parts, [&](std::int64_t part, int) {
                            A sum = 0;
                            const std::int64_t last = shape_.classes * (part + 1) / parts;
                            for (std::int64_t k = shape_.classes * part / parts; k < last; ++k)
                              if (moments_.count[k] != A(0)) sum += sum_of_squares(k);
                            partial[part] = sum;
                          });
    A sum = 0;
    for (const A each : partial) sum += each;
    return sum / (total_ * static_cast<A>(shape_.dims));
  }

  // Without pooled variances classes are independent; with them a task has all classes of its dimensions.
  void write_diagonal() {
    const std::int64_t dims = shape_.dims, blocks = blocks_of(dims, block);
    const std::int64_t parts =
        rule_.shrinkage != A(0) ? 1 : std::min<std::int64_t>(shape_.classes, 16 * std::int64_t(threads_));
    parallel_for<Threads>(
        ctx_.parallel_for, shape_.classes * dims * 16 < 2 * host_plan::grain ? 1 : threads_, blocks * parts,
        [&](std::int64_t task, int) {
          const std::int64_t begin = task % blocks * block, n = smaller(block, dims - begin),
                             part = task / blocks;
          A pooled[block];
          if (rule_.shrinkage != A(0)) pool_diagonal(begin, n, pooled);
          for (std::int64_t k = shape_.classes * part / parts; k < shape_.classes * (part + 1) / parts; ++k) {
            if (moments_.count[k] == A(0)) continue;
            const std::int64_t at = k * dims + begin;
            estimate_log_variance<group_type, A, T>({}, n, moments_.m2 + at, A(1) / moments_.count[k], pooled,
                                                    rule_, parameters_.log_variance + at);
          }
        });
  }
  void pool_diagonal(std::int64_t begin, std::int64_t n, A* pooled) const {
    const group_type group;
    std::fill(pooled, pooled + n, A(0));
    for (std::int64_t k = 0; k < shape_.classes; ++k) {
      if (moments_.count[k] == A(0)) continue;
      const A* m2 = moments_.m2 + k * shape_.dims + begin;
      group.for_each(n,
                     [&](auto j) { store(pooled, j, load(static_cast<const A*>(pooled), j) + load(m2, j)); });
    }
    const packet<A> share(A(1) / total_);
    group.for_each(n, [&](auto j) { store(pooled, j, share * load(static_cast<const A*>(pooled), j)); });
  }

  const host_context& ctx_;
  int threads_;
  const shape& shape_;
  const class_moments<A>& moments_;
  const parameters<T>& parameters_;
  estimate_rule<A> rule_;
  A total_;  // samples of all classes
};

}  // namespace lgm::detail
