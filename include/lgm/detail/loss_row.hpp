// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/check.hpp>
#include <lgm/detail/loss_call.hpp>
#include <lgm/detail/row_record.hpp>
#include <lgm/formula.hpp>
#include <lgm/group.hpp>
#include <lgm/row.hpp>
#include <lgm/soft_row.hpp>
#include <lgm/types.hpp>

// What a loss does with one sample, on every driver: prepare_row, gather_row for each range of its classes, finish_evidence,
// then row_logits and row_weights for each range again, and init_gradient_row. Each function is run by one group. A record
// that is passed by reference is the lane's own, and the same in all lanes.
//
// A Tile gives access to the samples and classes that a driver works on:
//   first_row                       its first sample; `i` counts from there
//   state()                         the call_state
//   features(i), centred(i)         [dims], the sample as it is, and less origin()
//   origin()                        [dims]; null: 0
//   parameters_of(k), log_prior(k)  of class k of the call
//   distance(group, i, k, frame)    d_k - frame.omitted of row i and class k of the call, from the differences
//   direct(i, first, frame)         a function of k: the same for class first + k, called by one lane alone
//   target(i)                       the class of the call that is the target of row i; -1: none
//   counts(i)                       whether row i counts
//   prepare_sample(group, i, counts, target, record)
//                                   sets the two above, and what the record says of features and target
// A Range is a part of a tile's classes:
//   first      its first class, an index of the call
//   constants  class_constants of the range
//   target     the index in the range of the row's target; -1: not there

namespace lgm::detail {

// The class among the first `classes` with the largest of q, the lowest on ties.
template <class T>
struct found_class {
  std::int64_t index;
  T value;
};
template <class Group, class T>
LGM_HD found_class<T> largest_target(const Group& any, const T* q, std::int64_t classes) {
  const auto& group = scalar_group(any);
  const T most = group.reduce(
      classes, -numeric<T>::infinity, [&](std::int64_t k) { return q[k]; }, maximum{});
  const std::int64_t k = group.reduce(
      classes, classes, [&](std::int64_t c) { return q[c] == most ? c : classes; }, minimum{});
  return {k < classes ? k : 0, most};
}

// Whether the gradient of a row's logits, given by the caller, is not zero throughout. A row of zeros, without a likelihood
// term, has no gradient, whatever its features.
template <class Group, class T>
LGM_HD bool needs_features(const Group& any, const T* grad_logits, std::int64_t classes) {
  if (classes > 0 && !(grad_logits[0] == T(0))) return true;
  const auto& group = scalar_group(any);
  return group.reduce(
             classes, std::int64_t(0),
             [&](std::int64_t k) { return std::int64_t(grad_logits[k] == T(0) ? 0 : 1); }, maximum{}) != 0;
}

// Chooses what the row's logits leave out. In a whole mixture the target's class decides (soft targets: the class with the
// largest target), so that backward chooses as forward did. All shards leave out the same.
template <class Group, class T, class Kind, class Tile>
LGM_HD void choose_frame(const Group& group, const loss_call<T, Kind>& call, const Tile& tile, std::int64_t i,
                         std::int64_t target, row_record<T>& r) {
  const shape& s = call.shape;
  r.frame = r.frame.bounded();
  r.frame.omit_shared();
  const bool whole = !is_shard(s) && s.classes > 0;
  if constexpr (Kind::may_be(target_kind::soft)) {
    if (call.is_soft()) {
      if (!whole) return;
      const T* const q = call.soft_targets_of(tile.first_row + i, 0, T(0)).target;
      r.deciding = largest_target(group, q, s.classes).index;
      r.frame.omit_unless_near(tile.distance(group, i, r.deciding, row_frame<T>{}));
      return;
    }
  }
  if (target < 0) return;
  if (whole) r.frame.omit_unless_near(r.target.distance);
  omit_from(group, s.dims, tile.features(i), tile.parameters_of(target), tile.log_prior(target),
            tile.state().alpha, r.frame, tile.origin(), tile.state().base_scale, r.target);
}

// The record of row i before any of its logits: its target's terms, from the differences, and what its logits leave out. Rows
// that do not count are not read. Where the caller gives the gradient of the logits, nothing is left out.
template <class Group, class T, class Kind, class Tile>
LGM_HD void prepare_row(const Group& group, const loss_call<T, Kind>& call, const Tile& tile, std::int64_t i,
                        row_record<T>& r) {
  const loss_options<T>& o = call.options;
  const std::int64_t sample = tile.first_row + i, z = call.label(sample);
  const call_state<T>& state = tile.state();
  r = {};
  const bool labelled = call.is_class(z);
  if (labelled) {
    const T weight = o.class_weight != nullptr ? o.class_weight[z] : T(1);
    r.coefficients = label_coefficients<T>(call.sample_weight(sample), weight, state.class_weight_sum,
                                           o.label_smoothing, total_classes(call.shape));
  }
  const std::int64_t local = local_class(call.shape, z);
  const bool here = labelled && local >= 0;
  if (!here) r.target.logit = -numeric<T>::infinity;
  const std::int64_t target = here ? local : -1;
  bool counts = labelled || call.is_soft();
  if constexpr (Kind::may_be(target_kind::grad_logits)) {
    if (call.is_grad_logits())
      counts = (here && o.lambda != T(0)) ||
               needs_features(group, call.grad_logits_of(sample), call.shape.classes);
  }
  tile.prepare_sample(group, i, counts, target, r);
  if constexpr (Kind::may_be(target_kind::grad_logits)) {
    if (call.is_grad_logits()) {
      r.upstream = state.alpha_usable ? call.upstream_of(sample) : T(0);
      const T likelihood = o.lambda == T(0) ? T(0) : o.lambda * r.coefficients.likelihood / state.divisor;
      if (here) r.weigh_target(-call.grad_logits_of(sample)[target], state.alpha, likelihood);
      return;
    }
  }
  if (counts) choose_frame(group, call, tile, i, target, r);
}

// Notes, of a row without margin, its best class, and the class with the largest soft target.
template <class Group, class Row, class T>
LGM_HD void note_best(const Group& group, const Row& row, const soft_row<T>& soft, T top, std::int64_t first,
                      row_record<T>& r) {
  const row_evidence<T> best = evidence_of(group, row, top, first, true);
  if (best.best >= 0 && (r.best.index < 0 || best.others.max > r.best.value)) {
    r.best.index = best.best;
    r.best.value = best.others.max;
  }
  const found_class<T> most = largest_target(group, soft.target, row.size);
  if (row.size > 0 && (r.target_class.index < 0 || most.value > r.target_class.value)) {
    r.target_class.index = first + most.index;
    r.target_class.value = most.value;
  }
}

// Turns a range of row i from products into logits, and adds it to the row's evidence.
template <class Group, class T, class Kind, class Tile, class Range, class Row>
LGM_HD void gather_row(const Group& group, const loss_call<T, Kind>& call, const Tile& tile, std::int64_t i,
                       const Range& range, Row& row, row_record<T>& r) {
  const class_constants<T>& c = range.constants;
  const loss_requests& requested = call.requested;
  const auto direct = tile.direct(i, range.first, r.frame);
  T top = finish_logits(group, row, c, r.frame, range.target, larger(r.evidence.others.max, r.target.logit),
                        direct);
  row_evidence<T> e;
  if constexpr (Kind::may_be(target_kind::soft)) {
    if (call.is_soft()) {
      const soft_row<T> q = call.soft_targets_of(tile.first_row + i, range.first, tile.state().alpha);
      if (requested.find_best) note_best(group, row, q, top, range.first, r);
      top = add_soft_margin(group, row, c, r.frame, q, r.evidence.others.max, direct);
      e = evidence_of(group, row, top, range.first, false);
      add_gap(
          group, row, [&](auto k) { return q.coefficient(k); }, e);
      if (requested.likelihood) r.likelihood += soft_likelihood(group, row, c, r.frame, q);
      r.evidence.merge(e);
      return;
    }
  }
  if constexpr (Kind::may_be(target_kind::labels)) {
    e = evidence_of(group, row, top, range.first, requested.find_best);
    if (requested.gap) {
      using lgm::load;
      using lgm::replace;
      const T *const weight = call.class_weights(range.first), *const bias = c.bias;
      const T each = r.coefficients.smoothing;
      add_gap(
          group, row,
          [&](auto k) {
            using V = decltype(load(bias, k));
            V coefficient(each);
            if (weight != nullptr) coefficient = coefficient * load(weight, k);
            replace(coefficient, k, range.target, T(0));
            return coefficient;
          },
          e);
    }
    r.evidence.merge(e);
  }
}

// Whether the target has the largest logit without margin. Near a tie the product's rounding must not
// decide, so both are then computed from the differences, as a label's logit always is.
template <class Group, class T, class Kind, class Tile>
LGM_HD bool is_correct(const Group& group, const loss_call<T, Kind>& call, const Tile& tile, std::int64_t i,
                       const row_record<T>& r) {
  const auto exact = [&](std::int64_t k) {
    return logit(tile.log_prior(k) - half_log_det(group, call.shape.dims, tile.parameters_of(k)),
                 tile.distance(group, i, k, r.frame), T(1));
  };
  const bool soft = call.is_soft();
  const std::int64_t z = soft ? r.target_class.index : tile.target(i);
  const std::int64_t k = soft ? r.best.index : r.evidence.best;
  if (z < 0) return false;
  if (z == k) return true;
  const T target = soft ? exact(z) : r.target.logit_without_margin;
  T best = soft ? r.best.value : r.evidence.others.max;
  if (k >= 0 && std::fabs(target - best) <= T(1e-3) * (T(1) + std::fabs(best))) best = exact(k);
  return target > best || (target == best && (k < 0 || z < k));
}

// Puts the row's losses into its record, and writes the results of the sample that are wanted.
template <class Group, class T, class Kind, class Tile>
LGM_HD void write_losses(const Group& group, const loss_call<T, Kind>& call, const Tile& tile, std::int64_t i,
                         const log_parts<T>& others, const rest_terms<T>& terms, row_record<T>& r) {
  const std::int64_t sample = tile.first_row + i;
  const bool counts = tile.counts(i);
  T classification = 0, likelihood = 0;
  if (counts) {
    if (call.is_soft()) {
      classification = call.sample_weight(sample) * r.evidence.classification_loss(r.log_evidence);
      likelihood = call.sample_weight(sample) * r.likelihood;
    } else {
      const bool here = tile.target(i) >= 0, merged = call.row_state != nullptr;
      if (here) {
        classification = r.coefficients.target * terms.classification_loss();
        likelihood = r.coefficients.likelihood * likelihood_loss(r.target.distance, r.target.half_log_det);
      }
      if (call.requested.gap && (here || merged))
        classification += r.evidence.classification_loss(r.log_evidence);
    }
  }
  if (counts ? !tile.state().alpha_usable : call.is_bad(call.label(sample)))
    classification = likelihood = numeric<T>::not_a_number;
  const T total = total_loss(classification, call.options.lambda, likelihood);
  const bool correct = counts && call.requested.find_best && is_correct(group, call, tile, i, r);
  r.losses.total = total;
  r.losses.classification = classification;
  r.losses.likelihood = likelihood;
  r.losses.correct = correct;
  group.one_lane([&] {
    const loss_result<T>& result = call.result;
    const bool each = call.options.reduction == reduction::none;
    if (each && result.total != nullptr) result.total[sample] = total;
    if (each && result.classification != nullptr) result.classification[sample] = classification;
    if (each && result.likelihood != nullptr) result.likelihood[sample] = likelihood;
    if (result.row_state != nullptr) {
      T* const state = result.row_state + 2 * sample;
      state[0] = state[1] = -numeric<T>::infinity;
      if (counts) r.write_state(call.shape, call.is_soft(), others, state);
    }
    if (result.log_evidence != nullptr)
      result.log_evidence[sample] = counts ? r.frame.complete(r.log_evidence.value()) : T(0);
  });
}

// Run once the evidence of all classes is summed, or given: the row's losses, the factor of its gradients, and the target's
// terms of eq:weight.
template <class Group, class T, class Kind, class Tile>
LGM_HD void finish_evidence(const Group& group, const loss_call<T, Kind>& call, const Tile& tile,
                            std::int64_t i, row_record<T>& r) {
  const shape& s = call.shape;
  const std::int64_t sample = tile.first_row + i;
  const T* const given = call.row_state == nullptr ? nullptr : call.row_state + 2 * sample;
  const log_parts<T> others =
      given == nullptr ? log_parts<T>(r.evidence.others) : row_record<T>::read_state(s, given);
  r.total = r.coefficients.total();
  if constexpr (Kind::may_be(target_kind::soft)) {
    if (call.is_soft()) {
      if (given == nullptr)
        r.total = r.evidence.coefficient;
      else if (is_shard(s))
        r.total = given[0];
      else
        r.total = sum_of_coefficients(group, s.classes, call.soft_targets_of(sample, 0, T(0)));
    }
  }
  if (given != nullptr && is_shard(s) && !call.is_soft()) r.target.logit = given[0];
  const rest_terms<T> terms(rest(others, r.target.logit));
  r.log_evidence = log_evidence<T>(r.target.logit, others, terms);
  if (call.requested.report) write_losses(group, call, tile, i, others, terms, r);
  if (!tile.counts(i)) return;
  const call_state<T>& state = tile.state();
  r.upstream = (state.alpha_usable ? call.upstream_of(sample) : T(0)) / state.divisor;
  if (call.is_soft()) r.upstream *= call.sample_weight(sample);
  if (tile.target(i) < 0) return;
  r.weigh_target(r.coefficients.residual(terms.target_residual()), state.alpha,
                 call.options.lambda * r.coefficients.likelihood);
}

// Turns a range of row i from products into the logits that its weights are made of.
template <class Group, class T, class Kind, class Tile, class Range, class Row>
LGM_HD void row_logits(const Group& group, const loss_call<T, Kind>& call, const Tile& tile, std::int64_t i,
                       const Range& range, Row& row, const row_record<T>& r) {
  const class_constants<T>& c = range.constants;
  const auto direct = tile.direct(i, range.first, r.frame);
  const T known = r.log_evidence.anchor, none = -numeric<T>::infinity;
  if constexpr (Kind::may_be(target_kind::grad_logits)) {
    if (call.is_grad_logits()) {
      finish_logits(group, row, c, r.frame, -1, none, direct);
      // Without a margin this only computes again the distances that the gradient weighs.
      const soft_row<T> weighed{call.grad_logits_of(tile.first_row + i) + range.first, nullptr, T(0), T(0),
                                T(0)};
      add_soft_margin(group, row, c, r.frame, weighed, none, direct);
      return;
    }
  }
  if constexpr (Kind::may_be(target_kind::soft)) {
    if (call.is_soft()) {
      finish_logits(group, row, c, r.frame, -1, known, direct);
      add_soft_margin(group, row, c, r.frame,
                      call.soft_targets_of(tile.first_row + i, range.first, tile.state().alpha), known,
                      direct);
      return;
    }
  }
  if constexpr (Kind::may_be(target_kind::labels))
    finish_logits(group, row, c, r.frame, range.target, known, direct);
}

// Turns a range of row i from logits into weights, each rounded; returns their sums.
template <class Group, class T, class Kind, class Tile, class Range, class Row, class Round>
LGM_HD weight_sums<T> row_weights(const Group& group, const loss_call<T, Kind>& call, const Tile& tile,
                                  std::int64_t i, const Range& range, Row& row, const row_record<T>& r,
                                  const class_sum_rows<T>& sums, Round round) {
  const class_constants<T>& c = range.constants;
  const std::int64_t sample = tile.first_row + i;
  weight_sums<T> of_row;
  if constexpr (Kind::may_be(target_kind::grad_logits)) {
    if (call.is_grad_logits())
      of_row = finish_given_weights(group, row, c, r.frame, call.grad_logits_of(sample) + range.first,
                                    -r.upstream, range.target, sums, round);
  }
  if constexpr (Kind::may_be(target_kind::soft)) {
    if (call.is_soft())
      of_row = finish_soft_weights(group, row, c, r.frame, r.log_evidence,
                                   call.soft_targets_of(sample, range.first, tile.state().alpha), r.total,
                                   call.options.lambda, r.upstream, sums, round);
  }
  if constexpr (Kind::may_be(target_kind::labels)) {
    if (call.is_labels())
      of_row = finish_weights(group, row, c, r.frame, r.log_evidence, -r.upstream * r.total,
                              r.upstream * r.coefficients.smoothing, call.class_weights(range.first),
                              range.target, sums, call.log_cutoff, round);
  }
  return of_row;
}

// out [dims] = (add: +=) the part of the feature gradient of row i that the products do not make.
//   weights  sums of the row's weights over the tile
//   is_here  whether the target is a class of the tile
template <class Group, class T, class Kind, class Tile>
LGM_HD void init_gradient_row(const Group& group, const loss_call<T, Kind>& call, const Tile& tile,
                              std::int64_t i, const row_record<T>& r, const weight_sums<T>& weights,
                              bool is_here, bool add, T* out) {
  const std::int64_t z = r.class_of_terms(tile.target(i));
  const class_parameters<T> c = tile.parameters_of(z < 0 ? 0 : z);
  const bool each = call.shape.covariance == covariance::diagonal || c.log_variance == nullptr;
  const T scale = each ? T(1) : inverse_variance(*c.log_variance), base_scale = tile.state().base_scale;
  const feature_terms<T> terms =
      terms_of(call.shape, r, weights, call.kind.get(), is_here, scale, base_scale);
  init_feature_gradient(group, call.shape.dims, tile.features(i), tile.centred(i), terms, c, tile.origin(),
                        add, out);
}

}  // namespace lgm::detail
