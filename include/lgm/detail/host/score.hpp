// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/detail/check.hpp>
#include <lgm/detail/host/tiles.hpp>
#include <lgm/detail/loss_call.hpp>
#include <lgm/detail/score_row.hpp>
#include <lgm/row.hpp>
#include <lgm/types.hpp>

// Logits and scores on the host: tiles of samples and classes, one after the other. What is done with a row is in
// score_row.hpp.

namespace lgm::detail {

template <class T, class Threads>
class host_score {
 public:
  using call_type = loss_call<T, one_kind<target_kind::labels>>;

  // call: without results; with labels where logits are to have a margin.
  host_score(const host_plan& plan, const call_type& call, const workspace& w)
      : call_(call),
        t_(plan, call.shape, call.mixture, static_cast<const T*>(call.features.data), w),
        b_(t_.buffers) {}

  // eq:logit into out, row stride shape.logits_stride; with labels, the margin at the targets.
  void logits(T* out) {
    const shape& s = call_.shape;
    const std::int64_t stride = row_stride(s.logits_stride, s.classes);
    t_.begin(begin_state(call_, {0, 0}, T(0), T(0), T(0)));
    t_.for_row_tiles(s.samples, true, false, [&] {
      t_.for_rows([&](std::int64_t i, std::int64_t) {
        prepare_plain_row(group_type{}, call_, t_, i, false, b_.record[i]);
      });
      t_.for_class_tiles([&] {
        t_.tile = out + t_.first_row * stride + t_.first_class;
        t_.tile_stride = stride;
        t_.make_products();
        t_.for_rows([&](std::int64_t i, std::int64_t) {
          row_record<T>& r = b_.record[i];
          T& known = r.evidence.others.max;
          t_.for_ranges(i, [&](const auto& range, auto& row) {
            known = larger(known, finish_logits(group_type{}, row, range.constants, r.frame, range.target,
                                                known, t_.direct(i, range.first, r.frame)));
            if (range.target >= 0) row.data[range.target] = r.target.logit;
          });
        });
      });
    });
  }

  void score(const score_result<T>& result) {
    const shape& s = call_.shape;
    const score_call<T> scores(s, call_.mixture, result);
    const group_type group;
    const bool priors = result.log_mixture != nullptr;
    t_.begin(
        begin_state(call_, {0, 0}, T(0), T(0), priors ? log_sum_of_priors(group, s, call_.mixture) : T(0)));
    const auto write = [&](std::int64_t i) {
      write_scores(group, scores, s, call_.mixture, t_, i, b_.record[i]);
    };
    t_.for_row_tiles(scores.gather || scores.nearest ? s.samples : 0, true, false, [&] {
      t_.for_rows(
          [&](std::int64_t i, std::int64_t) { prepare_plain_row(group, call_, t_, i, true, b_.record[i]); });
      t_.for_class_tiles([&] {
        t_.make_products();
        t_.for_rows([&](std::int64_t i, std::int64_t part) {
          T* const distances = b_.distances + part * t_.class_count;
          t_.for_ranges(i, [&](const auto& range, auto& row) {
            score_row(group, scores, t_, i, range, row, distances, b_.record[i]);
          });
          if (t_.is_last_class_tile()) write(i);
        });
      });
      if (s.classes == 0) t_.for_rows([&](std::int64_t i, std::int64_t) { write(i); });
    });
  }

 private:
  using group_type = packet_group<T>;

  const call_type call_;
  host_tiles<T, Threads> t_;
  host_buffers<T>& b_;
};

}  // namespace lgm::detail
