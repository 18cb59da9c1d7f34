// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "support/problem.hpp"
#include "support/slopes.hpp"
#include "support/tolerance.hpp"

// Gradients against central differences: the library's against its own loss, and the reference's formulas
// against the reference's loss, so that comparing with the reference elsewhere means something.

namespace {

using lgm::status;
using namespace support;

// The library's own total loss, with reduction mean or sum.
real reduced_loss(const suite_context& context, const problem<double>& p) {
  double total = 0;
  lgm::loss_result<double> result;
  result.total = &total;
  REQUIRE(forward(context, p, result) == status::success);
  return total;
}

}  // namespace

// The truncation error of a central difference is h^2 / 6 times the third derivative, here of order 1 to 1000
// (losses of order 10, features a few deviations away), and its rounding error eps |loss| / h: 1e-7 or so in
// double at h = 1e-5.
TEST_CASE("the library's gradients are the slopes of the library's loss") {
  for (const auto covariance : covariances)
    for (const auto reduction : {lgm::reduction::mean, lgm::reduction::sum})
      for (const double alpha : {0.0, 0.3})
        for (const double lambda : {0.0, 0.2}) {
          CAPTURE(name_of(covariance));
          CAPTURE(name_of(reduction));
          CAPTURE(alpha);
          CAPTURE(lambda);
          lgm::loss_options<double> options;
          options.alpha = alpha;
          options.lambda = lambda;
          options.reduction = reduction;
          lgm::shape shape = make_shape(9, 5, 4, covariance);
          shape.feature_stride = 6;
          auto p = make_problem<double>(31, shape, options);
          const auto context = context_of(1);
          outputs<double> out(p);
          REQUIRE(forward_backward(context, p, out) == status::success);
          const auto loss = [&] { return reduced_loss(context, p); };
          std::vector<std::size_t> feature_at;
          for (std::size_t i = 0; i < 9; ++i)
            for (std::size_t j = 0; j < 4; ++j) feature_at.push_back(i * 6 + j);
          const real h = 1e-5L, tolerance = 1e-6L;
          check_slopes("features", p.features, feature_at, values_of(out.feature), loss, h, tolerance);
          check_slopes("mean", p.mean, all_of(p.mean.size()), values_of(out.mean), loss, h, tolerance);
          check_slopes("log_variance", p.log_variance, all_of(p.log_variance.size()),
                       values_of(out.log_variance), loss, h, tolerance);
          check_slopes("log_prior", p.log_prior, all_of(p.log_prior.size()), values_of(out.log_prior), loss,
                       h, tolerance);
        }
}

TEST_CASE("with reduction none the gradients are of the upstream-weighted sum") {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    lgm::loss_options<double> options;
    options.alpha = 0.3;
    options.lambda = 0.2;
    options.reduction = lgm::reduction::none;
    auto p = make_problem<double>(32, make_shape(7, 4, 3, covariance), options);
    p.upstream_given = true;
    const auto context = context_of(1);
    outputs<double> out(p);
    REQUIRE(forward_backward(context, p, out) == status::success);
    const auto loss = [&]() -> real {
      std::vector<double> total(7);
      lgm::loss_result<double> result;
      result.total = total.data();
      REQUIRE(forward(context, p, result) == status::success);
      real sum = 0;
      for (std::size_t i = 0; i < 7; ++i)
        sum += static_cast<real>(total[i]) * static_cast<real>(p.upstream[i]);
      return sum;
    };
    const real h = 1e-5L, tolerance = 1e-6L;
    check_slopes("features", p.features, all_of(p.features.size()), values_of(out.feature), loss, h,
                 tolerance);
    check_slopes("mean", p.mean, all_of(p.mean.size()), values_of(out.mean), loss, h, tolerance);
    check_slopes("log_variance", p.log_variance, all_of(p.log_variance.size()), values_of(out.log_variance),
                 loss, h, tolerance);
    check_slopes("log_prior", p.log_prior, all_of(p.log_prior.size()), values_of(out.log_prior), loss, h,
                 tolerance);
  }
}

TEST_CASE("a gradient is right where log_variance and log_prior themselves are null") {
  for (const auto covariance : {lgm::covariance::spherical, lgm::covariance::diagonal}) {
    CAPTURE(name_of(covariance));
    lgm::loss_options<double> options;
    options.alpha = 0.3;
    options.lambda = 0.2;
    auto p = make_problem<double>(33, make_shape(8, 4, 3, covariance), options);
    p.log_variance_given = p.log_prior_given = false;
    const auto context = context_of(1);
    outputs<double> out(p);
    REQUIRE(forward_backward(context, p, out) == status::success);
    // The same numbers written out, which then can be moved.
    std::fill(p.log_variance.begin(), p.log_variance.end(), 0.0);
    std::fill(p.log_prior.begin(), p.log_prior.end(), -std::log(4.0));
    p.log_variance_given = p.log_prior_given = true;
    const auto loss = [&] { return reduced_loss(context, p); };
    const real h = 1e-5L, tolerance = 1e-6L;
    check_slopes("log_variance", p.log_variance, all_of(p.log_variance.size()), values_of(out.log_variance),
                 loss, h, tolerance);
    check_slopes("log_prior", p.log_prior, all_of(p.log_prior.size()), values_of(out.log_prior), loss, h,
                 tolerance);
  }
}

TEST_CASE("the reference's formulas are the slopes of the reference's loss") {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions)
      for (const double alpha : {0.0, 0.4})
        for (const double lambda : {0.0, 0.3}) {
          CAPTURE(name_of(covariance));
          CAPTURE(name_of(reduction));
          lgm::loss_options<double> options;
          options.alpha = alpha;
          options.lambda = lambda;
          options.reduction = reduction;
          auto p = make_problem<double>(34, make_shape(8, 5, 4, covariance), options);
          p.upstream_given = true;
          reference::input in = to_reference(p);
          const reference::output out = reference::evaluate(in);
          const auto loss = [&] { return reference::objective(in); };
          check_reference_slopes(in, out, loss);
        }
}

TEST_CASE(
    "the reference's formulas are the slopes of its loss with weights, smoothing and soft targets too") {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions)
      for (unsigned mask = 1; mask < 32; ++mask) {
        CAPTURE(name_of(covariance));
        CAPTURE(name_of(reduction));
        CAPTURE(mask);
        auto p = make_problem<double>(37, make_shape(7, 4, 3, covariance), margin_options<double>(reduction));
        p.upstream_given = true;
        give(p, mask,
             {(mask & 1) != 0, (mask & 2) != 0, (mask & 4) != 0, mask & 8 ? 0.2 : 0.0, (mask & 16) != 0});
        reference::input in = to_reference(p);
        const reference::output out = reference::evaluate(in);
        check_reference_slopes(in, out, [&] { return reference::objective(in); });
      }
}

TEST_CASE("the reference's logits_backward gives the slopes of its objective") {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions)
      for (const bool weighted : {false, true}) {
        CAPTURE(name_of(covariance));
        CAPTURE(name_of(reduction));
        auto p = make_problem<double>(38, make_shape(8, 5, 4, covariance), margin_options<double>(reduction));
        p.upstream_given = true;
        give(p, 38, {weighted, weighted, false, 0, false});
        give_grad_logits(p, 38);
        const auto slopes = packed_grad_logits(p);
        reference::input in = to_reference(p);
        const reference::output out = reference::evaluate_logits_backward(in, slopes);
        check_reference_slopes(in, out, [&] { return reference::logits_objective(in, slopes); });
      }
}

// Against the sums as they stand in the definition, with nothing rearranged.
TEST_CASE("the reference's weighted losses are the sums that define them") {
  for (const bool soft : {false, true}) {
    auto p = make_problem<double>(39, make_shape(30, 6, 3, lgm::covariance::diagonal),
                                  margin_options<double>(lgm::reduction::mean));
    give(p, 39, {true, true, false, 0.3, soft});
    const reference::input in = to_reference(p);
    const reference::output out = reference::evaluate(in);
    real divisor = 0;
    for (std::size_t i = 0; i < 30; ++i) {
      if (p.ignored(i)) continue;
      const real s = p.sample_weight[i];
      real evidence = 0, classification = 0, likelihood = 0;
      std::vector<real> q(6, 0), logit(6);
      for (std::size_t k = 0; k < 6; ++k) {
        q[k] =
            soft ? static_cast<real>(p.target(i, k)) : (p.labels[i] == static_cast<std::int64_t>(k) ? 1 : 0);
        real d = 0, h = 0;
        for (std::size_t j = 0; j < 3; ++j) {
          const real variance = std::exp(static_cast<real>(p.log_variance[k * 3 + j]));
          const real t = static_cast<real>(p.feature(i, j)) - static_cast<real>(p.mean[k * 3 + j]);
          d += t * t / variance / 2;
          h += std::log(variance) / 2;
        }
        logit[k] = static_cast<real>(p.log_prior[k]) - h - (1 + in.alpha * q[k]) * d;
        evidence += std::exp(logit[k]);
        likelihood += s * static_cast<real>(p.class_weight[k]) * q[k] * (d + h);
        if (!soft && q[k] == 1) divisor += s * static_cast<real>(p.class_weight[k]);
      }
      if (soft) divisor += s;
      for (std::size_t k = 0; k < 6; ++k) {
        const real c = s * static_cast<real>(p.class_weight[k]) *
                       ((1 - in.label_smoothing) * q[k] + in.label_smoothing / 6);
        classification += c * (std::log(evidence) - logit[k]);
      }
      CHECK(shown(out.classification[i]) == doctest::Approx(shown(classification)).epsilon(1e-13));
      CHECK(shown(out.likelihood[i]) == doctest::Approx(shown(likelihood)).epsilon(1e-13));
      CHECK(shown(out.total[i]) ==
            doctest::Approx(shown(classification + in.lambda * likelihood)).epsilon(1e-13));
      CHECK(shown(out.log_evidence[i]) == doctest::Approx(shown(std::log(evidence))).epsilon(1e-13));
    }
    CHECK(shown(out.divisor) == doctest::Approx(shown(divisor)).epsilon(1e-13));
  }
}

TEST_CASE("the reference's losses fit together") {
  lgm::loss_options<double> options;
  options.alpha = 0.4;
  options.lambda = 0.3;
  const auto p = make_problem<double>(35, make_shape(20, 6, 3, lgm::covariance::diagonal), options);
  const reference::input in = to_reference(p);
  const reference::output out = reference::evaluate(in);
  for (std::size_t i = 0; i < in.samples; ++i) {
    if (in.label[i] < 0) continue;
    // Cross entropy of the softmax over the logits with margin, computed the textbook way.
    real evidence = 0, slopes = 0;
    for (std::size_t k = 0; k < in.classes; ++k) {
      const bool target = static_cast<std::size_t>(in.label[i]) == k;
      evidence += std::exp(target ? out.target_logit[i] : out.logit[i * in.classes + k]);
      slopes += out.posterior_slope[i * in.classes + k];
    }
    CHECK(shown(std::log(evidence) - out.target_logit[i] - out.classification[i]) ==
          doctest::Approx(0).epsilon(1e-12));
    CHECK(shown(std::log(evidence)) == doctest::Approx(shown(out.log_evidence[i])).epsilon(1e-12));
    CHECK(std::fabs(shown(slopes)) < 1e-15);
    CHECK(shown(out.total[i]) ==
          doctest::Approx(shown(out.classification[i] + in.lambda * out.likelihood[i])).epsilon(1e-12));
  }
}

TEST_CASE("the reference's density is a density") {
  // One dimension, two classes, integrated over a fine grid.
  auto p = make_problem<double>(36, make_shape(4001, 2, 1, lgm::covariance::diagonal));
  p.mean = {-1, 2};
  p.log_variance = {0.5, -0.5};
  for (std::size_t i = 0; i < 4001; ++i) p.feature(i, 0) = (static_cast<double>(i) - 2000) * 0.01;
  const reference::scores scores = reference::score(to_reference(p));
  real mass = 0;
  for (const real value : scores.log_mixture) mass += std::exp(value) * 0.01L;
  CHECK(shown(mass) == doctest::Approx(1).epsilon(1e-9));
}
