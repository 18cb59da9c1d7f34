// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/cases.hpp"
#include "support/hard_problems.hpp"
#include "support/problem.hpp"
#include "support/sharded.hpp"
#include "support/tolerance.hpp"

// Samples from right among the classes to as far as a float reaches. |x|^2 / 2 says nothing of the class where all classes
// have the same variance, and there the plain form, x mu - |mu|^2 / 2 as a linear layer computes it, has no part of it. What
// it gets right has to be right here, to twice its error.

namespace {

using lgm::status;
using namespace support;

enum class form { identity, equal, spherical, diagonal };
constexpr form forms[] = {form::identity, form::equal, form::spherical, form::diagonal};

constexpr std::size_t classes = 10, dims = 32, samples = 400;

// Whether a float can tell the classes of sample i apart: where its products are rounded by more than logits may be off, what
// is between two classes is more than that. Near a tie the plain form is right by chance.
bool decided(const problem<float>& p, std::size_t i) {
  std::vector<real> logit(classes, 0), distance(classes, 0);
  real size = 0;
  for (std::size_t k = 0; k < classes; ++k)
    for (std::size_t j = 0; j < dims; ++j) {
      const auto inverse = [&](std::size_t c) -> real {
        if (p.log_variance.empty()) return 1;
        return std::exp(
            -static_cast<real>(p.log_variance[p.log_variance.size() == classes ? c : c * dims + j]));
      };
      const real x = p.feature(i, j), mu = p.mean[k * dims + j], s = inverse(k), more = s - inverse(0);
      logit[k] += s * (x * mu - mu * mu / 2) - more * x * x / 2;
      distance[k] += s * (x - mu) * (x - mu) / 2;
      size += std::fabs(s * x * mu) + std::fabs(more) * x * x / 2;
    }
  const real rounding = size * epsilon<float>();
  if (rounding < 0.01L) return true;
  // Without a margin, and with that of the test below.
  std::vector<real> all = logit;
  all.push_back(logit[size_of(p.labels[i])] - distance[size_of(p.labels[i])] / 4);
  std::sort(all.begin(), all.end());
  for (std::size_t n = 1; n < all.size(); ++n)
    if (all[n] - all[n - 1] < 8 * rounding + 100 && all[n] > all.back() - 8 * rounding - 100) return false;
  return true;
}

problem<float> far_problem(form f, double deviation) {
  lgm::loss_options<float> options;
  options.reduction = lgm::reduction::none;
  const auto covariance = f == form::identity   ? lgm::covariance::identity
                          : f == form::diagonal ? lgm::covariance::diagonal
                                                : lgm::covariance::spherical;
  auto p =
      make_problem<float>(91, make_shape(samples, classes, dims, covariance), options, {1, 1, 0.5, 0, 0});
  if (f == form::equal) std::fill(p.log_variance.begin(), p.log_variance.end(), 0.25f);
  p.log_prior_given = false;
  generator random(92);
  for (std::size_t i = 0; i < samples; ++i) {
    int tries = 0;
    do {
      for (std::size_t j = 0; j < dims; ++j)
        p.feature(i, j) = static_cast<float>(deviation * random.normal());
    } while (!decided(p, i) && ++tries < 1000);
    REQUIRE(tries < 1000);
  }
  return p;
}

// In R, which rounds every operation: the logits of sample i but for what they share, posteriors, the loss and its gradient.
template <class R>
struct answers {
  std::vector<std::size_t> best;
  std::vector<R> posterior, loss, feature;

  explicit answers(const problem<float>& p) {
    const auto inverse = [&](std::size_t k, std::size_t j) {
      if (p.log_variance.empty()) return R(1);
      return std::exp(-R(p.log_variance[p.log_variance.size() == classes ? k : k * dims + j]));
    };
    // Of classes with the same variances nothing is left of the squares.
    const bool linear = p.log_variance.empty() ||
                        (p.log_variance.size() == classes && p.log_variance[0] == p.log_variance[1]);
    for (std::size_t i = 0; i < samples; ++i) {
      std::vector<R> logit(classes, R(0)), share(classes);
      for (std::size_t k = 0; k < classes; ++k) {
        for (std::size_t j = 0; j < dims; ++j) {
          const R x = p.feature(i, j), mu = p.mean[k * dims + j], s = inverse(k, j);
          logit[k] += s * (x * mu - mu * mu / 2);
          if (!linear)
            logit[k] +=
                std::log(s) / 2 - (s - (std::is_same<R, float>::value ? R(0) : inverse(0, j))) * x * x / 2;
        }
      }
      const auto top = static_cast<std::size_t>(std::max_element(logit.begin(), logit.end()) - logit.begin());
      const std::size_t z = size_of(p.labels[i]);
      R sum = 0;
      for (std::size_t k = 0; k < classes; ++k) sum += share[k] = std::exp(logit[k] - logit[top]);
      best.push_back(top);
      posterior.push_back(1 / sum);
      loss.push_back((logit[top] - logit[z]) + std::log(sum));
      for (std::size_t j = 0; j < dims; ++j) {
        R slope = 0;
        for (std::size_t k = 0; k < classes; ++k) {
          const R g = share[k] / sum - (k == z ? 1 : 0);
          slope += g * inverse(k, j) * (p.mean[k * dims + j] - (linear ? R(0) : R(p.feature(i, j))));
        }
        feature.push_back(slope);
      }
    }
  }
};

// The largest error, as a share of the largest number where there is a larger one than 1.
template <class A, class B>
double error_of(const A& got, const B& exact) {
  double size = 1;
  for (const auto v : exact) size = std::max(size, std::fabs(shown(static_cast<real>(v))));
  return worst_difference(got, exact) / size;
}

bool any_nan(const guarded<float>& values) {
  for (std::size_t n = 0; n < values.size(); ++n)
    if (std::isnan(values[n])) return true;
  return false;
}

}  // namespace

TEST_CASE("far samples are told apart as well as by the plain form") {
  for (const form f : forms)
    for (int exponent = -3; exponent <= 18; exponent += static_cast<int>(every(4))) {
      CAPTURE(static_cast<int>(f));
      CAPTURE(exponent);
      const auto p = far_problem(f, std::pow(10.0, exponent));
      const answers<real> exact(p);
      const answers<float> plain(p);
      std::size_t plain_wrong = 0;
      for (std::size_t i = 0; i < samples; ++i) plain_wrong += plain.best[i] != exact.best[i];
      const double posterior = 2 * error_of(plain.posterior, exact.posterior) + 1e-6,
                   loss = 2 * error_of(plain.loss, exact.loss) + 1e-6,
                   feature = 2 * error_of(plain.feature, exact.feature) + 1e-6;
      for (const std::size_t tile_bytes : {std::size_t{1} << 26, std::size_t{1} << 13}) {
        CAPTURE(tile_bytes);
        const auto context = context_of(1, tile_bytes);
        score_outputs<float> scores(p.shape);
        REQUIRE(score(context, p, scores.result()) == status::success);
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < samples; ++i) wrong += size_of(scores.predicted[i]) != exact.best[i];
        CHECK(wrong <= plain_wrong);
        CHECK(error_of(scores.posterior, exact.posterior) <= posterior);

        outputs<float> fused(p), apart(p);
        REQUIRE(forward_backward(context, p, fused) == status::success);
        REQUIRE(forward(context, p, apart.result()) == status::success);
        REQUIRE(backward(context, p, apart.row_state.data(), apart.gradients()) == status::success);
        for (const auto* out : {&fused, &apart}) {
          CHECK(error_of(out->classification, exact.loss) <= loss);
          CHECK(error_of(out->feature, exact.feature) <= feature);
        }
        if (f != form::identity) continue;
        const auto sharded = run_sharded(context, p, {0, 3, 3, 9, 10}, merging::tree, samples);
        CHECK(error_of(sharded.classification, exact.loss) <= loss);
        CHECK(error_of(sharded.feature, exact.feature) <= feature);
      }
    }
}

// With one-hot soft targets the same.
TEST_CASE("far samples keep their digits with soft targets") {
  for (const form f : {form::identity, form::equal})
    for (int exponent = -3; exponent <= 18; exponent += 3) {
      CAPTURE(static_cast<int>(f));
      CAPTURE(exponent);
      auto p = far_problem(f, std::pow(10.0, exponent));
      const answers<real> exact(p);
      const answers<float> plain(p);
      p.soft = true;
      p.targets = strided_rows<float>(samples, classes, classes, [&](std::size_t i, std::size_t k) {
        return size_of(p.labels[i]) == k ? 1.0f : 0.0f;
      });
      const double loss = 2 * error_of(plain.loss, exact.loss) + 1e-6,
                   feature = 2 * error_of(plain.feature, exact.feature) + 1e-6;
      outputs<float> fused(p), apart(p);
      REQUIRE(forward_backward(context_of(1), p, fused) == status::success);
      REQUIRE(forward(context_of(1), p, apart.result()) == status::success);
      REQUIRE(backward(context_of(1), p, apart.row_state.data(), apart.gradients()) == status::success);
      for (const auto* out : {&fused, &apart}) {
        CHECK(error_of(out->classification, exact.loss) <= loss);
        CHECK(error_of(out->feature, exact.feature) <= feature);
      }
    }
}

// Margin and likelihood weigh the distance itself: a float's relative accuracy is what there is.
TEST_CASE("far samples keep their digits with a margin and a likelihood") {
  for (const form f : forms)
    for (int exponent = -3; exponent <= 15; exponent += 3) {
      CAPTURE(static_cast<int>(f));
      CAPTURE(exponent);
      auto p = far_problem(f, std::pow(10.0, exponent));
      p.options.alpha = 0.25f;
      p.options.lambda = 0.125f;
      const reference::output out = reference::evaluate(to_reference(p));
      outputs<float> fused(p), apart(p);
      REQUIRE(forward_backward(context_of(1), p, fused) == status::success);
      REQUIRE(forward(context_of(1), p, apart.result()) == status::success);
      REQUIRE(backward(context_of(1), p, apart.row_state.data(), apart.gradients()) == status::success);
      for (const auto* got : {&fused, &apart}) {
        CHECK(error_of(got->total, out.total) <= 1e-5);
        CHECK(error_of(got->classification, out.classification) <= 1e-5);
        CHECK(error_of(got->likelihood, out.likelihood) <= 1e-5);
        CHECK(error_of(got->log_evidence, out.log_evidence) <= 1e-5);
        CHECK(shown(error_over_scale(got->feature, out.feature)) <= 1e-4);
      }
    }
}

TEST_CASE("features and means far from zero keep their digits in two calls and on shards") {
  auto p = far_problem(form::identity, 1);
  const auto on_grid = [](float value) { return std::nearbyint(value * 4096.0f) / 4096.0f; };
  for (float& value : p.features) value = on_grid(value) + 1024;
  for (float& value : p.mean) value = on_grid(value) + 1024;
  p.origin.assign(dims, 1024.0f);
  const expectation<float> expected(p);
  for (const bool given : {true, false}) {
    CAPTURE(given);
    if (!given) p.origin.clear();
    outputs<float> apart(p);
    REQUIRE(forward(context_of(1), p, apart.result()) == status::success);
    REQUIRE(backward(context_of(1), p, apart.row_state.data(), apart.gradients()) == status::success);
    CHECK(worst_difference(apart.classification, expected.out.classification) <= 1e-4);
    CHECK(shown(error_over_scale(apart.feature, expected.out.feature)) <= 1e-3);
    CHECK(shown(error_over_scale(apart.mean, expected.out.mean)) <= 1e-3);
    // Without a common origin shards count from zero.
    const auto sharded = run_sharded(context_of(1), p, {0, 4, 10}, merging::tree, samples);
    if (given) {
      CHECK(worst_difference(sharded.classification, expected.out.classification) <= 1e-4);
      CHECK(shown(error_over_scale(sharded.feature, expected.out.feature)) <= 1e-3);
    } else {
      CHECK(worst_difference(sharded.classification, expected.out.classification) > 1e-4);
    }
  }
}

TEST_CASE("finite features whose squares overflow have a nearest class, and nothing is not a number") {
  for (const form f : forms)
    for (const float size : {1e18f, 1e20f, 1e30f, 3e38f})
      for (const std::size_t tile_bytes : {std::size_t{1} << 26, std::size_t{1} << 12}) {
        CAPTURE(static_cast<int>(f));
        CAPTURE(size);
        CAPTURE(tile_bytes);
        auto p = far_problem(f, 1);
        for (std::size_t i = 0; i < samples; ++i)
          for (std::size_t j = 0; j < dims; ++j) p.feature(i, j) = (i + j) % 3 ? size : -size;
        p.options.alpha = 0.25f;
        p.options.lambda = 0.125f;
        const answers<real> exact(p);
        const auto context = context_of(1, tile_bytes);
        score_outputs<float> scores(p.shape);
        REQUIRE(score(context, p, scores.result()) == status::success);
        for (std::size_t i = 0; i < samples; ++i) {
          CAPTURE(i);
          if (size < 3e38f) CHECK(size_of(scores.predicted[i]) == exact.best[i]);
          CHECK(scores.predicted[i] >= 0);
          CHECK(scores.posterior[i] >= 0.1f);
          CHECK(scores.posterior[i] <= 1.0f);
          CHECK(scores.log_density[i] <= -1e30f);
          CHECK(scores.log_mixture[i] <= -1e30f);
          CHECK(scores.squared_mahalanobis[i] >= 1e30f);
          CHECK(scores.nearest_squared_mahalanobis[i] >= 1e30f);
          if (size > 1e19f) {
            CHECK(scores.log_density[i] == -std::numeric_limits<float>::infinity());
            CHECK(scores.log_mixture[i] == -std::numeric_limits<float>::infinity());
            CHECK(scores.squared_mahalanobis[i] == std::numeric_limits<float>::infinity());
          }
        }
        outputs<float> fused(p), apart(p);
        REQUIRE(forward_backward(context, p, fused) == status::success);
        REQUIRE(forward(context, p, apart.result()) == status::success);
        REQUIRE(backward(context, p, apart.row_state.data(), apart.gradients()) == status::success);
        for (const auto* out : {&fused, &apart}) {
          for (const auto* values :
               {&out->total, &out->classification, &out->likelihood, &out->log_evidence, &out->feature})
            if (values != &out->feature || size < 1e38f || f != form::diagonal) CHECK(!any_nan(*values));
          for (std::size_t i = 0; i < samples; ++i) CHECK(out->total[i] > 0);
        }
      }
}
