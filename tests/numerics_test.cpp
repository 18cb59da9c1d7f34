// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <utility>
#include <vector>

#include "support/hard_problems.hpp"
#include "support/problem.hpp"
#include "support/tolerance.hpp"

// What a plain version gets wrong in float. Where a plain version is written out here, it is fed the same
// data and must miss the tolerance that the library keeps: otherwise the data would not test anything.

namespace {

using lgm::status;
using namespace support;

// The plain versions, all in float.

// logsumexp_k l_k - l_z, from logits that are correct to the last bit.
float plain_loss(const real* logits, std::size_t classes, std::size_t z) {
  float largest = -std::numeric_limits<float>::infinity();
  for (std::size_t k = 0; k < classes; ++k) largest = std::max(largest, static_cast<float>(logits[k]));
  float sum = 0;
  for (std::size_t k = 0; k < classes; ++k) sum += std::exp(static_cast<float>(logits[k]) - largest);
  const float evidence = largest + std::log(sum);
  return evidence - static_cast<float>(logits[z]);
}

// d_k by |x|^2 - 2 x mu + |mu|^2 of the numbers less a centre, every product and sum rounded to float.
std::vector<float> plain_distances(const problem<float>& p, const std::vector<float>& centre) {
  std::vector<float> distances;
  const std::size_t per_class = p.log_variance.size() / std::max<std::size_t>(1, p.classes());
  for (std::size_t i = 0; i < p.samples(); ++i)
    for (std::size_t k = 0; k < p.classes(); ++k) {
      float xx = 0, xm = 0, mm = 0;
      for (std::size_t j = 0; j < p.dims(); ++j) {
        const float log_variance =
            per_class == 0 ? 0.0f : p.log_variance[k * per_class + (per_class == 1 ? 0 : j)];
        const float s2 = std::exp(-log_variance);
        const float x = p.feature(i, j) - centre[j], mu = p.mean[k * p.dims() + j] - centre[j];
        xx += x * x * s2;
        xm += x * mu * s2;
        mm += mu * mu * s2;
      }
      distances.push_back(0.5f * xx - xm + 0.5f * mm);
    }
  return distances;
}

// eq:grad_mean from sum w x - mu sum w of centred numbers in float, all classes alike; the weights are exact.
std::vector<float> plain_mean_gradient(const problem<float>& p, const reference::input& in,
                                       const reference::output& out) {
  const std::vector<float> centre = centre_of(p);
  std::vector<float> gradient;
  for (std::size_t k = 0; k < p.classes(); ++k)
    for (std::size_t j = 0; j < p.dims(); ++j) {
      float wx = 0, w = 0;
      for (std::size_t i = 0; i < p.samples(); ++i) {
        const auto weight = static_cast<float>(out.factor[i] * out.weight[i * in.classes + k]);
        wx += weight * (p.feature(i, j) - centre[j]);
        w += weight;
      }
      const float s2 = std::exp(-static_cast<float>(reference::log_variance_at(in, k, j)));
      gradient.push_back(-s2 * (wx - (p.mean[k * p.dims() + j] - centre[j]) * w));
    }
  return gradient;
}

// eq:grad_log_variance from sum w x^2 - 2 mu sum w x + mu^2 sum w of centred numbers in float, all classes
// alike; the weights are exact.
std::vector<float> plain_log_variance_gradient(const problem<float>& p, const reference::input& in,
                                               const reference::output& out) {
  const std::vector<float> centre = centre_of(p);
  std::vector<float> gradient(p.log_variance.size(), 0.0f);
  for (std::size_t k = 0; k < p.classes(); ++k)
    for (std::size_t j = 0; j < p.dims(); ++j) {
      float wxx = 0, wx = 0, w = 0, slopes = 0;
      const float mu = p.mean[k * p.dims() + j] - centre[j];
      for (std::size_t i = 0; i < p.samples(); ++i) {
        const float x = p.feature(i, j) - centre[j];
        const auto weight = static_cast<float>(out.factor[i] * out.weight[i * in.classes + k]);
        const real own = size_of(in.label[i]) == k ? in.lambda : 0;
        slopes += static_cast<float>(out.factor[i] * (own - out.posterior_slope[i * in.classes + k]));
        wxx += weight * (x * x);
        wx += weight * x;
        w += weight;
      }
      const float s2 = std::exp(-static_cast<float>(reference::log_variance_at(in, k, j)));
      const bool spherical = in.form == reference::variances::spherical;
      gradient[spherical ? k : k * p.dims() + j] += 0.5f * (slopes - s2 * (wxx - 2 * mu * wx + mu * mu * w));
    }
  return gradient;
}

}  // namespace

// A loss of 0.01 at l = -256 needs R, not l: one step of float at 256 is 3e-5, 3e-3 of the loss. R's own
// error is that of two distances: direct, or a product whose error estimate is below the limit of 1e-4. At l
// = -10^4 the direct distance itself is known to a few steps of 5e-4 (half of 2^-10).
TEST_CASE("small losses at large negative logits keep their digits") {
  struct level {
    double radius, tolerance;
  };
  for (const level at : {level{std::sqrt(512.0), 5e-4}, level{std::sqrt(2e4), 5e-3}})
    for (const auto covariance : covariances) {
      CAPTURE(name_of(covariance));
      CAPTURE(at.radius);
      auto p = far_sample_problem(covariance, at.radius);
      const reference::input in = to_reference(p);
      const reference::output out = reference::evaluate(in);
      for (std::size_t i = 0; i < p.samples(); ++i) {
        REQUIRE(out.classification[i] > 0.003L);
        REQUIRE(out.classification[i] < 0.03L);
        REQUIRE(std::fabs(out.distance[i * 3] + 0 - static_cast<real>(at.radius * at.radius / 2)) < 1);
      }
      outputs<float> got(p);
      REQUIRE(forward_backward(context_of(1), p, got) == status::success);
      std::vector<real> mine, plain;
      for (std::size_t i = 0; i < p.samples(); ++i) {
        mine.push_back(got.classification[i]);
        plain.push_back(plain_loss(out.logit.data() + i * 3, 3, 0));
      }
      const double kept = worst_relative(mine, out.classification);
      const double lost = worst_relative(plain, out.classification);
      CHECK(kept <= at.tolerance);
      CHECK(lost > 2 * at.tolerance);
      // The slopes are small by the same factor and keep the same digits.
      for (std::size_t k = 0; k < 3; ++k)
        CHECK(std::fabs(shown(got.log_prior[k] / out.log_prior[k] - 1)) <= at.tolerance);
    }
}

TEST_CASE("features and means far from the origin lose nothing") {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    lgm::loss_options<float> options;
    options.reduction = lgm::reduction::none;
    options.alpha = 0.1f;
    options.lambda = 0.1f;
    auto p = make_problem<float>(63, make_shape(48, 10, 64, covariance), options, {0.5, 1, 0.5, 0, 0});
    const auto on_grid = [](float value) { return std::nearbyint(value * 4096.0f) / 4096.0f; };
    for (float& value : p.features) value = on_grid(value);
    for (float& value : p.mean) value = on_grid(value);
    auto moved = p;
    for (float& value : moved.features) value += 1024;
    for (float& value : moved.mean) value += 1024;
    for (std::size_t n = 0; n < p.features.size(); ++n) REQUIRE(moved.features[n] - 1024 == p.features[n]);

    const reference::input in = to_reference(moved);
    const reference::output out = reference::evaluate(in);
    outputs<float> got(moved), unmoved(p);
    REQUIRE(forward_backward(context_of(1), moved, got) == status::success);
    REQUIRE(forward_backward(context_of(1), p, unmoved) == status::success);
    for (const auto* result : {&got, &unmoved}) {
      CHECK(worst_difference(result->total, out.total) <= 1e-4);
      CHECK(worst_difference(result->classification, out.classification) <= 1e-4);
      CHECK(worst_difference(result->likelihood, out.likelihood) <= 1e-4);
      CHECK(shown(error_over_scale(result->feature, out.feature)) <= 1e-3);
      CHECK(shown(error_over_scale(result->mean, out.mean)) <= 1e-3);
      CHECK(shown(error_over_scale(result->log_variance, out.log_variance)) <= 1e-3);
      CHECK(shown(error_over_scale(result->log_prior, out.log_prior)) <= 1e-3);
    }
    // The expansion about the origin.
    const auto plain = losses_from(in, out, plain_distances(moved, std::vector<float>(64, 0.0f)));
    CHECK(worst_difference(plain, out.classification) > 100 * 1e-4);
    if (covariance != lgm::covariance::identity) {
      // The centred moments, moved back: centring is what keeps these small.
      auto far = moved;
      float wxx = 0, wx = 0, w = 0;
      real exact = 0;
      const float mu = far.mean[0];
      for (std::size_t i = 0; i < 48; ++i) {
        const auto weight = static_cast<float>(out.weight[i * 10]);
        wxx += weight * (far.feature(i, 0) * far.feature(i, 0));
        wx += weight * far.feature(i, 0);
        w += weight;
        const real difference = in.features[i * 64] - in.mean[0];
        exact += out.weight[i * 10] * difference * difference;
      }
      CHECK(std::fabs(shown((wxx - 2 * mu * wx + mu * mu * w - exact) / exact)) > 1e-3);
    }
  }
}

TEST_CASE("near-duplicate classes in 512 dimensions are told apart") {
  for (const double separation : {1.0, 10.0, 100.0})
    for (const auto covariance : covariances) {
      CAPTURE(separation);
      CAPTURE(name_of(covariance));
      const auto p = near_duplicate_problem(64, covariance, separation);
      const reference::input in = to_reference(p);
      const reference::output out = reference::evaluate(in);
      real typical = 0;
      for (const real loss : out.classification) typical += loss / 64;
      REQUIRE(typical > 0.2L);
      REQUIRE(typical < 3);

      outputs<float> got(p);
      REQUIRE(forward_backward(context_of(1), p, got) == status::success);
      // Two direct distances of about 256, each a sum of 512 squares in float, the target's times 1.1.
      CHECK(worst_difference(got.classification, out.classification) <= 5e-4);
      CHECK(shown(error_over_scale(got.feature, out.feature)) <= 1e-3);
      CHECK(shown(error_over_scale(got.mean, out.mean)) <= 1e-3);
      CHECK(shown(error_over_scale(got.log_variance, out.log_variance)) <= 1e-3);
      // Its terms g cancel between a class and its double: the scale is that of the terms.
      for (std::size_t k = 0; k < 16; ++k) {
        real terms = 0;
        for (std::size_t i = 0; i < 64; ++i) terms += std::fabs(out.posterior_slope[i * 16 + k]);
        CHECK(std::fabs(shown((static_cast<real>(got.log_prior[k]) - out.log_prior[k]) / terms)) <= 1e-3);
      }

      guarded<float> logits(64, 16);
      REQUIRE(run<float>(context_of(1), p.shape, [&](lgm::workspace w) {
                return lgm::logits(context_of(1), p.shape, p.mixture(), p.features.data(), logits.data(), w);
              }) == status::success);
      // Differences of near logits are what posteriors are made of.
      double worst = 0;
      for (std::size_t i = 0; i < 64; ++i) {
        const std::size_t z = size_of(in.label[i]);
        for (std::size_t k = 0; k < 16; ++k) {
          const real exact = out.logit[i * 16 + k] - out.logit[i * 16 + z];
          if (std::fabs(exact) < 15)
            worst = std::max(worst, std::fabs(shown(static_cast<real>(logits.at(i, k)) -
                                                    static_cast<real>(logits.at(i, z)) - exact)));
        }
      }
      CHECK(worst <= 5e-4);

      score_outputs<float> scores(p.shape);
      REQUIRE(score(context_of(1), p, scores.result()) == status::success);
      const reference::scores expected = reference::score(in);
      CHECK(worst_difference(scores.posterior, expected.posterior) <= 5e-4);

      if (separation < 10) continue;
      // No direct recomputation: centred, but the expansion stands.
      const auto plain = losses_from(in, out, plain_distances(p, centre_of(p)));
      CHECK(worst_difference(plain, out.classification) > 4 * 5e-4);
    }
}

// A target's own term is 10^6 variances of |x|^2 against one of (x - mu)^2: a sum over moments has lost it,
// even when every weight is exact. No other class is near, so that all of the gradient is targets.
TEST_CASE("target terms of far classes keep their digits") {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    lgm::loss_options<float> options;
    options.reduction = lgm::reduction::sum;
    options.lambda = 0.5f;
    const auto p = make_problem<float>(73, make_shape(40, 6, 32, covariance), options, {1000, 1, 0.5, 0, 0});
    const reference::input in = to_reference(p);
    const reference::output out = reference::evaluate(in);
    outputs<float> got(p), apart(p);
    REQUIRE(forward_backward(context_of(1), p, got) == status::success);
    REQUIRE(forward(context_of(1), p, apart.result()) == status::success);
    REQUIRE(backward(context_of(1), p, apart.row_state.data(), apart.gradients()) == status::success);
    for (const auto* result : {&got, &apart}) {
      CHECK(shown(error_over_scale(result->feature, out.feature)) <= 1e-5);
      CHECK(shown(error_over_scale(result->mean, out.mean)) <= 1e-5);
      CHECK(shown(error_over_scale(result->log_variance, out.log_variance)) <= 1e-5);
    }
    CHECK(shown(error_over_scale(plain_mean_gradient(p, in, out), out.mean)) > 2e-5);
    if (covariance != lgm::covariance::identity)
      CHECK(shown(error_over_scale(plain_log_variance_gradient(p, in, out), out.log_variance)) > 1e-3);
  }
}

TEST_CASE_TEMPLATE("tiny and huge variances keep their digits", T, float, double) {
  for (const auto covariance : {lgm::covariance::spherical, lgm::covariance::diagonal})
    for (const double level : {-18.0, -9.0, 9.0, 18.0}) {
      CAPTURE(name_of(covariance));
      CAPTURE(level);
      lgm::loss_options<T> options;
      options.alpha = T(0.1);
      options.lambda = T(0.1);
      generator random(65);
      auto p = make_problem<T>(65, make_shape(20, 4, 6, covariance), options, {1, 1, 0, 0, 0});
      for (T& value : p.log_variance) value = static_cast<T>(level + random.uniform(-0.5, 0.5));
      for (std::size_t i = 0; i < 20; ++i)
        for (std::size_t j = 0; j < 6; ++j)
          p.feature(i, j) = static_cast<T>(static_cast<double>(p.mean[size_of(p.labels[i]) * 6 + j]) +
                                           std::exp(level / 2) * random.normal());
      outputs<T> out(p);
      REQUIRE(forward_backward(context_of(1), p, out) == status::success);
      check_all(p, out);
      score_outputs<T> scores(p.shape);
      REQUIRE(score(context_of(1), p, scores.result()) == status::success);
      check_scores(p, scores);
    }
}

TEST_CASE_TEMPLATE("classes of very different variances keep their digits", T, float, double) {
  for (const auto covariance : {lgm::covariance::spherical, lgm::covariance::diagonal}) {
    lgm::loss_options<T> options;
    options.lambda = T(0.1);
    const auto p = make_problem<T>(66, make_shape(40, 5, 8, covariance), options, {1, 1, 12, 0, 0});
    outputs<T> out(p);
    REQUIRE(forward_backward(context_of(1), p, out) == status::success);
    check_all(p, out);
  }
}

TEST_CASE_TEMPLATE("duplicate classes share a sample equally", T, float, double) {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    lgm::loss_options<T> options;
    options.reduction = lgm::reduction::none;
    auto p = make_problem<T>(67, make_shape(12, 4, 9, covariance), options, {3, 1, 1, 0, 0});
    p.log_prior_given = false;
    for (std::size_t k = 1; k < 4; ++k) {
      std::copy_n(p.mean.begin(), 9, p.mean.begin() + static_cast<std::ptrdiff_t>(k * 9));
      const std::size_t per_class = p.log_variance.size() / 4;
      std::copy_n(p.log_variance.begin(), per_class,
                  p.log_variance.begin() + static_cast<std::ptrdiff_t>(k * per_class));
    }
    outputs<T> out(p);
    REQUIRE(forward_backward(context_of(1), p, out) == status::success);
    check_all(p, out);
    for (std::size_t i = 0; i < 12; ++i)
      CHECK(static_cast<double>(out.total[i]) == doctest::Approx(std::log(4.0)).epsilon(1e-4));
  }
}

// A prior of zero takes a class out of everything but the distances.
TEST_CASE_TEMPLATE("a class with log_prior -infinity is never chosen and has no weight", T, float, double) {
  for (const auto covariance : covariances)
    for (const std::size_t tile_bytes : {std::size_t{1} << 12, std::size_t{1} << 26}) {
      CAPTURE(name_of(covariance));
      CAPTURE(tile_bytes);
      const std::size_t masked = 2, classes = 6, dims = 10;
      lgm::loss_options<T> options;
      options.alpha = T(0.2);
      options.lambda = T(0.1);
      auto p = make_problem<T>(74, make_shape(30, 6, 10, covariance), options);
      for (std::int64_t& label : p.labels)
        if (label == static_cast<std::int64_t>(masked)) label = 3;
      p.log_prior[masked] = -std::numeric_limits<T>::infinity();
      // The same mixture without that class.
      const auto without = [&](const std::vector<T>& values) {
        const std::size_t each = values.size() / classes;
        std::vector<T> kept;
        for (std::size_t n = 0; n < values.size(); ++n)
          if (n / std::max<std::size_t>(each, 1) != masked) kept.push_back(values[n]);
        return kept;
      };
      auto q = p;
      q.shape.classes = 5;
      q.mean = without(p.mean);
      q.log_variance = without(p.log_variance);
      q.log_prior = without(p.log_prior);
      for (std::int64_t& label : q.labels)
        if (label > static_cast<std::int64_t>(masked)) --label;
      const expectation<T> expected(q);

      const auto context = context_of(1, tile_bytes);
      outputs<T> fused(p), apart(p);
      REQUIRE(forward_backward(context, p, fused) == status::success);
      REQUIRE(forward(context, p, apart.result()) == status::success);
      REQUIRE(backward(context, p, apart.row_state.data(), apart.gradients()) == status::success);
      for (const auto* out : {&fused, &apart}) {
        expected.check_results(*out);
        check_within("feature gradient", out->feature, expected.out.feature, expected.bound.feature);
        check_within("mean gradient", without(out->mean.packed()), expected.out.mean, expected.bound.mean);
        check_within("log_variance gradient", without(out->log_variance.packed()), expected.out.log_variance,
                     expected.bound.log_variance);
        check_within("log_prior gradient", without(out->log_prior.packed()), expected.out.log_prior,
                     expected.bound.log_prior);
        for (std::size_t j = 0; j < dims; ++j) CHECK(out->mean.at(masked, j) == T(0));
        for (std::size_t j = 0; j < p.log_variance.size() / classes; ++j)
          CHECK(out->log_variance.at(masked, j) == T(0));
        CHECK(out->log_prior[masked] == T(0));
      }
      score_outputs<T> scores(p.shape), fewer(q.shape);
      REQUIRE(score(context, p, scores.result()) == status::success);
      REQUIRE(score(context, q, fewer.result()) == status::success);
      check_scores(q, fewer);
      for (std::size_t i = 0; i < p.samples(); ++i) {
        const std::int64_t shifted = fewer.predicted[i] + (fewer.predicted[i] >= 2 ? 1 : 0);
        CHECK(scores.predicted[i] == shifted);
        CHECK(static_cast<double>(scores.log_mixture[i]) ==
              doctest::Approx(static_cast<double>(fewer.log_mixture[i])).epsilon(1e-4));
      }
    }
}

// eq:distance knows no priors.
TEST_CASE_TEMPLATE("the nearest class does not depend on the priors", T, float, double) {
  for (const auto covariance : covariances)
    for (const T prior : {T(-1e4), T(-1e30), T(1e30), -std::numeric_limits<T>::infinity()}) {
      CAPTURE(name_of(covariance));
      CAPTURE(static_cast<double>(prior));
      auto p = make_problem<T>(75, make_shape(30, 6, 10, covariance), {}, {1, 1, 0.5, 0, 0});
      std::vector<real> expected, bound;
      {
        const reference::input in = to_reference(p);
        const reference::output out = reference::evaluate(in);
        const logit_bounds e = bound_logits<T>(in, out);
        for (std::size_t i = 0; i < 30; ++i) {
          const auto first = out.distance.begin() + static_cast<std::ptrdiff_t>(i * 6);
          expected.push_back(2 * *std::min_element(first, first + 6));
          const auto largest = e.logit.begin() + static_cast<std::ptrdiff_t>(i * 6);
          bound.push_back(2 * *std::max_element(largest, largest + 6));
        }
      }
      p.log_prior[1] = prior;
      score_outputs<T> scores(p.shape);
      REQUIRE(score(context_of(1), p, scores.result()) == status::success);
      check_within("nearest_squared_mahalanobis", scores.nearest_squared_mahalanobis, expected, bound);
    }
}

TEST_CASE_TEMPLATE("one class leaves nothing to classify: the likelihood remains", T, float, double) {
  for (const auto covariance : covariances)
    for (const T lambda : {T(0), T(0.5)}) {
      CAPTURE(name_of(covariance));
      lgm::loss_options<T> options;
      options.alpha = T(0.3);
      options.lambda = lambda;
      const auto p = make_problem<T>(68, make_shape(15, 1, 7, covariance), options, {1, 1, 1, 0.2, 0});
      outputs<T> out(p);
      REQUIRE(forward_backward(context_of(1), p, out) == status::success);
      CHECK(out.classification[0] == T(0));
      for (std::size_t i = 0; i < 15; ++i)
        CHECK(out.row_state.at(i, 1) == -std::numeric_limits<T>::infinity());
      CHECK(out.log_prior.all_zero());
      if (lambda == T(0)) {
        CHECK(out.feature.all_zero());
        CHECK(out.mean.all_zero());
        CHECK(out.log_variance.all_zero());
      }
      CHECK(out.correct[0] == out.counted[0]);
      check_all(p, out);
      outputs<T> apart(p);
      REQUIRE(backward(context_of(1), p, out.row_state.data(), apart.gradients()) == status::success);
      check_gradients(p, apart);
      score_outputs<T> scores(p.shape);
      REQUIRE(score(context_of(1), p, scores.result()) == status::success);
      for (std::size_t i = 0; i < 15; ++i) CHECK(scores.posterior[i] == T(1));
      check_scores(p, scores);
    }
}

TEST_CASE_TEMPLATE("one dimension, and the ends of alpha and lambda", T, float, double) {
  for (const auto covariance : covariances)
    for (const std::int64_t dims : {1, 5})
      for (const double alpha : {0.0, 1.0, 50.0, 1e4})
        for (const double lambda : {0.0, 1.0, 1e3}) {
          CAPTURE(name_of(covariance));
          CAPTURE(dims);
          CAPTURE(alpha);
          CAPTURE(lambda);
          lgm::loss_options<T> options;
          options.alpha = static_cast<T>(alpha);
          options.lambda = static_cast<T>(lambda);
          const auto p = make_problem<T>(69, make_shape(25, 6, dims, covariance), options);
          outputs<T> out(p);
          REQUIRE(forward_backward(context_of(1), p, out) == status::success);
          check_all(p, out);
        }
}

TEST_CASE("a feature far from every class gives finite results") {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    lgm::loss_options<float> options;
    options.reduction = lgm::reduction::none;
    options.lambda = 0.1f;
    auto p = make_problem<float>(70, make_shape(4, 5, 6, covariance), options, {1, 1, 0.5, 0, 0});
    for (std::size_t j = 0; j < 6; ++j) p.feature(2, j) = j % 2 ? 1e12f : -1e12f;
    outputs<float> out(p);
    REQUIRE(forward_backward(context_of(1), p, out) == status::success);
    for (std::size_t i = 0; i < 4; ++i) CHECK(std::isfinite(out.total[i]));
    for (std::size_t n = 0; n < out.feature.size(); ++n) CHECK(std::isfinite(out.feature[n]));
    for (std::size_t n = 0; n < out.mean.size(); ++n) CHECK(std::isfinite(out.mean[n]));
    for (std::size_t n = 0; n < out.log_variance.size(); ++n) CHECK(std::isfinite(out.log_variance[n]));
  }
}

TEST_CASE_TEMPLATE("ignored rows may hold anything", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions)
      for (const int threads : support::thread_counts({1, 2})) {
        CAPTURE(name_of(covariance));
        lgm::loss_options<T> options;
        options.alpha = T(0.2);
        options.lambda = T(0.1);
        options.reduction = reduction;
        const auto p = make_problem<T>(71, make_shape(40, 9, 13, covariance), options, {1, 1, 1, 0.3, 0});
        auto bad = p;
        const T values[] = {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity(),
                            -std::numeric_limits<T>::infinity(), std::numeric_limits<T>::max()};
        std::size_t next = 0, ignored = 0;
        for (std::size_t i = 0; i < 40; ++i) {
          if (!p.ignored(i)) continue;
          ++ignored;
          for (std::size_t j = 0; j < 13; ++j) bad.feature(i, j) = values[next++ % 4];
        }
        REQUIRE(ignored > 3);
        const auto context = context_of(threads, 1 << 14);
        outputs<T> expected(p), got(p), apart(p);
        REQUIRE(forward_backward(context, p, expected) == status::success);
        REQUIRE(forward_backward(context, bad, got) == status::success);
        got.check_same_bits(expected);
        REQUIRE(forward(context, bad, apart.result()) == status::success);
        REQUIRE(backward(context, bad, apart.row_state.data(), apart.gradients()) == status::success);
        check_all(p, apart);

        // The same batch without those rows.
        auto kept = p;
        kept.features.clear();
        kept.labels.clear();
        for (std::size_t i = 0; i < 40; ++i) {
          if (p.ignored(i)) continue;
          kept.labels.push_back(p.labels[i]);
          for (std::size_t j = 0; j < 13; ++j) kept.features.push_back(p.feature(i, j));
        }
        kept.shape.samples = static_cast<std::int64_t>(kept.labels.size());
        outputs<T> without(kept);
        REQUIRE(forward_backward(context, kept, without) == status::success);
        const expectation<T> bounds(kept);
        check_within("mean gradient", got.mean, bounds.out.mean, bounds.bound.mean);
        check_within("log_variance gradient", got.log_variance, bounds.out.log_variance,
                     bounds.bound.log_variance);
        CHECK(got.counted[0] == without.counted[0]);
      }
}

TEST_CASE_TEMPLATE("a feature that is not finite spoils its own row and no other", T, float, double) {
  const T values[] = {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity(),
                      -std::numeric_limits<T>::infinity()};
  for (const auto covariance : covariances)
    for (const T value : values)
      for (const std::size_t tile_bytes : {std::size_t{1} << 13, std::size_t{1} << 26}) {
        CAPTURE(name_of(covariance));
        CAPTURE(static_cast<double>(value));
        lgm::loss_options<T> options;
        options.alpha = T(0.2);
        options.lambda = T(0.1);
        options.reduction = lgm::reduction::none;
        const auto p = make_problem<T>(72, make_shape(30, 7, 11, covariance), options, {1, 1, 1, 0, 0});
        auto bad = p;
        const std::size_t row = 13;
        bad.feature(row, 4) = value;
        const auto context = context_of(2, tile_bytes);
        outputs<T> expected(p), got(p);
        REQUIRE(forward_backward(context, p, expected) == status::success);
        REQUIRE(forward_backward(context, bad, got) == status::success);
        outputs<T> expected_apart(p), apart(p);
        REQUIRE(forward(context, p, expected_apart.result()) == status::success);
        REQUIRE(backward(context, p, expected_apart.row_state.data(), expected_apart.gradients()) ==
                status::success);
        REQUIRE(forward(context, bad, apart.result()) == status::success);
        REQUIRE(backward(context, bad, apart.row_state.data(), apart.gradients()) == status::success);
        score_outputs<T> expected_scores(p.shape), scores(p.shape);
        REQUIRE(score(context, p, expected_scores.result()) == status::success);
        REQUIRE(score(context, bad, scores.result()) == status::success);
        for (const auto& pair : {std::make_pair(&got, &expected), std::make_pair(&apart, &expected_apart)})
          for (std::size_t i = 0; i < 30; ++i) {
            const outputs<T>& mine = *pair.first;
            const outputs<T>& other = *pair.second;
            if (i == row) {
              CHECK(std::isnan(mine.total[i]));
              CHECK(std::isnan(mine.classification[i]));
              CHECK(!std::isfinite(mine.likelihood[i]));
              for (std::size_t j = 0; j < 11; ++j) CHECK(std::isnan(mine.feature.at(i, j)));
              continue;
            }
            CHECK(mine.total[i] == other.total[i]);
            CHECK(mine.classification[i] == other.classification[i]);
            CHECK(mine.likelihood[i] == other.likelihood[i]);
            CHECK(mine.log_evidence[i] == other.log_evidence[i]);
            for (std::size_t j = 0; j < 11; ++j) CHECK(mine.feature.at(i, j) == other.feature.at(i, j));
          }
        for (std::size_t i = 0; i < 30; ++i) {
          if (i == row) {
            CHECK(std::isnan(scores.posterior[i]));
            CHECK(scores.predicted[i] >= -1);
            CHECK(scores.predicted[i] < 7);
            continue;
          }
          CHECK(scores.predicted[i] == expected_scores.predicted[i]);
          CHECK(scores.posterior[i] == expected_scores.posterior[i]);
          CHECK(scores.log_mixture[i] == expected_scores.log_mixture[i]);
        }
        // Under mean and sum the reported loss is not a number: no trainer can miss it.
        bad.options.reduction = lgm::reduction::mean;
        outputs<T> reduced(bad);
        REQUIRE(forward(context, bad, reduced.result()) == status::success);
        CHECK(std::isnan(reduced.total[0]));
      }
}
