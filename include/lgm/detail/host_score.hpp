// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <lgm/detail/check.hpp>
#include <lgm/detail/host_tiles.hpp>
#include <lgm/row.hpp>
#include <lgm/types.hpp>
#include <limits>

// Logits and scores on the host.

namespace lgm::detail {

template <class T, class Threads>
class host_score {
 public:
  host_score(const host_plan& plan, const shape& s, const mixture<T>& m, const T* features,
             const workspace& w)
      : t_(plan, s, m, features, w), b_(t_.buffers) {}

  // eq:logit into out, row stride shape.logits_stride; with labels, the margin at the targets.
  void logits(const loss_options<T>& o, label_reader labels, T* out) {
    const shape& s = t_.shape;
    const T alpha = host_alpha(o);
    const std::int64_t stride = row_stride(s.logits_stride, s.classes);
    t_.for_row_tiles(s.samples, true, [&] {
      t_.for_rows([&](std::int64_t i, std::int64_t) {
        const std::int64_t label = labels ? labels[t_.first_row + i] : o.ignore_label;
        b_.record[i] = {};
        t_.take_row(i, label != o.ignore_label ? local_class(s, label) : -1, alpha);
      });
      t_.for_class_tiles([&] {
        t_.tile = out + t_.first_row * stride + t_.first_class;
        t_.tile_stride = stride;
        t_.make_products();
        t_.for_rows([&](std::int64_t i, std::int64_t) {
          row_record<T>& r = b_.record[i];
          t_.for_parts(i, [&](auto& part) {
            r.evidence.others.max =
                larger(r.evidence.others.max, t_.finish(i, part, part.target, r.evidence.others.max));
            if (part.target >= 0) part.row.data[part.target] = r.target.logit;
          });
        });
      });
    });
  }

  void score(const score_result<T>& result) {
    const bool wants_nearest = result.nearest_squared_mahalanobis != nullptr;
    nearest_is_best_ = wants_nearest && equal_biases();
    find_best_ = result.predicted != nullptr || result.posterior != nullptr ||
                 result.log_density != nullptr || result.squared_mahalanobis != nullptr || nearest_is_best_;
    const bool gather = find_best_ || result.log_mixture != nullptr;
    const bool nearest = wants_nearest && !nearest_is_best_;
    const T log_prior_sum = result.log_mixture != nullptr ? log_sum_of_priors() : T(0);
    t_.for_row_tiles(gather || nearest ? t_.shape.samples : 0, true, [&] {
      t_.for_rows([&](std::int64_t i, std::int64_t) {
        b_.record[i] = {};
        t_.take_row(i, -1, T(0));
        t_.omit_shared(i, T(0));
      });
      t_.for_class_tiles([&] {
        t_.make_products();
        t_.for_rows([&](std::int64_t i, std::int64_t part) {
          gather_row(i, nearest ? b_.class_sum + part * t_.class_count : nullptr, gather);
          if (t_.is_last_class_tile()) write_scores(result, i, log_prior_sum);
        });
      });
      if (t_.shape.classes == 0)
        t_.for_rows([&](std::int64_t i, std::int64_t) { write_scores(result, i, log_prior_sum); });
    });
  }

 private:
  using group_type = packet_group<T>;

  // What the classes of the tile say of row i. nearest: scratch [classes of the tile], null where it is not asked for (the sums
  // by class, which are not in use); evidence: whether it is.
  void gather_row(std::int64_t i, T* nearest, bool evidence) {
    row_record<T>& r = b_.record[i];
    const group_type group;
    t_.for_parts(i, [&](auto& part) {
      const std::int64_t first = t_.first_class + part.first;
      const row_frame<T> frame = frame_of(group, part.row, part.constants, r.frame);
      const auto direct = t_.direct(i, part, frame);
      if (nearest != nullptr)
        r.nearest.take_nearer(nearest_of(group, part.row, part.constants, frame, first, direct, nearest));
      if (!evidence) return;
      const T top =
          finish_logits(group, part.row, part.constants, frame, -1, r.best_so_far(frame.omitted), direct);
      r.add(evidence_of(group, part.row, top, first, find_best_), frame.omitted);
    });
  }

  // Whether the class with the largest logit is the nearest.
  bool equal_biases() const {
    const bool unit_variances =
        t_.mixture.log_variance == nullptr || t_.shape.covariance == covariance::identity;
    return t_.mixture.log_prior == nullptr && unit_variances;
  }

  // log sum_k p_k, which eq:log_mixture divides by; the priors of a shard are taken as they are.
  T log_sum_of_priors() const {
    if (t_.mixture.log_prior == nullptr || t_.shape.classes != total_classes(t_.shape)) return T(0);
    log_sum<T> sum;
    for (std::int64_t k = 0; k < t_.shape.classes; ++k) sum.merge({t_.mixture.log_prior[k], T(1)});
    return sum.value();
  }

  void write_scores(const score_result<T>& result, std::int64_t i, T log_prior_sum) const {
    const row_record<T>& r = b_.record[i];
    const std::int64_t at = t_.first_row + i;
    std::int64_t k = r.evidence.best;
    const T fault = r.frame.half_norm * T(0);  // not a number where a feature is none
    T posterior = numeric<T>::not_a_number, distance = posterior, density = posterior, nearest = posterior;
    const T log_abs_det = t_.mixture.log_abs_det != nullptr ? *t_.mixture.log_abs_det : T(0);
    const group_type group;
    const auto squared = [&](std::int64_t c) {
      return squared_distance(group, t_.shape.dims, t_.features(i), t_.parameters_of(c));
    };
    const bool overflows = k < 0 && find_best_ && t_.shape.classes > 0;
    if (overflows) k = nearest_scaled(serial_group{}, t_.shape, t_.mixture, t_.features(i));
    if (k >= 0) {
      posterior = fault + (overflows ? T(1) : T(1) / r.evidence.others.sum);
      if (result.squared_mahalanobis != nullptr || result.log_density != nullptr || nearest_is_best_)
        distance = fault + squared(k);
      density = log_density(T(0.5) * distance, half_log_det(group, t_.shape.dims, t_.parameters_of(k)),
                            t_.shape.dims, log_abs_det);
    }
    if (nearest_is_best_) {
      if (t_.shape.classes > 0) nearest = distance;
    } else if (result.nearest_squared_mahalanobis != nullptr && r.nearest.index >= 0) {
      nearest = fault + squared(r.nearest.index);
    }
    if (result.predicted != nullptr) result.predicted[at] = k < 0 ? k : t_.shape.class_begin + k;
    if (result.posterior != nullptr) result.posterior[at] = posterior;
    if (result.log_density != nullptr) result.log_density[at] = density;
    if (result.log_mixture != nullptr)
      result.log_mixture[at] =
          log_mixture(r.frame.complete(r.evidence.others.value()), log_prior_sum, t_.shape.dims, log_abs_det);
    if (result.squared_mahalanobis != nullptr) result.squared_mahalanobis[at] = distance;
    if (result.nearest_squared_mahalanobis != nullptr) result.nearest_squared_mahalanobis[at] = nearest;
  }

  host_tiles<T, Threads> t_;
  host_buffers<T>& b_;
  bool find_best_ = false, nearest_is_best_ = false;
};

}  // namespace lgm::detail
