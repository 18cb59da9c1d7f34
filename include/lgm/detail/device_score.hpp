// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/detail/check.hpp>
#include <lgm/detail/device.hpp>
#include <lgm/detail/device_rows.hpp>
#include <lgm/detail/device_tiles.hpp>
#include <lgm/row.hpp>
#include <lgm/types.hpp>

// Logits and scores on a device, host_score.hpp's counterpart.

namespace lgm::detail {

template <class T>
struct prepare_plain_kernel {
  device_rows<T> t;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t i) const {
    t.prepare_plain(group, i);
  }
};

// Products to logits, in the caller's memory.
template <class T>
struct logits_kernel {
  device_rows<T> t;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t i = task / t.splits;
    const device_rows<T> own = t.slice(task % t.splits);
    const std::int64_t z = own.local_target(i);
    auto row = group.hold(own.tile_row(i), own.class_count);
    const row_frame<T> frame = t.b.record[i].frame;
    finish_logits(group, row, own.constants(), frame, z, -numeric<T>::infinity, own.direct(i, frame));
    if (z >= 0) {
      const T target = t.b.state->alpha_usable ? t.b.record[i].target.logit : numeric<T>::not_a_number;
      group.for_each(row, [&](T& l, std::int64_t k) {
        if (k == z) l = target;
      });
    }
    row.store(own.tile_row(i));
  }
};

// The scores of row i of the tile, once all classes are in.
template <class Group, class T>
LGM_HD void write_scores(const Group& group, const device_rows<T>& t, std::int64_t i,
                         const row_record<T>& r) {
  const lgm::shape& shape = t.shape;
  const lgm::mixture<T>& mixture = t.mixture;
  const score_result<T>& scores = t.scores;
  const row_wishes& wishes = t.wishes;
  const std::int64_t at = t.first_row + i;
  std::int64_t k = r.evidence.best;
  const T none = numeric<T>::not_a_number,
          fault = r.frame.half_norm * T(0);  // not a number where a feature is none
  T posterior = none, distance = none, density = none, nearest = none;
  const T log_abs_det = mixture.log_abs_det != nullptr ? *mixture.log_abs_det : T(0);
  const auto squared = [&](std::int64_t c) {
    return squared_distance(group, shape.dims, t.features(i), t.parameters_of(c));
  };
  const bool overflows = k < 0 && wishes.find_best && shape.classes > 0;
  if (overflows) k = nearest_scaled(group, shape, mixture, t.features(i));
  if (k >= 0) {
    posterior = fault + (overflows ? T(1) : T(1) / r.evidence.others.sum);
    if (scores.squared_mahalanobis != nullptr || scores.log_density != nullptr || wishes.nearest_is_best)
      distance = fault + squared(k);
    density = log_density(T(0.5) * distance, half_log_det(group, shape.dims, t.parameters_of(k)), shape.dims,
                          log_abs_det);
  }
  if (wishes.nearest_is_best) {
    if (shape.classes > 0) nearest = distance;
  } else if (scores.nearest_squared_mahalanobis != nullptr && r.nearest.index >= 0) {
    nearest = fault + squared(r.nearest.index);
  }
  group.once([&] {
    if (scores.predicted != nullptr) scores.predicted[at] = k < 0 ? k : shape.class_begin + k;
    if (scores.posterior != nullptr) scores.posterior[at] = posterior;
    if (scores.log_density != nullptr) scores.log_density[at] = density;
    if (scores.log_mixture != nullptr)
      scores.log_mixture[at] = log_mixture(r.frame.complete(r.evidence.others.value()),
                                           t.b.state->log_prior_sum, shape.dims, log_abs_det);
    if (scores.squared_mahalanobis != nullptr) scores.squared_mahalanobis[at] = distance;
    if (scores.nearest_squared_mahalanobis != nullptr) scores.nearest_squared_mahalanobis[at] = nearest;
  });
}

// A part of the tile's rows, one after the other, or a range of their classes: what the classes of the tile say of them, and
// with the last the scores.
template <class T>
struct score_kernel {
  device_rows<T> t;
  bool gather, last;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t part = task / t.splits, split = task % t.splits;
    const device_rows<T> own = t.slice(split);
    for (std::int64_t i = t.row_count * part / t.parts; i < t.row_count * (part + 1) / t.parts; ++i) {
      row_record<T> r = t.split_record_of(i, split);
      auto row = group.hold(own.tile_row(i), own.class_count);
      const class_constants<T> c = own.constants();
      const row_frame<T> frame = frame_of(group, row, c, r.frame);
      const auto direct = own.direct(i, frame);
      // The sums by class are not in use: they serve as scratch.
      if (t.wishes.nearest)
        r.nearest.take_nearer(nearest_of(group, row, c, frame, own.first_class, direct,
                                         t.b.class_sum + part * t.class_count + own.begin_in(t)));
      if (gather) {
        const T top =
            finish_logits(group, row, c, frame, std::int64_t(-1), r.best_so_far(frame.omitted), direct);
        r.add(evidence_of(group, row, top, own.first_class, t.wishes.find_best), frame.omitted);
      }
      if (last && t.splits == 1)
        write_scores(group, t, i, r);
      else
        t.keep_split(group, i, split, r);
    }
  }
};

// The scores of a row whose classes were split.
template <class T>
struct merged_score_kernel {
  device_rows<T> t;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t i) const {
    row_record<T> r = t.b.record[i];
    t.merge_splits(i, r);
    write_scores(group, t, i, r);
  }
};

template <class T, class Device>
class device_score {
 public:
  device_score(Device& device, const device_plan& plan, const shape& s, const mixture<T>& m,
               const number_array<T>& features, const workspace& w)
      : tiles_(device, plan, s, m, features, w), t_(tiles_.t), device_(device) {}

  // eq:logit into out, row stride shape.logits_stride; with labels, the margin at the targets.
  void logits(const loss_options<T>& o, const label_view& labels, T* out) {
    const shape& s = t_.shape;
    const std::int64_t stride = row_stride(s.logits_stride, s.classes);
    t_.options = o;
    t_.targets.labels = labels;
    tiles_.begin();
    tiles_.for_row_tiles(s.samples, [&] {
      launch_rows(device_, s.dims, t_.row_count, prepare_plain_kernel<T>{t_});
      tiles_.for_class_tiles([&] {
        t_.tile = out + t_.first_row * stride + t_.first_class;
        t_.tile_stride = stride;
        tiles_.make_products();
        launch_rows(device_, t_.class_count / t_.splits, t_.row_count * t_.splits, logits_kernel<T>{t_});
      });
    });
  }

  void score(const score_result<T>& result) {
    const bool wants_nearest = result.nearest_squared_mahalanobis != nullptr;
    row_wishes& wishes = t_.wishes;
    wishes.nearest_is_best = wants_nearest && equal_biases();
    wishes.nearest = wants_nearest && !wishes.nearest_is_best;
    wishes.find_best = result.predicted != nullptr || result.posterior != nullptr ||
                       result.log_density != nullptr || result.squared_mahalanobis != nullptr ||
                       wishes.nearest_is_best;
    const bool gather = wishes.find_best || result.log_mixture != nullptr;
    t_.scores = result;
    wishes.omit_shared = true;
    tiles_.begin();
    tiles_.for_row_tiles(gather || wishes.nearest ? t_.shape.samples : 0, [&] {
      launch_rows(device_, t_.shape.dims, t_.row_count, prepare_plain_kernel<T>{t_});
      tiles_.for_class_tiles([&] {
        tiles_.make_products();
        launch_rows(device_, t_.class_count / t_.splits, t_.parts * t_.splits,
                    score_kernel<T>{t_, gather, tiles_.is_last_class_tile()});
      });
      if (t_.splits > 1 && t_.shape.classes > 0)
        launch_rows(device_, t_.shape.dims, t_.row_count, merged_score_kernel<T>{t_});
      if (t_.shape.classes == 0) {
        t_.class_count = 0;
        t_.wishes.nearest = false;
        launch_rows(device_, 0, t_.parts, score_kernel<T>{t_, false, true});
      }
    });
  }

 private:
  // Whether the class with the largest logit is the nearest.
  bool equal_biases() const {
    const bool unit_variances =
        t_.mixture.log_variance == nullptr || t_.shape.covariance == covariance::identity;
    return t_.mixture.log_prior == nullptr && unit_variances;
  }

  device_tiles<T, Device> tiles_;
  device_rows<T>& t_;
  Device& device_;
};

}  // namespace lgm::detail
