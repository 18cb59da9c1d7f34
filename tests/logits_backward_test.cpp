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

// Gradients from slopes of the logits that the caller gives.

namespace {

using lgm::status;
using namespace support;

template <class T>
problem<T> given_problem(std::uint64_t seed, const lgm::shape& shape, lgm::reduction reduction,
                         const extras& what = {}, const recipe& how = {}) {
  auto p = make_problem<T>(seed, shape, margin_options<T>(reduction), how);
  p.upstream_given = seed % 2 == 0;
  give(p, seed, what);
  give_grad_logits(p, seed);
  return p;
}

}  // namespace

TEST_CASE_TEMPLATE("any slopes at every edge size agree with the reference", T, float, double) {
  std::uint64_t seed = 500;
  for_each_edge([&](lgm::covariance covariance, lgm::reduction reduction, const sizes3& size) {
    for (const bool labelled : {false, true}) {
      CAPTURE(labelled);
      ++seed;
      const auto p = given_problem<T>(seed, strided_shape(size, covariance), reduction,
                                      {seed % 3 == 0, seed % 5 < 2, seed % 7 == 0});
      for (const auto& context : tiled_contexts()) {
        outputs<T> out(p);
        REQUIRE(logits_backward(context, p, out.gradients(), labelled) == status::success);
        out.check_intact();
        check_logits_backward(p, out, labelled);
      }
    }
  });
}

TEST_CASE_TEMPLATE("gradients of the logits are right without margin or likelihood, and with large ones", T,
                   float, double) {
  for (const auto covariance : covariances)
    for (const double alpha : {0.0, 4.0})
      for (const double lambda : {0.0, 3.0}) {
        CAPTURE(name_of(covariance));
        CAPTURE(alpha);
        CAPTURE(lambda);
        auto p = given_problem<T>(502, make_shape(25, 10, 7, covariance), lgm::reduction::mean, {true, true});
        p.options.alpha = static_cast<T>(alpha);
        p.options.lambda = static_cast<T>(lambda);
        outputs<T> out(p);
        REQUIRE(logits_backward(context_of(1), p, out.gradients()) == status::success);
        check_logits_backward(p, out);
      }
}

// sum_ik G_ik l_ik + the likelihoods as the library reports them.
TEST_CASE("gradients are those of a fixed combination of the logits") {
  for (const auto covariance : covariances)
    for (const auto reduction : {lgm::reduction::mean, lgm::reduction::sum})
      for (const bool labelled : {false, true}) {
        CAPTURE(name_of(covariance));
        CAPTURE(name_of(reduction));
        CAPTURE(labelled);
        auto p = given_problem<double>(503, make_shape(9, 5, 4, covariance), reduction, {true, true});
        const auto context = context_of(1);
        outputs<double> out(p);
        REQUIRE(logits_backward(context, p, out.gradients(), labelled) == status::success);
        guarded<double> logit(9, 5);
        check_all_slopes(p, out, [&]() -> real {
          REQUIRE(logits(context, p, logit.data(), labelled) == status::success);
          real sum = 0;
          for (std::size_t n = 0; n < logit.size(); ++n)
            sum += static_cast<real>(logit[n]) * static_cast<real>(p.grad_logits[n]);
          if (!labelled) return sum;
          double likelihood = 0;
          lgm::loss_result<double> result;
          result.likelihood = &likelihood;
          REQUIRE(forward(context, p, result) == status::success);
          return sum + static_cast<real>(p.options.lambda) * static_cast<real>(likelihood);
        });
      }
}

// A loss of the caller's own, half the sum of squared logits: its slopes are the logits.
TEST_CASE("the slopes of a loss that the caller makes of the logits") {
  for (const auto covariance : covariances)
    for (const bool labelled : {false, true}) {
      CAPTURE(name_of(covariance));
      CAPTURE(labelled);
      auto p = given_problem<double>(504, make_shape(8, 4, 3, covariance), lgm::reduction::sum);
      p.options.lambda = 0;
      p.upstream_given = false;
      const auto context = context_of(1);
      REQUIRE(logits(context, p, p.grad_logits.data(), labelled) == status::success);
      outputs<double> out(p);
      REQUIRE(logits_backward(context, p, out.gradients(), labelled) == status::success);
      check_logits_backward(p, out, labelled);
      guarded<double> logit(8, 4);
      check_all_slopes(p, out, [&]() -> real {
        REQUIRE(logits(context, p, logit.data(), labelled) == status::success);
        real sum = 0;
        for (std::size_t n = 0; n < logit.size(); ++n) {
          const auto l = static_cast<real>(logit[n]);
          sum += l * l / 2;
        }
        return sum;
      });
    }
}

TEST_CASE_TEMPLATE("with the loss's own slopes it is backward", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions)
      for (const unsigned mask :
           {no_extras, weights, smoothing, weights | smoothing, weights | normalizer | smoothing}) {
        CAPTURE(name_of(covariance));
        CAPTURE(name_of(reduction));
        CAPTURE(mask);
        auto p = make_problem<T>(505, make_shape(27, 9, 6, covariance), margin_options<T>(reduction));
        p.upstream_given = true;
        give(p, mask, extras_of(mask));
        const expectation<T> expected(p);
        // The slopes that backward computes for itself: with all that reduction divides by.
        p.grad_logits = strided_rows<T>(27, 9, 9, [&](std::size_t i, std::size_t k) {
          return p.ignored(i)
                     ? T(0)
                     : static_cast<T>(expected.out.posterior_slope[i * 9 + k] / expected.out.divisor);
        });
        outputs<T> out(p);
        REQUIRE(logits_backward(context_of(1), p, out.gradients()) == status::success);
        expected.check_gradients(out);
      }
}

TEST_CASE_TEMPLATE("rows that are ignored are differentiated, without margin", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions) {
      CAPTURE(name_of(covariance));
      CAPTURE(name_of(reduction));
      auto p = given_problem<T>(506, make_shape(20, 6, 5, covariance), reduction, {}, {1, 1, 1, 1, 0});
      std::fill(p.grad_logits.begin(), p.grad_logits.end(), T(0.5));
      outputs<T> out(p), unlabelled(p);
      REQUIRE(logits_backward(context_of(1), p, out.gradients()) == status::success);
      check_logits_backward(p, out);
      CHECK_FALSE(out.feature.all_zero());
      REQUIRE(logits_backward(context_of(1), p, unlabelled.gradients(), false) == status::success);
      out.each_gradient(unlabelled, [](const std::string& name, const auto& mine, const auto& theirs) {
        CHECK_MESSAGE(mine.same_bits(theirs), name);
      });
    }
}

TEST_CASE_TEMPLATE("rows of zeros give exactly nothing, whatever their features are", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions)
      for (const bool labelled : {false, true})
        for (const auto& context : tiled_contexts()) {
          CAPTURE(name_of(covariance));
          CAPTURE(name_of(reduction));
          CAPTURE(labelled);
          auto p = given_problem<T>(507, make_shape(26, 9, 5, covariance), reduction);
          // Rows without a likelihood: ignored ones, or all without labels or lambda.
          for (const std::size_t i : {std::size_t{0}, std::size_t{11}, std::size_t{12}, std::size_t{25}}) {
            for (std::size_t k = 0; k < 9; ++k) p.grad_logit(i, k) = k % 2 ? T(0) : -T(0);
            if (labelled && i != 11) p.labels[i] = p.options.ignore_label;
          }
          if (labelled) {
            p.labels[11] = 3;
            p.options.lambda = 0;
          }
          auto bad = p;
          const T values[] = {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity(),
                              std::numeric_limits<T>::max()};
          for (const std::size_t i : {std::size_t{0}, std::size_t{11}, std::size_t{12}, std::size_t{25}})
            for (std::size_t j = 0; j < 5; ++j) bad.feature(i, j) = values[j % 3];
          outputs<T> expected(p), got(p);
          REQUIRE(logits_backward(context, p, expected.gradients(), labelled) == status::success);
          REQUIRE(logits_backward(context, bad, got.gradients(), labelled) == status::success);
          got.each_gradient(expected, [](const std::string& name, const auto& mine, const auto& theirs) {
            CHECK_MESSAGE(mine.same_bits(theirs), name);
          });
          for (const std::size_t i : {std::size_t{0}, std::size_t{11}, std::size_t{12}, std::size_t{25}})
            for (std::size_t j = 0; j < 5; ++j) CHECK(got.feature.at(i, j) == T(0));
        }
}

TEST_CASE_TEMPLATE("a feature that is not finite spoils its own row's gradient and no other's", T, float,
                   double) {
  for (const auto covariance : covariances)
    for (const auto& context : tiled_contexts()) {
      CAPTURE(name_of(covariance));
      auto p = given_problem<T>(508, make_shape(20, 7, 6, covariance), lgm::reduction::sum);
      std::fill(p.grad_logits.begin(), p.grad_logits.end(), T(0.25));
      outputs<T> expected(p), got(p);
      REQUIRE(logits_backward(context, p, expected.gradients()) == status::success);
      p.feature(9, 2) = std::numeric_limits<T>::quiet_NaN();
      REQUIRE(logits_backward(context, p, got.gradients()) == status::success);
      CHECK(std::isnan(got.feature.at(9, 2)));
      for (std::size_t i = 0; i < 20; ++i)
        for (std::size_t j = 0; j < 6; ++j)
          if (i != 9) CHECK(got.feature.at(i, j) == expected.feature.at(i, j));
      CHECK(got.log_prior.same_bits(expected.log_prior));
    }
}

TEST_CASE_TEMPLATE("upstream multiplies both terms, one sample or all", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions) {
      CAPTURE(name_of(covariance));
      CAPTURE(name_of(reduction));
      auto p = given_problem<T>(509, make_shape(22, 5, 4, covariance), reduction, {true, true});
      p.upstream_given = false;
      outputs<T> null(p), plain(p), scaled(p);
      REQUIRE(logits_backward(context_of(1), p, null.gradients()) == status::success);
      p.upstream_given = true;
      std::fill(p.upstream.begin(), p.upstream.end(), T(1));
      REQUIRE(logits_backward(context_of(1), p, plain.gradients()) == status::success);
      // The compiler may fuse the one's multiplications and not the other's: a rounding of each term.
      plain.each_gradient(null, [](const std::string& name, const auto& mine, const auto& theirs) {
        CHECK_MESSAGE(steps_apart(mine, theirs) <= 4, name);
      });
      // A power of two rounds nothing.
      std::fill(p.upstream.begin(), p.upstream.end(), T(256));
      REQUIRE(logits_backward(context_of(1), p, scaled.gradients()) == status::success);
      scaled.each_gradient(plain, [](const std::string& name, const auto& mine, const auto& theirs) {
        bool all = true;
        for (std::size_t n = 0; n < mine.size(); ++n) all = all && mine[n] == theirs[n] * 256;
        CHECK_MESSAGE(all, name);
      });
      if (reduction != lgm::reduction::none) continue;
      std::fill(p.upstream.begin(), p.upstream.end(), T(0));
      p.upstream[7] = T(2);
      std::fill(p.grad_logits.begin(), p.grad_logits.end(), T(1));
      outputs<T> one(p);
      REQUIRE(logits_backward(context_of(1), p, one.gradients()) == status::success);
      check_logits_backward(p, one);
      for (std::size_t i = 0; i < 22; ++i)
        for (std::size_t j = 0; j < 4; ++j) CHECK((one.feature.at(i, j) == T(0)) == (i != 7));
    }
}

TEST_CASE_TEMPLATE("labels of every type give the same, and so do the two ways of giving none", T, float,
                   double) {
  auto p = given_problem<T>(510, make_shape(23, 6, 5, lgm::covariance::diagonal), lgm::reduction::mean);
  p.options.ignore_label = 255;
  for (auto& label : p.labels)
    if (label < 0) label = 255;
  const auto context = context_of(2);
  const auto call = [&](const auto* labels, outputs<T>& out) {
    return run<T>(context, p.shape, [&](lgm::workspace w) {
      return lgm::logits_backward(context, p.shape, p.mixture(), p.options, p.features.data(), labels,
                                  p.grad_logits.data(), p.upstream_data(), out.gradients(), w);
    });
  };
  outputs<T> expected(p), narrow(p), middle(p), none(p), null(p);
  REQUIRE(logits_backward(context, p, expected.gradients()) == status::success);
  REQUIRE(call(p.template labels_as<std::uint8_t>().data(), narrow) == status::success);
  REQUIRE(call(p.template labels_as<std::int32_t>().data(), middle) == status::success);
  narrow.check_same_bits(expected);
  middle.check_same_bits(expected);
  REQUIRE(call(static_cast<const std::uint8_t*>(nullptr), none) == status::success);
  REQUIRE(run<T>(context, p.shape, [&](lgm::workspace w) {
            return lgm::logits_backward(context, p.shape, p.mixture(), p.options, p.features.data(), nullptr,
                                        p.grad_logits.data(), p.upstream_data(), null.gradients(), w);
          }) == status::success);
  null.check_same_bits(none);
  check_logits_backward(p, none, false);
}

TEST_CASE_TEMPLATE("a gradient has the same bits whichever others are asked for", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto& context : tiled_contexts()) {
      CAPTURE(name_of(covariance));
      const auto p = given_problem<T>(512, make_shape(21, 12, 5, covariance), lgm::reduction::mean);
      outputs<T> all(p);
      REQUIRE(logits_backward(context, p, all.gradients()) == status::success);
      for (unsigned mask = 0; mask <= outputs<T>::gradient_mask; ++mask) {
        CAPTURE(mask);
        outputs<T> some(p);
        REQUIRE(logits_backward(context, p, some.gradients(mask)) == status::success);
        unsigned bit = 0;
        some.each_gradient(all, [&](const std::string& name, const auto& mine, const auto& theirs) {
          if ((mask >> bit++) & 1u)
            CHECK_MESSAGE(mine.same_bits(theirs), name);
          else
            CHECK_MESSAGE(mine.untouched(), name);
        });
      }
    }
}

TEST_CASE_TEMPLATE("a margin that cannot be used gives gradients of zero", T, float, double) {
  for (const T bad : {T(-1), std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity()}) {
    auto p = given_problem<T>(514, make_shape(9, 5, 4, lgm::covariance::diagonal), lgm::reduction::mean);
    p.options.alpha_at = &bad;
    outputs<T> out(p);
    REQUIRE(logits_backward(context_of(1), p, out.gradients()) == status::success);
    CHECK(out.feature.all_zero());
    CHECK(out.mean.all_zero());
    CHECK(out.log_variance.all_zero());
    CHECK(out.log_prior.all_zero());
  }
}

// Pairs of classes 0.1 deviations apart, the pairs 10 and 100: the distances that spherical variances need, and the
// differences that the target's own terms need, would be lost in products.
TEST_CASE("slopes keep their digits far from the centre") {
  for (const double separation : {10.0, 100.0})
    for (const auto covariance : covariances) {
      CAPTURE(separation);
      CAPTURE(name_of(covariance));
      auto p = given_problem<float>(515, make_shape(48, 6, 256, covariance), lgm::reduction::sum, {},
                                    {separation, 1, 0.5, 0, 0});
      for (std::size_t i = 0; i < 48; ++i)
        for (std::size_t k = 0; k < 6; ++k)
          p.grad_logit(i, k) = p.labels[i] == static_cast<std::int64_t>(k) ? -1.0f : 0.0f;
      outputs<float> out(p);
      REQUIRE(logits_backward(context_of(1), p, out.gradients()) == status::success);
      const reference::output expected =
          reference::evaluate_logits_backward(to_reference(p), packed_grad_logits(p));
      CHECK(shown(error_over_scale(out.feature, expected.feature)) <= 1e-5);
      CHECK(shown(error_over_scale(out.mean, expected.mean)) <= 1e-5);
      CHECK(shown(error_over_scale(out.log_variance, expected.log_variance)) <= 1e-5);
    }
}
