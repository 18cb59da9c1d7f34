// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "support/cases.hpp"
#include "support/memory.hpp"

// The bits of what a row gets, alone against in batches: on the host they depend on the row, the classes and the options,
// and on nothing else.

namespace {

using lgm::status;
using support::generator;
using support::size_of;

struct sizes {
  std::int64_t samples, classes, dims;
};

// Means uniform in offset +- spread, features within 1 of one of them.
struct recipe {
  const char* name;
  double spread, offset;
};
// The operands as they are; centred; and so far apart that many distances are computed again from the differences.
const recipe recipes[] = {{"near zero", 0.5, 0}, {"far from zero", 0.5, 20}, {"far apart", 60, 0}};

template <class T>
struct inputs {
  lgm::shape shape;
  std::vector<T> features, mean, log_variance, log_prior, soft, class_weight, sample_weight;
  std::vector<std::int64_t> labels;
  bool plain = false;  // neither variances nor priors are given

  inputs(const sizes& n, lgm::covariance covariance, const recipe& how, std::uint64_t seed) {
    shape.samples = n.samples;
    shape.classes = n.classes;
    shape.dims = n.dims;
    shape.covariance = covariance;
    generator random(seed);
    const auto numbers = [&](std::int64_t count, double low, double high) {
      std::vector<T> v(size_of(count));
      for (T& x : v) x = static_cast<T>(random.uniform(low, high));
      return v;
    };
    mean = numbers(n.classes * n.dims, how.offset - how.spread, how.offset + how.spread);
    features = numbers(n.samples * n.dims, -1, 1);
    log_variance = numbers(lgm::log_variance_size(shape), -0.5, 0.5);
    log_prior = numbers(n.classes, -3, 0);
    class_weight = numbers(n.classes, 0.5, 2);
    sample_weight = numbers(n.samples, 0.5, 2);
    soft = numbers(n.samples * n.classes, 0, 2 / static_cast<double>(n.classes));
    for (std::int64_t i = 0; i < n.samples; ++i) {
      const std::int64_t k = random.below(n.classes);
      for (std::int64_t j = 0; j < n.dims; ++j)
        features[size_of(i * n.dims + j)] += mean[size_of(k * n.dims + j)];
      labels.push_back(random.chance(0.2) ? lgm::loss_options<T>{}.ignore_label : random.below(n.classes));
    }
  }

  lgm::mixture<T> mixture() const {
    return {mean.data(), plain || log_variance.empty() ? nullptr : log_variance.data(),
            plain ? nullptr : log_prior.data()};
  }
};

// What each row gets: of all functions, or of the losses alone.
template <class T>
struct results {
  struct column {
    std::string name;
    std::size_t width;
    std::vector<T> values;
  };
  std::vector<column> columns;

  // The place for rows from `first` on of the n-th column asked for.
  T* take(const std::string& name, std::int64_t width, std::int64_t samples, std::int64_t first) {
    if (next == columns.size())
      columns.push_back({name, size_of(width),
                         std::vector<T>(size_of(width * samples), std::numeric_limits<T>::quiet_NaN())});
    return columns[next++].values.data() + width * first;
  }
  std::size_t next = 0;
};

template <class T>
lgm::loss_options<T> options_of(const inputs<T>& p, bool weighted, std::int64_t first) {
  lgm::loss_options<T> o;
  o.alpha = T(0.3);
  o.lambda = T(0.1);
  o.reduction = lgm::reduction::none;
  if (!weighted) return o;
  o.label_smoothing = T(0.1);
  o.class_weight = p.class_weight.data();
  o.sample_weight = p.sample_weight.data() + first;
  return o;
}

// Rows [first, first + count) as one batch.
template <class T>
void compute(const lgm::host_context& context, const inputs<T>& p, std::int64_t first, std::int64_t count,
             bool losses_alone, results<T>& out) {
  const std::int64_t samples = p.shape.samples, classes = p.shape.classes;
  lgm::shape s = p.shape;
  s.samples = count;
  const T* const features = p.features.data() + first * s.dims;
  const std::int64_t* const labels = p.labels.data() + first;
  const lgm::soft_targets<T> soft{p.soft.data() + first * classes};
  std::vector<unsigned char> memory(lgm::workspace_size<T>(context, s));
  const lgm::workspace w{memory.data(), memory.size()};
  const auto take = [&](const std::string& name, std::int64_t width = 1) {
    return out.take(name, width, samples, first);
  };
  out.next = 0;

  for (const char* kind : {"labels", "weighted labels", "soft targets", "weighted soft targets", "a step"}) {
    const std::string name = kind;
    const lgm::loss_options<T> o = options_of(p, name.find("weighted") == 0, first);
    lgm::loss_result<T> r;
    r.total = take(name + ", total");
    r.classification = take(name + ", classification");
    r.likelihood = take(name + ", likelihood");
    r.row_state = take(name + ", row_state", 2);
    r.log_evidence = take(name + ", log_evidence");
    std::vector<T> gradient(size_of(count * s.dims));
    lgm::gradients<T, T> g;
    g.feature = gradient.data();
    const status answer = name == "a step" ? lgm::forward_backward(context, s, p.mixture(), o, features,
                                                                   labels, nullptr, r, g, w)
                          : name.find("soft") != std::string::npos
                              ? lgm::forward(context, s, p.mixture(), o, features, soft, r, w)
                              : lgm::forward(context, s, p.mixture(), o, features, labels, r, w);
    REQUIRE(answer == status::success);
  }
  if (losses_alone) return;

  const lgm::loss_options<T> o = options_of(p, false, first);
  REQUIRE(lgm::logits(context, s, p.mixture(), features, take("logits", classes), w) == status::success);
  REQUIRE(lgm::logits(context, s, p.mixture(), o, features, labels, take("logits with margin", classes), w) ==
          status::success);
  std::vector<std::int64_t> predicted(size_of(count));
  lgm::score_result<T> r;
  r.predicted = predicted.data();
  lgm::for_each_score(r, [&](const char* name, auto*& array) {
    if constexpr (std::is_same<decltype(array), T*&>::value) array = take(name);
  });
  REQUIRE(lgm::score(context, s, p.mixture(), features, r, w) == status::success);
  std::copy(predicted.begin(), predicted.end(), take("predicted"));
}

lgm::host_context context_of(int threads, std::size_t tile_bytes = std::size_t(64) << 20) {
  lgm::host_context context;
  context.threads = threads;
  context.tile_bytes = tile_bytes;
  return context;
}
const lgm::host_context contexts[] = {context_of(1),          context_of(2),          context_of(3),
                                      context_of(1, 1),       context_of(2, 1 << 14), context_of(1, 1 << 16),
                                      context_of(3, 1 << 18), context_of(1, 1 << 20), context_of(2, 1 << 22)};

template <class T>
void check_same_rows(const results<T>& alone, const results<T>& batched) {
  REQUIRE(alone.columns.size() == batched.columns.size());
  for (std::size_t c = 0; c < alone.columns.size(); ++c) {
    const auto &expected = alone.columns[c], &found = batched.columns[c];
    const std::size_t bytes = expected.width * sizeof(T), rows = expected.values.size() / expected.width;
    std::size_t differing = 0;
    for (std::size_t i = 0; i < rows; ++i)
      differing += std::memcmp(expected.values.data() + i * expected.width,
                               found.values.data() + i * expected.width, bytes) != 0;
    CHECK_MESSAGE(differing == 0,
                  expected.name << ": " << differing << " of " << rows << " rows have other bits");
  }
}

template <class T>
results<T> each_alone(const inputs<T>& p, bool losses_alone) {
  results<T> alone;
  for (std::int64_t i = 0; i < p.shape.samples; ++i) compute(context_of(1), p, i, 1, losses_alone, alone);
  return alone;
}

// All rows at once, and batches of random sizes one after the other, each on a context of its own.
template <class T>
void check_batches(const inputs<T>& p, bool losses_alone, std::uint64_t seed) {
  const results<T> alone = each_alone(p, losses_alone);
  generator random(seed);
  for (int n = 0; n < 2; ++n) {
    const lgm::host_context& context =
        contexts[(3 * seed + 5 * static_cast<std::uint64_t>(n)) % std::size(contexts)];
    CAPTURE(context.threads);
    CAPTURE(context.tile_bytes);
    results<T> whole;
    compute(context, p, 0, p.shape.samples, losses_alone, whole);
    check_same_rows(alone, whole);
  }
  const std::vector<std::int64_t> most{4, 14, 30, 300};
  results<T> parts;
  for (std::int64_t i = 0, n; i < p.shape.samples; i += n) {
    n = std::min(p.shape.samples - i, 1 + random.below(random.pick(most)));
    compute(random.pick(contexts), p, i, n, losses_alone, parts);
  }
  check_same_rows(alone, parts);
}

template <class T>
void check_sizes(const sizes& n, std::uint64_t seed) {
  CAPTURE(n.samples);
  CAPTURE(n.classes);
  CAPTURE(n.dims);
  for (const auto covariance :
       {lgm::covariance::identity, lgm::covariance::spherical, lgm::covariance::diagonal}) {
    // Of seven sizes and covariances in turn, one: neither the three covariances nor the sizes fall into step with it.
    if ((seed + static_cast<std::uint64_t>(n.classes + n.dims)) % support::every(7) != 0) {
      ++seed;
      continue;
    }
    CAPTURE(static_cast<int>(covariance));
    const recipe& how = recipes[seed % 3];
    CAPTURE(how.name);
    inputs<T> p(n, covariance, how, seed);
    p.plain = seed % 2 == 0;
    check_batches(p, false, seed);
    ++seed;
  }
}

}  // namespace

TEST_CASE_TEMPLATE("a row's bits do not depend on its batch: classes around the blocks of the products", T,
                   float, double) {
  std::uint64_t seed = 0;
  for (const std::int64_t classes : {1,  2,  3,  4,  5,  7,  8,  9,  11, 12, 13, 15, 16, 17, 23, 24, 25, 31,
                                     32, 33, 40, 41, 47, 48, 49, 56, 63, 64, 65, 71, 72, 73, 96, 97, 100})
    check_sizes<T>({29, classes, 5}, seed++);
  for (const std::int64_t classes : {479, 480, 481, 504, 1000}) check_sizes<T>({13, classes, 24}, seed++);
}

TEST_CASE_TEMPLATE("a row's bits do not depend on its batch: dims around the blocks of the products", T,
                   float, double) {
  std::uint64_t seed = 100;
  for (std::int64_t dims = 1; dims <= 17; ++dims) check_sizes<T>({29, 33, dims}, seed++);
  for (const std::int64_t dims : {96, 191, 192, 193, 255, 256, 257, 383, 384, 385, 511, 512, 513})
    check_sizes<T>({17, 100, dims}, seed++);
  check_sizes<T>({5, 1000, 513}, seed++);
}

TEST_CASE_TEMPLATE("a row's bits do not depend on its batch: more classes than are summed at once", T, float,
                   double) {
  std::uint64_t seed = 200;
  for (const std::int64_t classes : {1023, 1024, 1025, 2048, 2100, 3500})
    check_sizes<T>({7, classes, 7}, seed++);
  check_sizes<T>({20, 2500, 20}, seed++);
}

TEST_CASE_TEMPLATE("a row's bits do not depend on its batch: more rows than the products take at once", T,
                   float, double) {
  std::uint64_t seed = 300;
  for (const sizes& n : {sizes{515, 33, 6}, sizes{1030, 9, 3}, sizes{130, 130, 130}, sizes{150, 100, 96}})
    check_sizes<T>(n, seed++);
}

// Every size and position of a small batch.
TEST_CASE_TEMPLATE("a row's bits are the same in batches of 1 to 40 rows", T, float, double) {
  for (const recipe& how : recipes) {
    CAPTURE(how.name);
    inputs<T> p({43, 57, 67}, lgm::covariance::identity, how, 400);
    const results<T> alone = each_alone(p, false);
    for (std::int64_t batch = 2; batch <= 40; ++batch) {
      CAPTURE(batch);
      results<T> parts;
      for (std::int64_t i = 0; i < p.shape.samples; i += batch)
        compute(context_of(1), p, i, std::min(batch, p.shape.samples - i), false, parts);
      check_same_rows(alone, parts);
    }
  }
}

// The other rows of a batch decide nothing, even where they are left out and hold no numbers.
TEST_CASE_TEMPLATE("a row's bits do not depend on rows that are left out", T, float, double) {
  for (const recipe& how : recipes) {
    CAPTURE(how.name);
    inputs<T> p({41, 26, 35}, lgm::covariance::identity, how, 500);
    p.plain = true;
    inputs<T> counted = p;
    for (std::int64_t& label : counted.labels) label = std::max<std::int64_t>(label, 0);
    results<T> alone = each_alone(counted, true);
    for (std::int64_t i = 0; i < p.shape.samples; ++i) {
      if (p.labels[size_of(i)] >= 0) continue;
      std::fill_n(p.features.begin() + i * p.shape.dims, p.shape.dims, std::numeric_limits<T>::quiet_NaN());
    }
    results<T> batch;
    compute(context_of(1), p, 0, p.shape.samples, true, batch);
    // Soft targets know no ignored rows, and rows that are left out have losses of their own.
    for (results<T>* r : {&alone, &batch})
      for (auto& column : r->columns)
        for (std::size_t i = 0; i < p.labels.size(); ++i)
          if (p.labels[i] < 0)
            std::fill_n(column.values.begin() + static_cast<std::ptrdiff_t>(i * column.width), column.width,
                        T(0));
    check_same_rows(alone, batch);
  }
}
