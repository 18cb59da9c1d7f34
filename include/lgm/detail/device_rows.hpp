// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <lgm/detail/check.hpp>
#include <lgm/detail/device.hpp>
#include <lgm/detail/device_plan.hpp>
#include <lgm/detail/number_format.hpp>
#include <lgm/detail/product_form.hpp>
#include <lgm/detail/row_record.hpp>
#include <lgm/row.hpp>
#include <lgm/soft_row.hpp>
#include <lgm/types.hpp>

// What the kernels of the device drivers do with a sample: host_tiles.hpp's and host_loss.hpp's counterpart. Every function
// is run by one group. A record that is passed by reference is the lane's own; all lanes' are alike.

namespace lgm::detail {

// What a loss is given besides the features: labels; or soft targets; or the gradient of the logits, and labels if any.
template <class T>
struct device_targets {
  label_view labels;
  soft_targets<T> soft;
  const T* slope = nullptr;  // [samples, classes], row stride shape.logits_stride
  // Not told by the pointers: without classes they may be null.
  weight_kind kind = weight_kind::labels;

  LGM_HD bool is_soft() const { return kind == weight_kind::soft; }
  LGM_HD bool is_given() const { return kind == weight_kind::given; }
};

// gradients<G, T> whatever G is.
template <class T>
struct device_gradients {
  void* feature = nullptr;
  number_format feature_format = number_format::full;
  T *mean = nullptr, *log_variance = nullptr, *log_prior = nullptr;
  bool accumulate = false;
};

// What the outputs of a call ask of its rows.
struct row_wishes {
  bool report = false;  // losses are written
  bool find_best = false, gather_excess = false, gather_likelihood = false;
  bool nearest = false, nearest_is_best = false, omit_shared = false;  // score
};

// A tile of a call as its kernels see it: the caller's arrays, the workspace, and where the tile lies. Passed by value.
template <class T>
struct device_rows {
  lgm::shape shape;
  lgm::mixture<T> mixture;
  loss_options<T> options;
  device_targets<T> targets;
  number_array<T> all_features;
  const T* read_state = nullptr;
  const T* upstream = nullptr;
  loss_result<T> result;
  device_gradients<T> gradient;
  score_result<T> scores;
  row_wishes wishes;
  T uniform_log_prior = 0;
  T least = numeric<T>::negligible;  // classes with less, by the logarithm of g_k, have no gradients

  product_form form;
  std::int64_t operand_stride = 0;
  device_buffers<T> b;
  const T* origin = nullptr;   // [dims], what frames and feature gradients count from; null: 0
  bool shares_states = false;  // whether row states are to merge with those of other shards
  // The tile at work: samples [first_row, first_row + row_count), classes [first_class, first_class + class_count).
  std::int64_t first_row = 0, row_count = 0, first_class = 0, class_count = 0, parts = 1, splits = 1;
  T* tile = nullptr;
  std::int64_t tile_stride = 0;

  LGM_HD bool diagonal() const { return shape.covariance == covariance::diagonal; }
  LGM_HD bool spherical() const { return shape.covariance == covariance::spherical; }
  LGM_HD bool wants_log_variance() const {
    return gradient.log_variance != nullptr && shape.covariance != covariance::identity;
  }
  LGM_HD bool wants_parameters() const {
    return gradient.mean != nullptr || gradient.log_prior != nullptr || wants_log_variance();
  }

  // Range `split` of the tile's classes, as a tile of its own. Ranges begin at whole vectors.
  LGM_HD device_rows slice(std::int64_t split) const {
    if (splits == 1) return *this;
    constexpr std::int64_t vector = 16;
    const std::int64_t begin = class_count * split / splits / vector * vector,
                       end = split + 1 == splits ? class_count
                                                 : class_count * (split + 1) / splits / vector * vector;
    const auto advance = [&](auto*& pointer) {
      if (pointer != nullptr) pointer += begin;
    };
    device_rows part = *this;
    part.first_class += begin;
    part.class_count = end - begin;
    part.tile += begin;
    advance(part.b.constants.bias);
    advance(part.b.constants.offset);
    advance(part.b.constants.scale);
    advance(part.b.constants.norm);
    advance(part.b.constants.half_log_det);
    advance(part.b.constants.uncentred);
    for (void** operand : {&part.b.weights.high, &part.b.weights.low})
      if (*operand != nullptr) *operand = static_cast<char*>(*operand) + begin * bytes_of<T>(form.format);
    return part;
  }
  // Of a slice: where it begins in the tile that it is of.
  LGM_HD std::int64_t begin_in(const device_rows& whole) const { return first_class - whole.first_class; }

  // What one range of a row's classes has said of it so far, before the first class tile nothing.
  LGM_HD row_record<T> split_record_of(std::int64_t i, std::int64_t split) const {
    return splits == 1 || first_class == 0 ? b.record[i] : b.split_record[i * splits + split];
  }
  template <class Group>
  LGM_HD void keep_split(const Group& group, std::int64_t i, std::int64_t split,
                         const row_record<T>& r) const {
    group.once([&] { (splits == 1 ? b.record[i] : b.split_record[i * splits + split]) = r; });
  }
  // Adds what all ranges have said.
  LGM_HD void merge_splits(std::int64_t i, row_record<T>& r) const {
    for (std::int64_t split = 0; splits > 1 && split < splits; ++split) {
      const row_record<T>& from = b.split_record[i * splits + split];
      r.add(from.evidence, from.frame.omitted);
      r.likelihood += from.likelihood;
      take_larger(from.best, r.best);
      take_larger(from.wanted, r.wanted);
      // Classes that are as near are as good: only their distance is asked for.
      r.nearest.take_nearer(from.nearest);
    }
  }

  LGM_HD number_array<T> features(std::int64_t i) const {
    return all_features.from((first_row + i) * row_stride(shape.feature_stride, shape.dims));
  }
  LGM_HD centred_features<T> centred(std::int64_t i) const { return {features(i), b.offset}; }
  LGM_HD T* tile_row(std::int64_t i) const { return tile + i * tile_stride; }
  // The features' gradient is summed in T: where it goes, or, where that has 16 bits, in the workspace.
  LGM_HD std::int64_t feature_sum_stride() const {
    return is_narrow(gradient.feature_format) ? shape.dims : row_stride(shape.gradient_stride, shape.dims);
  }
  LGM_HD T* feature_sum(std::int64_t i) const {
    return is_narrow(gradient.feature_format)
               ? b.feature_sums + i * shape.dims
               : static_cast<T*>(gradient.feature) + (first_row + i) * feature_sum_stride();
  }
  // Puts the finished sums of row i where they go.
  template <class Group>
  LGM_HD void write_feature_gradient(const Group& group, std::int64_t i) const {
    if (gradient.feature == nullptr || !is_narrow(gradient.feature_format)) return;
    const T* const sums = feature_sum(i);
    const std::int64_t first = (first_row + i) * row_stride(shape.gradient_stride, shape.dims);
    group.for_each(shape.dims, [&](std::int64_t j) {
      write_number(gradient.feature, gradient.feature_format, first + j, sums[j]);
    });
  }
  LGM_HD weight_rounding<T> rounding() const { return {form.format, form.weight_parts}; }
  LGM_HD const T* slope(std::int64_t i) const {
    return targets.slope + (first_row + i) * row_stride(shape.logits_stride, shape.classes);
  }
  LGM_HD class_parameters<T> parameters_of(std::int64_t k) const { return {shape, mixture, k}; }
  LGM_HD T log_prior(std::int64_t k) const {
    return mixture.log_prior != nullptr ? mixture.log_prior[k] : uniform_log_prior;
  }
  // The constants of the tile's classes with the bounds that a kernel of their own has found.
  LGM_HD class_constants<T> constants() const {
    class_constants<T> c = b.constants;
    c.max_scale = b.state->max_scale;
    c.max_norm = b.state->max_norm;
    c.reach = b.state->reach;
    c.base_scale = b.state->base_scale;
    return c;
  }
  // d_k of row i and class k of the tile, from the differences, less what the row's frame omits; by one lane.
  LGM_HD auto direct(std::int64_t i, const row_frame<T>& frame) const {
    return [this, i, &frame](std::int64_t k) { return distance(serial_group{}, i, first_class + k, frame); };
  }
  // The same for class k of the call.
  template <class Group>
  LGM_HD T distance(const Group& group, std::int64_t i, std::int64_t k, const row_frame<T>& frame) const {
    const class_parameters<T> c = parameters_of(k);
    return frame.omitted == T(0) ? T(0.5) * squared_distance(group, shape.dims, features(i), c)
                                 : distance_beyond(group, shape.dims, features(i), c, origin, frame.half_norm,
                                                   b.state->base_scale);
  }

  // Without labels, as if all were ignored.
  LGM_HD std::int64_t label(std::int64_t sample) const {
    return targets.labels.is_null() ? options.ignore_label : targets.labels[sample];
  }
  // Nobody can look at labels before a device answers: one that is no class costs its own sample alone.
  LGM_HD bool is_bad(std::int64_t label) const {
    return !targets.is_soft() && label != options.ignore_label &&
           (label < 0 || label >= total_classes(shape));
  }
  LGM_HD T sample_weight(std::int64_t sample) const {
    return options.sample_weight != nullptr ? options.sample_weight[sample] : T(1);
  }
  // What reduction::mean counts a sample as; 0 where it does not count.
  LGM_HD sample_count count_of(std::int64_t sample) const {
    const std::int64_t z = label(sample);
    if (!targets.is_soft() && (z == options.ignore_label || is_bad(z))) return {0, 0};
    double weight = static_cast<double>(sample_weight(sample));
    if (!targets.is_soft() && options.class_weight != nullptr)
      weight *= static_cast<double>(options.class_weight[z]);
    return {weight, 1};
  }

  // The index in the class tile of the target of row i, -1 where it is not there.
  LGM_HD std::int64_t local_target(std::int64_t i) const {
    const std::int64_t z = b.target[i] - first_class;
    return b.target[i] >= 0 && z >= 0 && z < class_count ? z : -1;
  }
  // Of the classes from `first` on, an index of the call.
  LGM_HD const T* class_weights_from(std::int64_t first) const {
    return options.class_weight == nullptr ? nullptr : options.class_weight + shape.class_begin + first;
  }
  LGM_HD const T* class_weights() const { return class_weights_from(first_class); }
  LGM_HD soft_row<T> soft_from(std::int64_t i, std::int64_t first) const {
    const T smoothing = options.label_smoothing, classes = static_cast<T>(total_classes(shape));
    return {targets.soft.data + (first_row + i) * row_stride(targets.soft.stride, shape.classes) + first,
            class_weights_from(first), T(1) - smoothing, smoothing / classes, b.state->alpha};
  }
  LGM_HD soft_row<T> soft(std::int64_t i) const { return soft_from(i, first_class); }
  LGM_HD T incoming(std::int64_t i) const {
    if (!b.state->alpha_usable) return T(0);
    return upstream == nullptr ? T(1) : upstream[options.reduction == reduction::none ? first_row + i : 0];
  }

  // The state of the call before its first tile, from the weights and the number of the samples that count.
  template <class Group>
  LGM_HD void begin(const Group& group, double weights, std::int64_t counted, T log_prior_sum) const {
    const loss_options<T>& o = options;
    const std::int64_t all = total_classes(shape);
    T class_weight_sum = static_cast<T>(all);
    if (o.class_weight != nullptr && o.label_smoothing != T(0))
      class_weight_sum = static_cast<T>(group.reduce(
          all, 0.0, [&](std::int64_t k) { return static_cast<double>(o.class_weight[k]); }, plus{}));
    T base_scale = shape.covariance == covariance::identity ? T(1) : T(0);
    if (spherical() && !shares_states && shape.classes > 0) {
      const T* const v = mixture.log_variance;
      base_scale =
          v == nullptr
              ? T(1)
              : inverse_variance(group.reduce(
                    shape.classes, numeric<T>::lowest, [&](std::int64_t k) { return v[k]; }, maximum{}));
    }
    group.once([&] {
      call_state<T>& s = *b.state;
      const T alpha = o.alpha_at != nullptr ? *o.alpha_at : o.alpha;
      s.alpha_usable = usable_factor(alpha);
      s.alpha = s.alpha_usable ? alpha : T(0);
      s.divisor = o.reduction != reduction::mean ? T(1)
                  : o.normalizer != nullptr      ? *o.normalizer
                  : weights == 0                 ? numeric<T>::not_a_number
                                                 : static_cast<T>(weights);
      s.class_weight_sum = class_weight_sum;
      s.log_prior_sum = log_prior_sum;
      s.counted = counted;
      s.total = s.classification = s.likelihood = 0;
      s.correct = 0;
      s.max_scale = 1;
      s.max_norm = s.reach = 0;
      s.base_scale = base_scale;
    });
  }

  // Prepares row i: centres its features and, where its target is a class of this call, takes what the target says from
  // the differences. Rows that do not count are not read. Without an offset nothing is centred. The logits of a call with a
  // given slope leave nothing out.
  template <class Group>
  LGM_HD row_record<T> prepare(const Group& group, std::int64_t i) const {
    const std::int64_t sample = first_row + i, z = label(sample);
    row_record<T> r;
    const bool labelled = !targets.is_soft() && z != options.ignore_label && !is_bad(z);
    if (labelled) {
      const T weight = options.class_weight != nullptr ? options.class_weight[z] : T(1);
      r.coefficients = label_coefficients<T>(sample_weight(sample), weight, b.state->class_weight_sum,
                                             options.label_smoothing, total_classes(shape));
    }
    const std::int64_t local = local_class(shape, z);
    const bool here = labelled && local >= 0;
    if (!here) r.target.logit = -numeric<T>::infinity;
    const bool counts = targets.is_given() ? needs_features(group, i, here) : labelled || targets.is_soft();
    take(group, i, counts, here ? local : -1, r);
    if (targets.is_given())
      weigh_given(i, here ? local : -1, r);
    else if (counts)
      choose_frame(group, i, here ? local : -1, r);
    return r;
  }
  // Row i of a call that scores, or writes logits.
  template <class Group>
  LGM_HD void prepare_plain(const Group& group, std::int64_t i) const {
    const std::int64_t z = label(first_row + i);
    row_record<T> r;
    take(group, i, true, z != options.ignore_label && !is_bad(z) ? local_class(shape, z) : -1, r);
    if (wishes.omit_shared) {
      r.frame = r.frame.bounded();
      r.frame.omit_shared();
    }
    keep(group, i, r);
  }

  // Adds the classes of the tile to the row's evidence.
  template <class Group, class Row>
  LGM_HD void gather(const Group& group, std::int64_t i, Row& row, row_record<T>& r) const {
    const class_constants<T> c = constants();
    const std::int64_t target = local_target(i);
    T top = finish_logits(group, row, c, r.frame, target, larger(r.evidence.others.max, r.target.logit),
                          direct(i, r.frame));
    row_evidence<T> e;
    if (targets.is_soft()) {
      if (wishes.find_best) note_best(group, i, row, top, r);
      const soft_row<T> q = soft(i);
      top = add_soft_margin(group, row, c, r.frame, q, r.evidence.others.max, direct(i, r.frame));
      e = evidence_of(group, row, top, first_class, false);
      add_excess(
          group, row, [&](auto k) { return q.coefficient(k); }, e);
      if (wishes.gather_likelihood) r.likelihood += soft_likelihood(group, row, c, r.frame, q);
    } else {
      e = evidence_of(group, row, top, first_class, wishes.find_best);
      if (wishes.gather_excess) {
        const T* const weight = class_weights();
        const T each = r.coefficients.smoothing;
        add_excess(
            group, row,
            [&](std::int64_t k) { return k == target         ? T(0)
                                         : weight == nullptr ? each
                                                             : each * weight[k]; },
            e);
      }
    }
    r.evidence.merge(e);
  }

  // The row's state once all class tiles are in, or as it is given, and what follows from it: losses, and what the
  // gradients are multiplied by.
  template <class Group>
  LGM_HD void settle(const Group& group, std::int64_t i, row_record<T>& r) const {
    const T* const state = read_state == nullptr ? nullptr : read_state + 2 * (first_row + i);
    const log_parts<T> others =
        state == nullptr ? log_parts<T>(r.evidence.others) : row_record<T>::read_state(shape, state);
    if (!targets.is_soft())
      r.total = r.coefficients.total();
    else if (state == nullptr)
      r.total = r.evidence.coefficient;
    else
      r.total = is_shard(shape) ? state[0] : sum_of_coefficients(group, shape.classes, soft_from(i, 0));
    if (state != nullptr && is_shard(shape) && !targets.is_soft()) r.target.logit = state[0];
    const rest_terms<T> terms(rest(others, r.target.logit));
    r.log_evidence = log_evidence<T>(r.target.logit, others, terms);
    if (wishes.report) write_losses(group, i, others, terms, r);
    if (b.counts[i] == 0) return;
    r.upstream = incoming(i) / b.state->divisor;
    if (targets.is_soft()) r.upstream *= sample_weight(first_row + i);
    if (b.target[i] < 0) return;
    r.weigh_target(r.coefficients.miss(terms.target_miss()), b.state->alpha,
                   options.lambda * r.coefficients.likelihood);
  }

  // Turns the row's logits (finished) or products into weights, each rounded; returns what begin_feature_gradient needs of
  // them.
  template <class Group, class Row, class Round>
  LGM_HD weight_sums<T> weigh(const Group& group, std::int64_t i, Row& row, bool finished, bool needs_logits,
                              const row_record<T>& r, const class_sum_rows<T>& sums, Round round) const {
    const class_constants<T> c = constants();
    const std::int64_t target = local_target(i);
    const T known = r.log_evidence.anchor, none = -numeric<T>::infinity;
    if (targets.is_given()) {
      const T* const g = slope(i) + first_class;
      if (needs_logits) {
        finish_logits(group, row, c, r.frame, -1, none, direct(i, r.frame));
        // Without a margin this only makes exact the distances that g weighs.
        const soft_row<T> weighed{g, nullptr, T(0), T(0), T(0)};
        add_soft_margin(group, row, c, r.frame, weighed, none, direct(i, r.frame));
      }
      return finish_given_weights(group, row, c, r.frame, g, -r.upstream, target, sums, round);
    }
    if (targets.is_soft()) {
      const soft_row<T> q = soft(i);
      if (!finished) {
        finish_logits(group, row, c, r.frame, -1, known, direct(i, r.frame));
        add_soft_margin(group, row, c, r.frame, q, known, direct(i, r.frame));
      }
      return finish_soft_weights(group, row, c, r.frame, r.log_evidence, q, r.total, options.lambda,
                                 r.upstream, sums, round);
    }
    if (!finished) finish_logits(group, row, c, r.frame, target, known, direct(i, r.frame));
    return finish_weights(group, row, c, r.frame, r.log_evidence, -r.upstream * r.total,
                          r.upstream * r.coefficients.smoothing, class_weights(), target, sums, least, round);
  }
  // Puts the weights of row i, rounded before, where the products take them from.
  template <class Group, class Row>
  LGM_HD void store_weights(const Group& group, std::int64_t i, Row& row) const {
    const std::int64_t first = i * tile_stride;
    if (is_narrow(form.format)) {
      group.for_each(row, [&](T& w, std::int64_t k) { w = b.weights.keep(first + k, w); });
      return;
    }
    if (form.weight_parts > 1) {
      group.for_each(row, [&](T& w, std::int64_t k) {
        const T kept = rounded_to(form.format, w);
        write_number(b.weights.low, form.format, first + k, w - kept);
        w = kept;
      });
    }
    row.store(tile_row(i));
  }
  // What the features' gradient of row i has besides the products; from the first class tile on they add up.
  template <class Group>
  LGM_HD void begin_gradient(const Group& group, std::int64_t i, const row_record<T>& r,
                             const weight_sums<T>& weights) const {
    if (gradient.feature == nullptr) return;
    const std::int64_t z = r.class_of_terms(b.target[i]);
    const class_parameters<T> c = parameters_of(z < 0 ? 0 : z);
    const T scale = diagonal() || c.log_variance == nullptr ? T(1) : inverse_variance(*c.log_variance);
    const feature_terms<T> terms =
        terms_of(shape, r, weights, targets.kind, local_target(i) >= 0, scale, b.state->base_scale);
    begin_feature_gradient(group, shape.dims, features(i), centred(i), terms, c, origin, first_class > 0,
                           feature_sum(i));
  }
  // Of a row that does not count.
  template <class Group>
  LGM_HD void clear_sums(const Group& group, std::int64_t i) const {
    T *const row = tile_row(i), *const out = gradient.feature == nullptr ? nullptr : feature_sum(i);
    group.for_each(class_count, [&](std::int64_t k) {
      row[k] = T(0);
      if (b.weights.high != nullptr) write_number(b.weights.high, form.format, i * tile_stride + k, T(0));
      if (b.weights.low != nullptr) write_number(b.weights.low, form.format, i * tile_stride + k, T(0));
    });
    group.for_each(out != nullptr && first_class == 0 ? shape.dims : 0,
                   [&](std::int64_t j) { out[j] = T(0); });
  }

  // Adds the losses of the tile, in double, and with the last tile writes what is asked for.
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
    group.once([&] {
      call_state<T>& s = *b.state;
      s.total += total;
      s.classification += classification;
      s.likelihood += likelihood;
      s.correct += correct;
      if (!last) return;
      if (result.counted != nullptr) *result.counted = s.counted;
      if (result.correct != nullptr) *result.correct = s.correct;
      if (options.reduction == reduction::none) return;
      const double d = static_cast<double>(s.divisor);
      if (result.total != nullptr) *result.total = static_cast<T>(s.total / d);
      if (result.classification != nullptr) *result.classification = static_cast<T>(s.classification / d);
      if (result.likelihood != nullptr) *result.likelihood = static_cast<T>(s.likelihood / d);
    });
  }

  template <class Group>
  LGM_HD void keep(const Group& group, std::int64_t i, const row_record<T>& r) const {
    group.once([&] { b.record[i] = r; });
  }

 private:
  // The lowest class on ties.
  template <class Found>
  LGM_HD static void take_larger(const Found& from, Found& into) {
    if (from.index >= 0 &&
        (into.index < 0 || from.value > into.value || (from.value == into.value && from.index < into.index)))
      into = from;
  }

  template <class Group>
  LGM_HD void take(const Group& group, std::int64_t i, bool counts, std::int64_t target,
                   row_record<T>& r) const {
    group.once([&] {
      b.target[i] = counts ? target : -1;
      b.counts[i] = counts ? 1 : 0;
      b.key[i] = b.target[i] < 0 ? shape.classes : b.target[i];
    });
    const feature_row<T> out{b.samples, i * operand_stride, form.as_given};
    if (!counts) {
      group.for_each(b.offset != nullptr ? shape.dims : 0,
                     [&](std::int64_t j) { b.samples.keep(out.first + j, T(0)); });
      return;
    }
    const T half_norm =
        b.offset != nullptr ? centre_row(group, shape.dims, features(i), static_cast<const T*>(b.offset), out)
        : origin != nullptr
            ? T(0.5) * squared_norm(group, shape.dims, centred_features<T>{features(i), origin})
            : T(0.5) * squared_norm(group, shape.dims, features(i));
    const T fault = r.begin_frame(group, shape, features(i), half_norm, b.state->base_scale);
    if (target < 0) return;
    r.take_target(
        target_of(group, shape.dims, features(i), parameters_of(target), log_prior(target), b.state->alpha),
        fault);
  }
  // What the row's logits leave out. Of a whole mixture the target's class decides, or the class with the largest target, so
  // that backward does as forward did; shards all leave out the same.
  template <class Group>
  LGM_HD void choose_frame(const Group& group, std::int64_t i, std::int64_t target, row_record<T>& r) const {
    r.frame = r.frame.bounded();
    r.frame.omit_shared();
    const bool whole = !is_shard(shape) && shape.classes > 0;
    if (targets.is_soft()) {
      if (!whole) return;
      r.deciding = largest_target(group, soft_from(i, 0).target, shape.classes).index;
      r.frame.omit_unless_near(T(0.5) *
                               squared_distance(group, shape.dims, features(i), parameters_of(r.deciding)));
      return;
    }
    if (target < 0) return;
    if (whole) r.frame.omit_unless_near(r.target.distance);
    omit_from(group, shape.dims, features(i), parameters_of(target), log_prior(target), b.state->alpha,
              r.frame, origin, b.state->base_scale, r.target);
  }
  // The class of the first `classes` with the largest of targets q, the lowest on ties.
  struct found_class {
    std::int64_t index;
    T value;
  };
  template <class Group>
  LGM_HD found_class largest_target(const Group& group, const T* q, std::int64_t classes) const {
    const T most = group.reduce(
        classes, -numeric<T>::infinity, [&](std::int64_t k) { return q[k]; }, maximum{});
    const std::int64_t k = group.reduce(
        classes, classes, [&](std::int64_t c) { return q[c] == most ? c : classes; }, minimum{});
    return {k < classes ? k : 0, most};
  }
  // With a given slope, a row of zeros and without a likelihood has no gradient, whatever its features.
  template <class Group>
  LGM_HD bool needs_features(const Group& group, std::int64_t i, bool has_target) const {
    const T* const g = slope(i);
    const bool slopes =
        group.reduce(
            shape.classes, std::int64_t(0),
            [&](std::int64_t k) { return std::int64_t(g[k] == T(0) ? 0 : 1); }, maximum{}) != 0;
    return slopes || (has_target && options.lambda != T(0));
  }

  // Of a row without margin: its best class, and the class with the largest soft target.
  template <class Group, class Row>
  LGM_HD void note_best(const Group& group, std::int64_t i, const Row& row, T top, row_record<T>& r) const {
    const row_evidence<T> best = evidence_of(group, row, top, first_class, true);
    if (best.best >= 0 && (r.best.index < 0 || best.others.max > r.best.value)) {
      r.best.index = best.best;
      r.best.value = best.others.max;
    }
    const T* const q = soft(i).target;
    const found_class most = largest_target(group, q, class_count);
    if (class_count > 0 && (r.wanted.index < 0 || most.value > r.wanted.value)) {
      r.wanted.index = first_class + most.index;
      r.wanted.value = most.value;
    }
  }

  template <class Group>
  LGM_HD void write_losses(const Group& group, std::int64_t i, const log_parts<T>& others,
                           const rest_terms<T>& terms, row_record<T>& r) const {
    const std::int64_t at = first_row + i;
    const bool counts = b.counts[i] != 0;
    T classification = 0, likelihood = 0, total = 0;
    if (counts) {
      if (targets.is_soft()) {
        classification = sample_weight(at) * r.evidence.excess_under(r.log_evidence);
        likelihood = sample_weight(at) * r.likelihood;
      } else {
        const bool here = b.target[i] >= 0, merged = read_state != nullptr;
        if (here) {
          classification = r.coefficients.target * terms.classification_loss();
          likelihood = r.coefficients.likelihood * likelihood_loss(r.target.distance, r.target.half_log_det);
        }
        if (wishes.gather_excess && (here || merged))
          classification += r.evidence.excess_under(r.log_evidence);
      }
    }
    if ((counts && !b.state->alpha_usable) || is_bad(label(at)))
      classification = likelihood = numeric<T>::not_a_number;
    total = total_loss(classification, options.lambda, likelihood);
    const bool correct = counts && wishes.find_best && is_correct(group, i, r);
    r.losses.total = total;
    r.losses.classification = classification;
    r.losses.likelihood = likelihood;
    r.losses.correct = correct;
    group.once([&] {
      const bool each = options.reduction == reduction::none;
      if (each && result.total != nullptr) result.total[at] = total;
      if (each && result.classification != nullptr) result.classification[at] = classification;
      if (each && result.likelihood != nullptr) result.likelihood[at] = likelihood;
      if (result.row_state != nullptr) {
        T* const state = result.row_state + 2 * at;
        state[0] = state[1] = -numeric<T>::infinity;
        if (counts) r.write_state(shape, targets.is_soft(), others, state);
      }
      if (result.log_evidence != nullptr)
        result.log_evidence[at] = counts ? r.frame.complete(r.log_evidence.value()) : T(0);
    });
  }

  // Whether the target has the largest logit without margin. Near a tie the product's rounding must not
  // decide, so both are then computed from the differences, as a label's logit always is.
  template <class Group>
  LGM_HD bool is_correct(const Group& group, std::int64_t i, const row_record<T>& r) const {
    const auto exact = [&](std::int64_t k) {
      return logit(log_prior(k) - half_log_det(group, shape.dims, parameters_of(k)),
                   distance(group, i, k, r.frame), T(1));
    };
    const std::int64_t z = targets.is_soft() ? r.wanted.index : b.target[i];
    const std::int64_t k = targets.is_soft() ? r.best.index : r.evidence.best;
    if (z < 0) return false;
    if (z == k) return true;
    const T target = targets.is_soft() ? exact(z) : r.target.logit_without_margin;
    T best = targets.is_soft() ? r.best.value : r.evidence.others.max;
    if (k >= 0 && std::fabs(target - best) <= T(1e-3) * (T(1) + std::fabs(best))) best = exact(k);
    return target > best || (target == best && (k < 0 || z < k));
  }

  // Where the slope of the logits is the caller's. `target` is that of the row, which counts or not.
  LGM_HD void weigh_given(std::int64_t i, std::int64_t target, row_record<T>& r) const {
    r.upstream = incoming(i);
    if (target < 0) return;
    const T likelihood =
        options.lambda == T(0) ? T(0) : options.lambda * r.coefficients.likelihood / b.state->divisor;
    r.weigh_target(-slope(i)[target], b.state->alpha, likelihood);
  }
};

}  // namespace lgm::detail
