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
#include "support/slopes.hpp"
#include "support/tolerance.hpp"

// class_weight, sample_weight, label_smoothing and normalizer, with labels.

namespace {

using lgm::status;
using namespace support;

}  // namespace

TEST_CASE_TEMPLATE("every combination agrees with the reference", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions)
      for (unsigned mask = 1; mask < 16; ++mask) {
        CAPTURE(name_of(covariance));
        CAPTURE(name_of(reduction));
        CAPTURE(mask);
        auto p = make_problem<T>(201, strided_shape({21, 11, 6}, covariance), margin_options<T>(reduction));
        p.upstream_given = mask % 2 == 0;
        give(p, mask, extras_of(mask));
        const expectation<T> expected(p);
        for (const auto& context : tiled_contexts()) check_both_ways(context, p, expected);
      }
}

TEST_CASE_TEMPLATE("every edge size agrees with the reference", T, float, double) {
  std::uint64_t seed = 202;
  for_each_edge([&](lgm::covariance covariance, lgm::reduction reduction, const sizes3& size) {
    auto p = make_problem<T>(++seed, strided_shape(size, covariance), margin_options<T>(reduction));
    p.upstream_given = true;
    give(p, seed, {true, true, seed % 2 == 0, 0.1});
    const expectation<T> expected(p);
    for (const auto& context : tiled_contexts()) check_both_ways(context, p, expected);
  });
}

TEST_CASE_TEMPLATE(
    "losses and gradients are right from no smoothing to all, whatever the margin and the likelihood", T,
    float, double) {
  for (const auto covariance : covariances)
    for (const double smoothing : {0.0, 1e-3, 0.5, 1.0})
      for (const double alpha : {0.0, 2.0})
        for (const double lambda : {0.0, 1.5}) {
          CAPTURE(name_of(covariance));
          CAPTURE(smoothing);
          CAPTURE(alpha);
          CAPTURE(lambda);
          auto options = margin_options<T>(lgm::reduction::mean);
          options.alpha = static_cast<T>(alpha);
          options.lambda = static_cast<T>(lambda);
          auto p = make_problem<T>(203, make_shape(19, 9, 5, covariance), options);
          give(p, 203, {true, false, false, smoothing});
          check_both_ways(context_of(1), p, expectation<T>(p));
        }
}

TEST_CASE("gradients are the slopes of the library's own weighted losses") {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions)
      for (const unsigned mask : {class_weights, sample_weights, normalizer, smoothing, weights | smoothing,
                                  weights | normalizer | smoothing}) {
        CAPTURE(name_of(covariance));
        CAPTURE(name_of(reduction));
        CAPTURE(mask);
        auto p =
            make_problem<double>(204, make_shape(9, 5, 4, covariance), margin_options<double>(reduction));
        p.upstream_given = reduction == lgm::reduction::none;
        give(p, mask, extras_of(mask));
        check_slopes_both_ways(context_of(1), p);
      }
}

TEST_CASE_TEMPLATE("weights of one, smoothing of zero and the count as normalizer change no bit", T, float,
                   double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions)
      for (const auto& context : tiled_contexts()) {
        CAPTURE(name_of(covariance));
        CAPTURE(name_of(reduction));
        const auto plain =
            make_problem<T>(205, make_shape(37, 13, 9, covariance), margin_options<T>(reduction));
        outputs<T> expected(plain), expected_apart(plain);
        REQUIRE(forward_backward(context, plain, expected) == status::success);
        REQUIRE(forward(context, plain, expected_apart.result()) == status::success);
        REQUIRE(backward(context, plain, expected_apart.row_state.data(), expected_apart.gradients()) ==
                status::success);
        for (unsigned mask = 0; mask < 8; ++mask) {
          CAPTURE(mask);
          auto p = plain;
          p.options.label_smoothing = T(0);
          if (mask & 1) p.class_weight.assign(13, T(1));
          if (mask & 2) p.sample_weight.assign(37, T(1));
          if (mask & 4) p.normalizer.assign(1, static_cast<T>(expected.counted[0]));
          outputs<T> got(p), apart(p);
          REQUIRE(forward_backward(context, p, got) == status::success);
          got.check_same_bits(expected);
          REQUIRE(forward(context, p, apart.result()) == status::success);
          REQUIRE(backward(context, p, apart.row_state.data(), apart.gradients()) == status::success);
          apart.check_same_bits(expected_apart);
        }
      }
}

TEST_CASE_TEMPLATE("sum and none do not read the normalizer", T, float, double) {
  for (const auto reduction : {lgm::reduction::sum, lgm::reduction::none}) {
    auto p =
        make_problem<T>(206, make_shape(12, 4, 3, lgm::covariance::diagonal), margin_options<T>(reduction));
    give(p, 206, {true, true, false, 0.1});
    outputs<T> expected(p), got(p);
    REQUIRE(forward_backward(context_of(1), p, expected) == status::success);
    p.normalizer.assign(1, std::numeric_limits<T>::quiet_NaN());
    REQUIRE(forward_backward(context_of(1), p, got) == status::success);
    got.check_same_bits(expected);
  }
}

// Multiplying by a power of two rounds nothing.
TEST_CASE_TEMPLATE("losses and gradients are linear in the weights", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions)
      for (const double smoothing : {0.0, 0.25}) {
        CAPTURE(name_of(covariance));
        CAPTURE(name_of(reduction));
        auto p = make_problem<T>(207, make_shape(23, 6, 5, covariance), margin_options<T>(reduction));
        give(p, 207, {true, true, false, smoothing});
        outputs<T> plain(p);
        REQUIRE(forward_backward(context_of(1), p, plain) == status::success);
        const auto check_scaled = [&](T scale) {
          outputs<T> scaled(p);
          REQUIRE(forward_backward(context_of(1), p, scaled) == status::success);
          // The mean is over the weights: it does not notice.
          const T by = reduction == lgm::reduction::mean ? T(1) : scale;
          const auto check = [&](const std::string& name, const auto& got, const auto& before) {
            bool all = true;
            for (std::size_t n = 0; n < got.size(); ++n) all = all && got[n] == before[n] * by;
            CHECK_MESSAGE(all, name);
          };
          check("total", scaled.total, plain.total);
          check("classification", scaled.classification, plain.classification);
          check("likelihood", scaled.likelihood, plain.likelihood);
          scaled.each_gradient(plain, check);
        };
        for (T& s : p.sample_weight) s *= T(4);
        check_scaled(T(4));
        for (T& w : p.class_weight) w *= T(0.5);
        check_scaled(T(2));
      }
}

TEST_CASE("a sample of weight two is the sample twice") {
  for (const auto covariance : covariances)
    for (const auto reduction : {lgm::reduction::mean, lgm::reduction::sum}) {
      CAPTURE(name_of(covariance));
      auto p = make_problem<double>(208, make_shape(11, 5, 4, covariance), margin_options<double>(reduction),
                                    {1, 1, 1, 0, 0});
      give(p, 208, {true, false, false, 0.2});
      auto twice = p;
      p.sample_weight.assign(11, 1.0);
      p.sample_weight[3] = 2;
      twice.shape.samples = 12;
      twice.labels.push_back(p.labels[3]);
      for (std::size_t j = 0; j < 4; ++j) twice.features.push_back(p.feature(3, j));
      outputs<double> weighted(p), repeated(twice);
      REQUIRE(forward_backward(context_of(1), p, weighted) == status::success);
      REQUIRE(forward_backward(context_of(1), twice, repeated) == status::success);
      CHECK(weighted.total[0] == doctest::Approx(repeated.total[0]).epsilon(1e-13));
      CHECK(weighted.likelihood[0] == doctest::Approx(repeated.likelihood[0]).epsilon(1e-13));
      // Sums of a dozen numbers in another order.
      CHECK(steps_apart(weighted.mean, repeated.mean) <= 64);
      CHECK(steps_apart(weighted.log_variance, repeated.log_variance) <= 64);
      CHECK(steps_apart(weighted.log_prior, repeated.log_prior) <= 64);
    }
}

TEST_CASE_TEMPLATE("weights do not reach what is not weighted", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto& context : tiled_contexts()) {
      CAPTURE(name_of(covariance));
      auto p =
          make_problem<T>(209, make_shape(29, 12, 7, covariance), margin_options<T>(lgm::reduction::mean));
      outputs<T> plain(p), weighted(p);
      REQUIRE(forward(context, p, plain.result()) == status::success);
      give(p, 209, {true, true, true, 0.3});
      REQUIRE(forward(context, p, weighted.result()) == status::success);
      CHECK(weighted.row_state.same_bits(plain.row_state));
      CHECK(weighted.log_evidence.same_bits(plain.log_evidence));
      CHECK(weighted.counted[0] == plain.counted[0]);
      CHECK(weighted.correct[0] == plain.correct[0]);
    }
}

TEST_CASE_TEMPLATE("a weight of zero takes a sample or a class's samples out", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions) {
      CAPTURE(name_of(covariance));
      CAPTURE(name_of(reduction));
      auto p = make_problem<T>(210, make_shape(24, 5, 4, covariance), margin_options<T>(reduction));
      give(p, 210, {true, true, false, 0});
      p.labels[2] = p.labels[9] = 1;
      p.labels[4] = 2;
      p.sample_weight[4] = T(0);
      p.class_weight[1] = T(0);
      outputs<T> out(p), apart(p);
      REQUIRE(forward_backward(context_of(1), p, out) == status::success);
      REQUIRE(forward(context_of(1), p, apart.result()) == status::success);
      REQUIRE(backward(context_of(1), p, apart.row_state.data(), apart.gradients()) == status::success);
      check_all(p, out);
      check_all(p, apart);
      for (std::size_t i = 0; i < 24; ++i) {
        if (p.labels[i] != 1 && i != 4) continue;
        for (std::size_t j = 0; j < 4; ++j) {
          CHECK(out.feature.at(i, j) == T(0));
          CHECK(apart.feature.at(i, j) == T(0));
        }
        if (reduction == lgm::reduction::none) CHECK(out.total[i] == T(0));
      }
      // With smoothing such a class still is the wrong one for the others, of weight zero.
      p.options.label_smoothing = T(0.2);
      check_both_ways(context_of(1), p, expectation<T>(p));
    }
}

TEST_CASE_TEMPLATE("ignored samples may hold anything, their weights too", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions) {
      CAPTURE(name_of(covariance));
      CAPTURE(name_of(reduction));
      auto p = make_problem<T>(211, make_shape(30, 9, 6, covariance), margin_options<T>(reduction),
                               {1, 1, 1, 0.4, 0});
      give(p, 211, {true, true, false, 0.1});
      auto bad = p;
      for (std::size_t i = 0; i < 30; ++i) {
        if (!p.ignored(i)) continue;
        bad.sample_weight[i] = std::numeric_limits<T>::quiet_NaN();
        for (std::size_t j = 0; j < 6; ++j) bad.feature(i, j) = std::numeric_limits<T>::quiet_NaN();
      }
      for (const auto& context : tiled_contexts()) {
        outputs<T> expected(p), got(p), expected_apart(p), apart(p);
        REQUIRE(forward_backward(context, p, expected) == status::success);
        REQUIRE(forward_backward(context, bad, got) == status::success);
        got.check_same_bits(expected);
        REQUIRE(forward(context, p, expected_apart.result()) == status::success);
        REQUIRE(forward(context, bad, apart.result()) == status::success);
        REQUIRE(backward(context, p, expected_apart.row_state.data(), expected_apart.gradients()) ==
                status::success);
        REQUIRE(backward(context, bad, apart.row_state.data(), apart.gradients()) == status::success);
        apart.check_same_bits(expected_apart);
      }
    }
}

TEST_CASE_TEMPLATE("no samples that count: zero under sum, NaN under mean, a number with a normalizer", T,
                   float, double) {
  for (const auto reduction : reductions)
    for (const std::int64_t samples : {0, 3})
      for (const bool normalized : {false, true}) {
        CAPTURE(name_of(reduction));
        CAPTURE(samples);
        CAPTURE(normalized);
        auto p = make_problem<T>(212, make_shape(samples, 4, 3, lgm::covariance::diagonal),
                                 margin_options<T>(reduction), {1, 1, 1, 1, 0});
        give(p, 212, {true, true, normalized, 0.1});
        for (T& value : p.features) value = std::numeric_limits<T>::quiet_NaN();
        outputs<T> fused(p), apart(p);
        REQUIRE(forward_backward(context_of(1), p, fused) == status::success);
        REQUIRE(forward(context_of(1), p, apart.result()) == status::success);
        REQUIRE(backward(context_of(1), p, apart.row_state.data(), apart.gradients()) == status::success);
        for (const auto* out : {&fused, &apart}) {
          out->check_intact();
          CHECK(out->counted[0] == 0);
          if (reduction == lgm::reduction::mean && !normalized) {
            CHECK(std::isnan(out->total[0]));
            CHECK(std::isnan(out->classification[0]));
            CHECK(std::isnan(out->likelihood[0]));
          } else {
            CHECK(out->total.all_zero());
            CHECK(out->classification.all_zero());
            CHECK(out->likelihood.all_zero());
          }
          CHECK(out->feature.all_zero());
          CHECK(out->mean.all_zero());
          CHECK(out->log_variance.all_zero());
          CHECK(out->log_prior.all_zero());
        }
      }
}

TEST_CASE_TEMPLATE("a weight that is not a number shows in its sample's loss and in no other", T, float,
                   double) {
  for (const double smoothing : {0.0, 0.1}) {
    auto p = make_problem<T>(213, make_shape(9, 4, 3, lgm::covariance::diagonal),
                             margin_options<T>(lgm::reduction::none), {1, 1, 1, 0, 0});
    give(p, 213, {false, true, false, smoothing});
    outputs<T> expected(p), got(p);
    REQUIRE(forward_backward(context_of(1), p, expected) == status::success);
    p.sample_weight[5] = std::numeric_limits<T>::quiet_NaN();
    REQUIRE(forward_backward(context_of(1), p, got) == status::success);
    for (std::size_t i = 0; i < 9; ++i) {
      if (i == 5)
        CHECK(std::isnan(got.total[i]));
      else
        CHECK(got.total[i] == expected.total[i]);
      for (std::size_t j = 0; j < 3; ++j)
        if (i != 5) CHECK(got.feature.at(i, j) == expected.feature.at(i, j));
    }
    p.options.reduction = lgm::reduction::mean;
    outputs<T> reduced(p);
    REQUIRE(forward(context_of(1), p, reduced.result()) == status::success);
    CHECK(std::isnan(reduced.total[0]));
  }
}

TEST_CASE_TEMPLATE("every type of label gives the same weighted bits", T, float, double) {
  auto options = margin_options<T>(lgm::reduction::mean);
  options.ignore_label = 255;
  auto p = make_problem<T>(214, make_shape(33, 7, 10, lgm::covariance::diagonal), options);
  give(p, 214, {true, true, false, 0.1});
  const auto context = context_of(2);
  outputs<T> expected(p);
  REQUIRE(forward_backward(context, p, expected) == status::success);
  const auto check_with = [&](const auto& labels) {
    outputs<T> got(p);
    REQUIRE(run<T>(context, p.shape, [&](lgm::workspace w) {
              return lgm::forward_backward(context, p.shape, p.mixture(), p.call_options(), p.features.data(),
                                           labels.data(), nullptr, got.result(), got.gradients(), w);
            }) == status::success);
    got.check_same_bits(expected);
  };
  check_with(p.template labels_as<std::int32_t>());
  check_with(p.template labels_as<std::uint8_t>());
}

TEST_CASE_TEMPLATE("an output has the same bits whichever others are asked for, weighted", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto& context : tiled_contexts()) {
      CAPTURE(name_of(covariance));
      auto p =
          make_problem<T>(215, make_shape(20, 11, 5, covariance), margin_options<T>(lgm::reduction::mean));
      give(p, 215, {true, true, false, 0.1});
      outputs<T> all(p);
      REQUIRE(forward_backward(context, p, all) == status::success);
      for (unsigned bit = 0; bit < outputs<T>::bits; ++bit)
        for (const unsigned asked : {1u << bit, ~(1u << bit) & outputs<T>::mask}) {
          CAPTURE(asked);
          outputs<T> got(p);
          REQUIRE(forward_backward(context, p, got.result(asked & outputs<T>::result_mask),
                                   got.gradients(asked >> outputs<T>::result_bits)) == status::success);
          unsigned at = 0;
          got.each(all, [&](const std::string& name, const auto& mine, const auto& theirs) {
            if ((asked >> at++) & 1u)
              CHECK_MESSAGE(mine.same_bits(theirs), name);
            else
              CHECK_MESSAGE(mine.untouched(), name);
          });
        }
    }
}

TEST_CASE_TEMPLATE("a bad value behind alpha_at: weighted losses are NaN, gradients zero", T, float, double) {
  const T bad = T(-1);
  for (const double smoothing : {0.0, 0.1}) {
    auto p = make_problem<T>(216, make_shape(14, 5, 6, lgm::covariance::diagonal),
                             margin_options<T>(lgm::reduction::mean));
    give(p, 216, {true, true, false, smoothing});
    p.options.alpha_at = &bad;
    outputs<T> out(p);
    REQUIRE(forward_backward(context_of(1), p, out) == status::success);
    CHECK(std::isnan(out.total[0]));
    CHECK(std::isnan(out.classification[0]));
    CHECK(out.feature.all_zero());
    CHECK(out.mean.all_zero());
    CHECK(out.log_variance.all_zero());
    CHECK(out.log_prior.all_zero());
  }
}
