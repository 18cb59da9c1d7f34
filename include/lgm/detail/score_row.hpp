// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/check.hpp>
#include <lgm/detail/loss_row.hpp>
#include <lgm/detail/row_record.hpp>
#include <lgm/formula.hpp>
#include <lgm/group.hpp>
#include <lgm/row.hpp>
#include <lgm/types.hpp>

// What score does with one sample, on every driver: prepare_plain_row, score_row for each range of its classes, then
// write_scores. Tile and Range are those of loss_row.hpp.

namespace lgm::detail {

// What has to be computed for the outputs of score.
template <class T>
struct score_call {
  score_result<T> result;
  bool nearest_is_best = false;  // the class with the largest logit is the nearest, too
  bool nearest = false;          // the nearest is looked for by itself
  bool find_best = false;
  bool gather = false;  // a row's evidence is summed over its logits

  score_call() = default;
  score_call(const shape& s, const mixture<T>& m, const score_result<T>& r) : result(r) {
    const bool equal_biases =
        m.log_prior == nullptr && (m.log_variance == nullptr || s.covariance == covariance::identity);
    const bool wants_nearest = r.nearest_squared_mahalanobis != nullptr;
    nearest_is_best = wants_nearest && equal_biases;
    nearest = wants_nearest && !nearest_is_best;
    find_best = r.predicted != nullptr || r.posterior != nullptr || r.log_density != nullptr ||
                r.squared_mahalanobis != nullptr || r.entropy != nullptr || nearest_is_best;
    gather = find_best || r.log_mixture != nullptr;
  }
};

// log sum_k p_k, which eq:log_mixture divides by; the priors of a shard are taken as they are.
template <class Group, class T>
LGM_HD T log_sum_of_priors(const Group& any, const shape& s, const mixture<T>& m) {
  const T* const p = m.log_prior;
  if (p == nullptr || s.classes != total_classes(s)) return T(0);
  const auto& group = scalar_group(any);
  log_sum<T> sum;
  sum.max = group.reduce(
      s.classes, -numeric<T>::infinity, [&](std::int64_t k) { return p[k]; }, maximum{});
  const T anchor = sum.anchor();
  sum.sum = group.reduce(
      s.classes, T(0), [&](std::int64_t k) { return std::exp(p[k] - anchor); }, plus{});
  return sum.value();
}

// The record of row i of a call that scores (omit_shared), or writes logits, before any of its logits.
template <class Group, class T, class Kind, class Tile>
LGM_HD void prepare_plain_row(const Group& group, const loss_call<T, Kind>& call, const Tile& tile,
                              std::int64_t i, bool omit_shared, row_record<T>& r) {
  const std::int64_t z = call.label(tile.first_row + i);
  r = {};
  tile.prepare_sample(group, i, true, call.is_class(z) ? local_class(call.shape, z) : -1, r);
  if (!omit_shared) return;
  r.frame = r.frame.bounded();
  r.frame.omit_shared();
}

// Adds a range of row i, of products, to its record: the nearest class, and the evidence.
//   distances  scratch, as long as the row; read where the nearest class is looked for
template <class Group, class T, class Tile, class Range, class Row>
LGM_HD void score_row(const Group& group, const score_call<T>& call, const Tile& tile, std::int64_t i,
                      const Range& range, Row& row, T* distances, row_record<T>& r) {
  const class_constants<T>& c = range.constants;
  const row_frame<T> frame = frame_of(group, row, c, r.frame);
  const auto direct = tile.direct(i, range.first, frame);
  if (call.nearest) r.nearest.take_nearer(nearest_of(group, row, c, frame, range.first, direct, distances));
  if (!call.gather) return;
  const T top = finish_logits(group, row, c, frame, -1, r.best_so_far(frame.omitted), direct);
  row_evidence<T> e = evidence_of(group, row, top, range.first, call.find_best);
  const bool spread = call.result.entropy != nullptr;
  if (spread) add_spread(group, row, e);
  r.add(e, frame.omitted, spread);
}

// The scores of row i, once all classes are in.
template <class Group, class T, class Tile>
LGM_HD void write_scores(const Group& group, const score_call<T>& call, const shape& s, const mixture<T>& m,
                         const Tile& tile, std::int64_t i, const row_record<T>& r) {
  const score_result<T>& scores = call.result;
  const auto features = tile.features(i);
  std::int64_t k = r.evidence.best;
  const T none = numeric<T>::not_a_number,
          fault = r.frame.half_norm * T(0);  // NaN where a feature is not finite
  T posterior = none, distance = none, density = none, nearest = none, uncertainty = none;
  const T log_abs_det = m.log_abs_det != nullptr ? *m.log_abs_det : T(0);
  const auto squared = [&](std::int64_t c) {
    return squared_distance(group, s.dims, features, tile.parameters_of(c));
  };
  const bool overflows = k < 0 && call.find_best && s.classes > 0;
  if (overflows) k = nearest_scaled(scalar_group(group), s, m, features);
  if (k >= 0) {
    posterior = fault + (overflows ? T(1) : T(1) / r.evidence.others.sum);
    if (scores.squared_mahalanobis != nullptr || scores.log_density != nullptr || call.nearest_is_best)
      distance = fault + squared(k);
    if (scores.entropy != nullptr)
      uncertainty = fault + (overflows ? T(0) : entropy(r.evidence.others.sum, r.evidence.spread));
    density = log_density(T(0.5) * distance, half_log_det(group, s.dims, tile.parameters_of(k)), s.dims,
                          log_abs_det);
  }
  if (call.nearest_is_best) {
    if (s.classes > 0) nearest = distance;
  } else if (call.nearest && r.nearest.index >= 0) {
    nearest = fault + squared(r.nearest.index);
  }
  group.one_lane([&] {
    const std::int64_t at = tile.first_row + i;
    if (scores.predicted != nullptr) scores.predicted[at] = k < 0 ? k : s.class_begin + k;
    if (scores.posterior != nullptr) scores.posterior[at] = posterior;
    if (scores.log_density != nullptr) scores.log_density[at] = density;
    if (scores.log_mixture != nullptr)
      scores.log_mixture[at] = log_mixture(r.frame.complete(r.evidence.others.value()),
                                           tile.state().log_prior_sum, s.dims, log_abs_det);
    if (scores.squared_mahalanobis != nullptr) scores.squared_mahalanobis[at] = distance;
    if (scores.nearest_squared_mahalanobis != nullptr) scores.nearest_squared_mahalanobis[at] = nearest;
    if (scores.entropy != nullptr) scores.entropy[at] = uncertainty;
  });
}

}  // namespace lgm::detail
