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
      const row_frame<T> frame = own.frame_of(group, row, c, r.frame);
      // The sums by class are not in use: they serve as scratch.
      if (t.wishes.nearest)
        own.gather_nearest(group, i, row, c, frame, t.b.class_sum + part * t.class_count + own.begin_in(t),
                           r);
      if (gather) {
        const T top = finish_logits(group, row, c, frame, std::int64_t(-1), r.best_so_far(frame.omitted),
                                    own.direct(i, frame));
        r.add(evidence_of(group, row, top, own.first_class, t.wishes.find_best), frame.omitted);
      }
      if (last && t.splits == 1)
        t.write_scores(group, i, r);
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
    t.write_scores(group, i, r);
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
