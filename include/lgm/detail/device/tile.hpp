// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <lgm/detail/check.hpp>
#include <lgm/detail/device/launch.hpp>
#include <lgm/detail/device/plan.hpp>
#include <lgm/detail/device/product_form.hpp>
#include <lgm/detail/loss_call.hpp>
#include <lgm/detail/loss_row.hpp>
#include <lgm/detail/number_format.hpp>
#include <lgm/detail/row_record.hpp>
#include <lgm/detail/score_row.hpp>
#include <lgm/row.hpp>
#include <lgm/types.hpp>

namespace lgm::detail {

// A range of a tile's classes, of loss_row.hpp.
template <class T>
struct device_range {
  std::int64_t first;
  class_constants<T> constants;
  std::int64_t target;
};

// A tile of a call as its kernels see it: the caller's arrays, the workspace, and where the tile lies. A Tile of loss_row.hpp.
// Passed by value.
template <class T>
struct device_tile {
  loss_call<T> call;
  score_call<T> scores;
  T uniform_log_prior = 0;

  product_form form;
  std::int64_t operand_stride = 0;
  device_buffers<T> b;
  const T* centre = nullptr;  // [dims], of loss_row.hpp's origin()
  // The tile at work: samples [first_row, first_row + row_count), classes [first_class, first_class + class_count).
  std::int64_t first_row = 0, row_count = 0, first_class = 0, class_count = 0, row_parts = 1, class_parts = 1;
  bool sums_in_place = false;  // of device_plan
  T* tile = nullptr;
  std::int64_t tile_stride = 0;

  LGM_HD bool diagonal() const { return call.shape.covariance == covariance::diagonal; }
  LGM_HD bool spherical() const { return call.shape.covariance == covariance::spherical; }

  // Part `part` of the tile's classes, as a tile of its own. Parts begin at whole vectors.
  LGM_HD device_tile class_part(std::int64_t part) const {
    if (class_parts == 1) return *this;
    constexpr std::int64_t vector = 16;
    const std::int64_t begin = class_count * part / class_parts / vector * vector,
                       end = part + 1 == class_parts
                                 ? class_count
                                 : class_count * (part + 1) / class_parts / vector * vector;
    const auto advance = [&](auto*& pointer) {
      if (pointer != nullptr) pointer += begin;
    };
    device_tile own = *this;
    own.first_class += begin;
    own.class_count = end - begin;
    own.tile += begin;
    advance(own.b.constants.bias);
    advance(own.b.constants.offset);
    advance(own.b.constants.scale);
    advance(own.b.constants.norm);
    advance(own.b.constants.half_log_det);
    advance(own.b.constants.offset_product);
    for (void** operand : {&own.b.weights.high, &own.b.weights.low})
      if (*operand != nullptr) *operand = static_cast<char*>(*operand) + begin * bytes_of<T>(form.format);
    return own;
  }
  // Of a part: where it begins in its tile.
  LGM_HD std::int64_t begin_in(const device_tile& whole) const { return first_class - whole.first_class; }

  // The record of row i from one part of its classes, of the class tiles so far; empty before the first.
  LGM_HD row_record<T> part_record_of(std::int64_t i, std::int64_t part) const {
    return class_parts == 1 || first_class == 0 ? b.record[i] : b.part_record[i * class_parts + part];
  }
  template <class Group>
  LGM_HD void store_part_record(const Group& group, std::int64_t i, std::int64_t part,
                                const row_record<T>& r) const {
    group.one_lane([&] { (class_parts == 1 ? b.record[i] : b.part_record[i * class_parts + part]) = r; });
  }
  // Merges the records of all parts into r.
  LGM_HD void merge_parts(std::int64_t i, row_record<T>& r) const {
    for (std::int64_t part = 0; class_parts > 1 && part < class_parts; ++part) {
      const row_record<T>& from = b.part_record[i * class_parts + part];
      r.add(from.evidence, from.frame.omitted, scores.result.entropy != nullptr);
      r.likelihood += from.likelihood;
      take_larger(from.best, r.best);
      take_larger(from.target_class, r.target_class);
      // Of equally near classes any will do: only the distance is used.
      r.nearest.take_nearer(from.nearest);
    }
  }

  LGM_HD number_array<T> features(std::int64_t i) const {
    return call.features.from((first_row + i) * row_stride(call.shape.feature_stride, call.shape.dims));
  }
  LGM_HD centred_features<T> centred(std::int64_t i) const { return {features(i), b.offset}; }
  LGM_HD T* tile_row(std::int64_t i) const { return tile + i * tile_stride; }
  // The features' gradient is summed in T: in the caller's array, or in the workspace where that has 16 bits.
  LGM_HD std::int64_t feature_sum_stride() const {
    return is_narrow(call.gradient.feature_format) ? call.shape.dims
                                                   : row_stride(call.shape.gradient_stride, call.shape.dims);
  }
  LGM_HD T* feature_sum(std::int64_t i) const {
    return is_narrow(call.gradient.feature_format)
               ? b.feature_sums + i * call.shape.dims
               : static_cast<T*>(call.gradient.feature) + (first_row + i) * feature_sum_stride();
  }
  // Writes the finished sums of row i to the caller's array.
  template <class Group>
  LGM_HD void write_feature_gradient(const Group& group, std::int64_t i) const {
    if (call.gradient.feature == nullptr || !is_narrow(call.gradient.feature_format)) return;
    const T* const sums = feature_sum(i);
    const std::int64_t first = (first_row + i) * row_stride(call.shape.gradient_stride, call.shape.dims);
    group.for_each(call.shape.dims, [&](std::int64_t j) {
      write_number(call.gradient.feature, call.gradient.feature_format, first + j, sums[j]);
    });
  }
  LGM_HD weight_rounding<T> rounding(std::int64_t i) const {
    return {form.format, form.weight_parts, b.weights, i * tile_stride};
  }
  LGM_HD class_parameters<T> parameters_of(std::int64_t k) const { return {call.shape, call.mixture, k}; }
  LGM_HD T log_prior(std::int64_t k) const {
    return call.mixture.log_prior != nullptr ? call.mixture.log_prior[k] : uniform_log_prior;
  }
  LGM_HD const T* origin() const { return centre; }
  LGM_HD const device_state<T>& state() const { return *b.state; }
  LGM_HD std::int64_t target(std::int64_t i) const { return b.target[i]; }
  LGM_HD bool counts(std::int64_t i) const { return b.counts[i] != 0; }
  // The constants of the tile's classes, with the bounds that bounds_kernel has found.
  LGM_HD class_constants<T> constants() const {
    class_constants<T> c = b.constants;
    c.max_scale = b.state->max_scale;
    c.max_norm = b.state->max_norm;
    c.extra_norm = b.state->extra_norm;
    c.base_scale = b.state->base_scale;
    return c;
  }
  // All classes of the tile, for row i.
  LGM_HD device_range<T> range(std::int64_t i) const { return {first_class, constants(), local_target(i)}; }
  // The index in the class tile of the target of row i, -1 where it is not there.
  LGM_HD std::int64_t local_target(std::int64_t i) const {
    const std::int64_t z = b.target[i] - first_class;
    return b.target[i] >= 0 && z >= 0 && z < class_count ? z : -1;
  }
  LGM_HD auto direct(std::int64_t i, std::int64_t first, const row_frame<T>& frame) const {
    return [this, i, first, &frame](std::int64_t k) { return distance(serial_group{}, i, first + k, frame); };
  }
  template <class Group>
  LGM_HD T distance(const Group& group, std::int64_t i, std::int64_t k, const row_frame<T>& frame) const {
    const class_parameters<T> c = parameters_of(k);
    return frame.omitted == T(0) ? T(0.5) * squared_distance(group, call.shape.dims, features(i), c)
                                 : distance_beyond(group, call.shape.dims, features(i), c, centre,
                                                   frame.half_norm, b.state->base_scale);
  }

  // The state of the call before its first tile.
  template <class Group>
  LGM_HD void begin(const Group& group, const sample_count& samples, T log_prior_sum) const {
    const loss_options<T>& o = call.options;
    const lgm::shape& s = call.shape;
    const std::int64_t all = total_classes(s);
    T class_weight_sum = static_cast<T>(all);
    if (o.class_weight != nullptr && o.label_smoothing != T(0))
      class_weight_sum = static_cast<T>(group.reduce(
          all, 0.0, [&](std::int64_t k) { return static_cast<double>(o.class_weight[k]); }, plus{}));
    T base_scale = s.covariance == covariance::identity ? T(1) : T(0);
    if (spherical() && !call.shares_states && s.classes > 0) {
      const T* const v = call.mixture.log_variance;
      base_scale = v == nullptr
                       ? T(1)
                       : inverse_variance(group.reduce(
                             s.classes, numeric<T>::lowest, [&](std::int64_t k) { return v[k]; }, maximum{}));
    }
    group.one_lane([&] {
      device_state<T>& state = *b.state;
      static_cast<call_state<T>&>(state) =
          begin_state(call, samples, class_weight_sum, base_scale, log_prior_sum);
      state.max_scale = 1;
      state.max_norm = state.extra_norm = 0;
    });
  }

  template <class Group>
  LGM_HD void prepare_sample(const Group& group, std::int64_t i, bool counts, std::int64_t target,
                             row_record<T>& r) const {
    const lgm::shape& s = call.shape;
    group.one_lane([&] {
      b.target[i] = counts ? target : -1;
      b.counts[i] = counts ? 1 : 0;
      b.key[i] = b.target[i] < 0 ? s.classes : b.target[i];
    });
    const feature_row<T> out{b.samples, i * operand_stride, form.uncentred};
    if (!counts) {
      group.for_each(b.offset != nullptr ? s.dims : 0,
                     [&](std::int64_t j) { b.samples.store(out.first + j, T(0)); });
      return;
    }
    // Without an offset nothing is centred.
    const T half_norm =
        b.offset != nullptr ? centre_row(group, s.dims, features(i), static_cast<const T*>(b.offset), out)
        : centre != nullptr ? T(0.5) * squared_norm(group, s.dims, centred_features<T>{features(i), centre})
                            : T(0.5) * squared_norm(group, s.dims, features(i));
    const T fault = r.begin_frame(group, s, features(i), half_norm, b.state->base_scale);
    if (target < 0) return;
    r.take_target(
        target_of(group, s.dims, features(i), parameters_of(target), log_prior(target), b.state->alpha),
        fault);
  }

  // Writes the weights of row i, already rounded, to the products' operand, unless they are there.
  template <class Group, class Row>
  LGM_HD void store_weights(const Group& group, std::int64_t i, Row& row) const {
    if (is_narrow(form.format)) return;
    const std::int64_t first = i * tile_stride;
    if (form.weight_parts > 1) {
      group.for_each(row, [&](T& w, std::int64_t k) {
        const T kept = rounded_to(form.format, w);
        write_number(b.weights.low, form.format, first + k, w - kept);
        w = kept;
      });
    }
    row.store(tile_row(i));
  }
  // The part of the features' gradient of row i that is no product. The first class tile writes it, the others add to it.
  template <class Group>
  LGM_HD void init_gradient(const Group& group, std::int64_t i, const row_record<T>& r,
                            const weight_sums<T>& weights) const {
    if (call.gradient.feature == nullptr) return;
    init_gradient_row(group, call, *this, i, r, weights, local_target(i) >= 0, first_class > 0,
                      feature_sum(i));
  }
  // Of a row that does not count.
  template <class Group>
  LGM_HD void clear_sums(const Group& group, std::int64_t i) const {
    T *const row = tile_row(i), *const out = call.gradient.feature == nullptr ? nullptr : feature_sum(i);
    group.for_each(class_count, [&](std::int64_t k) {
      row[k] = T(0);
      if (b.weights.high != nullptr) write_number(b.weights.high, form.format, i * tile_stride + k, T(0));
      if (b.weights.low != nullptr) write_number(b.weights.low, form.format, i * tile_stride + k, T(0));
    });
    group.for_each(out != nullptr && first_class == 0 ? call.shape.dims : 0,
                   [&](std::int64_t j) { out[j] = T(0); });
  }

  // Adds the losses of the tile, in double; with the last tile writes the sums that are wanted.
  template <class Group>
  LGM_HD void add_losses(const Group& group, bool last) const {
    const auto sum = [&](auto field) {
      return group.reduce(
          row_count, 0.0, [&](std::int64_t i) { return static_cast<double>(field(b.record[i].losses)); },
          plus{});
    };
    const double total = sum([](const row_losses<T>&l) { return l.total; }),
                 classification = sum([](const row_losses<T>&l) { return l.classification; }),
                 likelihood = sum([](const row_losses<T>&l) { return l.likelihood; });
    const std::int64_t correct = group.reduce(
        row_count, std::int64_t(0),
        [&](std::int64_t i) { return std::int64_t(b.record[i].losses.correct ? 1 : 0); }, plus{});
    group.one_lane([&] {
      call_state<T>& s = *b.state;
      s.total += total;
      s.classification += classification;
      s.likelihood += likelihood;
      s.correct += correct;
      if (last) write_sums(call, s);
    });
  }

  template <class Group>
  LGM_HD void store_record(const Group& group, std::int64_t i, const row_record<T>& r) const {
    group.one_lane([&] { b.record[i] = r; });
  }

 private:
  // The lowest class on ties.
  template <class Found>
  LGM_HD static void take_larger(const Found& from, Found& into) {
    if (from.index >= 0 &&
        (into.index < 0 || from.value > into.value || (from.value == into.value && from.index < into.index)))
      into = from;
  }
};

}  // namespace lgm::detail
