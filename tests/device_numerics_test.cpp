// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "support/hard_problems.hpp"
#include "support/precision.hpp"
#include "support/tolerance.hpp"

// What 16-bit features and products of reduced precision may cost, each with the tolerance that include/lgm/README.md states; and
// that a plain version, fed the same data, misses that tolerance.

namespace {

using lgm::status;
using namespace support;

#define LGM_EVERY_KIND full, tf32, split_tf32, brain, fast_brain, support::half, fast_half

constexpr lgm::covariance multiplied[] = {lgm::covariance::identity, lgm::covariance::spherical};

// Of losses, absolute, and of gradients, as a share of the array's largest.
struct tolerance {
  double loss, gradient;
};
// separation: of the classes, in deviations a dimension; where means are rounded once, their rounding grows with it, and with it
// the error of the features' gradient.
template <class Kind>
tolerance stated(double separation = 1) {
  const double apart = separation > 1 ? separation : 1;
  switch (Kind::precision) {
    case lgm::precision::highest: return Kind::narrow ? tolerance{2e-3, 3e-2} : tolerance{5e-4, 1e-3};
    case lgm::precision::split_tf32: return {5e-4, 1e-3};
    case lgm::precision::tf32: return {5e-3, 5e-3 * apart};
    case lgm::precision::fast: return {5e-2, 3e-2 * apart};
  }
  return {0, 0};
}

// Tiles that cut these problems: in one tile they would be small, and computed from differences.
template <class Kind>
device_context cut() {
  return context_for<Kind>(std::size_t{1} << 17);
}

struct errors {
  double loss, feature, mean, log_variance;
};
template <class Out>
errors errors_of(const outputs<float>& got, const Out& expected) {
  return {worst_difference(got.classification, expected.classification),
          shown(error_over_scale(got.feature, expected.feature)),
          shown(error_over_scale(got.mean, expected.mean)),
          shown(error_over_scale(got.log_variance, expected.log_variance))};
}
template <class Kind>
void check_stated(const errors& e, double separation = 1) {
  const tolerance t = stated<Kind>(separation);
  CHECK(e.loss <= t.loss);
  CHECK(e.feature <= t.gradient);
  CHECK(e.mean <= t.gradient);
  CHECK(e.log_variance <= t.gradient);
}

// A number as one operand of the kind has it: high alone, without what split products add.
template <class Kind>
double once(double value) {
  return Kind::narrow ? static_cast<double>(brain16::rounded(value)) : narrow16<10, -126>::rounded(value);
}

// d_k expanded, of operands that are rounded once, added exactly: what is wrong is the operands' rounding alone. as_rounded:
// norms are those of the operands, which is better, and not enough.
template <class Kind>
std::vector<float> rounded_distances(const problem<float>& p, bool as_rounded) {
  const std::vector<float> centre = centre_of(p);
  std::vector<float> distances;
  for (std::size_t i = 0; i < p.samples(); ++i)
    for (std::size_t k = 0; k < p.classes(); ++k) {
      const double log_variance = p.log_variance.empty() ? 0 : static_cast<double>(p.log_variance[k]);
      double sum = 0;
      for (std::size_t j = 0; j < p.dims(); ++j) {
        const double c = static_cast<double>(centre[j]);
        const double x = static_cast<double>(p.feature(i, j)) - c,
                     mu = static_cast<double>(p.mean[k * p.dims() + j]) - c;
        // Features of 16 bits are what they are.
        const double x_product = Kind::narrow ? x : once<Kind>(x), mu_product = once<Kind>(mu);
        sum += as_rounded ? x_product * x_product + mu_product * mu_product : x * x + mu * mu;
        sum -= 2 * x_product * mu_product;
      }
      distances.push_back(static_cast<float>(0.5 * std::exp(-log_variance) * sum));
    }
  return distances;
}

// eq:grad_feature from weights that are exact in their sum and rounded in the product, added exactly; the target's term among
// the others.
template <class Kind>
std::vector<float> rounded_feature_gradient(const problem<float>& p, const reference::output& out) {
  const std::vector<float> centre = centre_of(p);
  std::vector<float> gradient;
  for (std::size_t i = 0; i < p.samples(); ++i)
    for (std::size_t j = 0; j < p.dims(); ++j) {
      double sum = 0;
      for (std::size_t k = 0; k < p.classes(); ++k) {
        const double log_variance = p.log_variance.empty() ? 0 : static_cast<double>(p.log_variance[k]);
        const double weight = shown(out.factor[i] * out.weight[i * p.classes() + k]),
                     c = static_cast<double>(centre[j]);
        sum += std::exp(-log_variance) *
               (weight * (static_cast<double>(p.feature(i, j)) - c) -
                once<Kind>(weight) * (static_cast<double>(p.mean[k * p.dims() + j]) - c));
      }
      gradient.push_back(static_cast<float>(sum));
    }
  return gradient;
}

// What is promised of every kind at once.
template <class Kind>
errors check_problem(const problem<float>& p, double separation = 1) {
  const reference::output out = reference::evaluate(to_reference(p));
  outputs<float> got(p);
  REQUIRE(forward_backward_as<Kind>(cut<Kind>(), p, got) == status::success);
  const errors e = errors_of(got, out);
  check_stated<Kind>(e, separation);
  return e;
}

}  // namespace

TEST_CASE_TEMPLATE("near-duplicate classes in 512 dimensions are told apart", Kind, LGM_EVERY_KIND) {
  CAPTURE(name_of<Kind>());
  for (const double separation : {0.1, 1.0, 10.0, 100.0})
    for (const auto covariance : multiplied) {
      CAPTURE(separation);
      CAPTURE(name_of(covariance));
      const auto p = rounded_to<Kind>(near_duplicate_problem(64, covariance, separation));
      check_problem<Kind>(p, separation);
      if (std::is_same<Kind, full>::value || separation < 10) continue;
      // Products without any of what is done about them.
      const reference::input in = to_reference(p);
      const reference::output out = reference::evaluate(in);
      const tolerance t = stated<Kind>(separation);
      for (const bool as_rounded : {false, true}) {
        CAPTURE(as_rounded);
        const auto naive = losses_from(in, out, rounded_distances<Kind>(p, as_rounded));
        CHECK(worst_difference(naive, out.classification) > 4 * t.loss);
      }
      // Means that are split are what keeps the gradients of far classes, and sums of weights as rounded.
      if (Kind::precision == lgm::precision::tf32 || Kind::precision == lgm::precision::fast) continue;
      const double worst = shown(error_over_scale(rounded_feature_gradient<Kind>(p, out), out.feature));
      if (separation == 100) CHECK(worst > 2 * t.gradient);
    }
}

// Exact shifts: of multiples of 2^-12 by 1024 in float; 16 bits hold multiples of 8 there.
TEST_CASE_TEMPLATE("features and means far from the origin keep their digits", Kind, LGM_EVERY_KIND) {
  CAPTURE(name_of<Kind>());
  const double step = Kind::narrow ? 8 : 0x1p-12, deviation = Kind::narrow ? 16 : 1;
  lgm::loss_options<float> options;
  options.reduction = lgm::reduction::none;
  options.alpha = 0.1f;
  options.lambda = 0.1f;
  auto p = make_problem<float>(91, make_shape(48, 10, 64, lgm::covariance::spherical), options,
                               {0.5, 1, 0.5, 0, 0});
  const auto on_grid = [&](float value, double grid) {
    return static_cast<float>(std::nearbyint(static_cast<double>(value) * deviation / grid) * grid);
  };
  for (float& value : p.features) value = on_grid(value, step);
  for (float& value : p.mean) value = on_grid(value, 0x1p-12);
  for (float& value : p.log_variance) value += static_cast<float>(2 * std::log(deviation));
  auto moved = p;
  for (float& value : moved.features) value += 1024;
  for (float& value : moved.mean) value += 1024;
  REQUIRE(rounded_to<Kind>(moved).features == moved.features);
  check_problem<Kind>(p);
  check_problem<Kind>(moved);
  // The expansion about the origin.
  const reference::input in = to_reference(moved);
  const reference::output out = reference::evaluate(in);
  double worst = 0;
  for (std::size_t i = 0; i < 48; ++i)
    for (std::size_t k = 0; k < 10; ++k) {
      float sum = 0;
      for (std::size_t j = 0; j < 64; ++j) {
        const double x = static_cast<double>(moved.feature(i, j)),
                     mu = static_cast<double>(moved.mean[k * 64 + j]);
        const auto xf = static_cast<float>(once<Kind>(x)), mf = static_cast<float>(once<Kind>(mu));
        sum += xf * xf - 2 * xf * mf + mf * mf;
      }
      const double d = 0.5 * static_cast<double>(sum) * std::exp(-static_cast<double>(moved.log_variance[k]));
      worst = std::max(worst, std::fabs(d - shown(out.distance[i * 10 + k])));
    }
  CHECK(worst > 10 * stated<Kind>().loss);
}

// A loss of 0.01 at logits of -256 and -10,000.
TEST_CASE_TEMPLATE("small losses at large negative logits keep their digits", Kind, LGM_EVERY_KIND) {
  CAPTURE(name_of<Kind>());
  for (const double radius : {std::sqrt(512.0), std::sqrt(2e4)})
    for (const auto covariance : multiplied) {
      CAPTURE(radius);
      CAPTURE(name_of(covariance));
      const auto p = rounded_to<Kind>(far_sample_problem(covariance, radius));
      const reference::output out = reference::evaluate(to_reference(p));
      outputs<float> got(p);
      REQUIRE(forward_backward_as<Kind>(context_for<Kind>(std::size_t{1} << 14), p, got) == status::success);
      // Losses this small are as wrong, relatively, as logits are absolutely.
      std::vector<real> mine;
      for (std::size_t i = 0; i < p.samples(); ++i) mine.push_back(got.classification[i]);
      const double direct = radius > 100 ? 5e-3 : 5e-4;  // what distances of 10,000 in float cost
      CHECK(worst_relative(mine, out.classification) <= 2 * stated<Kind>().loss + direct);
    }
}

TEST_CASE_TEMPLATE("losses are right with very different variances, one class or one dimension", Kind,
                   LGM_EVERY_KIND) {
  CAPTURE(name_of<Kind>());
  lgm::loss_options<float> options;
  options.alpha = 0.3f;
  options.lambda = 0.1f;
  const auto check = [&](const problem<float>& given) {
    CAPTURE(given.shape.classes);
    CAPTURE(given.shape.dims);
    const auto p = rounded_to<Kind>(given);
    const expectation<float> expected(p, model_of<Kind>(p.shape.covariance));
    for (const std::size_t tile_bytes : {std::size_t{1} << 13, std::size_t{1}}) {
      outputs<float> got(p);
      REQUIRE(forward_backward_as<Kind>(context_for<Kind>(tile_bytes), p, got) == status::success);
      expected.check_all(got);
    }
  };
  check(make_problem<float>(92, make_shape(40, 5, 8, lgm::covariance::spherical), options, {1, 1, 12, 0, 0}));
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    check(make_problem<float>(93, make_shape(15, 1, 7, covariance), options, {1, 1, 1, 0.2, 0}));
    check(make_problem<float>(94, make_shape(25, 6, 1, covariance), options));
    check(make_problem<float>(95, make_shape(25, 6, 1, covariance), options, {1e-4, 1e-4, 0, 0, 0}));
  }
}

TEST_CASE_TEMPLATE("ignored rows may hold anything", Kind, LGM_EVERY_KIND) {
  CAPTURE(name_of<Kind>());
  for (const auto covariance : covariances)
    for (const std::size_t tile_bytes : {std::size_t{64} << 20, std::size_t{1} << 14}) {
      CAPTURE(name_of(covariance));
      const auto p = rounded_to<Kind>(make_problem<float>(96, make_shape(40, 9, 13, covariance),
                                                          margin_options<float>(lgm::reduction::mean),
                                                          {1, 1, 1, 0.3, 0}));
      auto bad = p;
      for (std::size_t i = 0; i < 40; ++i)
        for (std::size_t j = 0; j < 13 && p.ignored(i); ++j)
          bad.feature(i, j) =
              j % 2 == 0 ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
      outputs<float> expected(p), got(p);
      REQUIRE(forward_backward_as<Kind>(context_for<Kind>(tile_bytes), p, expected) == status::success);
      REQUIRE(forward_backward_as<Kind>(context_for<Kind>(tile_bytes), bad, got) == status::success);
      got.check_same_bits(expected);
    }
}

// Gradients of a mean over many samples are below what half holds; scaled by 2^16 before they are rounded, they are not.
TEST_CASE_TEMPLATE("loss scaling keeps half gradients from vanishing", Kind, support::half, fast_half) {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    const float normalizer = 1e7f;
    lgm::loss_options<float> options;
    options.normalizer = &normalizer;
    auto p = rounded_to<Kind>(make_problem<float>(97, make_shape(60, 9, 13, covariance), options));
    p.normalizer = {normalizer};
    p.upstream = {65536.0f};
    const auto count_zeros = [&](bool scaled) {
      p.upstream_given = scaled;
      const expectation<float> expected(p, model_of<Kind>(covariance));
      std::size_t zeros = 0;
      for (const std::size_t tile_bytes : {std::size_t{64} << 20, std::size_t{1} << 14}) {
        outputs<float> got(p);
        REQUIRE(forward_backward_as<Kind>(context_for<Kind>(tile_bytes), p, got) == status::success);
        expected.check_all(got);
        for (std::size_t n = 0; n < got.feature.size(); ++n)
          zeros += got.feature[n] == 0 && !p.ignored(n / 13) ? 1 : 0;
      }
      return zeros;
    };
    const std::size_t unscaled = count_zeros(false);
    CHECK(unscaled > 500);
    CHECK(5 * count_zeros(true) < unscaled);
  }
}

// Weights of 1e-12 beside one of 1 are no less exact for it: classes without samples have gradients of nothing else.
TEST_CASE_TEMPLATE("small weights do not underflow", Kind, LGM_EVERY_KIND) {
  CAPTURE(name_of<Kind>());
  lgm::loss_options<float> options;
  options.reduction = lgm::reduction::sum;
  auto p = make_problem<float>(98, make_shape(300, 40, 16, lgm::covariance::identity), options,
                               {1.5, 0.5, 0, 0, 0});
  p = rounded_to<Kind>(p);
  p.log_prior_given = false;
  for (std::int64_t& label : p.labels)
    if (label >= 20) label = options.ignore_label;
  int small = 0;
  const reference::output out = reference::evaluate(to_reference(p));
  outputs<float> got(p);
  REQUIRE(forward_backward_as<Kind>(context_for<Kind>(std::size_t{1} << 15), p, got) == status::success);
  for (std::size_t k = 20; k < 40; ++k) {
    real scale = 0, error = 0;
    for (std::size_t j = 0; j < 16; ++j) {
      scale = std::max(scale, std::fabs(out.mean[k * 16 + j]));
      error = std::max(error, std::fabs(static_cast<real>(got.mean[k * 16 + j]) - out.mean[k * 16 + j]));
    }
    CAPTURE(shown(scale));
    if (scale < 1e-30L) continue;
    small += scale < 1e-8L ? 1 : 0;
    CHECK(shown(error / scale) <= 0.1 + 4 * stated<Kind>(3).gradient);
  }
  CHECK(small > 1);
}
