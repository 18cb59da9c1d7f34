// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "support/cases.hpp"
#include "support/problem.hpp"
#include "support/tolerance.hpp"

// Every function of the host driver against the reference, for each type of label and each choice of outputs.

namespace {

using lgm::status;
using namespace support;

}  // namespace

TEST_CASE_TEMPLATE("forward, backward and forward_backward agree with the reference", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions) {
      CAPTURE(name_of(covariance));
      CAPTURE(name_of(reduction));
      lgm::shape shape = make_shape(37, 11, 13, covariance);
      shape.feature_stride = 17;
      shape.gradient_stride = 19;
      auto p = make_problem<T>(7, shape, margin_options<T>(reduction));
      p.upstream_given = true;
      const auto context = context_of(2);

      outputs<T> both(p);
      REQUIRE(forward_backward(context, p, both) == status::success);
      both.check_intact();
      check_all(p, both);

      outputs<T> apart(p);
      REQUIRE(forward(context, p, apart.result()) == status::success);
      check_results(p, apart);
      REQUIRE(backward(context, p, apart.row_state.data(), apart.gradients()) == status::success);
      apart.check_intact();
      check_gradients(p, apart);
    }
}

// The host cuts rows at multiples of 1,024 classes. Means near zero are multiplied as they are.
TEST_CASE_TEMPLATE("classes in several tiles agree with the reference, with means near zero and far", T,
                   float, double) {
  for (const auto covariance : {lgm::covariance::identity, lgm::covariance::spherical})
    for (const T far : {T(0), T(3)}) {
      CAPTURE(name_of(covariance));
      CAPTURE(far);
      auto p =
          make_problem<T>(9, make_shape(9, 2600, 5, covariance), margin_options<T>(lgm::reduction::mean));
      for (T& value : p.mean) value += far;
      outputs<T> out(p);
      REQUIRE(forward_backward(context_of(1, 1), p, out) == status::success);
      check_all(p, out);
    }
}

TEST_CASE_TEMPLATE("logits and scores agree with the reference", T, float, double) {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    lgm::shape shape = make_shape(29, 9, 12, covariance);
    shape.feature_stride = 15;
    shape.logits_stride = 10;
    const auto p = make_problem<T>(8, shape, margin_options<T>(lgm::reduction::mean));
    const auto context = context_of(1);

    guarded<T> plain(shape.samples, shape.classes, shape.logits_stride);
    REQUIRE(run<T>(context, shape, [&](lgm::workspace w) {
              return lgm::logits(context, shape, p.mixture(), p.features.data(), plain.data(), w);
            }) == status::success);
    CHECK(plain.intact());
    check_logits(p, plain, false);

    guarded<T> with_margin(shape.samples, shape.classes, shape.logits_stride);
    REQUIRE(run<T>(context, shape, [&](lgm::workspace w) {
              return lgm::logits(context, shape, p.mixture(), p.options, p.features.data(), p.labels.data(),
                                 with_margin.data(), w);
            }) == status::success);
    CHECK(with_margin.intact());
    check_logits(p, with_margin, true);

    // Labels null: no margin, whatever alpha is.
    guarded<T> without_labels(shape.samples, shape.classes, shape.logits_stride);
    REQUIRE(run<T>(context, shape, [&](lgm::workspace w) {
              return lgm::logits(context, shape, p.mixture(), p.options, p.features.data(),
                                 static_cast<const std::int32_t*>(nullptr), without_labels.data(), w);
            }) == status::success);
    CHECK(without_labels.same_bits(plain));

    score_outputs<T> scores(shape);
    REQUIRE(score(context, p, scores.result()) == status::success);
    scores.check_intact();
    check_scores(p, scores);
  }
}

TEST_CASE_TEMPLATE("arrays that are null have their defaults", T, float, double) {
  for (const auto covariance : covariances)
    for (const bool variance_given : {false, true})
      for (const bool prior_given : {false, true}) {
        CAPTURE(name_of(covariance));
        CAPTURE(variance_given);
        CAPTURE(prior_given);
        auto p =
            make_problem<T>(9, make_shape(21, 6, 5, covariance), margin_options<T>(lgm::reduction::mean));
        p.log_variance_given = variance_given;
        p.log_prior_given = prior_given;
        outputs<T> out(p);
        REQUIRE(forward_backward(context_of(1), p, out) == status::success);
        out.check_intact();
        check_all(p, out);
        score_outputs<T> scores(p.shape);
        REQUIRE(score(context_of(1), p, scores.result()) == status::success);
        check_scores(p, scores);
      }
}

TEST_CASE_TEMPLATE("identity does not read log_variance and does not write its gradient", T, float, double) {
  const auto p = make_problem<T>(10, make_shape(12, 4, 6, lgm::covariance::identity),
                                 margin_options<T>(lgm::reduction::mean));
  outputs<T> expected(p);
  REQUIRE(forward_backward(context_of(1), p, expected) == status::success);

  auto with_variance = p;
  with_variance.log_variance.assign(24, std::numeric_limits<T>::quiet_NaN());
  outputs<T> got(p);
  guarded<T> log_variance(4, 6);
  auto gradients = got.gradients();
  gradients.log_variance = log_variance.data();
  REQUIRE(forward_backward(context_of(1), with_variance, got.result(), gradients) == status::success);
  CHECK(log_variance.untouched());
  got.check_same_bits(expected);
}

TEST_CASE_TEMPLATE("every type of label gives the same bits", T, float, double) {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    auto options = margin_options<T>(lgm::reduction::mean);
    options.ignore_label = 100;  // a label that all of the types hold
    const auto p = make_problem<T>(11, make_shape(33, 7, 10, covariance), options);
    const auto context = context_of(2);
    outputs<T> expected(p);
    REQUIRE(forward_backward(context, p, expected) == status::success);
    check_all(p, expected);

    const auto check_with = [&](const auto& labels) {
      outputs<T> fused(p), apart(p);
      REQUIRE(run<T>(context, p.shape, [&](lgm::workspace w) {
                return lgm::forward_backward(context, p.shape, p.mixture(), p.options, p.features.data(),
                                             labels.data(), nullptr, fused.result(), fused.gradients(), w);
              }) == status::success);
      fused.check_same_bits(expected);
      REQUIRE(run<T>(context, p.shape, [&](lgm::workspace w) {
                return lgm::forward(context, p.shape, p.mixture(), p.options, p.features.data(),
                                    labels.data(), apart.result(), w);
              }) == status::success);
      REQUIRE(run<T>(context, p.shape, [&](lgm::workspace w) {
                return lgm::backward(context, p.shape, p.mixture(), p.options, p.features.data(),
                                     labels.data(), apart.row_state.data(), nullptr, apart.gradients(), w);
              }) == status::success);
      check_all(p, apart);
      guarded<T> logits(p.shape.samples, p.shape.classes);
      REQUIRE(run<T>(context, p.shape, [&](lgm::workspace w) {
                return lgm::logits(context, p.shape, p.mixture(), p.options, p.features.data(), labels.data(),
                                   logits.data(), w);
              }) == status::success);
      check_logits(p, logits, true);
    };
    check_with(p.template labels_as<std::int32_t>());
    check_with(p.template labels_as<std::int64_t>());
    check_with(p.template labels_as<std::uint8_t>());
    check_with(p.template labels_as<signed char>());
    check_with(p.template labels_as<short>());
    check_with(p.template labels_as<unsigned short>());
    check_with(p.template labels_as<unsigned>());
    check_with(p.template labels_as<long>());
    check_with(p.template labels_as<long long>());
    check_with(p.template labels_as<unsigned long long>());
    check_with(p.template labels_as<std::size_t>());
  }
}

TEST_CASE_TEMPLATE("labels of every type keep their sign and their high bits", L, signed char, unsigned char,
                   short, unsigned short, int, unsigned, long, unsigned long, long long, unsigned long long) {
  using limits = std::numeric_limits<L>;
  const L labels[] = {
      0, 1, static_cast<L>(-100), static_cast<L>(limits::max() / 2 + 1), limits::max(), limits::min()};
  const lgm::detail::label_view read(labels);
  for (std::int64_t i = 0; i < 6; ++i) {
    CAPTURE(i);
    CHECK(read[i] == static_cast<std::int64_t>(labels[i]));
  }
}

TEST_CASE("labels are compared after widening, not in their own type") {
  // As a uint8_t the ignored label -100 would be 156; as the 64-bit number it is, no uint8_t equals it.
  auto p = make_problem<float>(12, make_shape(3, 200, 4, lgm::covariance::identity), {}, {1, 1, 1, 0, 0});
  p.labels = {156, 199, 0};
  const auto labels = p.labels_as<std::uint8_t>();
  outputs<float> out(p);
  REQUIRE(run<float>(context_of(1), p.shape, [&](lgm::workspace w) {
            return lgm::forward(context_of(1), p.shape, p.mixture(), p.options, p.features.data(),
                                labels.data(), out.result(), w);
          }) == status::success);
  CHECK(out.counted[0] == 3);
  check_results(p, out);
}

TEST_CASE("an ignored label may be one of the classes") {
  lgm::loss_options<double> options;
  options.lambda = 0.5;
  auto p = make_problem<double>(13, make_shape(20, 3, 4, lgm::covariance::diagonal), options);
  for (std::size_t i = 0; i < p.labels.size(); ++i) p.labels[i] = static_cast<std::int64_t>(i % 3);
  p.options.ignore_label = 1;
  outputs<double> out(p);
  REQUIRE(forward_backward(context_of(1), p, out) == status::success);
  CHECK(out.counted[0] == 13);
  check_all(p, out);
}

TEST_CASE_TEMPLATE("alpha_at overrides alpha", T, float, double) {
  auto p = make_problem<T>(14, make_shape(15, 5, 6, lgm::covariance::diagonal),
                           margin_options<T>(lgm::reduction::none));
  outputs<T> expected(p);
  REQUIRE(forward_backward(context_of(1), p, expected) == status::success);
  const T alpha = p.options.alpha;
  p.options.alpha = T(7);
  p.options.alpha_at = &alpha;
  outputs<T> got(p);
  REQUIRE(forward_backward(context_of(1), p, got) == status::success);
  got.check_same_bits(expected);
}

TEST_CASE_TEMPLATE("an output has the same bits whichever others are asked for", T, float, double) {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    auto p = make_problem<T>(15, make_shape(6, 5, 3, covariance), margin_options<T>(lgm::reduction::mean));
    p.upstream_given = true;
    const auto context = context_of(1);
    outputs<T> all(p);
    REQUIRE(forward_backward(context, p, all) == status::success);
    outputs<T> losses(p);
    REQUIRE(forward(context, p, losses.result()) == status::success);
    outputs<T> slopes(p);
    REQUIRE(backward(context, p, losses.row_state.data(), slopes.gradients()) == status::success);

    // One buffer set for all combinations: what is not asked for must stay poison.
    int failures = 0;
    const auto compare = [&](const outputs<T>& got, const outputs<T>& expected, unsigned results,
                             unsigned slopes_asked) {
      unsigned bit = 0;
      got.each_result(expected, [&](const std::string&, const auto& mine, const auto& theirs) {
        const bool asked = (results >> bit++) & 1u;
        if (!(asked ? mine.same_bits(theirs) && mine.intact() : mine.untouched())) ++failures;
      });
      bit = 0;
      got.each_gradient(expected, [&](const std::string&, const auto& mine, const auto& theirs) {
        const bool asked = (slopes_asked >> bit++) & 1u;
        if (!(asked ? mine.same_bits(theirs) && mine.intact() : mine.untouched())) ++failures;
      });
    };
    for (unsigned results = 0; results <= outputs<T>::result_mask; ++results) {
      outputs<T> got(p);
      if (forward(context, p, got.result(results)) != status::success) ++failures;
      compare(got, losses, results, 0);
      for (unsigned slopes_asked = 0; slopes_asked <= outputs<T>::gradient_mask; ++slopes_asked) {
        outputs<T> fused(p);
        if (forward_backward(context, p, fused.result(results), fused.gradients(slopes_asked)) !=
            status::success)
          ++failures;
        compare(fused, all, results, slopes_asked);
      }
    }
    for (unsigned slopes_asked = 0; slopes_asked <= outputs<T>::gradient_mask; ++slopes_asked) {
      outputs<T> got(p);
      if (backward(context, p, losses.row_state.data(), got.gradients(slopes_asked)) != status::success)
        ++failures;
      compare(got, slopes, 0, slopes_asked);
    }
    CHECK(failures == 0);

    failures = 0;
    score_outputs<T> scores(p.shape);
    REQUIRE(score(context, p, scores.result()) == status::success);
    for (unsigned asked = 0; asked <= score_outputs<T>::mask; ++asked) {
      score_outputs<T> got(p.shape);
      if (score(context, p, got.result(asked)) != status::success) ++failures;
      unsigned bit = 0;
      got.each(scores, [&](const std::string&, const auto& mine, const auto& theirs) {
        const bool on = (asked >> bit++) & 1u;
        if (!(on ? mine.same_bits(theirs) && mine.intact() : mine.untouched())) ++failures;
      });
    }
    CHECK(failures == 0);
  }
}

TEST_CASE_TEMPLATE("an output has the same bits in many tiles too", T, float, double) {
  generator random(16);
  for (const auto covariance : covariances)
    for (const auto reduction : reductions) {
      CAPTURE(name_of(covariance));
      auto p = make_problem<T>(16, make_shape(70, 45, 20, covariance), margin_options<T>(reduction));
      const auto context = context_of(2, 1 << 14);
      outputs<T> all(p);
      REQUIRE(forward_backward(context, p, all) == status::success);
      check_all(p, all);
      for (int trial = 0; trial < 40; ++trial) {
        // Each alone, all but each, then some at random.
        unsigned asked = static_cast<unsigned>(random.below(outputs<T>::mask + 1));
        if (trial < static_cast<int>(outputs<T>::bits))
          asked = 1u << trial;
        else if (trial < 2 * static_cast<int>(outputs<T>::bits))
          asked = ~(1u << (trial - static_cast<int>(outputs<T>::bits))) & outputs<T>::mask;
        CAPTURE(asked);
        outputs<T> got(p);
        REQUIRE(forward_backward(context, p, got.result(asked & outputs<T>::result_mask),
                                 got.gradients(asked >> outputs<T>::result_bits)) == status::success);
        unsigned bit = 0;
        got.each(all, [&](const std::string& name, const auto& mine, const auto& theirs) {
          if ((asked >> bit++) & 1u)
            CHECK_MESSAGE(mine.same_bits(theirs), name);
          else
            CHECK_MESSAGE(mine.untouched(), name);
        });
      }
    }
}

TEST_CASE_TEMPLATE("ignored samples have defined results", T, float, double) {
  for (const auto covariance : covariances) {
    auto p = make_problem<T>(17, make_shape(9, 4, 5, covariance), margin_options<T>(lgm::reduction::none));
    for (std::size_t i = 0; i < 9; ++i)
      p.labels[i] = i % 3 == 0 ? p.options.ignore_label : static_cast<std::int64_t>(i % 4);
    outputs<T> out(p);
    REQUIRE(forward_backward(context_of(1), p, out) == status::success);
    CHECK(out.counted[0] == 6);
    for (std::size_t i = 0; i < 9; i += 3) {
      CHECK(out.total[i] == T(0));
      CHECK(out.classification[i] == T(0));
      CHECK(out.likelihood[i] == T(0));
      CHECK(out.log_evidence[i] == T(0));
      CHECK(out.row_state.at(i, 0) == -lgm::numeric<T>::infinity);
      CHECK(out.row_state.at(i, 1) == -std::numeric_limits<T>::infinity());
      for (std::size_t j = 0; j < 5; ++j) CHECK(out.feature.at(i, j) == T(0));
    }
    check_all(p, out);
  }
}

TEST_CASE_TEMPLATE("ties go to the lowest class", T, float, double) {
  // Classes 1, 2 and 3 are the same; every sample lies on them.
  auto p = make_problem<T>(18, make_shape(6, 5, 3, lgm::covariance::identity));
  p.log_prior_given = false;
  for (std::size_t k = 0; k < 5; ++k)
    for (std::size_t j = 0; j < 3; ++j) p.mean[k * 3 + j] = k == 0 || k == 4 ? T(10) : T(1);
  for (std::size_t i = 0; i < 6; ++i)
    for (std::size_t j = 0; j < 3; ++j) p.feature(i, j) = T(1);
  p.labels = {0, 1, 2, 3, 4, 1};
  outputs<T> out(p);
  REQUIRE(forward(context_of(1), p, out.result()) == status::success);
  CHECK(out.correct[0] == 2);
  score_outputs<T> scores(p.shape);
  REQUIRE(score(context_of(1), p, scores.result()) == status::success);
  for (std::size_t i = 0; i < 6; ++i) CHECK(scores.predicted[i] == 1);
  // Tiles of classes must not change it.
  outputs<T> tiled(p);
  REQUIRE(forward(context_of(1, 1), p, tiled.result()) == status::success);
  CHECK(tiled.correct[0] == 2);
}

TEST_CASE_TEMPLATE("scores are defined without classes, dimensions or samples", T, float, double) {
  for (const auto covariance : covariances) {
    const auto none = make_problem<T>(19, make_shape(3, 0, 4, covariance));
    score_outputs<T> scores(none.shape);
    REQUIRE(score(context_of(1), none, scores.result()) == status::success);
    scores.check_intact();
    for (std::size_t i = 0; i < 3; ++i) CHECK(scores.predicted[i] == -1);

    const auto flat = make_problem<T>(20, make_shape(3, 4, 0, covariance));
    score_outputs<T> priors(flat.shape);
    REQUIRE(score(context_of(1), flat, priors.result()) == status::success);
    check_scores(flat, priors);
    for (std::size_t i = 0; i < 3; ++i) CHECK(priors.squared_mahalanobis[i] == T(0));

    const auto empty = make_problem<T>(21, make_shape(0, 4, 3, covariance));
    score_outputs<T> nothing(empty.shape);
    REQUIRE(score(context_of(1), empty, nothing.result()) == status::success);
    CHECK(nothing.untouched());
  }
}

// Without priors and determinants the driver looks for the largest logit alone.
TEST_CASE_TEMPLATE("where nothing but the distance tells classes apart, the nearest is the predicted one", T,
                   float, double) {
  for (const auto covariance : {lgm::covariance::identity, lgm::covariance::spherical})
    for (const auto& context : tiled_contexts()) {
      CAPTURE(name_of(covariance));
      auto p = make_problem<T>(22, make_shape(40, 9, 5, covariance));
      p.log_prior_given = p.log_variance_given = false;
      // Distances that overflow, and that are no numbers.
      for (std::size_t j = 0; j < 5; ++j) p.feature(7, j) = std::numeric_limits<T>::max();
      p.feature(8, 0) = std::numeric_limits<T>::quiet_NaN();
      score_outputs<T> all(p.shape);
      REQUIRE(score(context, p, all.result()) == status::success);
      all.check_intact();
      for (std::size_t i = 0; i < 40; ++i) {
        if (i == 7 || i == 8) continue;
        CHECK(all.nearest_squared_mahalanobis[i] == all.squared_mahalanobis[i]);
        std::size_t nearest = 0;
        const auto distance = [&](std::size_t k) {
          real sum = 0;
          for (std::size_t j = 0; j < 5; ++j) {
            const real t = static_cast<real>(p.feature(i, j)) - static_cast<real>(p.mean[k * 5 + j]);
            sum += t * t;
          }
          return sum;
        };
        for (std::size_t k = 1; k < 9; ++k)
          if (distance(k) < distance(nearest)) nearest = k;
        CHECK(all.predicted[i] == static_cast<std::int64_t>(nearest));
        CHECK(static_cast<double>(all.squared_mahalanobis[i]) ==
              doctest::Approx(static_cast<double>(distance(nearest))).epsilon(sizeof(T) == 4 ? 1e-5 : 1e-13));
      }
      CHECK(all.nearest_squared_mahalanobis[7] == std::numeric_limits<T>::infinity());
      CHECK(std::isnan(all.nearest_squared_mahalanobis[8]));
      for (unsigned bit = 0; bit < 6; ++bit) {
        score_outputs<T> alone(p.shape);
        REQUIRE(score(context, p, alone.result(1u << bit)) == status::success);
        unsigned at = 0;
        alone.each(all, [&](const std::string& name, const auto& mine, const auto& theirs) {
          if (at++ == bit) CHECK_MESSAGE(mine.same_bits(theirs), name);
        });
      }
    }
  auto none = make_problem<T>(23, make_shape(3, 0, 4, lgm::covariance::identity));
  none.log_prior_given = false;
  score_outputs<T> scores(none.shape);
  REQUIRE(score(context_of(1), none, scores.result()) == status::success);
  for (std::size_t i = 0; i < 3; ++i) CHECK(std::isnan(scores.nearest_squared_mahalanobis[i]));
}
