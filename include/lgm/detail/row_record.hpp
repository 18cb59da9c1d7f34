// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/check.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/formula.hpp>
#include <lgm/row.hpp>
#include <lgm/types.hpp>

namespace lgm::detail {

template <class T>
struct row_losses {
  T total = 0, classification = 0, likelihood = 0;
  bool correct = false;
};

// What a driver keeps for each sample of a tile.
template <class T>
struct row_record {
  row_target<T> target;
  row_evidence<T> evidence;            // of the class tiles so far
  lgm::log_evidence<T> log_evidence;   // once all are in
  nearest_class<T> nearest;            // score
  label_coefficients<T> coefficients;  // of a labelled row
  T total = 0;                         // the sum of its c_k; of soft targets before the sample's weight
  T likelihood = 0;                    // eq:likelihood of soft targets, of the class tiles so far
  struct {
    std::int64_t index = -1;
    T value = 0;
  } best, target_class;  // soft targets: the class with the largest logit without margin, and target
  row_losses<T> losses;
  row_frame<T> frame;  // what its logits, and the evidence, leave out
  T upstream = 0;      // what the gradients of this row are multiplied by
  // Of the target, times upstream: w_z, lambda - g_z, -g_z, and w_z + g_z.
  T weight = 0, variance_weight = 0, residual = 0, extra = 0;
  std::int64_t deciding = -1;  // soft targets of a whole mixture: the class that the frame was chosen by

  // Sets the frame from |x'|^2 / 2; nothing is left out yet. Returns the row's fault: 0, or NaN where a feature is not finite,
  // and then all results of the row are NaN.
  template <class Group, class Features>
  LGM_HD T begin_frame(const Group& group, const shape& s, const Features& features, T half_norm,
                       T base_scale) {
    const T fault = half_norm <= -numeric<T>::lowest ? T(0) : not_finite(group, s.dims, features);
    frame = row_frame<T>(s.covariance == covariance::diagonal ? fault : half_norm + fault, base_scale);
    return fault;
  }
  // fault: of begin_frame.
  LGM_HD void take_target(const row_target<T>& t, T fault) {
    target = t;
    target.distance += fault;
    target.logit += fault;
    target.logit_without_margin += fault;
  }

  LGM_HD void weigh_target(T target_residual, T alpha, T lambda) {
    weight = upstream * target_weight(target_residual, alpha, lambda);
    variance_weight = upstream * (target_residual + lambda);
    residual = upstream * target_residual;
    extra = upstream * detail::fused(alpha, target_residual, lambda);
  }

  // The class whose mean the feature gradient of a tile refers to, -1: none.
  LGM_HD std::int64_t class_of_terms(std::int64_t labelled) const {
    return deciding < 0 ? labelled : deciding;
  }

  // The best logit so far, in a frame that omits `omitted`.
  LGM_HD T best_so_far(T omitted) const { return evidence.others.max - (frame.omitted - omitted); }
  // Adds the evidence of other classes in a frame that omits `omitted`. If either has a near class, so has the sum. spread:
  // whether the spread is wanted.
  LGM_HD void add(row_evidence<T> e, T omitted, bool spread) {
    if (omitted != frame.omitted) {
      (omitted == T(0) ? evidence : e).others.max -= frame.shared();
      frame.omit_nothing();
    }
    if (spread) evidence.spread = evidence.merged_spread(e);
    evidence.merge(e);
  }
  // The row_state of the row: see types.hpp.
  LGM_HD void write_state(const shape& s, bool soft, const log_parts<T>& others, T* state) const {
    state[0] = !is_shard(s) ? others.max : soft ? total : target.logit;
    state[1] = !is_shard(s) ? others.log : others.value();
  }
  // The evidence of the other classes in it. The first number of a shard's is read elsewhere.
  LGM_HD static log_parts<T> read_state(const shape& s, const T* state) {
    return is_shard(s) ? log_parts<T>(state[1], T(0)) : log_parts<T>(state[0], state[1]);
  }
};

// What a row's weights are made from. grad_logits: a gradient of the logits that the caller gives; it need not add up to 0.
enum class target_kind { labels, soft, grad_logits };

// The terms of a sample's feature gradient in a tile of its classes.
//   sums        of the tile's weights
//   kind        of the call's targets
//   is_here     whether the target is a class of the tile
//   scale       1 / Lambda_z; diagonal: 1
//   base_scale  class_constants::base_scale
template <class T>
LGM_HD feature_terms<T> terms_of(const shape& s, const row_record<T>& r, const weight_sums<T>& sums,
                                 target_kind kind, bool is_here, T scale, T base_scale) {
  feature_terms<T> t;
  if (s.covariance == covariance::diagonal) {
    if (is_here) t.difference = r.weight;
    return t;
  }
  t.sample = sums.beyond;
  if (kind == target_kind::grad_logits) {
    t.sample += base_scale * sums.weight;
    if (is_here) t.difference = scale * r.weight;
  } else if (kind == target_kind::soft) {
    t.sample += base_scale * sums.extra;
    // Exactly 0 but for the rounding of the weights in the products.
    if (r.deciding >= 0) t.mean = base_scale * (sums.weight - sums.extra);
  } else {
    if (is_here) t.difference = detail::fused(base_scale, r.extra, (scale - base_scale) * r.weight);
    // A shard does not see the other shards' weights, but knows their sum.
    if (!is_shard(s))
      t.mean = base_scale * sums.weight;
    else if (is_here)
      t.mean = -base_scale * r.residual;
  }
  return t;
}

}  // namespace lgm::detail
