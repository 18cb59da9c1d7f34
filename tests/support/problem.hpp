// SPDX-License-Identifier: MIT
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <lgm/lgm.hpp>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "support/instantiated.hpp"
#include "support/reference.hpp"

// Seeded problems and memory that notices what is done to it.

namespace support {

using reference::real;

inline std::size_t size_of(std::int64_t n) { return static_cast<std::size_t>(n); }

// A small generator of our own: the standard distributions give other numbers on other standard libraries.
class generator {
 public:
  explicit generator(std::uint64_t seed) : state_(seed) {}

  std::uint64_t bits() {
    state_ += 0x9E3779B97F4A7C15u;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  // Near enough to a normal with unit variance, and bounded by 6: the sum of twelve uniforms.
  double normal() {
    double sum = -6;
    for (int n = 0; n < 12; ++n) sum += uniform();
    return sum;
  }
  std::int64_t below(std::int64_t n) {
    return static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(n));
  }
  bool chance(double p) { return uniform() < p; }
  template <class V>
  auto pick(const V& values) {
    return *(std::begin(values) + static_cast<std::ptrdiff_t>(bits() % std::size(values)));
  }

 private:
  std::uint64_t state_;
};

// What outputs hold before a call. A NaN that arithmetic never makes for reals, so that reading an output
// before writing it shows as well.
constexpr int poison_byte(bool floating) { return floating ? 0xFF : 0xA5; }

// Rows of a stride, with a guard of poison on both sides and poison in the padding. `offset` moves the first
// element that many elements off a 64-byte boundary.
template <class T>
class guarded {
 public:
  explicit guarded(std::int64_t rows, std::int64_t columns = 1, std::int64_t stride = 0,
                   std::size_t offset = 0)
      : rows_(size_of(rows)), columns_(size_of(columns)), stride_(size_of(stride == 0 ? columns : stride)) {
    length_ = rows_ == 0 ? 0 : (rows_ - 1) * stride_ + columns_;
    bytes_.resize(64 + (2 * guard + offset + length_) * sizeof(T));
    const std::size_t past = reinterpret_cast<std::uintptr_t>(bytes_.data()) % 64;
    start_ = (past == 0 ? 0 : 64 - past) + (guard + offset) * sizeof(T);
    clear();
  }
  // Addresses into the storage would not survive a copy with another alignment.
  guarded(guarded&&) noexcept = default;
  guarded(const guarded&) = delete;

  void clear() { std::memset(bytes_.data(), poison_byte(std::is_floating_point<T>::value), bytes_.size()); }
  T* data() { return reinterpret_cast<T*>(bytes_.data() + start_); }
  const T* data() const { return reinterpret_cast<const T*>(bytes_.data() + start_); }
  std::size_t rows() const { return rows_; }
  std::size_t columns() const { return columns_; }
  std::size_t size() const { return rows_ * columns_; }
  const T& at(std::size_t row, std::size_t column = 0) const { return data()[row * stride_ + column]; }
  const T& operator[](std::size_t n) const { return at(n / columns_, n % columns_); }

  // Guards and padding still hold poison.
  bool intact() const {
    return poisoned(0, start_) && poisoned(start_ + length_ * sizeof(T), bytes_.size()) && padding_intact();
  }
  // Nothing was written at all.
  bool untouched() const { return poisoned(0, bytes_.size()); }
  // Every element was written: none is wholly poison.
  bool written() const {
    for (std::size_t n = 0; n < size(); ++n)
      if (element_poisoned(n)) return false;
    return true;
  }
  // The same values bit for bit.
  bool same_bits(const guarded& other) const {
    if (rows_ != other.rows_ || columns_ != other.columns_) return false;
    for (std::size_t n = 0; n < size(); ++n)
      if (std::memcmp(&(*this)[n], &other[n], sizeof(T)) != 0) return false;
    return true;
  }
  bool all_zero() const {
    for (std::size_t n = 0; n < size(); ++n)
      if (!((*this)[n] == T(0))) return false;
    return true;
  }
  std::vector<T> packed() const {
    std::vector<T> values(size());
    for (std::size_t n = 0; n < size(); ++n) values[n] = (*this)[n];
    return values;
  }

 private:
  static constexpr std::size_t guard = 64;

  bool poisoned(std::size_t begin, std::size_t end) const {
    const auto expected = static_cast<unsigned char>(poison_byte(std::is_floating_point<T>::value));
    for (std::size_t n = begin; n < end; ++n)
      if (bytes_[n] != expected) return false;
    return true;
  }
  bool element_poisoned(std::size_t n) const {
    const std::size_t begin = start_ + (n / columns_ * stride_ + n % columns_) * sizeof(T);
    return poisoned(begin, begin + sizeof(T));
  }
  bool padding_intact() const {
    for (std::size_t row = 0; row + 1 < rows_; ++row) {
      const std::size_t begin = start_ + (row * stride_ + columns_) * sizeof(T);
      if (!poisoned(begin, begin + (stride_ - columns_) * sizeof(T))) return false;
    }
    return true;
  }

  std::size_t rows_, columns_, stride_, length_ = 0, start_ = 0;
  std::vector<unsigned char> bytes_;
};

// A workspace of exactly so many bytes between guards, full of NaN.
class scratch {
 public:
  explicit scratch(std::size_t bytes, std::size_t offset = 0)
      : memory_(static_cast<std::int64_t>(bytes), 1, 0, offset) {
    if (bytes > 0) std::memset(memory_.data(), 0xFF, bytes);
  }
  lgm::workspace get() { return {memory_.data(), memory_.rows()}; }
  bool intact() const { return memory_.intact(); }

 private:
  guarded<unsigned char> memory_;
};

// Calls `call` with a workspace of exactly the size the library asks for.
template <class T, class Call>
lgm::status run(const lgm::host_context& context, const lgm::shape& shape, Call call,
                std::size_t offset = 0) {
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
            log_prior_given ? log_prior.data() : nullptr};
  }
  const T* upstream_data() const { return upstream_given ? upstream.data() : nullptr; }
  bool ignored(std::size_t i) const { return labels[i] == options.ignore_label; }
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
                        const recipe& how = {}) {
  generator random(seed);
  problem<T> p;
  p.shape = shape;
  p.options = options;
  const auto value = [](double v) { return static_cast<T>(v); };
  for (std::size_t n = 0; n < p.classes() * p.dims(); ++n)
    p.mean.push_back(value(how.offset + how.spread * random.normal()));
  for (std::size_t n = 0; n < p.log_variance_size(); ++n)
    p.log_variance.push_back(value(random.uniform(-how.log_variance, how.log_variance)));
  for (std::size_t k = 0; k < p.classes(); ++k) p.log_prior.push_back(value(random.uniform(-3, 0)));
  // The last row has no padding after it: reading there is reading out of bounds.
  const std::size_t length = p.samples() == 0 ? 0 : (p.samples() - 1) * p.feature_stride() + p.dims();
  p.features.assign(length, std::numeric_limits<T>::quiet_NaN());
  for (std::size_t i = 0; i < p.samples(); ++i) {
    const bool ignored = shape.classes == 0 || random.chance(how.ignored);
    const std::int64_t label = shape.classes == 0 ? 0 : random.below(shape.classes);
    p.labels.push_back(ignored ? options.ignore_label : label);
    for (std::size_t j = 0; j < p.dims(); ++j) {
      const std::size_t k = size_of(label);
      double log_variance = 0, mean = 0;
      if (shape.classes > 0) mean = static_cast<double>(p.mean[k * p.dims() + j]);
      if (shape.classes > 0 && shape.covariance == lgm::covariance::spherical)
        log_variance = static_cast<double>(p.log_variance[k]);
      if (shape.classes > 0 && shape.covariance == lgm::covariance::diagonal)
        log_variance = static_cast<double>(p.log_variance[k * p.dims() + j]);
      p.feature(i, j) = value(mean + how.noise * std::exp(log_variance / 2) * random.normal());
    }
  }
  const std::size_t upstreams = options.reduction == lgm::reduction::none ? p.samples() : 1;
  for (std::size_t n = 0; n < upstreams; ++n) p.upstream.push_back(value(random.uniform(-2, 2)));
  return p;
}

// The same problem as the reference takes it.
template <class T>
reference::input to_reference(const problem<T>& p) {
  reference::input in;
  in.samples = p.samples();
  in.classes = p.classes();
  in.dims = p.dims();
  in.form = p.shape.covariance == lgm::covariance::identity    ? reference::variances::identity
            : p.shape.covariance == lgm::covariance::spherical ? reference::variances::spherical
                                                               : reference::variances::diagonal;
  in.over = p.options.reduction == lgm::reduction::mean  ? reference::averaging::mean
            : p.options.reduction == lgm::reduction::sum ? reference::averaging::sum
                                                         : reference::averaging::none;
  in.alpha = p.options.alpha_at ? *p.options.alpha_at : p.options.alpha;
  in.lambda = p.options.lambda;
  for (std::size_t i = 0; i < in.samples; ++i) {
    for (std::size_t j = 0; j < in.dims; ++j) in.features.push_back(p.feature(i, j));
    in.label.push_back(p.ignored(i) ? -1 : p.labels[i]);
    const bool each = p.options.reduction == lgm::reduction::none;
    in.upstream.push_back(p.upstream_given ? static_cast<real>(p.upstream[each ? i : 0])
                                           : static_cast<real>(1));
  }
  in.mean.assign(p.mean.begin(), p.mean.end());
  in.log_variance.assign(p.log_variance_size(), 0);
  if (p.log_variance_given) in.log_variance.assign(p.log_variance.begin(), p.log_variance.end());
  in.log_prior.assign(in.classes, -std::log(static_cast<real>(in.classes)));
  if (p.log_prior_given) in.log_prior.assign(p.log_prior.begin(), p.log_prior.end());
  return in;
}

// What can be asked of a set of guarded outputs; Outputs has each(other, f), which calls f(name, buffer, other's buffer).
template <class Outputs>
struct guarded_outputs {
  bool untouched() const {
    bool all = true;
    self().each(self(), [&](const std::string&, const auto& buffer, const auto&) {
      all = all && buffer.untouched();
    });
    return all;
  }
  void check_intact() const {
    self().each(self(), [&](const std::string& name, const auto& buffer, const auto&) {
      CHECK_MESSAGE(buffer.intact(), name << " was written outside its bounds");
    });
  }
  void check_same_bits(const Outputs& other) const {
    self().each(other, [&](const std::string& name, const auto& mine, const auto& theirs) {
      CHECK_MESSAGE(mine.same_bits(theirs), name << " differs in its bits");
    });
  }

 private:
  const Outputs& self() const { return static_cast<const Outputs&>(*this); }
};

// Every output of a loss, each in guarded memory of its own.
template <class T>
struct outputs : guarded_outputs<outputs<T>> {
  guarded<T> total, classification, likelihood, row_state, log_evidence;
  guarded<std::int64_t> counted, correct;
  guarded<T> feature, mean, log_variance, log_prior;

  static constexpr unsigned result_mask = 0x7F, gradient_mask = 0xF;

  explicit outputs(const problem<T>& p, std::size_t offset = 0)
      : outputs(p.shape, p.options.reduction, offset) {}
  outputs(const lgm::shape& s, lgm::reduction reduction, std::size_t offset = 0)
      : total(reduction == lgm::reduction::none ? s.samples : 1, 1, 0, offset),
        classification(reduction == lgm::reduction::none ? s.samples : 1, 1, 0, offset),
        likelihood(reduction == lgm::reduction::none ? s.samples : 1, 1, 0, offset),
        row_state(s.samples, 2, 0, offset),
        log_evidence(s.samples, 1, 0, offset),
        counted(1, 1, 0, offset),
        correct(1, 1, 0, offset),
        feature(s.samples, s.dims, s.gradient_stride, offset),
        mean(s.classes, s.dims, 0, offset),
        log_variance(s.covariance == lgm::covariance::identity ? 0 : s.classes,
                     s.covariance == lgm::covariance::diagonal ? s.dims : 1, 0, offset),
        log_prior(s.classes, 1, 0, offset) {}

  // The outputs whose bits are set, in the order of the fields; the others null.
  lgm::loss_result<T> result(unsigned mask = result_mask) {
    lgm::loss_result<T> r;
    if (mask & 1u) r.total = total.data();
    if (mask & 2u) r.classification = classification.data();
    if (mask & 4u) r.likelihood = likelihood.data();
    if (mask & 8u) r.row_state = row_state.data();
    if (mask & 16u) r.log_evidence = log_evidence.data();
    if (mask & 32u) r.counted = counted.data();
    if (mask & 64u) r.correct = correct.data();
    return r;
  }
  lgm::gradients<T, T> gradients(unsigned mask = gradient_mask) {
    lgm::gradients<T, T> g;
    if (mask & 1u) g.feature = feature.data();
    if (mask & 2u) g.mean = mean.data();
    if (mask & 4u) g.log_variance = log_variance.data();
    if (mask & 8u) g.log_prior = log_prior.data();
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

// Scores in guarded memory.
template <class T>
struct score_outputs : guarded_outputs<score_outputs<T>> {
  guarded<std::int64_t> predicted;
  guarded<T> posterior, log_density, log_mixture, squared_mahalanobis, nearest_squared_mahalanobis;

  explicit score_outputs(const lgm::shape& s, std::size_t offset = 0)
      : predicted(s.samples, 1, 0, offset),
        posterior(s.samples, 1, 0, offset),
        log_density(s.samples, 1, 0, offset),
        log_mixture(s.samples, 1, 0, offset),
        squared_mahalanobis(s.samples, 1, 0, offset),
        nearest_squared_mahalanobis(s.samples, 1, 0, offset) {}

  lgm::score_result<T> result(unsigned mask = 0x3F) {
    lgm::score_result<T> r;
    if (mask & 1u) r.predicted = predicted.data();
    if (mask & 2u) r.posterior = posterior.data();
    if (mask & 4u) r.log_density = log_density.data();
    if (mask & 8u) r.log_mixture = log_mixture.data();
    if (mask & 16u) r.squared_mahalanobis = squared_mahalanobis.data();
    if (mask & 32u) r.nearest_squared_mahalanobis = nearest_squared_mahalanobis.data();
    return r;
  }
  template <class F>
  void each(const score_outputs& other, F f) const {
    f("predicted", predicted, other.predicted);
    f("posterior", posterior, other.posterior);
    f("log_density", log_density, other.log_density);
    f("log_mixture", log_mixture, other.log_mixture);
    f("squared_mahalanobis", squared_mahalanobis, other.squared_mahalanobis);
    f("nearest_squared_mahalanobis", nearest_squared_mahalanobis, other.nearest_squared_mahalanobis);
  }
};

// The calls with a problem's own inputs, in a workspace of exactly the size that is needed.
template <class T>
lgm::status forward(const lgm::host_context& context, const problem<T>& p, const lgm::loss_result<T>& result,
                    std::size_t offset = 0) {
  return run<T>(
      context, p.shape,
      [&](lgm::workspace w) {
        return lgm::forward(context, p.shape, p.mixture(), p.options, p.features.data(), p.labels.data(),
                            result, w);
      },
      offset);
}

template <class T>
lgm::status backward(const lgm::host_context& context, const problem<T>& p, const T* row_state,
                     const lgm::gradients<T, T>& gradients, std::size_t offset = 0) {
  return run<T>(
      context, p.shape,
      [&](lgm::workspace w) {
        return lgm::backward(context, p.shape, p.mixture(), p.options, p.features.data(), p.labels.data(),
                             row_state, p.upstream_data(), gradients, w);
      },
      offset);
}

template <class T>
lgm::status forward_backward(const lgm::host_context& context, const problem<T>& p,
                             const lgm::loss_result<T>& result, const lgm::gradients<T, T>& gradients,
                             std::size_t offset = 0) {
  return run<T>(
      context, p.shape,
      [&](lgm::workspace w) {
        return lgm::forward_backward(context, p.shape, p.mixture(), p.options, p.features.data(),
                                     p.labels.data(), p.upstream_data(), result, gradients, w);
      },
      offset);
}

template <class T>
lgm::status forward_backward(const lgm::host_context& context, const problem<T>& p, outputs<T>& out) {
  return forward_backward(context, p, out.result(), out.gradients());
}

template <class T>
lgm::status score(const lgm::host_context& context, const problem<T>& p, const lgm::score_result<T>& result,
                  std::size_t offset = 0) {
  return run<T>(
      context, p.shape,
      [&](lgm::workspace w) {
        return lgm::score(context, p.shape, p.mixture(), p.features.data(), result, w);
      },
      offset);
}

inline lgm::host_context context_of(int threads, std::size_t tile_bytes = std::size_t{64} << 20) {
  lgm::host_context context;
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
