// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <lgm/column.hpp>
#include <lgm/detail/check.hpp>
#include <lgm/detail/direct.hpp>
#include <lgm/detail/gemm.hpp>
#include <lgm/detail/host_operands.hpp>
#include <lgm/detail/host_plan.hpp>
#include <lgm/detail/packet_group.hpp>
#include <lgm/detail/parallel.hpp>
#include <lgm/row.hpp>
#include <lgm/types.hpp>
#include <limits>

// The host driver: cuts a call into tiles, has the products made, and runs the row and column algorithms on
// the tiles.

namespace lgm::detail {

// Labels of any type, widened one at a time.
struct label_reader {
  const void* data = nullptr;
  std::int64_t (*read)(const void*, std::int64_t) = nullptr;

  label_reader() = default;
  template <class L>
  explicit label_reader(const L* labels)
      : data(labels), read([](const void* p, std::int64_t i) {
          return static_cast<std::int64_t>(static_cast<const L*>(p)[i]);
        }) {}
  explicit operator bool() const { return data != nullptr; }
  std::int64_t operator[](std::int64_t i) const { return read(data, i); }
};

template <class T, class Threads>
class host_driver {
 public:
  host_driver(const host_plan& plan, const shape& s, const mixture<T>& m, const T* features,
              const workspace& w)
      : plan_(plan),
        shape_(s),
        mixture_(m),
        features_(features),
        arena_(w),
        b_(arena_, plan, s),
        operands_(plan_, shape_, mixture_, b_) {
    stride_ = stride_or(s.feature_stride, s.dims);
  }

  // Losses, gradients or both. With read_state null the losses' evidence is gathered here; else it is what an
  // earlier forward call wrote.
  void loss(const loss_options<T>& o, label_reader labels, const T* read_state, const T* upstream,
            const loss_result<T>& result, const gradients<T, T>& gradient) {
    begin_call(o, labels);
    skip_ignored_ = true;
    alpha_usable_ = usable_factor(alpha_);
    if (!alpha_usable_) alpha_ = 0;
    find_best_ = result.correct != nullptr;

    const bool parameters = wants_parameters(gradient),
               differentiate = gradient.feature != nullptr || parameters;
    const bool report = read_state == nullptr;
    const bool gather = report && (differentiate || find_best_ || result.total != nullptr ||
                                   result.classification != nullptr || result.row_state != nullptr ||
                                   result.log_evidence != nullptr);
    const bool visit = differentiate || gather || result.likelihood != nullptr;
    std::int64_t counted = 0;
    for (std::int64_t i = 0; i < shape_.samples; ++i) counted += labels[i] != o.ignore_label;
    const T divisor = o.reduction == reduction::mean ? static_cast<T>(counted) : T(1);
    loss_sums sums;

    if (shape_.samples == 0 && parameters) clear_parameters(gradient);
    for_row_tiles(visit ? shape_.samples : 0, [&] {
      if (gather) {
        for_class_tiles([&] {
          make_logits();
          for_rows([&](std::int64_t i, std::int64_t) { gather_evidence(i); });
        });
        for (std::int64_t i = 0; i < row_count_; ++i)
          b_.record[i].others = b_.record[i].evidence.others.value();
      } else if (!report) {
        for (std::int64_t i = 0; i < row_count_; ++i) {
          const T* state = read_state + 2 * (first_row_ + i);
          b_.record[i].target.logit = state[0];
          b_.record[i].others = state[1];
        }
      }
      if (report) write_losses(result, sums);
      if (!differentiate) return;
      for (std::int64_t i = 0; i < row_count_; ++i) weigh_target(i, upstream, divisor);
      if (gradient.feature != nullptr) {
        for_rows([&](std::int64_t i, std::int64_t) {
          T* out = feature_gradient(gradient, i);
          std::fill(out, out + shape_.dims, T(0));
        });
      }
      const bool logits_kept = gather && plan_.whole_rows;
      for_class_tiles([&] {
        if (!logits_kept) make_logits();
        make_weights(gradient, logits_kept);
        make_gradients(gradient);
      });
      if (gradient.feature != nullptr) {
        for_rows([&](std::int64_t i, std::int64_t) { finish_features(i, feature_gradient(gradient, i)); });
      }
    });
    if (!report) return;
    if (result.counted != nullptr) *result.counted = counted;
    if (result.correct != nullptr) *result.correct = sums.correct;
    if (o.reduction == reduction::none) return;
    const double d = static_cast<double>(divisor);
    if (result.total != nullptr) *result.total = static_cast<T>(sums.total / d);
    if (result.classification != nullptr) *result.classification = static_cast<T>(sums.classification / d);
    if (result.likelihood != nullptr) *result.likelihood = static_cast<T>(sums.likelihood / d);
  }

  // eq:logit into out, row stride shape.logits_stride; with labels, the margin at the targets.
  void logits(const loss_options<T>& o, label_reader labels, T* out) {
    begin_call(o, labels);
    const std::int64_t out_stride = stride_or(shape_.logits_stride, shape_.classes);
    for_row_tiles(shape_.samples, [&] {
      for_class_tiles([&] {
        tile_ = out + first_row_ * out_stride + first_class_;
        tile_stride_ = out_stride;
        make_logits();
        for_rows([&](std::int64_t i, std::int64_t) {
          row_type row = held_row(i);
          finish(i, row, -numeric<T>::infinity);
          const std::int64_t z = local_target(i);
          if (z >= 0) tile_row(i)[z] = b_.record[i].target.logit;
        });
      });
    });
  }

  void score(const score_result<T>& result) {
    find_best_ = result.predicted != nullptr || result.posterior != nullptr ||
                 result.log_density != nullptr || result.squared_mahalanobis != nullptr;
    const bool gather = find_best_ || result.log_mixture != nullptr;
    const bool nearest = result.nearest_squared_mahalanobis != nullptr;
    const T log_prior_sum = result.log_mixture != nullptr ? log_sum_of_priors() : T(0);
    for_row_tiles(gather || nearest ? shape_.samples : 0, [&] {
      for_class_tiles([&] {
        make_logits();
        for_rows([&](std::int64_t i, std::int64_t part) {
          if (nearest) gather_nearest(i, part);
          if (gather) gather_evidence(i);
        });
      });
      for_rows([&](std::int64_t i, std::int64_t) { write_scores(result, i, log_prior_sum); });
    });
  }

 private:
  using group_type = packet_group<T>;
  using row_type = typename group_type::row;

  struct loss_sums {
    double total = 0, classification = 0, likelihood = 0;
    std::int64_t correct = 0;
  };

  void begin_call(const loss_options<T>& o, label_reader labels) {
    options_ = o;
    labels_ = labels;
    alpha_ = o.alpha_at != nullptr ? *o.alpha_at : o.alpha;
  }

  bool diagonal() const { return shape_.covariance == covariance::diagonal; }
  bool wants_log_variance(const gradients<T, T>& g) const {
    return g.log_variance != nullptr && shape_.covariance != covariance::identity;
  }
  bool wants_parameters(const gradients<T, T>& g) const {
    return g.mean != nullptr || g.log_prior != nullptr || wants_log_variance(g);
  }

  // Row i of the tile, in its several forms.
  const T* features(std::int64_t i) const { return features_ + (first_row_ + i) * stride_; }
  T* centred(std::int64_t i) const { return b_.centred + i * shape_.dims; }
  T* tile_row(std::int64_t i) const { return tile_ + i * tile_stride_; }
  row_type held_row(std::int64_t i) const { return group_type{}.hold(tile_row(i), class_count_); }
  T* feature_gradient(const gradients<T, T>& g, std::int64_t i) const {
    return g.feature + (first_row_ + i) * stride_or(shape_.gradient_stride, shape_.dims);
  }

  class_parameters<T> parameters_of(std::int64_t k) const { return {shape_, mixture_, k}; }
  T log_prior(std::int64_t k) const { return operands_.log_prior(k); }
  // The target's index in the class tile, -1 where it is not there.
  std::int64_t local_target(std::int64_t i) const {
    const std::int64_t z = b_.target[i] - first_class_;
    return b_.target[i] >= 0 && z >= 0 && z < class_count_ ? z : -1;
  }

  // Visits the row tiles, each with its rows prepared, and within one the class tiles.
  template <class F>
  void for_row_tiles(std::int64_t samples, F f) {
    if (samples > 0) operands_.centre();
    for (first_row_ = 0; first_row_ < samples; first_row_ += plan_.rows) {
      row_count_ = std::min(plan_.rows, samples - first_row_);
      prepare_rows();
      f();
    }
  }
  template <class F>
  void for_class_tiles(F f) {
    for (first_class_ = 0; first_class_ < shape_.classes; first_class_ += plan_.classes) {
      class_count_ = std::min(plan_.classes, shape_.classes - first_class_);
      tile_ = b_.tile;
      tile_stride_ = class_count_;
      f();
    }
  }

  // f(i, part) for the rows of the tile. One thread visits the rows of a part, in order; the parts depend on
  // the plan alone.
  std::int64_t row_parts() const { return plan_.threads_for(row_count_ * (plan_.classes + shape_.dims) * 8); }
  template <class F>
  void for_rows(F f) {
    const std::int64_t parts = row_parts();
    parallel_for<Threads>(plan_.parallel, plan_.threads, parts, [&](std::int64_t part, int) {
      const std::int64_t begin = row_count_ * part / parts, end = row_count_ * (part + 1) / parts;
      for (std::int64_t i = begin; i < end; ++i) f(i, part);
    });
  }

  // Centres the features, and computes from the differences what the target says.
  void prepare_rows() {
    for_rows([&](std::int64_t i, std::int64_t) {
      row_record<T>& r = b_.record[i];
      r = {};
      const std::int64_t label = labels_ ? labels_[first_row_ + i] : options_.ignore_label;
      const bool ignored = label == options_.ignore_label;
      b_.target[i] = ignored ? -1 : label;
      b_.counts[i] = !(ignored && skip_ignored_);
      if (b_.counts[i] == 0) {
        std::fill(centred(i), centred(i) + shape_.dims, T(0));
        return;
      }
      const group_type group;
      const T half_norm = centre_row(group, shape_.dims, features(i), b_.offset, centred(i));
      r.half_norm = diagonal() ? T(0) : half_norm;
      if (!ignored)
        r.target = target_of(group, shape_.dims, features(i), parameters_of(label), log_prior(label), alpha_);
    });
  }

  // f(begin, count) for the parts of the class tile whose operands are at hand at once.
  template <class F>
  void for_operands(F f) {
    for (std::int64_t begin = 0; begin < class_count_; begin += plan_.operand)
      f(begin, std::min(plan_.operand, class_count_ - begin));
  }

  // The products of the tile, not yet logits.
  void make_logits() {
    const std::int64_t dims = shape_.dims;
    for_operands([&](std::int64_t begin, std::int64_t count) {
      operands_.prepare(operand_kind::logits, first_class_, begin, count);
      const std::int64_t rows = row_block(count), row_tasks = (row_count_ + rows - 1) / rows;
      const std::int64_t class_tasks = (count + plan_.block - 1) / plan_.block;
      parallel_for<Threads>(
          plan_.parallel, plan_.threads_for(row_count_ * count * dims), row_tasks * class_tasks,
          [&](std::int64_t task, int slot) {
            const std::int64_t i = task % row_tasks * rows, n = std::min(rows, row_count_ - i);
            const std::int64_t c = task / row_tasks * plan_.block, m = std::min(plan_.block, count - c);
            T* out = tile_row(i) + begin + c;
            if (diagonal()) {
              direct_logits(n, m, dims, centred(i), dims, b_.operand + 2 * c * dims, out, tile_stride_);
              return;
            }
            for (std::int64_t r = 0; r < n; ++r)
              std::fill(out + r * tile_stride_, out + r * tile_stride_ + m, T(0));
            gemm<transposed::no, transposed::yes>(n, m, dims, T(1), centred(i), dims, b_.operand + c * dims,
                                                  dims, out, tile_stride_, b_.scratch[slot]);
          });
    });
    class_constants<T>& c = b_.constants;
    c.max_scale = c.scale == nullptr ? T(1) : *std::max_element(c.scale, c.scale + class_count_);
    c.max_norm = *std::max_element(c.norm, c.norm + class_count_);
  }

  // Rows in a task of a product with `classes` classes: enough tasks for all threads, none too small.
  std::int64_t row_block(std::int64_t classes) const {
    const std::int64_t least = plan_.grain / std::max<std::int64_t>(classes * shape_.dims, 1) + 1;
    const std::int64_t even = (row_count_ + 2 * plan_.threads - 1) / (2 * plan_.threads);
    return std::min(row_count_, (std::max({least, even, std::int64_t(16)}) + 7) / 8 * 8);
  }

  // Logits of row i from its products; returns the largest.
  T finish(std::int64_t i, row_type& row, T known_max) const {
    return finish_logits(group_type{}, row, b_.constants, b_.record[i].half_norm, local_target(i), known_max,
                         direct(i));
  }
  // d_k of row i and class k of the tile.
  auto direct(std::int64_t i) const {
    return [this, i](std::int64_t k) {
      return T(0.5) *
             squared_distance(group_type{}, shape_.dims, features(i), parameters_of(first_class_ + k));
    };
  }

  void gather_evidence(std::int64_t i) {
    if (b_.counts[i] == 0) return;
    row_record<T>& r = b_.record[i];
    row_type row = held_row(i);
    const T target = b_.target[i] >= 0 ? r.target.logit : -numeric<T>::infinity;
    const T top = finish(i, row, larger(r.evidence.others.max, target));
    r.evidence.merge(evidence_of(group_type{}, row, top, first_class_, find_best_));
  }

  // Before the products of row i become logits. The sums by class are not in use: they serve as scratch.
  void gather_nearest(std::int64_t i, std::int64_t part) {
    row_record<T>& r = b_.record[i];
    const nearest_class<T> found = nearest_of(group_type{}, held_row(i), b_.constants, r.half_norm,
                                              first_class_, direct(i), b_.class_sum + part * class_count_);
    if (found.index >= 0 && (r.nearest.index < 0 || found.distance < r.nearest.distance)) r.nearest = found;
  }

  // Losses of the row tile, and their sums.
  void write_losses(const loss_result<T>& result, loss_sums& sums) const {
    const bool each = options_.reduction == reduction::none;
    for (std::int64_t i = 0; i < row_count_; ++i) {
      const row_record<T>& r = b_.record[i];
      const bool counts = b_.counts[i] != 0;
      const std::int64_t at = first_row_ + i;
      T classification = 0, likelihood = 0, total = 0;
      if (counts) {
        classification = classification_loss(rest(r.others, r.target.logit));
        likelihood = likelihood_loss(r.target.distance, r.target.half_log_det);
        if (!alpha_usable_) classification = likelihood = std::numeric_limits<T>::quiet_NaN();
        total = total_loss(classification, options_.lambda, likelihood);
        sums.correct += find_best_ && target_is_best(i);
      }
      sums.total += static_cast<double>(total);
      sums.classification += static_cast<double>(classification);
      sums.likelihood += static_cast<double>(likelihood);
      if (each && result.total != nullptr) result.total[at] = total;
      if (each && result.classification != nullptr) result.classification[at] = classification;
      if (each && result.likelihood != nullptr) result.likelihood[at] = likelihood;
      if (result.row_state != nullptr) {
        result.row_state[2 * at] = counts ? r.target.logit : T(0);
        result.row_state[2 * at + 1] = counts ? r.others : -numeric<T>::infinity;
      }
      if (result.log_evidence != nullptr)
        result.log_evidence[at] = counts ? log_evidence<T>(r.target.logit, r.others).value() : T(0);
    }
  }

  // Whether the target has the largest logit without margin. Near a tie the product's rounding must not
  // decide, so the best of the others is computed as the target's logit is.
  bool target_is_best(std::int64_t i) const {
    const row_record<T>& r = b_.record[i];
    const T target = r.target.logit_without_margin;
    T best = r.evidence.others.max;
    const std::int64_t k = r.evidence.best;
    if (k >= 0 && std::fabs(target - best) <= T(1e-3) * (T(1) + std::fabs(best)))
      best = target_of(group_type{}, shape_.dims, features(i), parameters_of(k), log_prior(k), T(0)).logit;
    return target > best || (target == best && (k < 0 || b_.target[i] < k));
  }

  // The target's terms of eq:weight, times the upstream gradient of row i.
  void weigh_target(std::int64_t i, const T* upstream, T divisor) {
    row_record<T>& r = b_.record[i];
    if (b_.counts[i] == 0) return;
    const T incoming =
        upstream == nullptr ? T(1) : upstream[options_.reduction == reduction::none ? first_row_ + i : 0];
    r.upstream = alpha_usable_ ? incoming / divisor : T(0);
    const T miss = target_miss(rest(r.others, r.target.logit));
    r.weight = r.upstream * target_weight(miss, alpha_, options_.lambda);
    r.share = r.upstream * (miss + options_.lambda);
    r.miss = r.upstream * miss;
  }

  // Logits to weights, with their sums by row and, where parameters need them, by class.
  void make_weights(const gradients<T, T>& gradient, bool logits_are_finished) {
    const std::int64_t parts = row_parts();
    T* const by_class = wants_parameters(gradient) ? b_.class_sum : nullptr;
    T* const by_distance = wants_log_variance(gradient) && shape_.covariance == covariance::spherical
                               ? b_.class_distance
                               : nullptr;
    for (T* sum : {by_class, by_distance})
      if (sum != nullptr) std::fill(sum, sum + parts * class_count_, T(0));
    for_rows([&](std::int64_t i, std::int64_t part) {
      row_record<T>& r = b_.record[i];
      row_type row = held_row(i);
      if (b_.counts[i] == 0) {
        std::fill(row.data, row.data + row.size, T(0));
        return;
      }
      const log_evidence<T> evidence(r.target.logit, r.others);
      if (!logits_are_finished) finish(i, row, evidence.anchor);
      const std::int64_t at = part * class_count_;
      r.weight_sum += finish_weights(group_type{}, row, b_.constants, evidence, -r.upstream, local_target(i),
                                     by_class == nullptr ? nullptr : by_class + at,
                                     by_distance == nullptr ? nullptr : by_distance + at);
    });
    for (T* sum : {by_class, by_distance})
      for (std::int64_t part = 1; sum != nullptr && part < parts; ++part)
        group_type{}.for_each(
            class_count_, [&](auto k) { store(sum, k, load(sum, k) + load(sum + part * class_count_, k)); });
  }

  // The products of the weights: feature gradients by blocks of rows, parameter gradients by blocks of
  // classes.
  void make_gradients(const gradients<T, T>& gradient) {
    for_operands([&](std::int64_t begin, std::int64_t count) {
      std::int64_t rows = 1, row_tasks = 0, class_tasks = 0;
      if (gradient.feature != nullptr) {
        operands_.prepare(operand_kind::gradient, first_class_, begin, count);
        rows = row_block(count);
        row_tasks = (row_count_ + rows - 1) / rows;
      }
      if (wants_parameters(gradient)) class_tasks = (count + plan_.block - 1) / plan_.block;
      parallel_for<Threads>(plan_.parallel, plan_.threads_for(row_count_ * count * shape_.dims),
                            row_tasks + class_tasks, [&](std::int64_t task, int slot) {
                              if (task < row_tasks) {
                                const std::int64_t i = task * rows;
                                add_features(gradient, i, std::min(rows, row_count_ - i), begin, count, slot);
                              } else {
                                const std::int64_t c = (task - row_tasks) * plan_.block;
                                add_parameters(gradient, begin + c, std::min(plan_.block, count - c), slot);
                              }
                            });
    });
  }

  // The classes' part of eq:grad_feature for rows [i, i + n) and classes [begin, begin + count) of the tile.
  void add_features(const gradients<T, T>& gradient, std::int64_t i, std::int64_t n, std::int64_t begin,
                    std::int64_t count, int slot) {
    const std::int64_t dims = shape_.dims, out_stride = stride_or(shape_.gradient_stride, dims);
    const T* weights = tile_row(i) + begin;
    T* out = feature_gradient(gradient, i);
    if (diagonal())
      direct_feature_gradient(n, count, dims, weights, tile_stride_, centred(i), dims, b_.operand, out,
                              out_stride);
    else
      gemm<transposed::no, transposed::no>(n, dims, count, T(-1), weights, tile_stride_, b_.operand, dims,
                                           out, out_stride, b_.scratch[slot]);
  }

  void finish_features(std::int64_t i, T* out) const {
    if (b_.counts[i] == 0) return;
    const row_record<T>& r = b_.record[i];
    const class_parameters<T> target = parameters_of(b_.target[i]);
    finish_feature_gradient(group_type{}, shape_.dims, features(i), centred(i),
                            diagonal() ? T(0) : r.weight_sum, &target, r.weight, out);
  }

  // Gradients of the parameters of classes [begin, begin + count) of the tile.
  void add_parameters(const gradients<T, T>& gradient, std::int64_t begin, std::int64_t count, int slot) {
    const group_type group;
    const std::int64_t dims = shape_.dims;
    const bool add = gradient.accumulate || first_row_ > 0;
    const bool square = diagonal() && wants_log_variance(gradient), difference = gradient.mean != nullptr;
    T* const differences = b_.sums[slot];
    T* const squares = square ? differences + plan_.block * dims : nullptr;
    const T* weights = tile_ + begin;
    if (diagonal() && (difference || square)) {
      direct_class_sums(row_count_, count, dims, weights, tile_stride_, features(0), stride_, b_.counts,
                        mixture_.mean + (first_class_ + begin) * dims, differences, squares, b_.slabs[slot]);
    } else if (difference) {
      std::fill(differences, differences + count * dims, T(0));
      gemm<transposed::yes, transposed::no>(count, dims, row_count_, T(1), weights, tile_stride_, b_.centred,
                                            dims, differences, dims, b_.scratch[slot]);
    }
    class_sums<T> sums[host_plan::largest_block];
    for (std::int64_t c = 0; c < count; ++c) {
      class_sums<T>& s = sums[c];
      s.difference = difference ? differences + c * dims : nullptr;
      s.square = square ? squares + c * dims : nullptr;
      s.share = b_.class_sum[begin + c];
      s.probability = -s.share;
      if (b_.class_distance != nullptr) s.distance = b_.class_distance[begin + c];
      if (difference && !diagonal())
        uncentre_sum(group, dims, parameters_of(first_class_ + begin + c).mean, b_.offset, s.share,
                     s.difference);
    }
    for (std::int64_t i = 0; i < row_count_; ++i) {
      const std::int64_t z = local_target(i) - begin;
      if (local_target(i) < 0 || z < 0 || z >= count) continue;
      const row_record<T>& r = b_.record[i];
      add_target(group, dims, features(i), parameters_of(b_.target[i]).mean, r.weight, r.share, r.miss,
                 r.target.distance, sums[z]);
    }
    for (std::int64_t c = 0; c < count; ++c) {
      const std::int64_t k = first_class_ + begin + c;
      const class_parameters<T> p = parameters_of(k);
      if (difference) write_mean_gradient(group, dims, p, sums[c], add, gradient.mean + k * dims);
      if (wants_log_variance(gradient))
        write_log_variance_gradient(group, dims, p, sums[c], add,
                                    gradient.log_variance + k * (diagonal() ? dims : 1));
      if (gradient.log_prior != nullptr)
        gradient.log_prior[k] = add ? gradient.log_prior[k] + sums[c].probability : sums[c].probability;
    }
  }

  void clear_parameters(const gradients<T, T>& g) const {
    if (g.accumulate) return;
    const std::int64_t classes = shape_.classes, all = classes * shape_.dims;
    if (g.mean != nullptr) std::fill(g.mean, g.mean + all, T(0));
    if (wants_log_variance(g)) std::fill(g.log_variance, g.log_variance + log_variance_size(shape_), T(0));
    if (g.log_prior != nullptr) std::fill(g.log_prior, g.log_prior + classes, T(0));
  }

  // log sum_k p_k, which eq:log_mixture divides by.
  T log_sum_of_priors() const {
    if (mixture_.log_prior == nullptr) return T(0);
    log_sum<T> sum;
    for (std::int64_t k = 0; k < shape_.classes; ++k) sum.merge({mixture_.log_prior[k], T(1)});
    return sum.value();
  }

  void write_scores(const score_result<T>& result, std::int64_t i, T log_prior_sum) const {
    const row_record<T>& r = b_.record[i];
    const std::int64_t k = r.evidence.best, at = first_row_ + i;
    T posterior = std::numeric_limits<T>::quiet_NaN(), distance = posterior, density = posterior,
      nearest = posterior;
    const group_type group;
    const auto squared = [&](std::int64_t c) {
      return squared_distance(group, shape_.dims, features(i), parameters_of(c));
    };
    if (k >= 0) {
      posterior = T(1) / r.evidence.others.sum;
      if (result.squared_mahalanobis != nullptr || result.log_density != nullptr) distance = squared(k);
      density =
          log_density(T(0.5) * distance, half_log_det(group, shape_.dims, parameters_of(k)), shape_.dims);
    }
    if (result.nearest_squared_mahalanobis != nullptr && r.nearest.index >= 0)
      nearest = squared(r.nearest.index);
    if (result.predicted != nullptr) result.predicted[at] = k;
    if (result.posterior != nullptr) result.posterior[at] = posterior;
    if (result.log_density != nullptr) result.log_density[at] = density;
    if (result.log_mixture != nullptr)
      result.log_mixture[at] = log_mixture(r.evidence.others.value(), log_prior_sum, shape_.dims);
    if (result.squared_mahalanobis != nullptr) result.squared_mahalanobis[at] = distance;
    if (result.nearest_squared_mahalanobis != nullptr) result.nearest_squared_mahalanobis[at] = nearest;
  }

  const host_plan plan_;
  const shape shape_;
  const mixture<T> mixture_;
  const T* const features_;
  std::int64_t stride_;
  arena arena_;
  host_buffers<T> b_;
  host_operands<T, Threads> operands_;

  // The call.
  loss_options<T> options_;
  label_reader labels_;
  T alpha_ = 0;
  bool alpha_usable_ = true;
  bool find_best_ = false;
  bool skip_ignored_ = false;  // rows without a label to count take part only where no loss is computed

  // The tile at work: samples [first_row_, first_row_ + row_count_), classes [first_class_, first_class_ +
  // class_count_).
  std::int64_t first_row_ = 0, row_count_ = 0, first_class_ = 0, class_count_ = 0;
  T* tile_ = nullptr;
  std::int64_t tile_stride_ = 0;
};

// The three ways into the driver, and all that a program has to compile of it: a large one declares them
// `extern template` in its files and instantiates them in one (tests/support/instantiated.hpp does).

template <class T, class Threads>
void run_loss(const host_plan& plan, const shape& s, const mixture<T>& m, const loss_options<T>& o,
              const T* features, label_reader labels, const T* read_state, const T* upstream,
              const loss_result<T>& result, const gradients<T, T>& gradient, const workspace& w) {
  host_driver<T, Threads>(plan, s, m, features, w).loss(o, labels, read_state, upstream, result, gradient);
}

template <class T, class Threads>
void run_logits(const host_plan& plan, const shape& s, const mixture<T>& m, const loss_options<T>& o,
                const T* features, label_reader labels, T* out, const workspace& w) {
  host_driver<T, Threads>(plan, s, m, features, w).logits(o, labels, out);
}

template <class T, class Threads>
void run_score(const host_plan& plan, const shape& s, const mixture<T>& m, const T* features,
               const score_result<T>& result, const workspace& w) {
  host_driver<T, Threads>(plan, s, m, features, w).score(result);
}

}  // namespace lgm::detail
