// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <lgm/detail/host/packet_group.hpp>
#include <lgm/moments.hpp>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "support/moments.hpp"

// Parameters from moments, against long double; and what the functions of moments answer to bad input.

namespace {

using lgm::status;
using namespace support;
using without = moments_memory<double>::without;

// Moments made up, class 1 without samples and its arrays poison, and parameters that are poison where nothing may read
// them.
template <class A, class T>
struct estimate_problem {
  lgm::shape shape;
  lgm::estimate_options<T> options;
  moments_memory<A> moments;
  guarded<T> mean, log_variance, log_prior;
  std::vector<real> old_mean, old_log_variance, old_log_prior;

  static std::int64_t variances(const lgm::shape& s) {
    return s.covariance == lgm::covariance::diagonal ? s.dims : 1;
  }

  estimate_problem(std::uint64_t seed, const lgm::shape& s, const lgm::estimate_options<T>& o,
                   std::size_t offset = 0)
      : shape(s),
        options(o),
        moments(s, offset),
        mean(s.classes, s.dims, 0, offset),
        log_variance(s.covariance == lgm::covariance::identity ? 0 : s.classes, variances(s), 0, offset),
        log_prior(s.classes, 1, 0, offset) {
    generator random(seed);
    const std::size_t dims = size_of(s.dims);
    const auto old = [&](guarded<T>& array, std::vector<real>& copy, double low, double high) {
      const std::size_t row = array.size() / size_of(s.classes);
      for (std::size_t n = 0; n < array.size(); ++n) {
        const T value = static_cast<T>(random.uniform(low, high));
        copy.push_back(static_cast<real>(value));
        if (options.decay != T(0) && n / row != 1) array.data()[n] = value;
      }
    };
    for (std::size_t k = 0; k < size_of(s.classes); ++k) {
      if (k == 1) continue;
      moments.count.data()[k] = static_cast<A>(random.uniform(1, 50));
      for (std::size_t n = k * dims; n < (k + 1) * dims; ++n) {
        moments.mean.data()[n] = static_cast<A>(random.uniform(-5, 5));
        // From nothing to more than any floor.
        moments.m2.data()[n] = random.chance(0.1) ? A(0) : static_cast<A>(std::exp(random.uniform(-12, 6)));
      }
    }
    old(mean, old_mean, -5, 5);
    old(log_variance, old_log_variance, -4, 2);
    old(log_prior, old_log_prior, -6, 0);
  }
  lgm::parameters<T> parameters() { return {mean.data(), log_variance.data(), log_prior.data()}; }
  status estimate(const lgm::host_context& context) {
    return lgm::estimate(context, shape, moments.get(), options, parameters());
  }

  real mixed(real now, real before) const {
    return options.decay == T(0) ? now : real(options.decay) * before + (1 - real(options.decay)) * now;
  }
  real expected_log_variance(real variance, real pooled, real before) const {
    const real shrinkage = static_cast<real>(options.shrinkage);
    const real floor =
        std::max({static_cast<real>(options.variance_floor), static_cast<real>(std::numeric_limits<T>::min()),
                  static_cast<real>(std::numeric_limits<A>::min())});
    variance = std::max((1 - shrinkage) * variance + shrinkage * pooled, floor);
    return std::log(std::max(mixed(variance, std::exp(before)), floor));
  }
  void check() const {
    const std::size_t classes = size_of(shape.classes), dims = size_of(shape.dims),
                      row = size_of(variances(shape));
    const auto square = [&](std::size_t k, std::size_t j) { return static_cast<real>(moments.m2.at(k, j)); };
    real total = 0;
    std::vector<real> pooled(row, 0);
    for (std::size_t k = 0; k < classes; ++k) total += static_cast<real>(moments.count[k]);
    for (std::size_t k = 0; k < classes; ++k)
      for (std::size_t j = 0; j < dims && k != 1; ++j)
        pooled[row == 1 ? 0 : j] += square(k, j) / total / (row == 1 ? static_cast<real>(dims) : 1);
    const real eps = std::max(epsilon<A>(), epsilon<T>());
    std::vector<real> means, mean_bounds, logs, log_bounds, priors, prior_bounds;
    for (std::size_t k = 0; k < classes; ++k) {
      if (k == 1) continue;
      const real count = static_cast<real>(moments.count[k]);
      for (std::size_t j = 0; j < dims; ++j) {
        means.push_back(mixed(static_cast<real>(moments.mean.at(k, j)), old_mean[k * dims + j]));
        mean_bounds.push_back(4 * eps * 5);
      }
      for (std::size_t j = 0; j < row && log_variance.size() > 0; ++j) {
        real variance = 0;
        for (std::size_t i = 0; i < dims; ++i)
          if (row == 1 || i == j) variance += square(k, i) / count / (row == 1 ? static_cast<real>(dims) : 1);
        logs.push_back(expected_log_variance(variance, pooled[j], old_log_variance[k * row + j]));
        // A few roundings of a sum of positive terms, and the logarithm's own.
        log_bounds.push_back(shown(growth<A>(classes * dims)) + 4 * eps * (2 + std::fabs(logs.back())));
      }
      priors.push_back(std::log(mixed(count / total, std::exp(old_log_prior[k]))));
      prior_bounds.push_back(shown(growth<A>(classes)) + 4 * eps * (2 + std::fabs(priors.back())));
    }
    const auto seen = [&](const guarded<T>& array) {
      std::vector<T> values;
      const std::size_t each = array.size() / classes;
      for (std::size_t n = 0; n < array.size(); ++n) {
        if (n / each == 1)
          CHECK(std::isnan(array[n]));  // poison still
        else
          values.push_back(array[n]);
      }
      return values;
    };
    check_within("mean", seen(mean), means, mean_bounds);
    check_within("log_variance", seen(log_variance), logs, log_bounds);
    check_within("log_prior", seen(log_prior), priors, prior_bounds);
    CHECK((mean.intact() && log_variance.intact() && log_prior.intact()));
  }
};

template <class T>
lgm::estimate_options<T> options_of(double floor, double shrinkage, double decay) {
  return {static_cast<T>(floor), static_cast<T>(shrinkage), static_cast<T>(decay)};
}

template <class A, class T>
void check_estimates() {
  std::uint64_t seed = 30;
  for (const lgm::covariance covariance : covariances)
    for (const std::int64_t dims : {1, 7, 300})
      for (const double floor : {0.0, 0.25})
        for (const double shrinkage : {0.0, 0.375, 1.0})
          for (const double decay : {0.0, 0.75}) {
            CAPTURE(name_of(covariance));
            CAPTURE(dims);
            CAPTURE(floor);
            CAPTURE(shrinkage);
            CAPTURE(decay);
            estimate_problem<A, T> p(++seed, make_shape(0, 6, dims, covariance),
                                     options_of<T>(floor, shrinkage, decay));
            REQUIRE(p.estimate(context_of(1)) == status::success);
            p.check();
          }
}

}  // namespace

TEST_CASE("floor, shrinkage, decay and priors are right for every pair of types") {
  check_estimates<float, float>();
  check_estimates<double, float>();
  check_estimates<float, double>();
  check_estimates<double, double>();
}

TEST_CASE_TEMPLATE("estimates have the same bits with any threads and at any alignment", T, float, double) {
  for (const lgm::covariance covariance : covariances)
    for (const double shrinkage : {0.0, 0.5}) {
      // Large enough for several parts and blocks.
      const lgm::shape s = make_shape(0, 500, 300, covariance);
      const auto options = options_of<T>(0.01, shrinkage, 0.5);
      estimate_problem<double, T> expected(31, s, options);
      REQUIRE(expected.estimate(context_of(1)) == status::success);
      expected.check();
      for (const int threads : {2, 3})
        for (const std::size_t offset : {0u, 1u}) {
          estimate_problem<double, T> p(31, s, options, offset);
          REQUIRE(p.estimate(context_of(threads)) == status::success);
          CHECK(p.mean.same_bits(expected.mean));
          CHECK(p.log_variance.same_bits(expected.log_variance));
          CHECK(p.log_prior.same_bits(expected.log_prior));
        }
    }
}

TEST_CASE_TEMPLATE(
    "variances of streamed samples to 1e-12 at a mean of 1e6; one sample a class gives the floor", T, float,
    double) {
  const auto s = make_samples<T>(32, 500, 5, 9);
  const exact_moments exact = exact_moments::of<double>(s);
  moments_memory<double> m(s.shape);
  stream(context_of(1), s, 1, m.get());
  for (const double floor : {0.0, 1e-3}) {
    guarded<double> mean(5, 9), log_variance(5, 9), log_prior(5);
    REQUIRE(lgm::estimate(context_of(1), s.shape, m.get(), {floor},
                          lgm::parameters<double>{mean.data(), log_variance.data(), log_prior.data()}) ==
            status::success);
    real priors = 0;
    for (std::size_t k = 0; k < 4; ++k) {
      priors += std::exp(static_cast<real>(log_prior[k]));
      for (std::size_t n = k * 9; n < (k + 1) * 9; ++n) {
        CHECK(std::fabs(shown(static_cast<real>(mean[n]) / exact.mean[n] - 1)) <= 1e-12);
        if (k == 3) {
          const double least = floor > 0 ? floor : std::numeric_limits<double>::min();
          CHECK(log_variance[n] == doctest::Approx(std::log(least)).epsilon(1e-15));
        } else {
          const real variance = exact.m2[n] / exact.count[k];
          CHECK(std::fabs(shown(std::exp(static_cast<real>(log_variance[n])) / variance - 1)) <= 1e-12);
        }
      }
    }
    CHECK(std::fabs(shown(priors - 1)) <= 1e-14);
  }
  // In float the smallest normal number is float's.
  guarded<float> log_variance(5, 9);
  lgm::parameters<float> p;
  p.log_variance = log_variance.data();
  REQUIRE(lgm::estimate(context_of(1), s.shape, m.get(), {}, p) == status::success);
  CHECK(log_variance.at(3, 0) == doctest::Approx(std::log(std::numeric_limits<float>::min())).epsilon(1e-6));
}

TEST_CASE("what is kept of a variance below the floor does not take it below") {
  for (const lgm::covariance covariance : {lgm::covariance::spherical, lgm::covariance::diagonal}) {
    const lgm::shape s = make_shape(0, 1, 1, covariance);
    double count = 10, mean = 0, m2 = 10 * 0.3, log_variance = std::log(1e-6);
    lgm::parameters<double> p;
    p.log_variance = &log_variance;
    const lgm::class_moments<double> moments{&count, &mean, &m2};
    REQUIRE(lgm::estimate(context_of(1), s, moments, {0.25, 0, 0.9}, p) == status::success);
    CHECK(log_variance == doctest::Approx(std::log(0.25)));
    REQUIRE(lgm::estimate(context_of(1), s, moments, {0.25, 0, 0.5}, p) == status::success);
    CHECK(log_variance == doctest::Approx(std::log(0.275)));
  }
}

TEST_CASE_TEMPLATE("arrays that are null are neither needed nor written", T, float, double) {
  for (const lgm::covariance covariance : covariances)
    for (unsigned mask = 0; mask < 8; ++mask) {
      CAPTURE(mask);
      const lgm::shape s = make_shape(0, 5, 6, covariance);
      const auto options = options_of<T>(0.01, 0.5, 0);
      estimate_problem<double, T> all(33, s, options), p(33, s, options);
      REQUIRE(all.estimate(context_of(1)) == status::success);
      lgm::parameters<T> asked = p.parameters();
      lgm::class_moments<double> moments{p.moments.count.data()};
      const bool variances = (mask & 2u) != 0 && covariance != lgm::covariance::identity;
      if (mask & 1u) moments.mean = p.moments.mean.data();
      if (variances) moments.m2 = p.moments.m2.data();
      if (!(mask & 1u)) asked.mean = nullptr;
      if (!(mask & 2u)) asked.log_variance = nullptr;
      if (!(mask & 4u)) asked.log_prior = nullptr;
      REQUIRE(lgm::estimate(context_of(1), s, moments, options, asked) == status::success);
      CHECK(((mask & 1u) ? p.mean.same_bits(all.mean) : p.mean.untouched()));
      CHECK((variances ? p.log_variance.same_bits(all.log_variance) : p.log_variance.untouched()));
      CHECK(((mask & 4u) ? p.log_prior.same_bits(all.log_prior) : p.log_prior.untouched()));
    }
}

TEST_CASE_TEMPLATE("decay 1, no samples, no classes, no dimensions: nothing is written", T, float, double) {
  for (const lgm::covariance covariance : covariances) {
    const auto untouched = [](estimate_problem<double, T>& p) {
      REQUIRE(p.estimate(context_of(1)) == status::success);
      return p.mean.untouched() && p.log_variance.untouched() && p.log_prior.untouched();
    };
    estimate_problem<double, T> unseen(34, make_shape(0, 4, 3, covariance), {});
    for (std::size_t k = 0; k < 4; ++k) unseen.moments.count.data()[k] = 0;
    CHECK(untouched(unseen));
    // Values that the logarithm of their exponential is not exactly.
    const auto half = options_of<T>(0, 0, 0.5);
    estimate_problem<double, T> kept(34, make_shape(0, 4, 30, covariance), half);
    const estimate_problem<double, T> before(34, make_shape(0, 4, 30, covariance), half);
    kept.options.decay = 1;
    REQUIRE(kept.estimate(context_of(1)) == status::success);
    CHECK(kept.mean.same_bits(before.mean));
    CHECK(kept.log_variance.same_bits(before.log_variance));
    CHECK(kept.log_prior.same_bits(before.log_prior));
    const lgm::class_moments<double> nothing;
    CHECK(lgm::estimate(context_of(1), make_shape(0, 0, 3, covariance), nothing, {}, lgm::parameters<T>{}) ==
          status::success);
    // Without dimensions there are priors, and no variance of anything.
    double count[2] = {3, 1};
    T log_variance[2] = {7, 7}, log_prior[2];
    CHECK(lgm::estimate(context_of(1), make_shape(0, 2, 0, covariance), lgm::class_moments<double>{count}, {},
                        lgm::parameters<T>{nullptr, log_variance, log_prior}) == status::success);
    CHECK(log_variance[0] == T(7));
    CHECK(log_prior[0] == doctest::Approx(std::log(T(0.75))));
  }
}

TEST_CASE_TEMPLATE("moments that are not numbers show in their class, and with shrinkage in all", A, float,
                   double) {
  for (const lgm::covariance covariance : {lgm::covariance::spherical, lgm::covariance::diagonal})
    for (const double shrinkage : {0.0, 0.5}) {
      estimate_problem<A, double> p(35, make_shape(0, 5, 6, covariance),
                                    options_of<double>(0.5, shrinkage, 0));
      p.moments.m2.data()[2 * 6 + 4] = std::numeric_limits<A>::quiet_NaN();
      REQUIRE(p.estimate(context_of(1)) == status::success);
      const std::size_t row = p.log_variance.columns();
      for (std::size_t k = 0; k < 5; ++k)
        for (std::size_t j = 0; j < row && k != 1; ++j) {
          const bool hit = (row == 1 || j == 4) && (k == 2 || shrinkage > 0);
          CHECK(std::isnan(p.log_variance.at(k, j)) == hit);
        }
    }
}

namespace {

template <class Group>
void check_group_estimates(const Group& group) {
  using A = double;
  for (const std::int64_t dims : {1, 5, 33}) {
    const std::size_t n = size_of(dims);
    std::vector<A> mean(n), m2(n), pooled(n);
    std::vector<float> out_mean(n + 1, 2), out_log(n + 1, -1);
    for (std::size_t j = 0; j < n; ++j) {
      mean[j] = 0.5 * static_cast<A>(j);
      m2[j] = 0.25 * static_cast<A>(j);
      pooled[j] = 3;
    }
    const lgm::estimate_rule<A> rule{0.5, 1.75, 0.25};
    lgm::estimate_mean(group, dims, mean.data(), rule, out_mean.data());
    lgm::estimate_log_variance(group, dims, m2.data(), 0.5, pooled.data(), rule, out_log.data());
    for (std::size_t j = 0; j < n; ++j) {
      CHECK(out_mean[j] == doctest::Approx(0.25 * 2 + 0.75 * mean[j]));
      const double variance = std::max(1.75, 0.5 * (0.5 * m2[j] + 3));
      CHECK(out_log[j] == doctest::Approx(std::log(std::max(1.75, 0.25 * std::exp(-1.0) + 0.75 * variance))));
    }
    CHECK(out_mean.back() == 2);
    CHECK(out_log.back() == -1);
  }
}

}  // namespace

TEST_CASE("one class is the same under one thread and under the lanes of a register") {
  check_group_estimates(lgm::serial_group{});
  check_group_estimates(lgm::detail::packet_group<double>{});
}

// ---- bad input ----

namespace {

enum function : unsigned {
  accumulate_call = 1,
  merge_call = 2,
  estimate_call = 4,
  all_calls = 7,
  moment_calls = 3
};

// The arguments of the three functions, all valid, for a test to spoil one.
struct arguments {
  labelled_samples<float> samples = make_samples<float>(36, 6, 4, 3, {0, 0});
  moments_memory<double> own{samples.shape}, other{samples.shape};
  guarded<float> mean{4, 3}, log_variance{4, 3}, log_prior{4};
  lgm::host_context context = context_of(1);
  lgm::shape shape = samples.shape;
  scratch memory{lgm::detail::host::moments_bytes(context, shape)};

  lgm::loss_options<float> options = samples.options;
  const float* features = samples.features.data();
  const std::int64_t* labels = samples.labels.data();
  lgm::class_moments<double> into = own.get(without::nothing), from = other.get(without::nothing);
  lgm::estimate_options<float> how;
  lgm::parameters<float> parameters{mean.data(), log_variance.data(), log_prior.data()};
  lgm::workspace workspace = memory.get();

  arguments() {
    // So that a merge or an estimate that runs writes something.
    for (moments_memory<double>* m : {&own, &other}) {
      std::fill_n(m->count.data(), 4, 2.0);
      for (auto* array : {&m->mean, &m->m2, &m->residual}) std::fill_n(array->data(), 12, 1.0);
    }
  }
  status call(unsigned f) {
    switch (f) {
      case accumulate_call:
        return lgm::accumulate_moments(context, shape, options, features, labels, into, workspace);
      case merge_call: return lgm::merge_moments(context, shape, from, into);
      default: return lgm::estimate(context, shape, into, how, parameters);
    }
  }
  bool untouched() const {
    bool same = mean.untouched() && log_variance.untouched() && log_prior.untouched() && memory.intact();
    const arguments fresh;
    own.each(fresh.own,
             [&](const std::string&, const auto& a, const auto& b) { same = same && a.same_bits(b); });
    return same;
  }
};

struct row {
  std::string name;
  unsigned functions;
  status expected;
  std::function<void(arguments&)> spoil;
};

std::vector<row> table() {
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              infinity = std::numeric_limits<float>::infinity();
  static const std::int64_t below[6] = {0, 1, -1, 2, 3, 0}, above[6] = {0, 1, 1, 2, 3, 4};
  std::vector<row> rows;
  using a = arguments;
  const auto add = [&](const std::string& name, unsigned f, status expected, std::function<void(a&)> spoil) {
    rows.push_back({name, f, expected, std::move(spoil)});
  };
  add("threads negative", all_calls, status::negative_size, [](a& x) { x.context.threads = -1; });
  add("samples negative", all_calls, status::negative_size, [](a& x) { x.shape.samples = -1; });
  add("classes negative", all_calls, status::negative_size, [](a& x) { x.shape.classes = -1; });
  add("dims negative", all_calls, status::negative_size, [](a& x) { x.shape.dims = -1; });
  add("covariance unknown", all_calls, status::invalid_option,
      [](a& x) { x.shape.covariance = static_cast<lgm::covariance>(9); });
  add("class range", all_calls, status::invalid_class_range, [](a& x) { x.shape.class_begin = 1; });
  add("feature stride", all_calls, status::stride_too_small, [](a& x) { x.shape.feature_stride = 2; });
  add("too large", all_calls, status::size_too_large, [](a& x) { x.shape.dims = std::int64_t(1) << 60; });
  add("scatter too large", moment_calls, status::size_too_large,
      [](a& x) { x.shape.dims = std::int64_t(1) << 30; });
  add("alpha", accumulate_call, status::invalid_alpha, [=](a& x) { x.options.alpha = nan; });
  add("lambda", accumulate_call, status::invalid_lambda, [](a& x) { x.options.lambda = -1; });
  add("label smoothing", accumulate_call, status::invalid_label_smoothing,
      [](a& x) { x.options.label_smoothing = 2; });
  add("features null", accumulate_call, status::null_pointer, [](a& x) { x.features = nullptr; });
  add("labels null", accumulate_call, status::null_pointer, [](a& x) { x.labels = nullptr; });
  add("workspace null", accumulate_call, status::null_pointer, [](a& x) { x.workspace.data = nullptr; });
  add("workspace a byte short", accumulate_call, status::workspace_too_small,
      [](a& x) { --x.workspace.bytes; });
  add("label below", accumulate_call, status::label_out_of_range, [](a& x) { x.labels = below; });
  add("label above", accumulate_call, status::label_out_of_range, [](a& x) { x.labels = above; });
  add("count null", all_calls, status::null_pointer, [](a& x) { x.into.count = nullptr; });
  add("mean null", all_calls, status::null_pointer, [](a& x) { x.into.mean = nullptr; });
  add("mean null, scatter not", moment_calls, status::null_pointer,
      [](a& x) { x.into.mean = x.into.m2 = x.from.mean = x.from.m2 = nullptr; });
  add("mean null, m2 not", moment_calls, status::null_pointer,
      [](a& x) { x.into.mean = x.into.scatter = x.from.scatter = nullptr; });
  add("m2 null", estimate_call, status::null_pointer, [](a& x) { x.into.m2 = nullptr; });
  add("from.count null", merge_call, status::null_pointer, [](a& x) { x.from.count = nullptr; });
  add("from.mean null", merge_call, status::null_pointer,
      [](a& x) { x.from.mean = x.from.m2 = x.from.scatter = x.into.m2 = x.into.scatter = nullptr; });
  add("from.m2 null", merge_call, status::null_pointer, [](a& x) { x.from.m2 = nullptr; });
  add("from.scatter null", merge_call, status::null_pointer, [](a& x) { x.from.scatter = nullptr; });
  for (const float value : {-1.0f, nan, infinity})
    add("floor", estimate_call, status::invalid_option, [=](a& x) { x.how.variance_floor = value; });
  for (const float value : {-0.1f, 1.1f, nan}) {
    add("shrinkage", estimate_call, status::invalid_option, [=](a& x) { x.how.shrinkage = value; });
    add("decay", estimate_call, status::invalid_option, [=](a& x) { x.how.decay = value; });
  }
  return rows;
}

}  // namespace

TEST_CASE("bad arguments have a status of their own and nothing is written") {
  for (const unsigned f : {accumulate_call, merge_call, estimate_call}) {
    CAPTURE(f);
    arguments good;
    CHECK(good.untouched());
    CHECK(good.call(f) == status::success);
    CHECK_FALSE(good.untouched());
    for (const row& r : table()) {
      if ((r.functions & f) == 0) continue;
      CAPTURE(r.name);
      arguments spoiled;
      r.spoil(spoiled);
      const status answer = spoiled.call(f);
      CHECK_MESSAGE(answer == r.expected, std::string(lgm::to_string(answer)));
      CHECK(spoiled.untouched());
    }
  }
}

TEST_CASE("workspace_size is enough, for fewer samples too, and keeps to the limit") {
  constexpr std::size_t mebibyte = std::size_t(1) << 20;
  for (const std::int64_t dims : {1, 3, 512, 100000})
    for (const std::size_t limit : {std::size_t(0), std::size_t(20000), 64 * mebibyte})
      for (const int threads : {1, 2, 64}) {
        CAPTURE(dims);
        CAPTURE(limit);
        std::size_t fewer = 0;
        for (std::int64_t samples = 0; samples <= 1000000; samples += 1 + samples / 3) {
          const lgm::shape s = make_shape(samples, 5, dims, lgm::covariance::identity);
          const auto context = context_of(threads, limit);
          const std::size_t bytes = lgm::detail::host::moments_bytes(context, s);
          CHECK(bytes >= fewer);
          CHECK(bytes <= lgm::workspace_size<float>(context, s));
          CHECK(bytes <= lgm::workspace_size<double>(context, s));
          if (limit == 64 * mebibyte) CHECK(bytes <= limit);
          fewer = bytes;
        }
      }
}
