// SPDX-License-Identifier: MIT
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "support/problem.hpp"
#include "support/tolerance.hpp"

// Labelled samples, their moments in two passes of long double, and guarded memory for the library's.

namespace support {

// Samples of the classes of a shape. Rows are moved and cut freely; a batch is a range of them.
template <class T>
struct labelled_samples {
  lgm::shape shape;
  lgm::loss_options<T> options;  // sample_weight is set for each call
  std::vector<T> features;       // [samples, stride], padding NaN; no padding after the last row
  std::vector<std::int64_t> labels;
  std::vector<T> weights;  // empty: none are passed

  std::size_t samples() const { return labels.size(); }
  std::size_t dims() const { return size_of(shape.dims); }
  std::size_t stride() const { return shape.feature_stride == 0 ? dims() : size_of(shape.feature_stride); }
  T& feature(std::size_t i, std::size_t j) { return features[i * stride() + j]; }
  const T& feature(std::size_t i, std::size_t j) const { return features[i * stride() + j]; }
  real weight(std::size_t i) const { return weights.empty() ? 1 : static_cast<real>(weights[i]); }
  // Where sample i goes among the classes of the call, -1 where it does not.
  std::int64_t place(std::size_t i) const {
    if (labels[i] == options.ignore_label || weight(i) == 0) return -1;
    const std::int64_t k = labels[i] - shape.class_begin;
    return k >= 0 && k < shape.classes ? k : -1;
  }
  // The samples in another order.
  labelled_samples ordered(const std::vector<std::size_t>& order) const {
    labelled_samples other = *this;
    for (std::size_t i = 0; i < samples(); ++i) {
      for (std::size_t j = 0; j < dims(); ++j) other.feature(i, j) = feature(order[i], j);
      other.labels[i] = labels[order[i]];
      if (!weights.empty()) other.weights[i] = weights[order[i]];
    }
    return other;
  }
};

struct sample_recipe {
  double offset = 1e6;   // of all means
  double ignored = 0.1;  // share of samples with the ignored label, their features NaN
  bool weighted = false;
  std::int64_t stride = 0;
};

// Unit variances. The last class but one has one sample, the last none, where there are more than two.
template <class T>
labelled_samples<T> make_samples(std::uint64_t seed, std::int64_t samples, std::int64_t classes,
                                 std::int64_t dims, const sample_recipe& how = {}) {
  generator random(seed);
  begin_problem();
  labelled_samples<T> s;
  s.shape = make_shape(samples, classes, dims, lgm::covariance::diagonal);
  s.shape.feature_stride = how.stride;
  const std::size_t length = samples == 0 ? 0 : (size_of(samples) - 1) * s.stride() + s.dims();
  s.features.assign(length, std::numeric_limits<T>::quiet_NaN());
  const std::int64_t usual = classes > 2 ? classes - 2 : classes;
  for (std::size_t i = 0; i < size_of(samples); ++i) {
    const bool ignored = random.chance(how.ignored), single = classes > 2 && i == size_of(samples / 2);
    const std::int64_t label = single ? classes - 2 : random.below(usual);
    s.labels.push_back(ignored && !single ? s.options.ignore_label : label);
    if (how.weighted)
      s.weights.push_back(static_cast<T>(random.chance(0.1) && !single ? 0 : random.uniform(0.25, 4)));
    for (std::size_t j = 0; j < s.dims(); ++j) {
      const double value = how.offset + 3.0 * static_cast<double>(label) + random.normal();
      if (s.labels[i] >= 0) s.feature(i, j) = static_cast<T>(value);
    }
  }
  return s;
}

inline std::vector<std::size_t> shuffled(generator& random, std::size_t n) {
  std::vector<std::size_t> order(n);
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t at = size_of(random.below(static_cast<std::int64_t>(i) + 1));
    order[i] = order[at];
    order[at] = i;
  }
  return order;
}

// Two passes in long double.
struct exact_moments {
  std::vector<real> count, mean, m2, scatter;

  // As: what the library's accumulators see of a feature.
  template <class A, class T>
  static exact_moments of(const labelled_samples<T>& s) {
    const std::size_t classes = size_of(s.shape.classes), dims = s.dims();
    exact_moments e;
    e.count.assign(classes, 0);
    e.mean.assign(classes * dims, 0);
    e.m2.assign(classes * dims, 0);
    e.scatter.assign(dims * dims, 0);
    const auto feature = [&](std::size_t i, std::size_t j) {
      return static_cast<real>(static_cast<A>(s.feature(i, j)));
    };
    // Sums of differences from one of the samples: long double too would round sums of 1e6 in the twelfth digit.
    std::vector<real> near(classes * dims, 0);
    for (std::size_t i = 0; i < s.samples(); ++i) {
      if (s.place(i) < 0) continue;
      const std::size_t k = size_of(s.place(i));
      for (std::size_t j = 0; j < dims && e.count[k] == 0; ++j) near[k * dims + j] = feature(i, j);
      e.count[k] += s.weight(i);
      for (std::size_t j = 0; j < dims; ++j)
        e.mean[k * dims + j] += s.weight(i) * (feature(i, j) - near[k * dims + j]);
    }
    for (std::size_t n = 0; n < classes * dims; ++n)
      if (e.count[n / dims] != 0) e.mean[n] = near[n] + e.mean[n] / e.count[n / dims];
    std::vector<real> centred(dims);
    for (std::size_t i = 0; i < s.samples(); ++i) {
      if (s.place(i) < 0) continue;
      const std::size_t k = size_of(s.place(i));
      for (std::size_t j = 0; j < dims; ++j) centred[j] = feature(i, j) - e.mean[k * dims + j];
      for (std::size_t j = 0; j < dims; ++j) {
        e.m2[k * dims + j] += s.weight(i) * centred[j] * centred[j];
        for (std::size_t l = 0; l < dims; ++l)
          e.scatter[j * dims + l] += s.weight(i) * centred[j] * centred[l];
      }
    }
    return e;
  }
};

// Moments as a caller holds them: count and scatter zero, everything else poison.
template <class A>
struct moments_memory : guarded_outputs<moments_memory<A>> {
  guarded<A> count, mean, m2, scatter, residual;

  explicit moments_memory(const lgm::shape& s, std::size_t offset = 0)
      : count(s.classes, 1, 0, offset),
        mean(s.classes, s.dims, 0, offset),
        m2(s.classes, s.dims, 0, offset),
        scatter(s.dims, s.dims, 0, offset),
        residual(s.classes, s.dims, 0, offset) {
    std::fill_n(count.data(), count.size(), A(0));
    std::fill_n(scatter.data(), scatter.size(), A(0));
  }
  // All arrays but those named.
  enum without : unsigned { nothing = 0, no_scatter = 1, no_residual = 2, no_m2 = 4, no_mean = 8 };
  lgm::class_moments<A> get(unsigned leave_out = no_scatter) {
    lgm::class_moments<A> m{count.data(), mean.data(), m2.data(), scatter.data(), residual.data()};
    if (leave_out & no_scatter) m.scatter = nullptr;
    if (leave_out & no_residual) m.mean_residual = nullptr;
    if (leave_out & no_m2) m.m2 = nullptr;
    if (leave_out & no_mean) m.mean = nullptr;
    return m;
  }
  template <class F>
  void each_of_class(const moments_memory& other, F f) const {
    f("count", count, other.count);
    f("mean", mean, other.mean);
    f("m2", m2, other.m2);
    f("residual", residual, other.residual);
  }
  template <class F>
  void each(const moments_memory& other, F f) const {
    each_of_class(other, f);
    f("scatter", scatter, other.scatter);
  }
  void check_same_class_bits(const moments_memory& other) const {
    each_of_class(other, [](const std::string& name, const auto& mine, const auto& theirs) {
      CHECK_MESSAGE(mine.same_bits(theirs), name << " differs in its bits");
    });
  }
};

// Accumulates the samples [first, first + n) in a workspace of exactly the size that is needed.
template <class Context, class T, class A>
lgm::status accumulate(const Context& context, const labelled_samples<T>& s, std::size_t first, std::size_t n,
                       const lgm::class_moments<A>& moments, std::size_t offset = 0) {
  lgm::shape shape = s.shape;
  shape.samples = static_cast<std::int64_t>(n);
  lgm::loss_options<T> options = s.options;
  if (!s.weights.empty()) options.sample_weight = s.weights.data() + first;
  return run<T>(
      context, shape,
      [&](lgm::workspace w) {
        return lgm::accumulate_moments(context, shape, options, s.features.data() + first * s.stride(),
                                       s.labels.data() + first, moments, w);
      },
      offset);
}

// The same, `batch` samples at a time.
template <class Context, class T, class A>
void stream(const Context& context, const labelled_samples<T>& s, std::size_t batch,
            const lgm::class_moments<A>& moments) {
  for (std::size_t first = 0; first < s.samples(); first += batch)
    REQUIRE(accumulate(context, s, first, std::min(batch, s.samples() - first), moments) ==
            lgm::status::success);
}

// The largest errors: of means relative to the mean, of means with their residuals relative to the class's standard
// deviation, of m2 relative to itself, of the scatter relative to the geometric mean of its diagonal. Infinite where a
// value that should be exact is not, or what belongs to an empty class was written.
struct moments_error {
  double mean = 0, mean_in_deviations = 0, m2 = 0, scatter = 0;
};

inline void raise(double& worst, real error) {
  worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(worst, shown(error));
}
inline real relative(real got, real expected, real scale) {
  return got == expected ? 0 : std::fabs(got - expected) / scale;
}

template <class A>
moments_error error_of(moments_memory<A>& got, const exact_moments& exact, unsigned left_out) {
  moments_error e;
  const std::size_t dims = got.mean.columns();
  const lgm::class_moments<A> m = got.get(left_out);
  got.check_intact();
  const auto real_of = [](A value) { return static_cast<real>(value); };
  for (std::size_t k = 0; k < got.count.size(); ++k) {
    CHECK(std::fabs(real_of(got.count[k]) - exact.count[k]) <=
          exact.count[k] * growth<A>(exact.mean.size()) / 8);
    for (std::size_t n = k * dims; n < (k + 1) * dims; ++n) {
      if (exact.count[k] == 0) {
        // Nothing was there to be written: poison still, a NaN.
        raise(e.mean, std::isnan(m.mean[n]) && (m.m2 == nullptr || std::isnan(m.m2[n])) ? 0 : NAN);
        continue;
      }
      raise(e.mean, relative(real_of(m.mean[n]), exact.mean[n], std::fabs(exact.mean[n])));
      if (m.m2 != nullptr) raise(e.m2, relative(real_of(m.m2[n]), exact.m2[n], exact.m2[n]));
      if (m.mean_residual != nullptr)
        raise(e.mean_in_deviations, relative(real_of(m.mean[n]) + real_of(m.mean_residual[n]), exact.mean[n],
                                             std::sqrt(exact.m2[n] / exact.count[k])));
    }
  }
  for (std::size_t i = 0; i < dims && m.scatter != nullptr; ++i)
    for (std::size_t j = 0; j < dims; ++j)
      raise(e.scatter, relative(real_of(m.scatter[i * dims + j]), exact.scatter[i * dims + j],
                                std::sqrt(exact.scatter[i * dims + i] * exact.scatter[j * dims + j])));
  return e;
}

}  // namespace support
