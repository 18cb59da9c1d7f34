// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <lgm/column.hpp>
#include <lgm/detail/check.hpp>
#include <lgm/detail/device/direct.hpp>
#include <lgm/detail/device/launch.hpp>
#include <lgm/detail/device/ranks.hpp>
#include <lgm/detail/device/small.hpp>
#include <lgm/detail/device/tile.hpp>
#include <lgm/detail/device/tiles.hpp>
#include <lgm/detail/loss_call.hpp>
#include <lgm/detail/loss_row.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/row.hpp>
#include <lgm/types.hpp>
#include <type_traits>

// Losses and gradients on a device, detail/host/loss.hpp's counterpart. A row tile takes a handful of kernels: prepare_kernel,
// a product, visit_kernel (where a tile has not all classes: gather_kernel, evidence_kernel and visit_kernel), two more
// products, and the kernels of the classes' gradients.

namespace lgm::detail {

template <class T>
struct prepare_kernel {
  device_tile<T> t;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t i) const {
    row_record<T> r;
    prepare_row(group, t.call, t, i, r);
    t.store_record(group, i, r);
  }
};

// Evidence of the class tile, or of a range of it. store: the logits are left in the tile.
template <class T>
struct gather_kernel {
  device_tile<T> t;
  bool store;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t i = task / t.class_parts, class_part = task % t.class_parts;
    if (t.b.counts[i] == 0) return;
    const device_tile<T> own = t.class_part(class_part);
    row_record<T> r = t.part_record_of(i, class_part);
    auto row = group.load_row(own.tile_row(i), own.class_count);
    gather_row(group, t.call, own, i, own.range(i), row, r);
    if (store) row.store(own.tile_row(i));
    t.store_part_record(group, i, class_part, r);
  }
};

// gathered: the evidence of all class tiles is summed; where rows are in parts, their parts are merged here.
template <class T>
struct evidence_kernel {
  device_tile<T> t;
  bool gathered;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t i) const {
    row_record<T> r = t.b.record[i];
    if (gathered && t.b.counts[i] != 0) t.merge_parts(i, r);
    finish_evidence(group, t.call, t, i, r);
    t.store_record(group, i, r);
  }
};

// Turns a part of the tile's rows, one after the other, or a range of their classes, from products into weights; sums them by
// class; and writes the part of the features' gradient that is no product. one_visit: the row's evidence is summed here too, in
// the same visit. finished: the products are logits already.
template <class T>
struct visit_kernel {
  device_tile<T> t;
  bool one_visit, finished, needs_logits, parameters, distances;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t part = task / t.class_parts, class_part = task % t.class_parts;
    const device_tile<T> own = t.class_part(class_part);
    const std::int64_t classes = own.class_count, first = t.row_count * part / t.row_parts,
                       last = t.row_count * (part + 1) / t.row_parts;
    const auto at = [&](T* sums, bool wanted) {
      return wanted ? sums + part * t.class_count + own.begin_in(t) : nullptr;
    };
    const bool soft = parameters && t.call.is_soft(), priors = t.call.gradient.log_prior != nullptr;
    const class_sum_rows<T> sums{
        at(t.b.class_sum, parameters), at(t.b.class_distance, distances),
        at(t.b.class_variance_weight, soft && t.b.class_variance_weight != nullptr),
        at(t.b.class_probability, soft || (parameters && priors && t.sums_in_place))};
    // Sums in place go on from row tile to row tile, in the first part.
    const bool goes_on = t.sums_in_place && t.first_row > 0 && part == 0;
    group.for_each(goes_on ? 0 : classes, [&](std::int64_t k) {
      if (sums.weight != nullptr) sums.weight[k] = T(0);
      if (sums.distance != nullptr) sums.distance[k] = T(0);
      if (sums.variance_weight != nullptr) sums.variance_weight[k] = T(0);
      if (sums.probability != nullptr) sums.probability[k] = T(0);
    });
    for (std::int64_t i = first; i < last; ++i) {
      row_record<T> r = t.b.record[i];
      if (t.b.counts[i] == 0) {
        if (one_visit) {
          finish_evidence(group, t.call, t, i, r);
          t.store_record(group, i, r);
        }
        own.clear_sums(group, i);
        continue;
      }
      auto row = group.load_row(own.tile_row(i), classes);
      if (one_visit) {
        gather_row(group, t.call, t, i, t.range(i), row, r);
        finish_evidence(group, t.call, t, i, r);
        t.store_record(group, i, r);
      } else if (needs_logits && !finished) {
        row_logits(group, t.call, own, i, own.range(i), row, r);
      }
      const weight_sums<T> weights =
          row_weights(group, t.call, own, i, own.range(i), row, r, sums, own.rounding(i));
      own.store_weights(group, i, row);
      if (t.class_parts == 1)
        t.init_gradient(group, i, r, weights);
      else
        group.one_lane([&] { t.b.part_weight[i * t.class_parts + class_part] = weights; });
    }
  }
};

// The part of the features' gradient that is no product, of rows whose classes are in parts.
template <class T>
struct init_gradient_kernel {
  device_tile<T> t;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t i) const {
    if (t.b.counts[i] == 0) return;
    weight_sums<T> weights;
    for (std::int64_t class_part = 0; class_part < t.class_parts; ++class_part) {
      const weight_sums<T>& part = t.b.part_weight[i * t.class_parts + class_part];
      weights.weight += part.weight;
      weights.beyond += part.beyond;
      weights.extra += part.extra;
    }
    t.init_gradient(group, i, t.b.record[i], weights);
  }
};

template <class T>
struct begin_sums_kernel {
  device_tile<T> t;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t c) const {
    const std::int64_t dims = t.call.shape.dims;
    const T* const mean = t.parameters_of(t.first_class + c).mean;
    T* const out = t.b.differences + c * dims;
    if (t.form.uncentred)
      group.for_each(dims, [&](std::int64_t j) { out[j] = -t.b.class_sum[c] * mean[j]; });
    else
      begin_class_sum(group, dims, mean, static_cast<const T*>(t.b.offset), t.b.class_sum[c], out);
  }
};

// Adds part `part` of `parts` of the tile's samples of class k to its sums.
template <class Group, class T>
LGM_HD void add_targets(const Group& group, const device_tile<T>& t, std::int64_t k, std::int64_t part,
                        std::int64_t parts, class_sums<T>& sums) {
  const std::int64_t first = first_of_class(t.b.ranked_class, t.row_count, k);
  // Most of many classes have none, and are spared the second search.
  const bool any = first < t.row_count && t.b.ranked_class[first] == k;
  const std::int64_t n = any ? first_of_class(t.b.ranked_class, t.row_count, k + 1) - first : 0;
  for (std::int64_t at = first + n * part / parts; at < first + n * (part + 1) / parts; ++at) {
    const std::int64_t i = t.b.ranked_row[at];
    const row_record<T>& r = t.b.record[i];
    add_target(group, t.call.shape.dims, t.features(i), t.parameters_of(k).mean, r.weight, r.variance_weight,
               r.residual, r.target.distance, sums);
  }
}

// Adds the targets' terms of a part of a class's samples, where few classes have many, to what a diagonal covariance has of that
// part already.
template <class T>
struct target_sums_kernel {
  device_tile<T> t;
  std::int64_t parts;
  bool difference, square;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t dims = t.call.shape.dims, k = t.first_class + task / parts;
    class_sums<T> sums{difference ? t.b.target_differences + task * dims : nullptr,
                       square ? t.b.target_squares + task * dims : nullptr};
    if (!t.diagonal())
      group.for_each(difference ? dims : 0, [&](std::int64_t j) { sums.difference[j] = T(0); });
    add_targets(group, t, k, task % parts, parts, sums);
    group.one_lane([&] {
      T* const scalars = t.b.target_scalars + 3 * task;
      scalars[0] = sums.distance;
      scalars[1] = sums.variance_weight;
      scalars[2] = sums.probability;
    });
  }
};

// Of the class whose first sample is task in the order of the classes, its targets' terms, to sums in place.
template <class T>
struct add_targets_kernel {
  device_tile<T> t;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t k = t.b.ranked_class[task], dims = t.call.shape.dims;
    if (k >= t.call.shape.classes || (task > 0 && t.b.ranked_class[task - 1] == k)) return;
    T* const out = t.call.gradient.mean == nullptr ? nullptr : t.call.gradient.mean + k * dims;
    const T* const mean = t.parameters_of(k).mean;
    T residual = 0;
    for (std::int64_t at = task; at < t.row_count && t.b.ranked_class[at] == k; ++at) {
      const std::int64_t i = t.b.ranked_row[at];
      const row_record<T>& r = t.b.record[i];
      const number_array<T> x = t.features(i);
      group.for_each(out != nullptr ? dims : 0,
                     [&](std::int64_t j) { out[j] = fused(-r.weight, load(x, j) - mean[j], out[j]); });
      residual += r.residual;
    }
    if (t.call.gradient.log_prior != nullptr) group.one_lane([&] { t.b.class_probability[k] -= residual; });
  }
};

// Gradients of the parameters of class c, from sums in place over all samples: to the means' it adds what is no product.
template <class T>
struct finish_sums_kernel {
  device_tile<T> t;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t k) const {
    const std::int64_t dims = t.call.shape.dims;
    const loss_gradients<T>& gradient = t.call.gradient;
    const T weight = t.b.class_sum[k];
    const T* const mean = t.parameters_of(k).mean;
    group.for_each(gradient.mean != nullptr ? dims : 0, [&](std::int64_t j) {
      T& out = gradient.mean[k * dims + j];
      out = fused(weight, t.form.uncentred ? mean[j] : mean[j] - t.b.offset[j], out);
    });
    if (gradient.log_prior == nullptr) return;
    group.one_lane([&] {
      const T sum = t.b.class_probability[k] - (t.call.is_soft() ? T(0) : weight);
      gradient.log_prior[k] = gradient.accumulate ? gradient.log_prior[k] + sum : sum;
    });
  }
};

// Gradients of the parameters of class c of the tile, from its sums over samples.
template <class T>
struct parameters_kernel {
  device_tile<T> t;
  std::int64_t parts;
  bool difference, square;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t c) const {
    const std::int64_t dims = t.call.shape.dims, k = t.first_class + c;
    const bool add = t.call.gradient.accumulate || t.first_row > 0, soft = t.call.is_soft();
    const T weight = t.b.class_sum[c];
    class_sums<T> sums{difference ? t.b.differences + c * dims : nullptr,
                       square ? t.b.squares + c * dims : nullptr};
    // Null under identity, which has no use for it.
    sums.variance_weight =
        soft && t.b.class_variance_weight != nullptr ? t.b.class_variance_weight[c] : weight;
    sums.probability = soft ? t.b.class_probability[c] : -weight;
    if (t.call.wants_distances()) sums.distance = t.b.class_distance[c];
    if (!soft && parts == 1) add_targets(group, t, k, 0, 1, sums);
    if (parts > 1) {
      const bool fresh = t.diagonal();  // the parts are all there is
      group.for_each(dims, [&](std::int64_t j) {
        T of_difference = difference && !fresh ? sums.difference[j] : T(0), of_square = 0;
        for (std::int64_t at = (c * parts) * dims + j; at < (c + 1) * parts * dims; at += dims) {
          if (difference) of_difference += t.b.target_differences[at];
          if (square) of_square += t.b.target_squares[at];
        }
        if (difference) sums.difference[j] = of_difference;
        if (square) sums.square[j] = of_square;
      });
      for (std::int64_t part = 0; !soft && part < parts; ++part) {
        const T* const scalars = t.b.target_scalars + 3 * (c * parts + part);
        sums.distance += scalars[0];
        sums.variance_weight += scalars[1];
        sums.probability += scalars[2];
      }
    }
    const class_parameters<T> p = t.parameters_of(k);
    if (t.call.gradient.mean != nullptr)
      write_mean_gradient(group, dims, p, sums, add, t.call.gradient.mean + k * dims);
    if (t.call.wants_log_variance())
      write_log_variance_gradient(group, dims, p, sums, add,
                                  t.call.gradient.log_variance + k * (t.diagonal() ? dims : std::int64_t(1)));
    if (t.call.gradient.log_prior != nullptr)
      group.one_lane([&] {
        T& out = t.call.gradient.log_prior[k];
        out = add ? out + sums.probability : sums.probability;
      });
  }
};

// Of a gradient of 16 bits.
template <class T>
struct write_features_kernel {
  device_tile<T> t;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t i) const {
    t.write_feature_gradient(group, i);
  }
};

template <class T>
struct losses_kernel {
  device_tile<T> t;
  bool last;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t) const {
    t.add_losses(group, last);
  }
};

template <class T, class Device>
class device_loss {
 public:
  device_loss(Device& device, const device_plan& plan, const loss_call<T>& call, const workspace& w)
      : tiles_(device, plan, call, w), t_(tiles_.t), device_(device), plan_(plan) {}

  // What the call requests: losses, gradients or both.
  void run() {
    const loss_call<T>& call = t_.call;
    const loss_requests& requested = call.requested;
    const shape& s = call.shape;
    const std::int64_t samples = requested.visit ? s.samples : 0;
    // Where a tile has whole rows, one visit to each row turns it into weights. Else the evidence of all class tiles comes
    // first. Rows that are in parts have their evidence first too, but keep their logits.
    const bool whole = requested.gather && requested.differentiate && plan_.whole_rows && s.classes > 0,
               one_visit = whole && plan_.class_parts == 1, finished = whole && !one_visit;

    if (requested.visit && call.is_labels() && device_plan::is_small(s) && plan_.rows == s.samples &&
        plan_.whole_rows) {
      run_small(device_, t_);
      return;
    }
    tiles_.begin();
    if (s.samples == 0) clear_parameters();
    tiles_.for_row_tiles(samples, [&] {
      launch_rows(device_, s.dims, t_.row_count, prepare_kernel<T>{t_});
      if (!one_visit && !call.is_grad_logits()) {
        if (requested.gather) {
          tiles_.for_class_tiles([&] {
            tiles_.make_products();
            launch_rows(device_, t_.class_count / t_.class_parts, t_.row_count * t_.class_parts,
                        gather_kernel<T>{t_, finished});
          });
        }
        launch_rows(device_, s.dims, t_.row_count, evidence_kernel<T>{t_, requested.gather});
      }
      if (requested.differentiate) make_gradients(one_visit, finished, requested.logits);
      if (requested.report)
        device_.template launch<256>(256, 1, losses_kernel<T>{t_, t_.first_row + t_.row_count == s.samples});
    });
    if (requested.report && samples == 0) {
      t_.row_count = 0;
      device_.template launch<256>(256, 1, losses_kernel<T>{t_, true});
    }
  }

 private:
  // The gradients of a row tile, class tile by class tile. one_visit: the one class tile has all classes, and the rows'
  // evidence is yet to be gathered; finished: it has all classes, and their logits. needs_logits: false where the weights do
  // not depend on them.
  void make_gradients(bool one_visit, bool finished, bool needs_logits) {
    const shape& s = t_.call.shape;
    if (t_.call.gradient.feature != nullptr && s.classes == 0)
      launch_rows(device_, s.dims, t_.row_count,
                  zero_kernel<T>{s.dims, t_.feature_sum_stride(), t_.feature_sum(0)});
    const bool parameters = t_.call.wants_parameters(), distances = t_.call.wants_distances();
    if (parameters && !t_.call.is_soft())
      device_.template launch<32>(32, rank_kernel::tasks(t_.row_count),
                                  rank_kernel{t_.row_count, t_.b.key, t_.b.ranked_row, t_.b.ranked_class});
    tiles_.for_class_tiles([&] {
      if (needs_logits && !finished)
        tiles_.make_products();
      else
        tiles_.prepare_operands();
      // The group of a row takes its gradient as well.
      const std::int64_t width =
          larger(t_.class_count / t_.class_parts,
                 t_.class_parts == 1 && t_.call.gradient.feature != nullptr ? s.dims : std::int64_t(0));
      launch_rows(device_, width, t_.row_parts * t_.class_parts,
                  visit_kernel<T>{t_, one_visit, finished, needs_logits, parameters, distances});
      if (t_.class_parts > 1 && t_.call.gradient.feature != nullptr)
        launch_rows(device_, s.dims, t_.row_count, init_gradient_kernel<T>{t_});
      if (t_.call.gradient.feature != nullptr) multiply_features();
      if (parameters) sum_samples(distances);
    });
    if constexpr (std::is_same<T, float>::value)
      if (t_.call.gradient.feature != nullptr && is_narrow(t_.call.gradient.feature_format))
        launch_rows(device_, s.dims, t_.row_count, write_features_kernel<T>{t_});
  }

  // The classes' part of the features' gradient.
  void multiply_features() {
    const std::int64_t dims = t_.call.shape.dims, stride = t_.feature_sum_stride();
    if (t_.diagonal()) {
      const direct_feature_kernel<T> kernel{t_.row_count,
                                            t_.class_count,
                                            dims,
                                            t_.tile_stride,
                                            stride,
                                            t_.tile,
                                            static_cast<const T*>(t_.b.samples.high),
                                            t_.b.inverse,
                                            t_.b.scaled_mean,
                                            t_.feature_sum(0)};
      launch_columns(device_, smaller(dims, direct_columns), direct_tasks(t_.row_count, dims), kernel);
      return;
    }
    tiles_.multiply(false, false, t_.row_count, dims, t_.class_count, T(-1), tiles_.weights(), t_.tile_stride,
                    t_.b.means, t_.operand_stride, T(1), t_.feature_sum(0), stride);
  }

  // The parameters' gradients of the class tile.
  void sum_samples(bool distances) {
    const std::int64_t dims = t_.call.shape.dims, n = t_.class_count;
    const bool difference = t_.call.gradient.mean != nullptr,
               square = t_.diagonal() && t_.call.wants_log_variance();
    const bool soft = t_.call.is_soft();
    sum_rows(device_, t_.row_parts, n, t_.b.class_sum, distances ? t_.b.class_distance : nullptr,
             soft ? t_.b.class_variance_weight : nullptr, soft ? t_.b.class_probability : nullptr);
    if (plan_.sums_in_place) {
      const loss_gradients<T>& g = t_.call.gradient;
      if (difference)
        tiles_.multiply(true, false, n, dims, t_.row_count, T(-1), tiles_.weights(), t_.tile_stride,
                        t_.b.samples, t_.operand_stride, T(g.accumulate || t_.first_row > 0 ? 1 : 0), g.mean,
                        dims);
      if (!soft) launch_rows(device_, dims, t_.row_count, add_targets_kernel<T>{t_});
      if (t_.first_row + t_.row_count == t_.call.shape.samples)
        launch_rows(device_, dims, n, finish_sums_kernel<T>{t_});
      return;
    }
    const std::int64_t parts = soft && !t_.diagonal() ? 1 : plan_.target_parts;
    if (t_.diagonal() && (difference || square)) {
      const direct_sums_kernel<T> kernel{t_.row_count,
                                         n,
                                         dims,
                                         parts,
                                         t_.tile_stride,
                                         row_stride(t_.call.shape.feature_stride, dims),
                                         t_.tile,
                                         t_.call.mixture.mean + t_.first_class * dims,
                                         t_.features(0),
                                         t_.b.counts,
                                         parts > 1 ? t_.b.target_differences : t_.b.differences,
                                         !square     ? nullptr
                                         : parts > 1 ? t_.b.target_squares
                                                     : t_.b.squares};
      launch_columns(device_, smaller(dims, direct_columns), direct_tasks(n, dims) * parts, kernel);
    } else if (difference) {
      launch_rows(device_, dims, n, begin_sums_kernel<T>{t_});
      tiles_.multiply(true, false, n, dims, t_.row_count, T(1), tiles_.weights(), t_.tile_stride,
                      t_.b.samples, t_.operand_stride, T(1), t_.b.differences, dims);
    }
    if (parts > 1 && !soft)
      launch_rows(device_, dims, n * parts, target_sums_kernel<T>{t_, parts, difference, square});
    launch_rows(device_, dims, n, parameters_kernel<T>{t_, parts, difference, square});
  }

  void clear_parameters() {
    const loss_gradients<T>& g = t_.call.gradient;
    if (g.accumulate) return;
    const std::int64_t classes = t_.call.shape.classes, dims = t_.call.shape.dims;
    if (g.mean != nullptr) launch_rows(device_, dims, classes, zero_kernel<T>{dims, dims, g.mean});
    if (t_.call.wants_log_variance()) {
      const std::int64_t each = t_.diagonal() ? dims : 1;
      launch_rows(device_, each, classes, zero_kernel<T>{each, each, g.log_variance});
    }
    if (g.log_prior != nullptr) launch_rows(device_, 1, classes, zero_kernel<T>{1, 1, g.log_prior});
  }

  device_tiles<T, Device> tiles_;
  device_tile<T>& t_;
  Device& device_;
  const device_plan& plan_;
};

}  // namespace lgm::detail
