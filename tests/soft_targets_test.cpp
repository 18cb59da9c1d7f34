// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "support/cases.hpp"
#include "support/problem.hpp"
#include "support/sharded.hpp"
#include "support/slopes.hpp"
#include "support/tolerance.hpp"

// Targets that weigh the classes, in place of labels.

namespace {

using lgm::status;
using namespace support;

// The problem with its labels written as targets.
template <class T>
problem<T> one_hot(const problem<T>& p) {
  problem<T> soft = p;
  soft.soft = true;
  soft.target_stride = p.shape.classes + 1;
  soft.targets =
      strided_rows<T>(p.samples(), p.classes(), p.classes() + 1, [&](std::size_t i, std::size_t k) {
        return p.labels[i] == static_cast<std::int64_t>(k) ? T(1) : T(0);
      });
  return soft;
}

// Results and gradients of `out` as multiples of the sum they are compared with.
double difference(const guarded<double>& a, const std::vector<double>& b) {
  double worst = 0, scale = 1;
  for (std::size_t n = 0; n < b.size(); ++n) {
    worst = std::max(worst, std::fabs(a[n] - b[n]));
    scale = std::max(scale, std::fabs(b[n]));
  }
  return worst / scale;
}

}  // namespace

TEST_CASE_TEMPLATE("soft targets and every combination of weights agree with the reference", T, float,
                   double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions)
      for (unsigned mask = 16; mask < 32; ++mask) {
        CAPTURE(name_of(covariance));
        CAPTURE(name_of(reduction));
        CAPTURE(mask);
        auto p = make_problem<T>(301, strided_shape({21, 11, 6}, covariance), margin_options<T>(reduction));
        p.upstream_given = mask % 2 == 0;
        p.target_stride = mask % 3 == 0 ? 0 : 14;
        give(p, mask, extras_of(mask));
        const expectation<T> expected(p);
        for (const auto& context : tiled_contexts()) check_both_ways(context, p, expected);
      }
}

TEST_CASE_TEMPLATE("soft targets at every edge size agree with the reference", T, float, double) {
  std::uint64_t seed = 302;
  for_each_edge([&](lgm::covariance covariance, lgm::reduction reduction, const sizes3& size) {
    auto p = make_problem<T>(++seed, strided_shape(size, covariance), margin_options<T>(reduction));
    p.upstream_given = true;
    p.target_stride = size.classes + 3;
    give(p, seed, extras_of(16 + static_cast<unsigned>(seed % 16)));
    const expectation<T> expected(p);
    for (const auto& context : tiled_contexts()) check_both_ways(context, p, expected);
  });
}

TEST_CASE_TEMPLATE("soft targets are right without margin or likelihood, and with large ones", T, float,
                   double) {
  for (const auto covariance : covariances)
    for (const double alpha : {0.0, 3.0})
      for (const double lambda : {0.0, 2.0})
        for (const double smoothing : {0.0, 1.0}) {
          CAPTURE(name_of(covariance));
          CAPTURE(alpha);
          CAPTURE(lambda);
          auto options = margin_options<T>(lgm::reduction::mean);
          options.alpha = static_cast<T>(alpha);
          options.lambda = static_cast<T>(lambda);
          auto p = make_problem<T>(303, make_shape(19, 9, 5, covariance), options);
          give(p, 303, {true, false, false, smoothing, true});
          check_both_ways(context_of(1), p, expectation<T>(p));
        }
}

TEST_CASE("soft gradients are the slopes of the library's own losses") {
  for (const auto covariance : covariances)
    for (const auto reduction : {lgm::reduction::mean, lgm::reduction::sum})
      for (const unsigned mask : {soft, soft | class_weights, soft | smoothing, soft | weights | smoothing,
                                  soft | weights | normalizer | smoothing}) {
        CAPTURE(name_of(covariance));
        CAPTURE(name_of(reduction));
        CAPTURE(mask);
        auto p =
            make_problem<double>(304, make_shape(9, 5, 4, covariance), margin_options<double>(reduction));
        give(p, mask, extras_of(mask));
        check_slopes_both_ways(context_of(1), p);
      }
}

TEST_CASE_TEMPLATE("targets that are one label each agree with the label", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : {lgm::reduction::sum, lgm::reduction::none})
      for (const double smoothing : {0.0, 0.2}) {
        CAPTURE(name_of(covariance));
        CAPTURE(smoothing);
        auto p = make_problem<T>(305, make_shape(31, 9, 6, covariance), margin_options<T>(reduction),
                                 {1, 1, 1, 0, 0});
        give(p, 305, {true, true, false, smoothing});
        const auto soft = one_hot(p);
        // Both within the bounds of one answer, which are wider for soft targets: a loss is a difference there.
        const expectation<T> expected(soft), by_label(p);
        outputs<T> labelled(p), weighed(soft);
        REQUIRE(forward_backward(context_of(1), p, labelled) == status::success);
        REQUIRE(forward_backward(context_of(1), soft, weighed) == status::success);
        expected.check_all(weighed);
        expected.check_gradients(labelled);
        check_within("total", labelled.total,
                     reference::reduced(expected.in, expected.out, expected.out.total), expected.bound.total);
        for (std::size_t i = 0; i < 31; ++i) {
          CHECK(shown(expected.out.total[i]) == doctest::Approx(shown(by_label.out.total[i])).epsilon(1e-15));
          CHECK(static_cast<double>(weighed.log_evidence[i]) ==
                doctest::Approx(static_cast<double>(labelled.log_evidence[i]))
                    .epsilon(8 * shown(epsilon<T>())));
        }
        CHECK(weighed.correct[0] == labelled.correct[0]);
        CHECK(weighed.counted[0] == 31);
      }
}

// Without a margin the evidence does not know the targets, and everything is linear in them.
TEST_CASE("mixed targets give the mixture of the losses and gradients") {
  for (const auto covariance : covariances)
    for (const double smoothing : {0.0, 0.1}) {
      CAPTURE(name_of(covariance));
      auto options = margin_options<double>(lgm::reduction::sum);
      options.alpha = 0;
      auto first = make_problem<double>(306, make_shape(26, 7, 5, covariance), options, {1, 1, 1, 0, 0});
      give(first, 306, {true, true, false, smoothing});
      auto second = first;
      generator random(307);
      for (auto& label : second.labels) label = random.below(7);
      auto mixed = one_hot(first);
      const auto other = one_hot(second);
      const double share = 0.3;
      for (std::size_t i = 0; i < 26; ++i)
        for (std::size_t k = 0; k < 7; ++k)
          mixed.target(i, k) = share * mixed.target(i, k) + (1 - share) * other.target(i, k);
      outputs<double> a(first), b(second), got(mixed);
      REQUIRE(forward_backward(context_of(1), first, a) == status::success);
      REQUIRE(forward_backward(context_of(1), second, b) == status::success);
      REQUIRE(forward_backward(context_of(1), mixed, got) == status::success);
      const auto check = [&](const std::string& name, const guarded<double>& mine, const guarded<double>& one,
                             const guarded<double>& two) {
        std::vector<double> sum(mine.size());
        for (std::size_t n = 0; n < sum.size(); ++n) sum[n] = share * one[n] + (1 - share) * two[n];
        CHECK_MESSAGE(difference(mine, sum) <= 1e-12, name);
      };
      check("total", got.total, a.total, b.total);
      check("classification", got.classification, a.classification, b.classification);
      check("likelihood", got.likelihood, a.likelihood, b.likelihood);
      check("feature", got.feature, a.feature, b.feature);
      check("mean", got.mean, a.mean, b.mean);
      check("log_variance", got.log_variance, a.log_variance, b.log_variance);
      check("log_prior", got.log_prior, a.log_prior, b.log_prior);
    }
}

// The posterior of the mixture itself is the target that nothing can be learnt from.
TEST_CASE("the mixture's own posteriors as targets give no gradient, and their entropy as loss") {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    lgm::loss_options<double> options;
    options.reduction = lgm::reduction::none;
    auto p = one_hot(make_problem<double>(308, make_shape(20, 6, 4, covariance), options, {0.5, 1, 1, 0, 0}));
    const reference::output out = reference::evaluate(to_reference(p));
    std::vector<double> entropy(20, 0);
    for (std::size_t i = 0; i < 20; ++i)
      for (std::size_t k = 0; k < 6; ++k) {
        const double q = std::exp(shown(out.logit[i * 6 + k] - out.log_evidence[i]));
        p.target(i, k) = q;
        entropy[i] -= q * std::log(q);
      }
    outputs<double> got(p);
    REQUIRE(forward_backward(context_of(1), p, got) == status::success);
    for (std::size_t i = 0; i < 20; ++i) CHECK(got.total[i] == doctest::Approx(entropy[i]).epsilon(1e-12));
    // Differences of numbers of order 1 to 10.
    const auto check_small = [](const guarded<double>& values) {
      for (std::size_t n = 0; n < values.size(); ++n) CHECK(std::fabs(values[n]) <= 1e-13);
    };
    check_small(got.feature);
    check_small(got.mean);
    check_small(got.log_variance);
    check_small(got.log_prior);
  }
}

TEST_CASE_TEMPLATE("rows of zeros have no loss and no gradient", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions) {
      CAPTURE(name_of(covariance));
      CAPTURE(name_of(reduction));
      auto p = one_hot(make_problem<T>(309, make_shape(17, 6, 5, covariance), margin_options<T>(reduction),
                                       {1, 1, 1, 0, 0}));
      for (const std::size_t i : {std::size_t{0}, std::size_t{6}, std::size_t{16}})
        for (std::size_t k = 0; k < 6; ++k) p.target(i, k) = T(0);
      for (const auto& context : tiled_contexts()) {
        outputs<T> fused(p), apart(p);
        REQUIRE(forward_backward(context, p, fused) == status::success);
        REQUIRE(forward(context, p, apart.result()) == status::success);
        REQUIRE(backward(context, p, apart.row_state.data(), apart.gradients()) == status::success);
        for (const auto* out : {&fused, &apart}) {
          check_all(p, *out);
          CHECK(out->counted[0] == 17);
          for (const std::size_t i : {std::size_t{0}, std::size_t{6}, std::size_t{16}}) {
            CHECK(std::isfinite(out->row_state.at(i, 0)));
            CHECK(std::isfinite(out->row_state.at(i, 1)));
            if (reduction == lgm::reduction::none) CHECK(out->total[i] == T(0));
            for (std::size_t j = 0; j < 5; ++j) CHECK(out->feature.at(i, j) == T(0));
          }
        }
      }
      std::fill(p.targets.begin(), p.targets.end(), T(0));
      outputs<T> nothing(p);
      REQUIRE(forward_backward(context_of(1), p, nothing) == status::success);
      CHECK(nothing.total.all_zero());
      CHECK(nothing.feature.all_zero());
      CHECK(nothing.mean.all_zero());
      CHECK(nothing.log_variance.all_zero());
      CHECK(nothing.log_prior.all_zero());
    }
}

TEST_CASE_TEMPLATE("the mean is over the sample weights, whatever the targets add up to", T, float, double) {
  auto p = make_problem<T>(310, make_shape(25, 6, 4, lgm::covariance::diagonal),
                           margin_options<T>(lgm::reduction::sum));
  give(p, 310, {true, true, false, 0.1, true});
  outputs<T> sum(p), mean(p);
  REQUIRE(forward(context_of(1), p, sum.result()) == status::success);
  p.options.reduction = lgm::reduction::mean;
  REQUIRE(forward(context_of(1), p, mean.result()) == status::success);
  double weights = 0;
  for (const T s : p.sample_weight) weights += static_cast<double>(s);
  CHECK(static_cast<double>(mean.total[0]) * weights ==
        doctest::Approx(static_cast<double>(sum.total[0])).epsilon(16 * shown(epsilon<T>())));
}

TEST_CASE_TEMPLATE("ties among targets and among logits go to the lowest class", T, float, double) {
  // Classes 1, 2 and 3 are the same and nearest to every sample.
  auto p = one_hot(make_problem<T>(311, make_shape(5, 5, 3, lgm::covariance::identity)));
  p.log_prior_given = false;
  for (std::size_t k = 0; k < 5; ++k)
    for (std::size_t j = 0; j < 3; ++j) p.mean[k * 3 + j] = k == 0 || k == 4 ? T(10) : T(1);
  std::fill(p.features.begin(), p.features.end(), T(1));
  const T rows[5][5] = {{0, T(0.5), T(0.5), 0, 0},  // its largest target is class 1, which is predicted
                        {0, 0, T(0.5), T(0.5), 0},  // class 2, which is not
                        {T(0.25), T(0.75), 0, 0, 0},
                        {T(0.5), T(0.5), 0, 0, 0},  // class 0
                        {0, T(0.25), T(0.25), T(0.25), T(0.25)}};
  for (std::size_t i = 0; i < 5; ++i)
    for (std::size_t k = 0; k < 5; ++k) p.target(i, k) = rows[i][k];
  for (const auto& context : tiled_contexts()) {
    outputs<T> out(p);
    REQUIRE(forward(context, p, out.result()) == status::success);
    CHECK(out.correct[0] == 3);
  }
}

TEST_CASE_TEMPLATE("soft targets may have no samples, classes or dimensions", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions) {
      CAPTURE(name_of(covariance));
      CAPTURE(name_of(reduction));
      auto none = make_problem<T>(312, make_shape(5, 0, 3, covariance), margin_options<T>(reduction));
      none.soft = true;
      outputs<T> out(none);
      REQUIRE(forward_backward(context_of(1), none, out) == status::success);
      out.check_intact();
      CHECK(out.counted[0] == 5);
      CHECK(out.correct[0] == 0);
      CHECK(out.total.all_zero());
      CHECK(out.feature.all_zero());
      auto flat = make_problem<T>(313, make_shape(5, 3, 0, covariance), margin_options<T>(reduction));
      give(flat, 313, {false, false, false, 0, true});
      check_both_ways(context_of(1), flat, expectation<T>(flat));
      auto empty = make_problem<T>(314, make_shape(0, 4, 3, covariance), margin_options<T>(reduction));
      give(empty, 314, {false, false, true, 0, true});
      outputs<T> nothing(empty);
      REQUIRE(forward_backward(context_of(1), empty, nothing) == status::success);
      CHECK(nothing.total.all_zero());
      CHECK(nothing.counted[0] == 0);
      CHECK(nothing.mean.all_zero());
      CHECK(nothing.log_variance.all_zero());
      CHECK(nothing.log_prior.all_zero());
    }
}

TEST_CASE_TEMPLATE("a feature or target that is not finite spoils its own row and no other", T, float,
                   double) {
  for (const auto covariance : covariances)
    for (const bool in_target : {false, true})
      for (const auto& context : tiled_contexts()) {
        CAPTURE(name_of(covariance));
        CAPTURE(in_target);
        auto p = make_problem<T>(315, make_shape(20, 7, 11, covariance),
                                 margin_options<T>(lgm::reduction::none), {1, 1, 1, 0, 0});
        give(p, 315, {true, true, false, 0.1, true});
        auto bad = p;
        const std::size_t row = 13;
        if (in_target)
          bad.target(row, 3) = std::numeric_limits<T>::quiet_NaN();
        else
          bad.feature(row, 4) = std::numeric_limits<T>::quiet_NaN();
        outputs<T> expected(p), got(p), expected_apart(p), apart(p);
        REQUIRE(forward_backward(context, p, expected) == status::success);
        REQUIRE(forward_backward(context, bad, got) == status::success);
        REQUIRE(forward(context, p, expected_apart.result()) == status::success);
        REQUIRE(backward(context, p, expected_apart.row_state.data(), expected_apart.gradients()) ==
                status::success);
        REQUIRE(forward(context, bad, apart.result()) == status::success);
        REQUIRE(backward(context, bad, apart.row_state.data(), apart.gradients()) == status::success);
        const auto check_rows = [&](const outputs<T>& mine, const outputs<T>& other) {
          for (std::size_t i = 0; i < 20; ++i) {
            if (i == row) {
              CHECK(std::isnan(mine.total[i]));
              for (std::size_t j = 0; j < 11; ++j) CHECK(std::isnan(mine.feature.at(i, j)));
              continue;
            }
            CHECK(mine.total[i] == other.total[i]);
            CHECK(mine.log_evidence[i] == other.log_evidence[i]);
            for (std::size_t j = 0; j < 11; ++j) CHECK(mine.feature.at(i, j) == other.feature.at(i, j));
          }
        };
        check_rows(got, expected);
        check_rows(apart, expected_apart);
        bad.options.reduction = lgm::reduction::mean;
        outputs<T> reduced(bad);
        REQUIRE(forward(context, bad, reduced.result()) == status::success);
        CHECK(std::isnan(reduced.total[0]));
      }
}

TEST_CASE_TEMPLATE("a class that its prior excludes costs what its target is: infinity, or nothing", T, float,
                   double) {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    auto p = one_hot(make_problem<T>(318, make_shape(2, 3, 4, covariance),
                                     margin_options<T>(lgm::reduction::none), {1, 1, 1, 0, 0}));
    p.log_prior[2] = -std::numeric_limits<T>::infinity();
    const T targets[2][3] = {{T(0.5), T(0), T(0.5)}, {T(0.5), T(0.5), T(0)}};
    for (std::size_t i = 0; i < 2; ++i)
      for (std::size_t k = 0; k < 3; ++k) p.target(i, k) = targets[i][k];
    outputs<T> out(p);
    REQUIRE(forward(context_of(1), p, out.result()) == status::success);
    CHECK(out.classification[0] == std::numeric_limits<T>::infinity());
    CHECK(out.total[0] == std::numeric_limits<T>::infinity());
    CHECK(std::isfinite(out.classification[1]));
    CHECK(std::isfinite(out.total[1]));
  }
}

// Pairs of classes 0.1 deviations apart in 512 dimensions. Half of a sample's target is its class, half the class's
// double, whose prior of e^-60 puts its logit far below the row's largest: only the target says that its digits matter.
// The loss is half of the double's 60, give or take the two distances' difference of about 2.5.
TEST_CASE("targets far below the largest logit keep their digits") {
  for (const double separation : {1.0, 10.0, 100.0})
    for (const auto covariance : covariances) {
      CAPTURE(separation);
      CAPTURE(name_of(covariance));
      lgm::loss_options<float> options;
      options.reduction = lgm::reduction::none;
      options.alpha = 0.005f;
      options.lambda = 0.1f;
      auto p =
          one_hot(make_problem<float>(316, make_shape(64, 16, 512, covariance), options, {1, 1, 0.5, 0, 0}));
      generator random(317);
      const std::size_t dims = 512, per_class = p.log_variance.size() / 16;
      for (std::size_t k = 0; k < 16; k += 2) {
        p.log_prior[k] = 0;
        p.log_prior[k + 1] = -60;
        for (std::size_t j = 0; j < per_class; ++j)
          p.log_variance[(k + 1) * per_class + j] = p.log_variance[k * per_class + j];
        for (std::size_t j = 0; j < dims; ++j) {
          const double mean = separation * random.normal();
          p.mean[k * dims + j] = static_cast<float>(mean);
          p.mean[(k + 1) * dims + j] = static_cast<float>(mean + 0.1 * random.normal());
        }
      }
      for (std::size_t i = 0; i < 64; ++i) {
        const std::size_t k = i % 8 * 2;
        for (std::size_t c = 0; c < 16; ++c) p.target(i, c) = c == k || c == k + 1 ? 0.5f : 0.0f;
        for (std::size_t j = 0; j < dims; ++j) {
          const float log_variance =
              per_class == 0 ? 0.0f : p.log_variance[k * per_class + (per_class == 1 ? 0 : j)];
          p.feature(i, j) =
              static_cast<float>(static_cast<double>(p.mean[k * dims + j]) +
                                 std::exp(static_cast<double>(log_variance) / 2) * random.normal());
        }
      }
      const expectation<float> expected(p);
      for (std::size_t i = 0; i < 64; ++i) {
        REQUIRE(expected.out.classification[i] > 15);
        REQUIRE(expected.out.classification[i] < 60);
      }
      outputs<float> fused(p), apart(p);
      REQUIRE(forward_backward(context_of(1), p, fused) == status::success);
      REQUIRE(forward(context_of(1), p, apart.result()) == status::success);
      REQUIRE(backward(context_of(1), p, apart.row_state.data(), apart.gradients()) == status::success);
      for (const auto* got : {&fused, &apart}) {
        // A product may leave 1e-4 in a target's share of a distance, where at 10 deviations it is off by 0.05. The sums of
        // 512 squares that the distances of about 256 are made of have as much again, each in its rounding.
        double worst = 0;
        for (std::size_t i = 0; i < 64; ++i)
          worst = std::max(worst, std::fabs(shown(static_cast<real>(got->classification[i]) -
                                                  expected.out.classification[i])));
        CHECK(worst <= 5e-4);
        CHECK(shown(error_over_scale(got->feature, expected.out.feature)) <= 1e-3);
        CHECK(shown(error_over_scale(got->mean, expected.out.mean)) <= 1e-3);
        CHECK(shown(error_over_scale(got->log_variance, expected.out.log_variance)) <= 1e-3);
        CHECK(shown(error_over_scale(got->log_prior, expected.out.log_prior)) <= 1e-3);
        expected.check_all(*got);
      }
    }
}

// Class weights or targets below zero, and rows of zeros: the coefficients of a row add up to any number, which the row state
// carries as it is, from forward to backward and from shard to shard.
TEST_CASE_TEMPLATE("coefficients may have any sign", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions)
      for (const bool weights : {false, true})
        for (const double smoothing : {0.0, 0.1}) {
          CAPTURE(name_of(covariance));
          CAPTURE(name_of(reduction));
          CAPTURE(weights);
          CAPTURE(smoothing);
          auto p = make_problem<T>(340, make_shape(12, 6, 4, covariance), margin_options<T>(reduction));
          give(p, 341, {false, false, false, smoothing, true});
          generator random(342);
          for (std::size_t i = 0; i < 12; ++i)
            for (std::size_t k = 0; k < 6; ++k)
              p.target(i, k) = static_cast<T>(i == 0    ? 0.0
                                              : weights ? random.uniform(0, 1)
                                                        : random.uniform(-1, 0.5));
          if (weights) p.class_weight = {T(1), T(2), T(-4), T(0.5), T(1), T(-1)};
          const expectation<T> expected(p);
          bool negative = false, positive = false;
          for (const real sum : expected.out.coefficient_sum) {
            negative = negative || sum < 0;
            positive = positive || sum > 0;
          }
          REQUIRE(negative);
          REQUIRE((positive || !weights));
          check_both_ways(context_of(1), p, expected);
          check_assembled(expected, run_sharded(context_of(1), p, {0, 2, 2, 6}, merging::tree, 12));
        }
}

// PyTorch's mean is not a number where the weights that it divides by add up to 0, with label smoothing too.
TEST_CASE_TEMPLATE("a mean over no weight at all is not a number", T, float, double) {
  for (const double smoothing : {0.0, 0.1})
    for (const bool soft : {false, true}) {
      CAPTURE(smoothing);
      CAPTURE(soft);
      auto p = make_problem<T>(343, make_shape(8, 5, 3, lgm::covariance::identity),
                               margin_options<T>(lgm::reduction::mean));
      give(p, 344, {false, false, false, smoothing, soft});
      p.sample_weight.assign(8, T(0));
      outputs<T> out(p);
      REQUIRE(forward_backward(context_of(1), p, out) == status::success);
      CHECK(std::isnan(out.total[0]));
      CHECK(std::isnan(out.classification[0]));
      p.options.reduction = lgm::reduction::sum;
      outputs<T> sum(p);
      REQUIRE(forward_backward(context_of(1), p, sum) == status::success);
      CHECK(sum.total[0] == T(0));
      CHECK(sum.feature.all_zero());
    }
}

TEST_CASE_TEMPLATE("an ignored label that is a class ignores no soft target", T, float, double) {
  auto p = make_problem<T>(345, make_shape(20, 6, 4, lgm::covariance::diagonal),
                           margin_options<T>(lgm::reduction::mean));
  give(p, 346, {true, true, false, 0.1, true});
  outputs<T> expected(p), out(p);
  REQUIRE(forward_backward(context_of(1), p, expected) == status::success);
  CHECK(expected.counted[0] == 20);
  p.options.ignore_label = 3;
  REQUIRE(forward_backward(context_of(1), p, out) == status::success);
  out.check_same_bits(expected);
}
