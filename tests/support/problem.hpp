// SPDX-License-Identifier: MIT
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <lgm/lgm.hpp>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/context.hpp"
#include "support/instantiated.hpp"
#include "support/memory.hpp"
#include "support/reference.hpp"

// Seeded problems, their outputs, and the calls of the library on them.

namespace support {

using reference::real;

// Calls `call` with a workspace of exactly the size the library asks for.
template <class T, class Context, class Call>
lgm::status run(const Context& context, const lgm::shape& shape, Call call, std::size_t offset = 0) {
  scratch memory(lgm::workspace_size<T, T>(context, shape), offset);
  const lgm::status answer = call(memory.get());
  CHECK_MESSAGE(memory.intact(), "written outside the workspace");
  return answer;
}

// The inputs of a loss, owned. What is not given is passed as null.
template <class T>
struct problem {
  lgm::shape shape;
  lgm::loss_options<T> options;
  std::vector<T> features;  // with feature_stride; padding is NaN
  std::vector<T> mean, log_variance, log_prior, upstream;
  std::vector<std::int64_t> labels;
  bool log_variance_given = true, log_prior_given = true, upstream_given = false;
  std::vector<T> class_weight, sample_weight, normalizer;  // of the options; empty: null
  bool soft = false;                                       // `targets` take the place of the labels
  std::vector<T> targets;                                  // with target_stride; padding is NaN
  std::int64_t target_stride = 0;
  std::vector<T> grad_logits;  // with logits_stride; padding is NaN
  std::vector<T> origin;       // of the mixture; empty: null

  // Not in every function that has one: a dozen vectors' worth of code each.
  problem();
  problem(const problem&);
  problem(problem&&) noexcept;
  problem& operator=(const problem&);
  problem& operator=(problem&&) noexcept;
  ~problem();

  std::size_t samples() const { return size_of(shape.samples); }
  std::size_t classes() const { return size_of(shape.classes); }
  std::size_t dims() const { return size_of(shape.dims); }
  std::size_t feature_stride() const {
    return size_of(shape.feature_stride == 0 ? shape.dims : shape.feature_stride);
  }
  T& feature(std::size_t i, std::size_t j) { return features[i * feature_stride() + j]; }
  const T& feature(std::size_t i, std::size_t j) const { return features[i * feature_stride() + j]; }
  std::size_t log_variance_size() const {
    switch (shape.covariance) {
      case lgm::covariance::identity: return 0;
      case lgm::covariance::spherical: return classes();
      case lgm::covariance::diagonal: return classes() * dims();
    }
    return 0;
  }
  lgm::mixture<T> mixture() const {
    return {mean.data(), log_variance_given ? log_variance.data() : nullptr,
            log_prior_given ? log_prior.data() : nullptr, nullptr, origin.empty() ? nullptr : origin.data()};
  }
  const T* upstream_data() const { return upstream_given ? upstream.data() : nullptr; }
  bool ignored(std::size_t i) const { return !soft && labels[i] == options.ignore_label; }
  // The options with the arrays above, as the library takes them.
  lgm::loss_options<T> call_options() const {
    lgm::loss_options<T> o = options;
    if (!class_weight.empty()) o.class_weight = class_weight.data();
    if (!sample_weight.empty()) o.sample_weight = sample_weight.data();
    if (!normalizer.empty()) o.normalizer = normalizer.data();
    return o;
  }
  lgm::soft_targets<T> soft_targets() const { return {targets.data(), target_stride}; }
  std::size_t logits_stride() const {
    return size_of(shape.logits_stride == 0 ? shape.classes : shape.logits_stride);
  }
  T& target(std::size_t i, std::size_t k) { return targets[i * row_of_targets() + k]; }
  const T& target(std::size_t i, std::size_t k) const { return targets[i * row_of_targets() + k]; }
  T& grad_logit(std::size_t i, std::size_t k) { return grad_logits[i * logits_stride() + k]; }
  const T& grad_logit(std::size_t i, std::size_t k) const { return grad_logits[i * logits_stride() + k]; }
  std::size_t row_of_targets() const { return target_stride == 0 ? classes() : size_of(target_stride); }
  std::int64_t total_classes() const {
    return shape.total_classes == 0 ? shape.classes : shape.total_classes;
  }
  template <class L>
  std::vector<L> labels_as() const {
    return std::vector<L>(labels.begin(), labels.end());
  }
};

// Margin and likelihood both at work.
template <class T>
lgm::loss_options<T> margin_options(lgm::reduction reduction) {
  lgm::loss_options<T> options;
  options.alpha = T(0.25);
  options.lambda = T(0.125);
  options.reduction = reduction;
  return options;
}

struct recipe {
  double spread = 1;        // of the means
  double noise = 1;         // of a feature around its class's mean, in standard deviations of that class
  double log_variance = 1;  // log variances are uniform in +- this
  double ignored = 0.1;     // share of samples with the ignored label
  double offset = 0;        // of all means and features
};

// A problem for these sizes and options. The same seed gives the same problem, rounded to T.
template <class T>
problem<T> make_problem(std::uint64_t seed, const lgm::shape& shape, const lgm::loss_options<T>& options = {},
                        const recipe& how = {});

// Rows of `columns` numbers at a stride (0: packed), NaN in the padding; the last row has none.
template <class T, class Value>
std::vector<T> strided_rows(std::size_t rows, std::size_t columns, std::size_t stride, Value value) {
  std::vector<T> data(rows == 0 ? 0 : (rows - 1) * stride + columns, std::numeric_limits<T>::quiet_NaN());
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t k = 0; k < columns; ++k) data[i * stride + k] = value(i, k);
  return data;
}

// What a loss may be given beyond labels.
struct extras {
  bool class_weight = false, sample_weight = false, normalizer = false;
  double smoothing = 0;
  bool soft = false;
};

// Gives a problem random extras, from a seed of their own. Soft targets are one-hot, mixed of two classes, dense, dense
// with another sum than 1, or zero throughout, as chance has it.
template <class T>
void give(problem<T>& p, std::uint64_t seed, const extras& what);

// Random slopes of the logits: dense rows, rows with zeros in between, and rows that are zero throughout.
template <class T>
void give_grad_logits(problem<T>& p, std::uint64_t seed);

// The classes [begin, begin + n) of a whole problem.
template <class T>
problem<T> shard_of(const problem<T>& p, std::size_t begin, std::size_t n);

// The same problem as the reference takes it. Of a shard: its classes alone, other targets as if ignored.
template <class T>
reference::input to_reference(const problem<T>& p);

// The slopes of the logits as the reference takes them, [samples, classes].
template <class T>
std::vector<real> packed_grad_logits(const problem<T>& p);

// What can be asked of a set of guarded outputs; Outputs has each(other, f), which calls f(name, buffer, other's buffer).
template <class Outputs>
struct guarded_outputs {
  bool untouched() const;
  void check_intact() const;
  void check_same_bits(const Outputs& other) const;

 private:
  const Outputs& self() const { return static_cast<const Outputs&>(*this); }
};

template <class Outputs>
bool guarded_outputs<Outputs>::untouched() const {
  bool all = true;
  self().each(self(),
              [&](const std::string&, const auto& buffer, const auto&) { all = all && buffer.untouched(); });
  return all;
}

template <class Outputs>
void guarded_outputs<Outputs>::check_intact() const {
  self().each(self(), [&](const std::string& name, const auto& buffer, const auto&) {
    CHECK_MESSAGE(buffer.intact(), name << " was written outside its bounds");
  });
}

template <class Outputs>
void guarded_outputs<Outputs>::check_same_bits(const Outputs& other) const {
  self().each(other, [&](const std::string& name, const auto& mine, const auto& theirs) {
    CHECK_MESSAGE(mine.same_bits(theirs), name << " differs in its bits");
  });
}

// Every output of a loss, each in guarded memory of its own.
template <class T>
struct outputs : guarded_outputs<outputs<T>> {
  guarded<T> total, classification, likelihood, row_state, log_evidence;
  guarded<std::int64_t> counted, correct;
  guarded<T> feature, mean, log_variance, log_prior;

  // A bit for each array, in the order of the structs; those of gradients follow those of results.
  static constexpr unsigned result_bits = 7, gradient_bits = 4, bits = result_bits + gradient_bits;
  static constexpr unsigned result_mask = (1u << result_bits) - 1, gradient_mask = (1u << gradient_bits) - 1,
                            mask = (1u << bits) - 1;

  explicit outputs(const problem<T>& p, std::size_t offset = 0)
      : outputs(p.shape, p.options.reduction, offset) {}
  outputs(const lgm::shape& s, lgm::reduction reduction, std::size_t offset = 0);
  outputs(outputs&&) noexcept;
  ~outputs();

  // The outputs whose bits are set, in the order of the fields; the others null.
  lgm::loss_result<T> result(unsigned asked = result_mask) {
    lgm::loss_result<T> r;
    if (asked & 1u) r.total = total.data();
    if (asked & 2u) r.classification = classification.data();
    if (asked & 4u) r.likelihood = likelihood.data();
    if (asked & 8u) r.row_state = row_state.data();
    if (asked & 16u) r.log_evidence = log_evidence.data();
    if (asked & 32u) r.counted = counted.data();
    if (asked & 64u) r.correct = correct.data();
    return r;
  }
  lgm::gradients<T, T> gradients(unsigned asked = gradient_mask) {
    lgm::gradients<T, T> g;
    if (asked & 1u) g.feature = feature.data();
    if (asked & 2u) g.mean = mean.data();
    if (asked & 4u) g.log_variance = log_variance.data();
    if (asked & 8u) g.log_prior = log_prior.data();
    return g;
  }
  // Applies f(name, buffer, buffer of `other`) to each result, then to each gradient.
  template <class F>
  void each_result(const outputs& other, F f) const {
    f("total", total, other.total);
    f("classification", classification, other.classification);
    f("likelihood", likelihood, other.likelihood);
    f("row_state", row_state, other.row_state);
    f("log_evidence", log_evidence, other.log_evidence);
    f("counted", counted, other.counted);
    f("correct", correct, other.correct);
  }
  template <class F>
  void each_gradient(const outputs& other, F f) const {
    f("feature", feature, other.feature);
    f("mean", mean, other.mean);
    f("log_variance", log_variance, other.log_variance);
    f("log_prior", log_prior, other.log_prior);
  }
  template <class F>
  void each(const outputs& other, F f) const {
    each_result(other, f);
    each_gradient(other, f);
  }
};

// Scores in guarded memory, every one that there is.
template <class T>
struct score_outputs : guarded_outputs<score_outputs<T>> {
  static constexpr unsigned mask = (1u << lgm::count_scores()) - 1;

  guarded<std::int64_t> predicted;
  std::map<std::string, guarded<T>, std::less<>> values;  // the others, by name
  guarded<T>&posterior, &log_density, &log_mixture, &squared_mahalanobis, &nearest_squared_mahalanobis,
      &entropy;

  explicit score_outputs(const lgm::shape& s, std::size_t offset = 0)
      : predicted(s.samples, 1, 0, offset),
        values(make(s, offset)),
        posterior(values.at("posterior")),
        log_density(values.at("log_density")),
        log_mixture(values.at("log_mixture")),
        squared_mahalanobis(values.at("squared_mahalanobis")),
        nearest_squared_mahalanobis(values.at("nearest_squared_mahalanobis")),
        entropy(values.at("entropy")) {}
  score_outputs(const score_outputs&) = delete;

  lgm::score_result<T> result(unsigned asked = mask) {
    lgm::score_result<T> r;
    unsigned bit = 0;
    lgm::for_each_score(r, [&](std::string_view name, auto*& array) {
      if (!((asked >> bit++) & 1u)) return;
      if constexpr (std::is_same<decltype(array), T*&>::value)
        array = values.find(name)->second.data();
      else
        array = predicted.data();
    });
    return r;
  }
  template <class F>
  void each(const score_outputs& other, F f) const {
    lgm::score_result<T> r;
    lgm::for_each_score(r, [&](const std::string& name, auto*& array) {
      if constexpr (std::is_same<decltype(array), T*&>::value)
        f(name, values.at(name), other.values.at(name));
      else
        f(name, predicted, other.predicted);
    });
  }

 private:
  static std::map<std::string, guarded<T>, std::less<>> make(const lgm::shape& s, std::size_t offset) {
    std::map<std::string, guarded<T>, std::less<>> made;
    lgm::score_result<T> r;
    lgm::for_each_score(r, [&](const std::string& name, auto*& array) {
      if constexpr (std::is_same<decltype(array), T*&>::value)
        made.emplace(std::piecewise_construct, std::forward_as_tuple(name),
                     std::forward_as_tuple(s.samples, 1, 0, offset));
    });
    return made;
  }
};

extern template struct guarded_outputs<outputs<float>>;
extern template struct guarded_outputs<outputs<double>>;
extern template struct guarded_outputs<score_outputs<float>>;
extern template struct guarded_outputs<score_outputs<double>>;

// call(targets) with what the problem has: labels or soft targets.
template <class T, class Call>
lgm::status with_targets(const problem<T>& p, Call call) {
  return p.soft ? call(p.soft_targets()) : call(p.labels.data());
}

// The calls with a problem's own inputs, in a workspace of exactly the size that is needed.
template <class T, class Context>
lgm::status forward(const Context& context, const problem<T>& p, const lgm::loss_result<T>& result,
                    std::size_t offset = 0);

template <class T, class Context>
lgm::status backward(const Context& context, const problem<T>& p, const T* row_state,
                     const lgm::gradients<T, T>& gradients, std::size_t offset = 0);

template <class T, class Context>
lgm::status forward_backward(const Context& context, const problem<T>& p, const lgm::loss_result<T>& result,
                             const lgm::gradients<T, T>& gradients, std::size_t offset = 0);

// After the shards' row states were merged into row_state.
template <class T, class Context>
lgm::status finish_forward(const Context& context, const problem<T>& p, const T* row_state,
                           const lgm::loss_result<T>& result, std::size_t offset = 0);

// With the problem's labels, or without (no margin, no likelihood).
template <class T, class Context>
lgm::status logits_backward(const Context& context, const problem<T>& p,
                            const lgm::gradients<T, T>& gradients, bool labelled = true,
                            std::size_t offset = 0);

template <class T, class Context>
lgm::status logits(const Context& context, const problem<T>& p, T* out, bool labelled = true,
                   std::size_t offset = 0);

template <class T, class Context>
lgm::status forward_backward(const Context& context, const problem<T>& p, outputs<T>& out) {
  return forward_backward(context, p, out.result(), out.gradients());
}

template <class T, class Context>
lgm::status score(const Context& context, const problem<T>& p, const lgm::score_result<T>& result,
                  std::size_t offset = 0);

inline suite_context context_of(int threads, std::size_t tile_bytes = std::size_t{64} << 20) {
  suite_context context;
  context.threads = threads;
  context.tile_bytes = tile_bytes;
  return context;
}

inline std::string name_of(lgm::covariance c) {
  return c == lgm::covariance::identity    ? "identity"
         : c == lgm::covariance::spherical ? "spherical"
                                           : "diagonal";
}
inline std::string name_of(lgm::reduction r) {
  return r == lgm::reduction::mean ? "mean" : r == lgm::reduction::sum ? "sum" : "none";
}

constexpr lgm::covariance covariances[] = {lgm::covariance::identity, lgm::covariance::spherical,
                                           lgm::covariance::diagonal};
constexpr lgm::reduction reductions[] = {lgm::reduction::mean, lgm::reduction::sum, lgm::reduction::none};

inline lgm::shape make_shape(std::int64_t samples, std::int64_t classes, std::int64_t dims,
                             lgm::covariance covariance) {
  lgm::shape s;
  s.samples = samples;
  s.classes = classes;
  s.dims = dims;
  s.covariance = covariance;
  return s;
}

}  // namespace support
