// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/detail/check.hpp>
#include <lgm/detail/device/launch.hpp>
#include <lgm/detail/device/tile.hpp>
#include <lgm/detail/device/tiles.hpp>
#include <lgm/detail/loss_call.hpp>
#include <lgm/detail/score_row.hpp>
#include <lgm/row.hpp>
#include <lgm/types.hpp>

// Logits and scores on a device, detail/host/score.hpp's counterpart.

namespace lgm::detail {

template <class T>
struct prepare_plain_kernel {
  device_tile<T> t;
  bool omit_shared;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t i) const {
    row_record<T> r;
    prepare_plain_row(group, t.call, t, i, omit_shared, r);
    t.store_record(group, i, r);
  }
};

// Products to logits, in the caller's memory.
template <class T>
struct logits_kernel {
  device_tile<T> t;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t i = task / t.class_parts;
    const device_tile<T> own = t.class_part(task % t.class_parts);
    const std::int64_t z = own.local_target(i);
    auto row = group.load_row(own.tile_row(i), own.class_count);
    const row_frame<T> frame = t.b.record[i].frame;
    finish_logits(group, row, own.constants(), frame, z, -numeric<T>::infinity,
                  own.direct(i, own.first_class, frame));
    if (z >= 0) {
      const T target = t.b.state->alpha_usable ? t.b.record[i].target.logit : numeric<T>::not_a_number;
      group.for_each(row, [&](T& l, std::int64_t k) {
        if (k == z) l = target;
      });
    }
    row.store(own.tile_row(i));
  }
};

// A part of the tile's rows, one after the other, or a range of their classes: adds the classes of the tile to the rows'
// records, and after the last tile writes the scores.
template <class T>
struct score_kernel {
  device_tile<T> t;
  bool last;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t part = task / t.class_parts, class_part = task % t.class_parts;
    const device_tile<T> own = t.class_part(class_part);
    T* const distances = t.b.distances + part * t.class_count + own.begin_in(t);
    for (std::int64_t i = t.row_count * part / t.row_parts; i < t.row_count * (part + 1) / t.row_parts; ++i) {
      row_record<T> r = t.part_record_of(i, class_part);
      auto row = group.load_row(own.tile_row(i), own.class_count);
      score_row(group, t.scores, own, i, own.range(i), row, distances, r);
      if (last && t.class_parts == 1)
        write_scores(group, t.scores, t.call.shape, t.call.mixture, t, i, r);
      else
        t.store_part_record(group, i, class_part, r);
    }
  }
};

// The scores of rows whose classes are in parts, or that have none.
template <class T>
struct merged_score_kernel {
  device_tile<T> t;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t i) const {
    row_record<T> r = t.b.record[i];
    if (t.class_parts > 1 && t.call.shape.classes > 0) t.merge_parts(i, r);
    write_scores(group, t.scores, t.call.shape, t.call.mixture, t, i, r);
  }
};

template <class T, class Device>
class device_score {
 public:
  // call: without targets and results; with labels where logits are to have a margin.
  device_score(Device& device, const device_plan& plan, const loss_call<T>& call, const workspace& w)
      : tiles_(device, plan, call, w), t_(tiles_.t), device_(device) {}

  // eq:logit into out, row stride shape.logits_stride; with labels, the margin at the targets.
  void logits(T* out) {
    const shape& s = t_.call.shape;
    const std::int64_t stride = row_stride(s.logits_stride, s.classes);
    tiles_.begin();
    tiles_.for_row_tiles(s.samples, [&] {
      launch_rows(device_, s.dims, t_.row_count, prepare_plain_kernel<T>{t_, false});
      tiles_.for_class_tiles([&] {
        t_.tile = out + t_.first_row * stride + t_.first_class;
        t_.tile_stride = stride;
        tiles_.make_products();
        launch_rows(device_, t_.class_count / t_.class_parts, t_.row_count * t_.class_parts,
                    logits_kernel<T>{t_});
      });
    });
  }

  void score(const score_result<T>& result) {
    const shape& s = t_.call.shape;
    t_.scores = score_call<T>(s, t_.call.mixture, result);
    tiles_.begin();
    tiles_.for_row_tiles(t_.scores.gather || t_.scores.nearest ? s.samples : 0, [&] {
      launch_rows(device_, s.dims, t_.row_count, prepare_plain_kernel<T>{t_, true});
      tiles_.for_class_tiles([&] {
        tiles_.make_products();
        launch_rows(device_, t_.class_count / t_.class_parts, t_.row_parts * t_.class_parts,
                    score_kernel<T>{t_, tiles_.is_last_class_tile()});
      });
      if (t_.class_parts > 1 || s.classes == 0)
        launch_rows(device_, s.dims, t_.row_count, merged_score_kernel<T>{t_});
    });
  }

 private:
  device_tiles<T, Device> tiles_;
  device_tile<T>& t_;
  Device& device_;
};

}  // namespace lgm::detail
