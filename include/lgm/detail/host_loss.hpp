// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <lgm/column.hpp>
#include <lgm/detail/check.hpp>
#include <lgm/detail/host_tiles.hpp>
#include <lgm/row.hpp>
#include <lgm/soft_row.hpp>
#include <lgm/types.hpp>
#include <limits>
#include <numeric>

// Losses and gradients on the host.

namespace lgm::detail {

// What a loss is given besides the features: labels; or soft targets; or the gradient of the logits, and labels if any.
template <class T>
struct loss_targets {
  label_reader labels;
  soft_targets<T> soft;
  const T* slope = nullptr;  // [samples, classes], row stride shape.logits_stride
};

// Kind: which of them it is. What the others need is not compiled.
template <class T, class Threads, weight_kind Kind>
class host_loss {
  static constexpr bool is_soft = Kind == weight_kind::soft, is_given = Kind == weight_kind::given;

 public:
  host_loss(const host_plan& plan, const shape& s, const mixture<T>& m, const loss_options<T>& o,
            const T* features, const loss_targets<T>& targets, const workspace& w)
      : t_(plan, s, m, features, w), b_(t_.buffers), options_(o), targets_(targets) {
    alpha_ = host_alpha(o);
    alpha_usable_ = usable_factor(alpha_);
    if (!alpha_usable_) alpha_ = 0;
    if (!is_given && !is_soft && o.gradient_filter > T(0) && o.label_smoothing == T(0)) {
      least_ = larger(least_, std::log(o.gradient_filter));
      t_.expect_zeros();
    }
    class_weight_sum_ = static_cast<T>(total_classes(s));
    if (o.class_weight != nullptr) {
      class_weight_ = o.class_weight + s.class_begin;
      if (o.label_smoothing != T(0)) class_weight_sum_ = sum_of(o.class_weight, total_classes(s));
    }
    if (is_shard(s) && !is_given) t_.share_states();
    count_samples();
  }

  // Losses, gradients or both. With read_state null the losses' evidence is gathered here; else it is what forward and
  // merge_row_state left, of all classes of the mixture, and the losses are this call's part of theirs. report: whether
  // losses are written.
  void loss(const T* read_state, bool report, const T* upstream, const loss_result<T>& result,
            const gradients<T, T>& gradient) {
    const shape& s = t_.shape;
    read_state_ = read_state;
    report_ = report;
    upstream_ = upstream;
    result_ = result;
    gradient_ = gradient;
    find_best_ = result.correct != nullptr;
    const bool differentiate = gradient.feature != nullptr || wants_parameters();
    const bool terms = report && (result.total != nullptr || result.classification != nullptr);
    gather_excess_ = terms && (is_soft || options_.label_smoothing != T(0));
    gather_likelihood_ = report && is_soft && (result.total != nullptr || result.likelihood != nullptr);
    const bool evidence = report && (differentiate || find_best_ || terms || result.row_state != nullptr ||
                                     result.log_evidence != nullptr);
    const bool gather = gather_excess_ || gather_likelihood_ || (evidence && read_state == nullptr);
    const bool visit = differentiate || evidence || gather || (report && result.likelihood != nullptr);
    // A tile of whole rows becomes weights in one visit to each row; else all class tiles' evidence comes first.
    const bool at_once = gather && differentiate && t_.plan.whole_rows && s.classes > 0;
    loss_sums sums;

    if (s.samples == 0) clear_parameters();
    t_.for_row_tiles(visit ? s.samples : 0, counted_ == s.samples, [&] {
      t_.for_rows([&](std::int64_t i, std::int64_t) { prepare(i); });
      if (!at_once) {
        if (gather) {
          t_.for_class_tiles([&] {
            t_.make_products();
            t_.for_rows([&](std::int64_t i, std::int64_t) { gather_evidence(i); });
          });
        }
        t_.for_rows([&](std::int64_t i, std::int64_t) { settle(i); });
      }
      if (differentiate) make_gradients(at_once, true);
      if (report) add_losses(sums);
    });
    if (report) write_sums(sums);
  }

  // Gradients from targets.slope, any gradient of the logits.
  void logits_gradients(const T* upstream, const gradients<T, T>& gradient) {
    upstream_ = upstream;
    gradient_ = gradient;
    if (t_.shape.samples == 0) clear_parameters();
    t_.for_row_tiles(gradient.feature != nullptr || wants_parameters() ? t_.shape.samples : 0, false, [&] {
      t_.for_rows([&](std::int64_t i, std::int64_t) {
        prepare(i);
        weigh_given(i);
      });
      make_gradients(false, spherical() && wants_log_variance());
    });
  }

 private:
  using group_type = packet_group<T>;
  using row_type = typename group_type::row;
  using row_part = typename host_tiles<T, Threads>::row_part;

  struct loss_sums {
    double total = 0, classification = 0, likelihood = 0;
    std::int64_t correct = 0;
  };

  bool diagonal() const { return t_.diagonal(); }
  bool spherical() const { return t_.shape.covariance == covariance::spherical; }
  bool wants_log_variance() const {
    return gradient_.log_variance != nullptr && t_.shape.covariance != covariance::identity;
  }
  bool wants_parameters() const {
    return gradient_.mean != nullptr || gradient_.log_prior != nullptr || wants_log_variance();
  }

  std::int64_t label(std::int64_t sample) const {
    return targets_.labels ? targets_.labels[sample] : options_.ignore_label;
  }
  T sample_weight(std::int64_t sample) const {
    return options_.sample_weight != nullptr ? options_.sample_weight[sample] : T(1);
  }
  T incoming(std::int64_t i) const {
    if (!alpha_usable_) return T(0);
    return upstream_ == nullptr ? T(1)
                                : upstream_[options_.reduction == reduction::none ? t_.first_row + i : 0];
  }
  const T* slope(std::int64_t i) const {
    return targets_.slope + (t_.first_row + i) * row_stride(t_.shape.logits_stride, t_.shape.classes);
  }

  static T sum_of(const T* values, std::int64_t n) {
    return static_cast<T>(std::accumulate(values, values + n, 0.0));
  }

  // The samples that count, and what reduction::mean divides by.
  void count_samples() {
    const std::int64_t samples = t_.shape.samples;
    double weights = 0;
    for (std::int64_t i = 0; i < samples; ++i) {
      const std::int64_t z = label(i);
      if (!is_soft && z == options_.ignore_label) continue;
      ++counted_;
      double weight = static_cast<double>(sample_weight(i));
      if (!is_soft && options_.class_weight != nullptr)
        weight *= static_cast<double>(options_.class_weight[z]);
      weights += weight;
    }
    divisor_ = options_.reduction != reduction::mean ? T(1)
               : options_.normalizer != nullptr      ? *options_.normalizer
               : weights == 0                        ? numeric<T>::not_a_number
                                                     : static_cast<T>(weights);
  }

  // Soft targets of row i over the classes of the tile from `first` on, less the sample's weight.
  soft_row<T> soft(std::int64_t i, std::int64_t first = 0) const {
    const T smoothing = options_.label_smoothing, classes = static_cast<T>(total_classes(t_.shape));
    const std::int64_t stride = row_stride(targets_.soft.stride, t_.shape.classes);
    return {targets_.soft.data + (t_.first_row + i) * stride + t_.first_class + first, class_weights(first),
            T(1) - smoothing, smoothing / classes, alpha_};
  }
  // Of the classes of the tile from `first` on.
  const T* class_weights(std::int64_t first = 0) const {
    return class_weight_ == nullptr ? nullptr : class_weight_ + t_.first_class + first;
  }

  void prepare(std::int64_t i) {
    const std::int64_t sample = t_.first_row + i, z = label(sample);
    row_record<T>& r = b_.record[i];
    r = {};
    const bool labelled = !is_soft && z != options_.ignore_label;
    if (labelled) {
      const T weight = options_.class_weight != nullptr ? options_.class_weight[z] : T(1);
      r.coefficients = label_coefficients<T>(sample_weight(sample), weight, class_weight_sum_,
                                             options_.label_smoothing, total_classes(t_.shape));
    }
    const std::int64_t local = local_class(t_.shape, z);
    const bool here = labelled && local >= 0;
    if (!here) r.target.logit = -numeric<T>::infinity;
    const bool counts = is_given ? needs_features(i, here) : labelled || is_soft;
    if (!counts) return t_.skip_row(i);
    t_.take_row(i, here ? local : -1, alpha_);
    if (!is_given) choose_frame(i);
  }
  // What the row's logits leave out. Of a whole mixture the target's class decides, or the class with the largest target, so
  // that backward does as forward did; shards all leave out the same.
  void choose_frame(std::int64_t i) {
    const shape& s = t_.shape;
    row_record<T>& r = b_.record[i];
    if (is_shard(s) || s.classes == 0) return t_.omit_shared(i, alpha_);
    if (!is_soft) return t_.omit_unless_near(i, r.target.distance, alpha_);
    const T* const q = soft(i, -t_.first_class).target;
    r.deciding = std::max_element(q, q + s.classes) - q;
    t_.omit_unless_near(i, t_.distance(i, r.deciding, row_frame<T>()), T(0));
  }
  // With a given slope, a row of zeros and without a likelihood has no gradient, whatever its features.
  bool needs_features(std::int64_t i, bool has_target) const {
    if (has_target && options_.lambda != T(0)) return true;
    const T* g = slope(i);
    return std::any_of(g, g + t_.shape.classes, [](T v) { return !(v == T(0)); });
  }

  void gather_evidence(std::int64_t i) {
    if (b_.counts[i] == 0) return;
    t_.for_parts(i, [&](row_part& part) { gather_evidence(i, part); });
  }
  void gather_evidence(std::int64_t i, row_part& part) {
    row_record<T>& r = b_.record[i];
    row_type& row = part.row;
    const group_type group;
    const std::int64_t target = part.target, first_class = t_.first_class + part.first;
    T top = t_.finish(i, part, target, larger(r.evidence.others.max, r.target.logit));
    row_evidence<T> e;
    if constexpr (is_soft) {
      if (find_best_) note_best(i, part, top);
      const soft_row<T> q = soft(i, part.first);
      top = add_soft_margin(group, row, part.constants, r.frame, q, r.evidence.others.max,
                            t_.direct(i, part, r.frame));
      e = evidence_of(group, row, top, first_class, false);
      add_excess(
          group, row, [&](auto k) { return q.coefficient(k); }, e);
      if (gather_likelihood_) r.likelihood += soft_likelihood(group, row, part.constants, r.frame, q);
    } else {
      e = evidence_of(group, row, top, first_class, find_best_);
      if (gather_excess_) {
        const T *weight = class_weights(part.first), *bias = part.constants.bias;
        const T each = r.coefficients.smoothing;
        add_excess(
            group, row,
            [&](auto k) {
              using V = decltype(load(bias, k));
              V c(each);
              if (weight != nullptr) c = c * load(weight, k);
              replace(c, k, target, T(0));
              return c;
            },
            e);
      }
    }
    r.evidence.merge(e);
  }

  // Of a row without margin: its best class, and the class with the largest soft target.
  void note_best(std::int64_t i, const row_part& part, T top) {
    row_record<T>& r = b_.record[i];
    const std::int64_t first = t_.first_class + part.first;
    const row_evidence<T> best = evidence_of(group_type{}, part.row, top, first, true);
    if (best.best >= 0 && (r.best.index < 0 || best.others.max > r.best.value))
      r.best = {best.best, best.others.max};
    const T* q = soft(i, part.first).target;
    const std::int64_t k = std::max_element(q, q + part.row.size) - q;
    if (r.wanted.index < 0 || q[k] > r.wanted.value) r.wanted = {first + k, q[k]};
  }

  // The row's state once all class tiles are in, or as it is given, and what follows from it.
  void settle(std::int64_t i) {
    row_record<T>& r = b_.record[i];
    const T* state = read_state_ == nullptr ? nullptr : read_state_ + 2 * (t_.first_row + i);
    const log_parts<T> others =
        state == nullptr ? log_parts<T>(r.evidence.others) : row_record<T>::read_state(t_.shape, state);
    if (!is_soft)
      r.total = r.coefficients.total();
    else if (state == nullptr)
      r.total = r.evidence.coefficient;
    else
      r.total = is_shard(t_.shape)
                    ? state[0]
                    : sum_of_coefficients(group_type{}, t_.shape.classes, soft(i, -t_.first_class));
    if (state != nullptr && is_shard(t_.shape) && !is_soft) r.target.logit = state[0];
    const rest_terms<T> terms(rest(others, r.target.logit));
    r.log_evidence = log_evidence<T>(r.target.logit, others, terms);
    if (report_) write_losses(i, others, terms);
    weigh(i, terms);
  }

  // Losses of row i.
  void write_losses(std::int64_t i, const log_parts<T>& others, const rest_terms<T>& terms) {
    const bool each = options_.reduction == reduction::none;
    row_record<T>& r = b_.record[i];
    const std::int64_t at = t_.first_row + i;
    const bool counts = b_.counts[i] != 0;
    T classification = 0, likelihood = 0, total = 0;
    if (counts) {
      if (is_soft) {
        classification = sample_weight(at) * r.evidence.excess_under(r.log_evidence);
        likelihood = sample_weight(at) * r.likelihood;
      } else {
        const bool here = b_.target[i] >= 0, merged = read_state_ != nullptr;
        if (here) {
          classification = r.coefficients.target * terms.classification_loss();
          likelihood = r.coefficients.likelihood * likelihood_loss(r.target.distance, r.target.half_log_det);
        }
        if (gather_excess_ && (here || merged)) classification += r.evidence.excess_under(r.log_evidence);
      }
      if (!alpha_usable_) classification = likelihood = std::numeric_limits<T>::quiet_NaN();
      total = total_loss(classification, options_.lambda, likelihood);
    }
    r.losses = {total, classification, likelihood, counts && find_best_ && is_correct(i)};
    if (each && result_.total != nullptr) result_.total[at] = total;
    if (each && result_.classification != nullptr) result_.classification[at] = classification;
    if (each && result_.likelihood != nullptr) result_.likelihood[at] = likelihood;
    if (result_.row_state != nullptr) {
      T* const state = result_.row_state + 2 * at;
      state[0] = state[1] = -numeric<T>::infinity;
      if (counts) r.write_state(t_.shape, is_soft, others, state);
    }
    if (result_.log_evidence != nullptr)
      result_.log_evidence[at] = counts ? r.frame.complete(r.log_evidence.value()) : T(0);
  }
  // In the order of the samples, so that the sums do not depend on tiles and threads.
  void add_losses(loss_sums& sums) const {
    for (std::int64_t i = 0; i < t_.row_count; ++i) {
      const row_losses<T>& losses = b_.record[i].losses;
      sums.total += static_cast<double>(losses.total);
      sums.classification += static_cast<double>(losses.classification);
      sums.likelihood += static_cast<double>(losses.likelihood);
      sums.correct += losses.correct;
    }
  }
  void write_sums(const loss_sums& sums) const {
    if (result_.counted != nullptr) *result_.counted = counted_;
    if (result_.correct != nullptr) *result_.correct = sums.correct;
    if (options_.reduction == reduction::none) return;
    const double d = static_cast<double>(divisor_);
    if (result_.total != nullptr) *result_.total = static_cast<T>(sums.total / d);
    if (result_.classification != nullptr) *result_.classification = static_cast<T>(sums.classification / d);
    if (result_.likelihood != nullptr) *result_.likelihood = static_cast<T>(sums.likelihood / d);
  }

  // Whether the target has the largest logit without margin. Near a tie the product's rounding must not
  // decide, so both are then computed from the differences, as a label's logit always is.
  [[gnu::noinline]] bool is_correct(std::int64_t i) const {
    const row_record<T>& r = b_.record[i];
    const auto exact = [&](std::int64_t k) {
      return logit(t_.log_prior(k) - half_log_det(group_type{}, t_.shape.dims, t_.parameters_of(k)),
                   t_.distance(i, k, r.frame), T(1));
    };
    const std::int64_t z = is_soft ? r.wanted.index : b_.target[i];
    const std::int64_t k = is_soft ? r.best.index : r.evidence.best;
    if (z < 0) return false;
    if (z == k) return true;
    const T target = is_soft ? exact(z) : r.target.logit_without_margin;
    T best = is_soft ? r.best.value : r.evidence.others.max;
    if (k >= 0 && std::fabs(target - best) <= T(1e-3) * (T(1) + std::fabs(best))) best = exact(k);
    return target > best || (target == best && (k < 0 || z < k));
  }

  // What the gradients of row i are multiplied by, and the target's terms of eq:weight.
  void weigh(std::int64_t i, const rest_terms<T>& terms) {
    row_record<T>& r = b_.record[i];
    if (b_.counts[i] == 0) return;
    r.upstream = incoming(i) / divisor_;
    if (is_soft) r.upstream *= sample_weight(t_.first_row + i);
    if (b_.target[i] < 0) return;
    r.weigh_target(r.coefficients.miss(terms.target_miss()), alpha_,
                   options_.lambda * r.coefficients.likelihood);
  }
  void weigh_given(std::int64_t i) {
    row_record<T>& r = b_.record[i];
    if (b_.counts[i] == 0) return;
    r.upstream = incoming(i);
    if (b_.target[i] < 0) return;
    const T likelihood =
        options_.lambda == T(0) ? T(0) : options_.lambda * r.coefficients.likelihood / divisor_;
    r.weigh_target(-slope(i)[b_.target[i]], alpha_, likelihood);
  }

  // The gradients of a row tile, class tile by class tile. at_once: the one class tile has all classes, and the rows'
  // evidence is yet to be gathered. needs_logits: false where the weights do not depend on them.
  void make_gradients(bool at_once, bool needs_logits) {
    const shape& s = t_.shape;
    const std::int64_t stride = row_stride(s.gradient_stride, s.dims);
    T* const out = gradient_.feature == nullptr ? nullptr : gradient_.feature + t_.first_row * stride;
    if (out != nullptr && s.classes == 0)
      for (std::int64_t i = 0; i < t_.row_count; ++i)
        std::fill(out + i * stride, out + i * stride + s.dims, T(0));
    t_.for_class_tiles([&] {
      if (needs_logits)
        t_.make_products();
      else
        t_.prepare_constants();
      make_weights(at_once, needs_logits, out, stride);
      // Where nothing is there yet to be added to, the means' gradients are made in their own place.
      T* const whole = gradient_.accumulate || t_.first_row > 0 ? nullptr : gradient_.mean;
      t_.multiply_weights(out, stride, wants_parameters(), gradient_.mean != nullptr,
                          diagonal() && wants_log_variance(), whole,
                          [&](std::int64_t begin, std::int64_t count, T* differences, T* squares) {
                            finish_parameters(begin, count, differences, squares);
                          });
    });
  }

  // Logits to weights, with their sums by row and, where parameters need them, by class. out: feature gradients of the
  // tile, to which the products will add; null: not wanted.
  void make_weights(bool at_once, bool needs_logits, T* out, std::int64_t stride) {
    const std::int64_t parts = t_.row_parts(), classes = t_.class_count, dims = t_.shape.dims;
    const bool parameters = wants_parameters(), add = t_.first_class > 0;
    class_sum_rows<T> all;
    if (parameters) all.weight = b_.class_sum;
    if (spherical() && wants_log_variance()) all.distance = b_.class_distance;
    if (parameters && is_soft) {
      all.share = b_.class_share;
      all.probability = b_.class_probability;
    }
    T* const arrays[] = {all.weight, all.distance, all.share, all.probability};
    for (T* sum : arrays)
      if (sum != nullptr) std::fill(sum, sum + parts * classes, T(0));
    t_.for_rows([&](std::int64_t i, std::int64_t part) {
      if (at_once) {
        gather_evidence(i);
        settle(i);
      }
      row_type row = t_.held_row(i);
      T* const gradient = out == nullptr ? nullptr : out + i * stride;
      if (b_.counts[i] == 0) {
        std::fill(row.data, row.data + row.size, T(0));
        if (gradient != nullptr && !add) std::fill(gradient, gradient + dims, T(0));
        return;
      }
      const auto at = [&](T* sums) { return sums == nullptr ? nullptr : sums + part * classes; };
      const class_sum_rows<T> sums{at(all.weight), at(all.distance), at(all.share), at(all.probability)};
      const weight_sums<T> weights = weigh_row(i, row, at_once, needs_logits, sums);
      if (gradient != nullptr) begin_gradient(i, weights, add, gradient);
    });
    for (T* sum : arrays)
      for (std::int64_t part = 1; sum != nullptr && part < parts; ++part)
        group_type{}.for_each(classes,
                              [&](auto k) { store(sum, k, load(sum, k) + load(sum + part * classes, k)); });
  }
  // What the features' gradient of row i has besides the products.
  void begin_gradient(std::int64_t i, const weight_sums<T>& weights, bool add, T* out) const {
    const row_record<T>& r = b_.record[i];
    const std::int64_t z = r.class_of_terms(b_.target[i]);
    const class_parameters<T> c = t_.parameters_of(std::max<std::int64_t>(z, 0));
    const T scale = diagonal() || c.log_variance == nullptr ? T(1) : inverse_variance(*c.log_variance);
    const feature_terms<T> terms =
        terms_of(t_.shape, r, weights, Kind, t_.local_target(i) >= 0, scale, b_.constants.base_scale);
    begin_feature_gradient(group_type{}, t_.shape.dims, t_.features(i), t_.centred(i), terms, c, t_.origin(),
                           add, out);
  }
  // finished: the row has logits already; needs_logits: false where it needs none.
  weight_sums<T> weigh_row(std::int64_t i, row_type& row, bool finished, bool needs_logits,
                           const class_sum_rows<T>& sums) {
    if constexpr (is_given)
      return weigh_given_row(i, row, needs_logits, sums);
    else if constexpr (is_soft)
      return weigh_soft_row(i, row, finished, sums);
    else
      return weigh_labelled_row(i, row, finished, sums);
  }
  weight_sums<T> weigh_labelled_row(std::int64_t i, row_type& row, bool finished,
                                    const class_sum_rows<T>& sums) {
    const row_record<T>& r = b_.record[i];
    const std::int64_t target = t_.local_target(i);
    if (!finished)
      t_.for_parts(i, [&](row_part& part) { t_.finish(i, part, part.target, r.log_evidence.anchor); });
    return finish_weights(group_type{}, row, b_.constants, r.frame, r.log_evidence, -r.upstream * r.total,
                          r.upstream * r.coefficients.smoothing, class_weights(), target, sums, least_);
  }
  weight_sums<T> weigh_soft_row(std::int64_t i, row_type& row, bool finished, const class_sum_rows<T>& sums) {
    const row_record<T>& r = b_.record[i];
    const group_type group;
    const soft_row<T> q = soft(i);
    if (!finished) {
      t_.for_parts(i, [&](row_part& part) {
        t_.finish(i, part, -1, r.log_evidence.anchor);
        add_soft_margin(group, part.row, part.constants, r.frame, soft(i, part.first), r.log_evidence.anchor,
                        t_.direct(i, part, r.frame));
      });
    }
    return finish_soft_weights(group, row, b_.constants, r.frame, r.log_evidence, q, r.total, options_.lambda,
                               r.upstream, sums);
  }
  weight_sums<T> weigh_given_row(std::int64_t i, row_type& row, bool needs_logits,
                                 const class_sum_rows<T>& sums) {
    const row_record<T>& r = b_.record[i];
    const group_type group;
    const T* g = slope(i) + t_.first_class;
    if (needs_logits) {
      t_.for_parts(i, [&](row_part& part) {
        t_.finish(i, part, -1, -numeric<T>::infinity);
        // Without a margin this only makes exact the distances that g weighs.
        const soft_row<T> weighed{g + part.first, nullptr, T(0), T(0), T(0)};
        add_soft_margin(group, part.row, part.constants, r.frame, weighed, -numeric<T>::infinity,
                        t_.direct(i, part, r.frame));
      });
    }
    return finish_given_weights(group, row, b_.constants, r.frame, g, -r.upstream, t_.local_target(i), sums);
  }

  // Gradients of the parameters of classes [begin, begin + count) of the tile, from their sums over samples.
  void finish_parameters(std::int64_t begin, std::int64_t count, T* differences, T* squares) {
    const group_type group;
    const std::int64_t dims = t_.shape.dims, first = t_.first_class + begin;
    const bool add = gradient_.accumulate || t_.first_row > 0;
    class_sums<T> sums[host_plan::largest_block];
    for (std::int64_t c = 0; c < count; ++c) {
      class_sums<T>& s = sums[c];
      const T weight = b_.class_sum[begin + c];
      s.difference = differences == nullptr ? nullptr : differences + c * dims;
      s.square = squares == nullptr ? nullptr : squares + c * dims;
      s.share = is_soft ? b_.class_share[begin + c] : weight;
      s.probability = is_soft ? b_.class_probability[begin + c] : -weight;
      if (spherical()) s.distance = b_.class_distance[begin + c];
    }
    for (std::int64_t i = 0; i < t_.row_count; ++i) {
      const std::int64_t z = b_.target[i] - first;
      if (b_.target[i] < 0 || z < 0 || z >= count) continue;
      const row_record<T>& r = b_.record[i];
      add_target(group, dims, t_.features(i), t_.parameters_of(b_.target[i]).mean, r.weight, r.share, r.miss,
                 r.target.distance, sums[z]);
    }
    for (std::int64_t c = 0; c < count; ++c) {
      const std::int64_t k = first + c;
      const class_parameters<T> p = t_.parameters_of(k);
      if (gradient_.mean != nullptr)
        write_mean_gradient(group, dims, p, sums[c], add, gradient_.mean + k * dims);
      if (wants_log_variance())
        write_log_variance_gradient(group, dims, p, sums[c], add,
                                    gradient_.log_variance + k * (diagonal() ? dims : 1));
      if (gradient_.log_prior != nullptr)
        gradient_.log_prior[k] = add ? gradient_.log_prior[k] + sums[c].probability : sums[c].probability;
    }
  }

  void clear_parameters() const {
    const gradients<T, T>& g = gradient_;
    if (g.accumulate) return;
    const std::int64_t classes = t_.shape.classes, all = classes * t_.shape.dims;
    if (g.mean != nullptr) std::fill(g.mean, g.mean + all, T(0));
    if (wants_log_variance()) std::fill(g.log_variance, g.log_variance + log_variance_size(t_.shape), T(0));
    if (g.log_prior != nullptr) std::fill(g.log_prior, g.log_prior + classes, T(0));
  }

  host_tiles<T, Threads> t_;
  host_buffers<T>& b_;
  const loss_options<T> options_;
  const loss_targets<T> targets_;
  T alpha_;
  bool alpha_usable_;
  T least_ = numeric<T>::negligible;  // classes with less, by the logarithm of g_k, have no gradients
  const T* class_weight_ = nullptr;   // of this call's classes
  T class_weight_sum_;                // of all classes; read with label smoothing alone
  std::int64_t counted_ = 0;          // samples
  T divisor_;
  // Of the call.
  const T* read_state_ = nullptr;
  const T* upstream_ = nullptr;
  loss_result<T> result_;
  gradients<T, T> gradient_{};
  bool report_ = false, find_best_ = false, gather_excess_ = false, gather_likelihood_ = false;
};

}  // namespace lgm::detail
