// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "support/problem.hpp"
#include "support/tolerance.hpp"

namespace {

using lgm::status;
using namespace support;

template <class T>
std::vector<T> initialized(std::int64_t classes, std::int64_t dims, std::uint64_t seed, double scale = 1,
                           int threads = 1, std::int64_t samples = 0,
                           lgm::covariance covariance = lgm::covariance::diagonal) {
  guarded<T> mean(classes, dims);
  const lgm::parameters<T> parameters{mean.data()};
  REQUIRE(lgm::initialize_means(context_of(threads), make_shape(samples, classes, dims, covariance), seed,
                                static_cast<T>(scale), parameters) == status::success);
  CHECK(mean.intact());
  return mean.packed();
}

// The correlation of two arrays of unit normals; its deviation is 1 / sqrt(n).
template <class T>
double correlation(const std::vector<T>& a, const std::vector<T>& b) {
  double sum = 0;
  for (std::size_t n = 0; n < a.size(); ++n) sum += static_cast<double>(a[n]) * static_cast<double>(b[n]);
  return sum / static_cast<double>(a.size());
}

// Everything of one step, owned.
template <class T>
struct step_problem {
  lgm::shape shape;
  lgm::sgd_options<T> options;
  std::vector<T> mean, log_variance, log_prior;        // parameters
  std::vector<T> v_mean, v_log_variance, v_log_prior;  // momentum
  std::vector<T> g_mean, g_log_variance, g_log_prior;  // gradients

  step_problem(std::uint64_t seed, lgm::covariance covariance) : shape(make_shape(0, 5, 7, covariance)) {
    generator random(seed);
    const std::size_t variances = covariance == lgm::covariance::identity    ? 0
                                  : covariance == lgm::covariance::spherical ? 5
                                                                             : 35;
    const auto fill = [&](std::vector<T>& values, std::size_t n) {
      for (std::size_t i = 0; i < n; ++i) values.push_back(static_cast<T>(random.normal()));
    };
    for (auto* values : {&mean, &v_mean, &g_mean}) fill(*values, 35);
    for (auto* values : {&log_variance, &v_log_variance, &g_log_variance}) fill(*values, variances);
    for (auto* values : {&log_prior, &v_log_prior, &g_log_prior}) fill(*values, 5);
  }
  lgm::gradients<T, T> gradients() const {
    // Gradients are read only here; the struct serves functions that write them too.
    lgm::gradients<T, T> g;
    g.mean = const_cast<T*>(g_mean.data());
    g.log_variance = const_cast<T*>(g_log_variance.data());
    g.log_prior = const_cast<T*>(g_log_prior.data());
    return g;
  }
  lgm::parameters<T> momentum() { return {v_mean.data(), v_log_variance.data(), v_log_prior.data()}; }
  lgm::parameters<T> parameters() { return {mean.data(), log_variance.data(), log_prior.data()}; }
  status step(int threads = 1) {
    return lgm::sgd_step(context_of(threads), shape, options, gradients(), momentum(), parameters());
  }
};

// One array's step in long double.
template <class T>
void expected_step(const lgm::sgd_options<T>& o, real rate, real decay, real gradient_scale,
                   std::vector<real>& p, std::vector<real>& v, const std::vector<T>& gradient) {
  const real momentum = o.momentum;
  for (std::size_t n = 0; n < p.size(); ++n) {
    const real g = gradient_scale * static_cast<real>(gradient[n]) + decay * p[n];
    v[n] = momentum * v[n] + g;
    p[n] -= rate * (o.nesterov ? g + momentum * v[n] : v[n]);
  }
}

template <class T>
std::vector<real> reals(const std::vector<T>& values) {
  return std::vector<real>(values.begin(), values.end());
}

template <class T>
void check_close(const std::string& name, const std::vector<T>& got, const std::vector<real>& expected) {
  double worst = 0;
  for (std::size_t n = 0; n < got.size(); ++n)
    worst = std::max(worst, std::fabs(shown(static_cast<real>(got[n]) - expected[n])));
  // A few roundings of numbers of order 10 a step, three steps.
  CHECK_MESSAGE(worst <= 100 * shown(epsilon<T>()), name << " is off by " << worst);
}

}  // namespace

TEST_CASE_TEMPLATE("means are drawn from a unit normal", T, float, double) {
  const auto mean = initialized<T>(400, 250, 7);
  const auto n = static_cast<double>(mean.size());
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0, largest = 0;
  std::size_t inside = 0;
  for (const T value : mean) {
    const auto x = static_cast<double>(value);
    m1 += x / n;
    m2 += x * x / n;
    m3 += x * x * x / n;
    m4 += x * x * x * x / n;
    largest = std::max(largest, std::fabs(x));
    inside += std::fabs(x) < 1;
  }
  // Five deviations of each moment's estimate, sqrt(1, 2, 15, 96) / sqrt(n), and what the sum of twelve
  // uniform numbers differs from a normal one by: 0.1 in the fourth moment, 0.003 in the distribution
  // function at both ends.
  CHECK(std::fabs(m1) < 5 / std::sqrt(n));
  CHECK(std::fabs(m2 - 1) < 5 * std::sqrt(2 / n));
  CHECK(std::fabs(m3) < 5 * std::sqrt(15 / n));
  CHECK(std::fabs(m4 - 3) < 0.1 + 5 * std::sqrt(96 / n));
  CHECK(std::fabs(static_cast<double>(inside) / n - 0.682689) < 0.006 + 5 * std::sqrt(0.217 / n));
  CHECK(largest > 3.5);
  CHECK(largest <= 6);

  auto sorted = mean;
  std::sort(sorted.begin(), sorted.end());
  const auto repeats = sorted.end() - std::unique(sorted.begin(), sorted.end());
  CHECK(static_cast<double>(repeats) < 0.02 * n);  // a float has some 2^23 values in a normal's bulk
}

TEST_CASE_TEMPLATE("neighbours in the drawn means do not depend on each other", T, float, double) {
  const std::size_t classes = 300, dims = 64;
  const auto mean = initialized<T>(300, 64, 11);
  std::vector<T> left, right, above, below;
  for (std::size_t k = 0; k + 1 < classes; ++k)
    for (std::size_t j = 0; j + 1 < dims; ++j) {
      left.push_back(mean[k * dims + j]);
      right.push_back(mean[k * dims + j + 1]);
      above.push_back(mean[k * dims + j]);
      below.push_back(mean[(k + 1) * dims + j]);
    }
  const double deviation = 1 / std::sqrt(static_cast<double>(left.size()));
  CHECK(std::fabs(correlation(left, right)) < 5 * deviation);
  CHECK(std::fabs(correlation(above, below)) < 5 * deviation);
  const auto squared = [](std::vector<T> values) {
    for (T& value : values) value = (value * value - T(1)) / T(1.41421356);
    return values;
  };
  CHECK(std::fabs(correlation(squared(left), squared(right))) < 5 * deviation);
}

TEST_CASE_TEMPLATE("seeds draw different means, one seed the same", T, float, double) {
  const auto first = initialized<T>(50, 40, 0);
  CHECK(first == initialized<T>(50, 40, 0));
  const std::uint64_t seeds[] = {1, 2, 3, std::uint64_t{1} << 32, std::numeric_limits<std::uint64_t>::max()};
  for (const std::uint64_t seed : seeds) {
    const auto other = initialized<T>(50, 40, seed);
    CHECK(std::fabs(correlation(first, other)) < 5 / std::sqrt(2000.0));
    std::size_t equal = 0;
    for (std::size_t n = 0; n < other.size(); ++n) equal += other[n] == first[n];
    CHECK(equal < 5);
  }
}

TEST_CASE_TEMPLATE("the numbers depend on seed, class and dimension alone", T, float, double) {
  const auto expected = initialized<T>(37, 13, 5);
  for (const int threads : {2, 3}) CHECK(initialized<T>(37, 13, 5, 1, threads) == expected);
  CHECK(initialized<T>(37, 13, 5, 1, 1, 1000) == expected);
  CHECK(initialized<T>(37, 13, 5, 1, 1, 0, lgm::covariance::identity) == expected);
  CHECK(initialized<T>(37, 13, 5, 1, 1, 0, lgm::covariance::spherical) == expected);
  // A larger mixture starts with the smaller one.
  auto larger = initialized<T>(80, 13, 5);
  larger.resize(expected.size());
  CHECK(larger == expected);
  auto one = initialized<T>(1, 13, 5);
  CHECK(std::equal(one.begin(), one.end(), expected.begin()));
}

TEST_CASE_TEMPLATE("scale multiplies the means", T, float, double) {
  const auto unit = initialized<T>(9, 5, 3);
  const auto quarter = initialized<T>(9, 5, 3, 0.25);
  for (std::size_t n = 0; n < unit.size(); ++n) CHECK(quarter[n] == unit[n] * T(0.25));
  for (const T value : initialized<T>(9, 5, 3, 0)) CHECK(value == T(0));
}

TEST_CASE_TEMPLATE("variances start at one and priors uniform", T, float, double) {
  for (const auto covariance : covariances) {
    guarded<T> mean(6, 3), log_prior(6);
    guarded<T> log_variance(covariance == lgm::covariance::identity ? 0 : 6,
                            covariance == lgm::covariance::diagonal ? 3 : 1);
    const lgm::parameters<T> parameters{mean.data(), log_variance.data(), log_prior.data()};
    REQUIRE(lgm::initialize_means(context_of(1), make_shape(0, 6, 3, covariance), 3, T(1), parameters) ==
            status::success);
    CHECK(mean.intact());
    CHECK(mean.written());
    CHECK(log_variance.intact());
    CHECK(log_variance.all_zero());
    CHECK(log_prior.intact());
    for (std::size_t k = 0; k < 6; ++k)
      CHECK(static_cast<double>(log_prior[k]) == doctest::Approx(-std::log(6.0)).epsilon(1e-6));
  }
}

TEST_CASE_TEMPLATE("initialize_means writes nothing where there is nothing", T, float, double) {
  guarded<T> mean(0, 3);
  const lgm::parameters<T> parameters{mean.data()};
  CHECK(lgm::initialize_means(context_of(1), make_shape(0, 0, 3, lgm::covariance::identity), 3, T(1),
                              parameters) == status::success);
  CHECK(lgm::initialize_means(context_of(1), make_shape(0, 3, 0, lgm::covariance::identity), 3, T(1),
                              parameters) == status::success);
  CHECK(mean.untouched());
}

TEST_CASE_TEMPLATE("sgd_step is the formula", T, float, double) {
  for (const auto covariance : covariances)
    for (const bool nesterov : {false, true})
      for (const double momentum : {0.0, 0.9})
        for (const double decay : {0.0, 0.05})
          for (const bool overridden : {false, true}) {
            CAPTURE(name_of(covariance));
            CAPTURE(nesterov);
            CAPTURE(momentum);
            CAPTURE(decay);
            CAPTURE(overridden);
            step_problem<T> s(91, covariance);
            s.options.mean_rate = T(0.1);
            s.options.log_variance_rate = T(0.02);
            s.options.log_prior_rate = T(0.03);
            s.options.momentum = static_cast<T>(momentum);
            s.options.nesterov = nesterov;
            s.options.weight_decay = static_cast<T>(decay);
            const T mean_rate = T(0.4), log_variance_rate = T(0.01), log_prior_rate = T(0.2), scale = T(0.25);
            const bool skip = false;
            real rates[3] = {s.options.mean_rate, s.options.log_variance_rate, s.options.log_prior_rate},
                 factor = 1;
            if (overridden) {
              s.options.mean_rate_at = &mean_rate;
              s.options.log_variance_rate_at = &log_variance_rate;
              s.options.log_prior_rate_at = &log_prior_rate;
              s.options.inverse_loss_scale_at = &scale;
              s.options.skip_at = &skip;
              rates[0] = mean_rate;
              rates[1] = log_variance_rate;
              rates[2] = log_prior_rate;
              factor = scale;
            }
            auto mean = reals(s.mean), log_variance = reals(s.log_variance), log_prior = reals(s.log_prior);
            auto v_mean = reals(s.v_mean), v_log_variance = reals(s.v_log_variance),
                 v_log_prior = reals(s.v_log_prior);
            for (int step = 0; step < 3; ++step) {
              REQUIRE(s.step(1 + step) == status::success);
              expected_step(s.options, rates[0], static_cast<real>(s.options.weight_decay), factor, mean,
                            v_mean, s.g_mean);
              expected_step(s.options, rates[1], real{0}, factor, log_variance, v_log_variance,
                            s.g_log_variance);
              expected_step(s.options, rates[2], real{0}, factor, log_prior, v_log_prior, s.g_log_prior);
            }
            check_close("mean", s.mean, mean);
            check_close("log_variance", s.log_variance, log_variance);
            check_close("log_prior", s.log_prior, log_prior);
            if (momentum > 0) {
              check_close("momentum of mean", s.v_mean, v_mean);
              check_close("momentum of log_variance", s.v_log_variance, v_log_variance);
              check_close("momentum of log_prior", s.v_log_prior, v_log_prior);
            }
          }
}

TEST_CASE_TEMPLATE("without momentum no buffer is needed", T, float, double) {
  for (const auto covariance : covariances) {
    step_problem<T> s(92, covariance), with(92, covariance);
    s.options.mean_rate = s.options.log_variance_rate = s.options.log_prior_rate = T(0.1);
    with.options = s.options;
    REQUIRE(lgm::sgd_step(context_of(1), s.shape, s.options, s.gradients(), lgm::parameters<T>{},
                          s.parameters()) == status::success);
    REQUIRE(with.step() == status::success);
    CHECK(s.mean == with.mean);
    CHECK(s.log_variance == with.log_variance);
    CHECK(s.log_prior == with.log_prior);
  }
}

TEST_CASE_TEMPLATE("log_variance stays within its bounds, after the step", T, float, double) {
  for (const auto covariance : {lgm::covariance::spherical, lgm::covariance::diagonal}) {
    step_problem<T> s(93, covariance);
    s.options.log_variance_rate = T(10);
    s.options.min_log_variance = T(-1.5);
    s.options.max_log_variance = T(0.5);
    const auto before = s.log_variance;
    REQUIRE(s.step() == status::success);
    std::size_t low = 0, high = 0;
    for (std::size_t n = 0; n < before.size(); ++n) {
      const real moved = static_cast<real>(before[n]) - 10 * static_cast<real>(s.g_log_variance[n]);
      if (moved < -1.5L) CHECK(s.log_variance[n] == T(-1.5));
      if (moved > 0.5L) CHECK(s.log_variance[n] == T(0.5));
      CHECK(s.log_variance[n] >= T(-1.5));
      CHECK(s.log_variance[n] <= T(0.5));
      low += moved < -1.5L;
      high += moved > 0.5L;
    }
    CHECK(low > 0);
    CHECK(high > 0);
  }
}

TEST_CASE_TEMPLATE("a rate of zero leaves its array", T, float, double) {
  step_problem<T> s(94, lgm::covariance::diagonal);
  s.options.min_log_variance = T(-0.1);  // which the array exceeds
  s.options.max_log_variance = T(0.1);
  s.options.weight_decay = T(0.1);
  auto before = s;
  REQUIRE(s.step() == status::success);
  CHECK(s.mean == before.mean);
  CHECK(s.log_variance == before.log_variance);
  CHECK(s.log_prior == before.log_prior);
  s.options.log_prior_rate = T(0.5);
  REQUIRE(s.step() == status::success);
  CHECK(s.mean == before.mean);
  CHECK(s.log_variance == before.log_variance);
  CHECK(s.log_prior != before.log_prior);
}

TEST_CASE_TEMPLATE("skip_at skips everything, momentum too", T, float, double) {
  step_problem<T> s(95, lgm::covariance::diagonal);
  s.options.mean_rate = s.options.log_variance_rate = s.options.log_prior_rate = T(0.1);
  s.options.momentum = T(0.9);
  const bool skip = true;
  s.options.skip_at = &skip;
  // What a skipped step is for: gradients that overflowed.
  s.g_mean[3] = std::numeric_limits<T>::infinity();
  s.g_log_variance[1] = std::numeric_limits<T>::quiet_NaN();
  const auto before = s;
  REQUIRE(s.step() == status::success);
  CHECK(s.mean == before.mean);
  CHECK(s.log_variance == before.log_variance);
  CHECK(s.log_prior == before.log_prior);
  CHECK(s.v_mean == before.v_mean);
  CHECK(s.v_log_variance == before.v_log_variance);
  CHECK(s.v_log_prior == before.v_log_prior);
}

TEST_CASE_TEMPLATE("arrays that are null are left alone", T, float, double) {
  step_problem<T> s(96, lgm::covariance::diagonal);
  s.options.mean_rate = s.options.log_variance_rate = s.options.log_prior_rate = T(0.1);
  s.options.momentum = T(0.5);
  s.options.weight_decay = T(0.1);
  for (int which = 0; which < 3; ++which) {
    CAPTURE(which);
    // Its gradient is null: the parameter stays; the others move.
    auto a = s;
    auto gradients = a.gradients();
    if (which == 0) gradients.mean = nullptr;
    if (which == 1) gradients.log_variance = nullptr;
    if (which == 2) gradients.log_prior = nullptr;
    REQUIRE(lgm::sgd_step(context_of(1), a.shape, a.options, gradients, a.momentum(), a.parameters()) ==
            status::success);
    CHECK((a.mean == s.mean) == (which == 0));
    CHECK((a.log_variance == s.log_variance) == (which == 1));
    CHECK((a.log_prior == s.log_prior) == (which == 2));
    // The parameter is null: nothing of it is touched, its momentum neither.
    auto b = s;
    auto parameters = b.parameters();
    if (which == 0) parameters.mean = nullptr;
    if (which == 1) parameters.log_variance = nullptr;
    if (which == 2) parameters.log_prior = nullptr;
    REQUIRE(lgm::sgd_step(context_of(1), b.shape, b.options, b.gradients(), b.momentum(), parameters) ==
            status::success);
    CHECK((b.v_mean == s.v_mean) == (which == 0));
    CHECK((b.v_log_variance == s.v_log_variance) == (which == 1));
    CHECK((b.v_log_prior == s.v_log_prior) == (which == 2));
  }
}

TEST_CASE("steps along the gradients lower the loss") {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    lgm::loss_options<double> options;
    options.alpha = 0.1;
    options.lambda = 0.05;
    auto p = make_problem<double>(97, make_shape(60, 5, 4, covariance), options);
    REQUIRE(lgm::initialize_means(context_of(1), p.shape, 3, 1.0, lgm::parameters<double>{p.mean.data()}) ==
            status::success);
    lgm::sgd_options<double> sgd;
    sgd.mean_rate = sgd.log_variance_rate = sgd.log_prior_rate = 0.05;
    sgd.momentum = 0.5;
    std::vector<double> v_mean(p.mean.size(), 0), v_log_variance(p.log_variance.size(), 0), v_log_prior(5, 0);
    double first = 0, last = 0;
    for (int step = 0; step < 60; ++step) {
      outputs<double> out(p);
      REQUIRE(forward_backward(context_of(1), p, out) == status::success);
      last = out.total[0];
      if (step == 0) first = last;
      REQUIRE(lgm::sgd_step(context_of(1), p.shape, sgd, out.gradients(),
                            lgm::parameters<double>{v_mean.data(), v_log_variance.data(), v_log_prior.data()},
                            lgm::parameters<double>{p.mean.data(), p.log_variance.data(),
                                                    p.log_prior.data()}) == status::success);
    }
    CHECK(last < 0.7 * first);
  }
}
