// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <lgm/column.hpp>
#include <lgm/detail/check.hpp>
#include <lgm/detail/host/tiles.hpp>
#include <lgm/detail/loss_call.hpp>
#include <lgm/detail/loss_row.hpp>
#include <lgm/row.hpp>
#include <lgm/types.hpp>
#include <numeric>

// Losses and gradients on the host: tiles of samples and classes, one after the other. What is done with a row is in
// loss_row.hpp.

namespace lgm::detail {

// Kind: of the targets; what the others need is not compiled.
template <class T, class Threads, target_kind Kind>
class host_loss {
 public:
  using call_type = loss_call<T, one_kind<Kind>>;

  host_loss(const host_plan& plan, const call_type& call, const workspace& w)
      : call_(call),
        t_(plan, call.shape, call.mixture, static_cast<const T*>(call.features.data), w),
        b_(t_.buffers) {}

  // What the call requests: losses, gradients or both.
  void run() {
    const loss_requests& requested = call_.requested;
    const shape& s = call_.shape;
    // Where a tile has whole rows, one visit to each row turns it into weights. Else the evidence of all class tiles comes
    // first.
    const bool one_visit = requested.gather && requested.differentiate && t_.plan.whole_rows && s.classes > 0;
    if (call_.log_cutoff > numeric<T>::negligible) t_.expect_zeros();
    begin();
    if (s.samples == 0) clear_parameters();
    const bool all_count = !call_.is_grad_logits() && t_.state().counted == s.samples;
    t_.for_row_tiles(requested.visit ? s.samples : 0, all_count, call_.shares_states, [&] {
      t_.for_rows(
          [&](std::int64_t i, std::int64_t) { prepare_row(group_type{}, call_, t_, i, b_.record[i]); });
      if constexpr (Kind != target_kind::grad_logits) {
        if (!one_visit) {
          if (requested.gather) {
            t_.for_class_tiles([&] {
              t_.make_products();
              t_.for_rows([&](std::int64_t i, std::int64_t) { gather(i); });
            });
          }
          t_.for_rows([&](std::int64_t i, std::int64_t) { finish(i); });
        }
      }
      if (requested.differentiate) make_gradients(one_visit);
      if (requested.report) add_losses();
    });
    if (requested.report) write_sums(call_, t_.state());
  }

 private:
  using group_type = packet_group<T>;
  using row_type = typename group_type::row;

  // The state of the call before its first tile.
  void begin() {
    const shape& s = call_.shape;
    const loss_options<T>& o = call_.options;
    sample_count all{0, 0};
    for (std::int64_t i = 0; i < s.samples; ++i) {
      const sample_count one = call_.count_of(i);
      all.weight += one.weight;
      all.counted += one.counted;
    }
    const std::int64_t classes = total_classes(s);
    T class_weight_sum = static_cast<T>(classes);
    if (o.class_weight != nullptr && o.label_smoothing != T(0))
      class_weight_sum = static_cast<T>(std::accumulate(o.class_weight, o.class_weight + classes, 0.0));
    t_.begin(begin_state(call_, all, class_weight_sum, T(0), T(0)));
  }

  void gather(std::int64_t i) {
    if (!t_.counts(i)) return;
    row_record<T>& r = b_.record[i];
    t_.for_ranges(
        i, [&](const auto& range, row_type& row) { gather_row(group_type{}, call_, t_, i, range, row, r); });
  }
  void finish(std::int64_t i) { finish_evidence(group_type{}, call_, t_, i, b_.record[i]); }

  // In the order of the samples, so that the sums do not depend on tiles and threads.
  void add_losses() {
    call_state<T>& sums = t_.state();
    for (std::int64_t i = 0; i < t_.row_count; ++i) {
      const row_losses<T>& losses = b_.record[i].losses;
      sums.total += static_cast<double>(losses.total);
      sums.classification += static_cast<double>(losses.classification);
      sums.likelihood += static_cast<double>(losses.likelihood);
      sums.correct += losses.correct;
    }
  }

  // The gradients of a row tile, class tile by class tile. one_visit: the one class tile has all classes, and the rows'
  // evidence is yet to be gathered.
  void make_gradients(bool one_visit) {
    const shape& s = call_.shape;
    const std::int64_t stride = row_stride(s.gradient_stride, s.dims);
    T* const features = static_cast<T*>(call_.gradient.feature);
    T* const out = features == nullptr ? nullptr : features + t_.first_row * stride;
    if (out != nullptr && s.classes == 0)
      for (std::int64_t i = 0; i < t_.row_count; ++i)
        std::fill(out + i * stride, out + i * stride + s.dims, T(0));
    const bool needs_logits = call_.requested.logits;
    t_.for_class_tiles([&] {
      if (needs_logits)
        t_.make_products();
      else
        t_.prepare_constants();
      make_weights(one_visit, needs_logits, out, stride);
      // Unless they add to earlier ones, the means' gradients are made where they belong.
      T* const mean = call_.gradient.mean;
      T* const whole = call_.gradient.accumulate || t_.first_row > 0 ? nullptr : mean;
      t_.multiply_weights(out, stride, call_.wants_parameters(), mean != nullptr,
                          t_.diagonal() && call_.wants_log_variance(), whole,
                          [&](std::int64_t begin, std::int64_t count, T* differences, T* squares) {
                            finish_parameters(begin, count, differences, squares);
                          });
    });
  }

  // Products to weights, with their sums by row and, where parameters need them, by class. out: feature gradients of the
  // tile, to which the products will add; null: not wanted.
  void make_weights(bool one_visit, bool needs_logits, T* out, std::int64_t stride) {
    const std::int64_t parts = t_.row_parts(), classes = t_.class_count, dims = call_.shape.dims;
    const bool parameters = call_.wants_parameters(), add = t_.first_class > 0;
    class_sum_rows<T> all;
    if (parameters) all.weight = b_.class_sum;
    if (call_.wants_distances()) all.distance = b_.class_distance;
    if (parameters && call_.is_soft()) {
      all.variance_weight = b_.class_variance_weight;
      all.probability = b_.class_probability;
    }
    T* const arrays[] = {all.weight, all.distance, all.variance_weight, all.probability};
    for (T* sum : arrays)
      if (sum != nullptr) std::fill(sum, sum + parts * classes, T(0));
    t_.for_rows([&](std::int64_t i, std::int64_t part) {
      const group_type group;
      row_record<T>& r = b_.record[i];
      if constexpr (Kind != target_kind::grad_logits) {
        if (one_visit) {
          gather(i);
          finish(i);
        }
      }
      row_type row = t_.held_row(i);
      T* const gradient = out == nullptr ? nullptr : out + i * stride;
      if (!t_.counts(i)) {
        std::fill(row.data, row.data + row.size, T(0));
        if (gradient != nullptr && !add) std::fill(gradient, gradient + dims, T(0));
        return;
      }
      if (needs_logits && !one_visit)
        t_.for_ranges(i, [&](const auto& range, row_type& logits) {
          row_logits(group, call_, t_, i, range, logits, r);
        });
      const auto at = [&](T* sums) { return sums == nullptr ? nullptr : sums + part * classes; };
      const class_sum_rows<T> sums{at(all.weight), at(all.distance), at(all.variance_weight),
                                   at(all.probability)};
      const weight_sums<T> weights =
          row_weights(group, call_, t_, i, t_.whole_range(i), row, r, sums, unrounded{});
      if (gradient != nullptr)
        init_gradient_row(group, call_, t_, i, r, weights, t_.local_target(i) >= 0, add, gradient);
    });
    for (T* sum : arrays)
      for (std::int64_t part = 1; sum != nullptr && part < parts; ++part)
        group_type{}.for_each(classes,
                              [&](auto k) { store(sum, k, load(sum, k) + load(sum + part * classes, k)); });
  }

  // Gradients of the parameters of classes [begin, begin + count) of the tile, from their sums over samples.
  void finish_parameters(std::int64_t begin, std::int64_t count, T* differences, T* squares) {
    const group_type group;
    const std::int64_t dims = call_.shape.dims, first = t_.first_class + begin;
    const bool add = call_.gradient.accumulate || t_.first_row > 0;
    class_sums<T> sums[host_plan::largest_block];
    for (std::int64_t c = 0; c < count; ++c) {
      class_sums<T>& s = sums[c];
      const T weight = b_.class_sum[begin + c];
      s.difference = differences == nullptr ? nullptr : differences + c * dims;
      s.square = squares == nullptr ? nullptr : squares + c * dims;
      s.variance_weight = call_.is_soft() ? b_.class_variance_weight[begin + c] : weight;
      s.probability = call_.is_soft() ? b_.class_probability[begin + c] : -weight;
      if (b_.class_distance != nullptr) s.distance = b_.class_distance[begin + c];
    }
    for (std::int64_t i = 0; i < t_.row_count; ++i) {
      const std::int64_t z = b_.target[i] - first;
      if (b_.target[i] < 0 || z < 0 || z >= count) continue;
      const row_record<T>& r = b_.record[i];
      add_target(group, dims, t_.features(i), t_.parameters_of(b_.target[i]).mean, r.weight,
                 r.variance_weight, r.residual, r.target.distance, sums[z]);
    }
    for (std::int64_t c = 0; c < count; ++c) {
      const std::int64_t k = first + c;
      const class_parameters<T> p = t_.parameters_of(k);
      if (call_.gradient.mean != nullptr)
        write_mean_gradient(group, dims, p, sums[c], add, call_.gradient.mean + k * dims);
      if (call_.wants_log_variance())
        write_log_variance_gradient(group, dims, p, sums[c], add,
                                    call_.gradient.log_variance + k * (t_.diagonal() ? dims : 1));
      if (call_.gradient.log_prior != nullptr)
        call_.gradient.log_prior[k] =
            add ? call_.gradient.log_prior[k] + sums[c].probability : sums[c].probability;
    }
  }

  void clear_parameters() const {
    const loss_gradients<T>& g = call_.gradient;
    if (g.accumulate) return;
    const std::int64_t classes = call_.shape.classes, all = classes * call_.shape.dims;
    if (g.mean != nullptr) std::fill(g.mean, g.mean + all, T(0));
    if (call_.wants_log_variance())
      std::fill(g.log_variance, g.log_variance + log_variance_size(call_.shape), T(0));
    if (g.log_prior != nullptr) std::fill(g.log_prior, g.log_prior + classes, T(0));
  }

  const call_type call_;
  host_tiles<T, Threads> t_;
  host_buffers<T>& b_;
};

}  // namespace lgm::detail
