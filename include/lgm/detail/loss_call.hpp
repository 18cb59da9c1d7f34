// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/check.hpp>
#include <lgm/detail/label_view.hpp>
#include <lgm/detail/number_format.hpp>
#include <lgm/detail/row_record.hpp>
#include <lgm/row.hpp>
#include <lgm/soft_row.hpp>
#include <lgm/types.hpp>
#include <type_traits>

// A call of a loss function: its arguments as one struct, made once where the call enters, and what follows from them alone.

namespace lgm::detail {

// The kind of targets, as a member of a call. one_kind is known when the call is compiled, so that code for the others is not
// compiled; any_kind is known when it runs. may_be: whether code for a kind is needed; is: whether the call is of that kind.
template <target_kind Kind>
struct one_kind {
  LGM_HD static constexpr bool may_be(target_kind k) { return k == Kind; }
  LGM_HD constexpr bool is(target_kind k) const { return k == Kind; }
  LGM_HD constexpr target_kind get() const { return Kind; }
};
struct any_kind {
  target_kind kind = target_kind::labels;
  LGM_HD static constexpr bool may_be(target_kind) { return true; }
  LGM_HD bool is(target_kind k) const { return k == kind; }
  LGM_HD target_kind get() const { return kind; }
};

// gradients<G, T>, whatever G is.
template <class T>
struct loss_gradients {
  void* feature = nullptr;
  number_format feature_format = number_format::full;
  T *mean = nullptr, *log_variance = nullptr, *log_prior = nullptr;
  bool accumulate = false;
};

// A sample's part of what reduction::mean divides by.
struct sample_count {
  double weight;
  std::int64_t counted;
};

enum class loss_function { forward, backward, forward_backward, finish_forward, logits_backward };

// What has to be computed for the outputs of a call.
struct loss_requests {
  bool reads_state = false;    // the evidence is given: row_state
  bool report = false;         // losses are written
  bool differentiate = false;  // so are gradients
  bool find_best = false;
  bool gap = false;         // row_evidence::gap
  bool likelihood = false;  // that of soft targets
  bool gather = false;      // a row's evidence is summed over its logits
  bool logits = false;      // weights need a row's logits, be it for its distances alone
  bool visit = false;       // any of these: the samples are read
};

template <class T, class Kind = any_kind>
struct loss_call {
  lgm::shape shape;
  lgm::mixture<T> mixture;
  loss_options<T> options;
  number_array<T> features;  // [samples, dims], row stride shape.feature_stride
  // The targets: labels (target_kind::grad_logits: or none), soft targets, or the gradient of the logits, [samples, classes]
  // with a row stride of shape.logits_stride.
  Kind kind;
  label_view labels;
  soft_targets<T> soft;
  const T* grad_logits = nullptr;
  // [samples, 2], the evidence of all classes of the mixture, as forward left it. null: this call sums it. Where it is given,
  // the losses are this call's part of those of the mixture.
  const T* row_state = nullptr;
  const T* upstream = nullptr;
  loss_result<T> result;
  loss_gradients<T> gradient;
  // Classes whose log g_k is less have no gradients.
  T log_cutoff = numeric<T>::negligible;
  bool shares_states = false;  // row states are to merge with those of other shards
  loss_requests requested;

  // Sets what follows from the other members.
  void request(loss_function function) {
    if (is_labels() && options.gradient_filter > T(0) && options.label_smoothing == T(0))
      log_cutoff = larger(log_cutoff, std::log(options.gradient_filter));
    shares_states = is_shard(shape) && !is_grad_logits();
    const bool reads_state = function == loss_function::backward || function == loss_function::finish_forward;
    const bool report = function != loss_function::backward && function != loss_function::logits_backward;
    const bool total = result.total != nullptr, terms = report && (total || result.classification != nullptr);
    loss_requests& r = requested;
    r.reads_state = reads_state;
    r.report = report;
    r.differentiate = gradient.feature != nullptr || wants_parameters();
    r.logits = !is_grad_logits() || wants_distances();
    if (is_grad_logits()) {
      r.visit = r.differentiate;
      return;
    }
    r.find_best = result.correct != nullptr;
    r.gap = terms && (is_soft() || options.label_smoothing != T(0));
    r.likelihood = report && is_soft() && (total || result.likelihood != nullptr);
    const bool evidence = report && (r.differentiate || r.find_best || terms || result.row_state != nullptr ||
                                     result.log_evidence != nullptr);
    r.gather = r.gap || r.likelihood || (evidence && !reads_state);
    r.visit = r.differentiate || evidence || r.gather || (report && result.likelihood != nullptr);
  }

  LGM_HD bool is_labels() const { return kind.is(target_kind::labels); }
  LGM_HD bool is_soft() const { return kind.is(target_kind::soft); }
  LGM_HD bool is_grad_logits() const { return kind.is(target_kind::grad_logits); }
  LGM_HD bool wants_log_variance() const {
    return gradient.log_variance != nullptr && shape.covariance != covariance::identity;
  }
  LGM_HD bool wants_distances() const {
    return shape.covariance == covariance::spherical && wants_log_variance();
  }
  LGM_HD bool wants_parameters() const {
    return gradient.mean != nullptr || gradient.log_prior != nullptr || wants_log_variance();
  }

  // Without labels, as if all were ignored.
  LGM_HD std::int64_t label(std::int64_t sample) const {
    return labels.is_null() ? options.ignore_label : labels[sample];
  }
  // On a device labels are checked here, after the call has returned: a bad one spoils its own sample alone.
  LGM_HD bool is_bad(std::int64_t label) const {
    return !is_soft() && is_out_of_range(shape, options.ignore_label, label);
  }
  LGM_HD bool is_class(std::int64_t label) const {
    return !is_soft() && label != options.ignore_label && !is_bad(label);
  }
  LGM_HD T sample_weight(std::int64_t sample) const {
    return options.sample_weight != nullptr ? options.sample_weight[sample] : T(1);
  }
  // 0 where the sample does not count.
  LGM_HD sample_count count_of(std::int64_t sample) const {
    const std::int64_t z = label(sample);
    if (!is_soft() && !is_class(z)) return {0, 0};
    double weight = static_cast<double>(sample_weight(sample));
    if (!is_soft() && options.class_weight != nullptr) weight *= static_cast<double>(options.class_weight[z]);
    return {weight, 1};
  }
  // What reduction::mean divides by. weights: of the samples that count.
  LGM_HD T divisor(double weights) const {
    return options.reduction != reduction::mean ? T(1)
           : options.normalizer != nullptr      ? *options.normalizer
           : weights == 0                       ? numeric<T>::not_a_number
                                                : static_cast<T>(weights);
  }

  // Of the classes from `first` on, an index of the call.
  LGM_HD const T* class_weights(std::int64_t first) const {
    return options.class_weight == nullptr ? nullptr : options.class_weight + shape.class_begin + first;
  }
  LGM_HD soft_row<T> soft_targets_of(std::int64_t sample, std::int64_t first, T alpha) const {
    const T smoothing = options.label_smoothing, classes = static_cast<T>(total_classes(shape));
    return {soft.data + sample * row_stride(soft.stride, shape.classes) + first, class_weights(first),
            T(1) - smoothing, smoothing / classes, alpha};
  }
  LGM_HD const T* grad_logits_of(std::int64_t sample) const {
    return grad_logits + sample * row_stride(shape.logits_stride, shape.classes);
  }
  LGM_HD T upstream_of(std::int64_t sample) const {
    return upstream == nullptr ? T(1) : upstream[options.reduction == reduction::none ? sample : 0];
  }
};

template <class T, class Kind, class L>
void set_targets(loss_call<T, Kind>& call, const L* labels) {
  call.labels = label_view(labels);
}
template <class T>
void set_targets(loss_call<T, any_kind>& call, const soft_targets<T>& targets) {
  call.kind = {target_kind::soft};
  call.soft = targets;
}
template <class T>
void set_targets(loss_call<T, one_kind<target_kind::soft>>& call, const soft_targets<T>& targets) {
  call.soft = targets;
}

// A call without results and gradients. targets: labels, soft_targets<T>, or none.
template <class Kind, class F, class... Targets>
loss_call<parameter_t<F>, Kind> call_of(const shape& s, const mixture<parameter_t<F>>& m,
                                        const loss_options<parameter_t<F>>& o, const F* features,
                                        const Targets&... targets) {
  loss_call<parameter_t<F>, Kind> call;
  call.shape = s;
  call.mixture = m;
  call.options = o;
  call.features = array_of(features);
  (set_targets(call, targets), ...);
  return call;
}
// F: of the features.
template <class F, class G, class T>
loss_gradients<T> gradients_of(const gradients<G, T>& g) {
  static_assert(std::is_same<G, F>::value || std::is_same<G, T>::value,
                "feature gradients are of the features' type or the parameters'");
  return {g.feature, feature_type<G>::format, g.mean, g.log_variance, g.log_prior, g.accumulate};
}

// Where a row state is read, it must be given, and no result may be wanted that does not follow from it.
template <class T, class Kind>
status check_state(const loss_call<T, Kind>& call) {
  const loss_requests& r = call.requested;
  if (!r.reads_state) return status::success;
  if (call.row_state == nullptr && call.shape.samples > 0) return status::null_pointer;
  const bool untold = call.result.correct != nullptr || call.result.row_state != nullptr;
  return r.report && untold ? status::invalid_option : status::success;
}
// Targets other than labels.
template <class T, class Kind>
status check_given_targets(const loss_call<T, Kind>& call) {
  if (call.is_soft()) return check_soft_targets(call.shape, call.soft);
  return call.shape.classes > 0 ? check_rows(call.shape, call.grad_logits) : status::success;
}

// What the rows of a call share, and their sums so far.
template <class T>
struct call_state {
  T alpha, divisor;    // divisor: what reduction::mean divides by
  T class_weight_sum;  // of all classes; read with label smoothing alone
  T log_prior_sum;     // score: log sum_k p_k, which eq:log_mixture divides by
  T base_scale;        // class_constants::base_scale
  bool alpha_usable;
  std::int64_t counted;                      // samples
  double total, classification, likelihood;  // sums of the losses of the row tiles so far
  std::int64_t correct;
};

// The state before the first tile.
template <class T, class Kind>
LGM_HD call_state<T> begin_state(const loss_call<T, Kind>& call, const sample_count& samples,
                                 T class_weight_sum, T base_scale, T log_prior_sum) {
  const loss_options<T>& o = call.options;
  const T alpha = o.alpha_at != nullptr ? *o.alpha_at : o.alpha;
  call_state<T> s;
  s.alpha_usable = usable_factor(alpha);
  s.alpha = s.alpha_usable ? alpha : T(0);
  s.divisor = call.divisor(samples.weight);
  s.class_weight_sum = class_weight_sum;
  s.log_prior_sum = log_prior_sum;
  s.base_scale = base_scale;
  s.counted = samples.counted;
  s.total = s.classification = s.likelihood = 0;
  s.correct = 0;
  return s;
}

// Writes the sums that are wanted, once all tiles are in.
template <class T, class Kind>
LGM_HD void write_sums(const loss_call<T, Kind>& call, const call_state<T>& s) {
  const loss_result<T>& result = call.result;
  if (result.counted != nullptr) *result.counted = s.counted;
  if (result.correct != nullptr) *result.correct = s.correct;
  if (call.options.reduction == reduction::none) return;
  const double d = static_cast<double>(s.divisor);
  if (result.total != nullptr) *result.total = static_cast<T>(s.total / d);
  if (result.classification != nullptr) *result.classification = static_cast<T>(s.classification / d);
  if (result.likelihood != nullptr) *result.likelihood = static_cast<T>(s.likelihood / d);
}

}  // namespace lgm::detail
