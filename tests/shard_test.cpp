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
#include "support/tolerance.hpp"

// A mixture whose classes are divided among several calls, in one process: each call sees its own classes only, and a
// row of two numbers a sample is all that passes between them.

namespace {

using lgm::status;
using namespace support;

// In steps of eps of an array's largest number.
template <class T>
double steps_of(const std::vector<real>& got, const guarded<T>& expected) {
  real worst = 0, scale = 0;
  for (std::size_t n = 0; n < got.size(); ++n) {
    worst = std::max(worst, std::fabs(got[n] - static_cast<real>(expected[n])));
    scale = std::max(scale, std::fabs(static_cast<real>(expected[n])));
  }
  return worst == 0 ? 0 : shown(worst / (scale * epsilon<T>()));
}

}  // namespace

TEST_CASE_TEMPLATE("shards of any division, merged in any order, agree with the reference", T, float,
                   double) {
  std::uint64_t seed = 600;
  for (const auto covariance : covariances)
    for (const auto reduction : reductions)
      for (const bool soft : {false, true}) {
        ++seed;
        CAPTURE(name_of(covariance));
        CAPTURE(name_of(reduction));
        CAPTURE(soft);
        auto p = make_problem<T>(seed, strided_shape({23, 13, 6}, covariance), margin_options<T>(reduction));
        p.upstream_given = true;
        give(p, seed, extras_of(static_cast<unsigned>(seed % 16) + (soft ? 16 : 0)));
        const expectation<T> expected(p);
        for (const auto& at : divisions_of(13))
          for (const auto order : mergings)
            for (const auto& context : tiled_contexts()) {
              CAPTURE(at.size());
              check_assembled(expected, run_sharded(context, p, at, order, expected.out.counted));
            }
      }
}

TEST_CASE_TEMPLATE("shards at every edge size agree with the reference", T, float, double) {
  std::uint64_t seed = 630;
  for_each_edge([&](lgm::covariance covariance, lgm::reduction reduction, const sizes3& size) {
    for (const bool soft : {false, true}) {
      ++seed;
      CAPTURE(soft);
      auto p = make_problem<T>(seed, strided_shape(size, covariance), margin_options<T>(reduction));
      p.log_prior_given = seed % 3 != 0;
      give(p, seed, extras_of(static_cast<unsigned>(seed % 16) + (soft ? 16 : 0)));
      const expectation<T> expected(p);
      const auto divisions = divisions_of(size_of(size.classes));
      const auto contexts = tiled_contexts();
      check_assembled(expected,
                      run_sharded(contexts[seed % contexts.size()], p, divisions[seed % divisions.size()],
                                  mergings[seed % std::size(mergings)], expected.out.counted));
    }
  });
}

// A shard centres its products on the mean of its own means, and sums are cut at its ends: both move a result by the
// roundings of its terms, here 40 samples' at most, which are as large as the array's largest number: 8 steps of it were
// seen, in log_prior, whose terms cancel.
TEST_CASE_TEMPLATE("shards and one call agree to the last bits", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions)
      for (const bool soft : {false, true}) {
        CAPTURE(name_of(covariance));
        CAPTURE(name_of(reduction));
        CAPTURE(soft);
        auto p = make_problem<T>(660, make_shape(40, 12, 6, covariance), margin_options<T>(reduction));
        give(p, 660, {true, true, false, 0.1, soft});
        const auto context = context_of(1);
        outputs<T> whole(p);
        REQUIRE(forward(context, p, whole.result()) == status::success);
        REQUIRE(backward(context, p, whole.row_state.data(), whole.gradients()) == status::success);
        for (const auto& at : divisions_of(12)) {
          CAPTURE(at.size());
          const auto got = run_sharded(context, p, at, merging::tree, whole.counted[0]);
          // A shard counts from zero where the one call counts from the target: one shard of all classes too, since empty
          // ones may stand beside it.
          const double steps = 16;
          CHECK(steps_of(got.total, whole.total) <= steps);
          CHECK(steps_of(got.classification, whole.classification) <= steps);
          CHECK(steps_of(got.likelihood, whole.likelihood) <= steps);
          CHECK(steps_apart(got.log_evidence, whole.log_evidence) <= steps);
          CHECK(steps_of(got.feature, whole.feature) <= steps);
          CHECK(steps_apart(got.mean, whole.mean) <= steps);
          CHECK(steps_apart(got.log_variance, whole.log_variance) <= steps);
          CHECK(steps_apart(got.log_prior, whole.log_prior) <= steps);
        }
      }
}

TEST_CASE_TEMPLATE("a shard alone has the losses of its own classes", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto& context : tiled_contexts()) {
      CAPTURE(name_of(covariance));
      const auto p =
          make_problem<T>(661, make_shape(30, 9, 5, covariance), margin_options<T>(lgm::reduction::none));
      std::int64_t counted = 0;
      for (std::size_t i = 0; i < 30; ++i) counted += !p.ignored(i);
      for (const auto& shard : shards_of(p, {0, 2, 7, 9})) {
        outputs<T> out(shard);
        REQUIRE(forward(context, shard, out.result()) == status::success);
        out.check_intact();
        // The reference ignores the samples whose targets are elsewhere.
        const expectation<T> local(shard);
        check_within("total", out.total, local.out.total, local.bound.total);
        check_within("classification", out.classification, local.out.classification,
                     local.bound.classification);
        check_within("likelihood", out.likelihood, local.out.likelihood, local.bound.likelihood);
        CHECK(out.counted[0] == counted);
        CHECK(out.correct[0] >= local.bound.correct_low);
        CHECK(out.correct[0] <= local.bound.correct_high);
        const logit_bounds e = bound_logits<T>(local.in, local.out);
        std::vector<real> evidence, bound;
        for (std::size_t i = 0; i < 30; ++i) {
          const bool here = local.in.label[i] >= 0;
          if (p.ignored(i)) {
            CHECK(out.row_state.at(i, 0) == -std::numeric_limits<T>::infinity());
            CHECK(out.row_state.at(i, 1) == -std::numeric_limits<T>::infinity());
            CHECK(out.log_evidence[i] == T(0));
            continue;
          }
          const real* l = local.out.logit_with_margin.data() + i * local.in.classes;
          const real* error = e.with_margin.data() + i * local.in.classes;
          const real sum = reference::log_sum_exp(
              local.in.classes, [&](std::size_t k) { return l[k]; }, [](std::size_t) { return true; });
          const real slack = *std::max_element(error, error + local.in.classes) +
                             growth<T>(local.in.classes) + 4 * epsilon<T>() * std::fabs(sum);
          CHECK(shown(std::fabs(static_cast<real>(out.log_evidence[i]) - sum)) <= shown(slack));
          // Under identity without |x|^2 / 2.
          real shared = 0;
          if (covariance == lgm::covariance::identity)
            for (std::size_t j = 0; j < 5; ++j)
              shared += static_cast<real>(shard.feature(i, j)) * static_cast<real>(shard.feature(i, j)) / 2;
          const real rounding = 4 * epsilon<T>() * shared;
          if (here) {
            CHECK(shown(std::fabs(static_cast<real>(out.row_state.at(i, 0)) - local.out.target_logit[i] -
                                  shared)) <= shown(e.target[i] + rounding));
          } else {
            CHECK(out.row_state.at(i, 0) == -std::numeric_limits<T>::infinity());
            CHECK(shown(std::fabs(static_cast<real>(out.row_state.at(i, 1)) - sum - shared)) <=
                  shown(slack + rounding));
          }
        }
      }
    }
}

TEST_CASE_TEMPLATE("finish_forward of all classes gives forward's losses", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions)
      for (unsigned mask = 0; mask < 32; ++mask) {
        CAPTURE(name_of(covariance));
        CAPTURE(name_of(reduction));
        CAPTURE(mask);
        auto p = make_problem<T>(662, make_shape(26, 7, 5, covariance), margin_options<T>(reduction));
        give(p, mask, extras_of(mask));
        const expectation<T> expected(p);
        outputs<T> first(p), again(p);
        REQUIRE(forward(context_of(1), p, first.result()) == status::success);
        for (unsigned asked = 0; asked < 64; ++asked) {
          if (asked & 8u) continue;  // row_state is not for this call
          outputs<T> out(p);
          REQUIRE(finish_forward(context_of(1), p, first.row_state.data(), out.result(asked)) ==
                  status::success);
          out.check_intact();
          unsigned bit = 0;
          out.each_result(first, [&](const std::string& name, const auto& mine, const auto& theirs) {
            if ((asked >> bit++) & 1u)
              CHECK_MESSAGE(steps_apart(mine, theirs) <= 4, name);
            else
              CHECK_MESSAGE(mine.untouched(), name);
          });
        }
      }
}

TEST_CASE_TEMPLATE("any slopes of the logits on shards agree with the reference", T, float, double) {
  std::uint64_t seed = 670;
  for (const auto covariance : covariances)
    for (const auto reduction : reductions)
      for (const bool labelled : {false, true})
        for (const auto& at : divisions_of(11)) {
          CAPTURE(name_of(covariance));
          CAPTURE(name_of(reduction));
          CAPTURE(labelled);
          CAPTURE(at.size());
          auto p =
              make_problem<T>(++seed, strided_shape({21, 11, 5}, covariance), margin_options<T>(reduction));
          p.upstream_given = true;
          give(p, seed, {true, true, false, 0, false});
          give_grad_logits(p, seed);
          reference::input in = to_reference(p);
          if (!labelled) std::fill(in.label.begin(), in.label.end(), -1);
          const auto expected = reference::evaluate_logits_backward(in, packed_grad_logits(p));
          const auto bound = bound_logits_backward<T>(in, expected);
          for (const auto& context : tiled_contexts()) {
            assembled<T> got;
            for (const auto& shard : shards_of(p, at)) {
              outputs<T> out(shard);
              REQUIRE(logits_backward(context, shard, out.gradients(), labelled) == status::success);
              out.check_intact();
              got.add_gradients(out);
            }
            check_within("feature gradient", got.feature, expected.feature, bound.feature);
            check_within("mean gradient", got.mean, expected.mean, bound.mean);
            check_within("log_variance gradient", got.log_variance, expected.log_variance,
                         bound.log_variance);
            check_within("log_prior gradient", got.log_prior, expected.log_prior, bound.log_prior);
          }
        }
}

TEST_CASE_TEMPLATE("a shard's logits are the columns of the whole's", T, float, double) {
  for (const auto covariance : covariances)
    for (const bool given : {false, true})
      for (const bool labelled : {false, true})
        for (const auto& context : tiled_contexts()) {
          CAPTURE(name_of(covariance));
          CAPTURE(given);
          CAPTURE(labelled);
          auto p = make_problem<T>(663, strided_shape({19, 12, 7}, covariance),
                                   margin_options<T>(lgm::reduction::mean));
          p.log_prior_given = given;
          guarded<T> all(19, 12);
          for (const auto& at : divisions_of(12))
            for (const auto& shard : shards_of(p, at)) {
              guarded<T> part(shard.shape.samples, shard.shape.classes, shard.shape.logits_stride);
              REQUIRE(logits(context, shard, part.data(), labelled) == status::success);
              CHECK(part.intact());
              for (std::size_t i = 0; i < 19; ++i)
                for (std::size_t k = 0; k < shard.classes(); ++k)
                  all.data()[i * 12 + size_of(shard.shape.class_begin) + k] = part.at(i, k);
              check_logits(shard, part, labelled);
              if (size_of(shard.shape.class_begin) + shard.classes() == 12) check_logits(p, all, labelled);
            }
        }
}

TEST_CASE_TEMPLATE("a shard's scores are those of its classes, with the priors as they are", T, float,
                   double) {
  for (const auto covariance : covariances)
    for (const bool given : {false, true})
      for (const auto& context : tiled_contexts()) {
        CAPTURE(name_of(covariance));
        CAPTURE(given);
        auto p = make_problem<T>(664, make_shape(25, 10, 6, covariance), {}, {1, 1, 1, 0, 0});
        p.log_prior_given = given;
        score_outputs<T> whole(p.shape);
        REQUIRE(score(context, p, whole.result()) == status::success);
        real prior_sum = 0;
        for (std::size_t k = 0; k < 10; ++k)
          prior_sum += given ? std::exp(static_cast<real>(p.log_prior[k])) : 0.1L;
        for (const auto& at : divisions_of(10)) {
          if (whole_shard(at, 10)) continue;  // that one normalises its priors
          std::vector<real> mixture(25, 0), nearest(25, std::numeric_limits<real>::infinity());
          for (const auto& shard : shards_of(p, at)) {
            score_outputs<T> out(shard.shape);
            REQUIRE(score(context, shard, out.result()) == status::success);
            out.check_intact();
            if (shard.classes() == 0) {
              for (std::size_t i = 0; i < 25; ++i) CHECK(out.predicted[i] == -1);
              continue;
            }
            // The same classes as a mixture of their own; only the count of the others is not told from outside.
            auto own = shard;
            own.shape.class_begin = own.shape.total_classes = 0;
            if (!given) own.log_prior.assign(shard.classes(), -std::log(T(10)));
            own.log_prior_given = true;
            score_outputs<T> alone(own.shape);
            REQUIRE(score(context, own, alone.result()) == status::success);
            out.each(alone, [&](const std::string& name, const auto& mine, const auto& theirs) {
              CAPTURE(name);
              if (name != "predicted" && name != "log_mixture") CHECK(mine.same_bits(theirs));
            });
            for (std::size_t i = 0; i < 25; ++i) {
              CHECK(out.predicted[i] == alone.predicted[i] + shard.shape.class_begin);
              mixture[i] += std::exp(static_cast<real>(out.log_mixture[i]));
              nearest[i] = std::min(nearest[i], static_cast<real>(out.nearest_squared_mahalanobis[i]));
            }
          }
          for (std::size_t i = 0; i < 25; ++i) {
            // Each log_mixture is of order 10 to 100 and off by a few of its steps, and so is their sum's logarithm.
            const double expected = static_cast<double>(whole.log_mixture[i]);
            CHECK(std::fabs(shown(std::log(mixture[i] / prior_sum)) - expected) <=
                  64 * shown(epsilon<T>()) * (10 + std::fabs(expected)));
            const double distance = static_cast<double>(whole.nearest_squared_mahalanobis[i]);
            CHECK(std::fabs(shown(nearest[i]) - distance) <= 64 * shown(epsilon<T>()) * (10 + distance));
          }
        }
      }
}

TEST_CASE_TEMPLATE("ignored rows of NaN, and a row of NaN that counts, on shards", T, float, double) {
  for (const auto covariance : covariances)
    for (const bool soft : {false, true}) {
      CAPTURE(name_of(covariance));
      CAPTURE(soft);
      auto p = make_problem<T>(665, make_shape(22, 8, 5, covariance), margin_options<T>(lgm::reduction::none),
                               {1, 1, 1, 0.3, 0});
      give(p, 665, {true, true, false, 0.1, soft});
      p.labels[6] = 2;
      std::int64_t counted = 0;
      for (std::size_t i = 0; i < 22; ++i) counted += !p.ignored(i);
      auto bad = p;
      for (std::size_t i = 0; i < 22; ++i)
        if (p.ignored(i) || i == 6)
          for (std::size_t j = 0; j < 5; ++j) bad.feature(i, j) = std::numeric_limits<T>::quiet_NaN();
      const cuts at{0, 3, 4, 8};
      const auto context = context_of(2, 1 << 12);
      const auto expected = run_sharded(context, p, at, merging::tree, counted);
      const auto got = run_sharded(context, bad, at, merging::tree, counted);
      for (std::size_t i = 0; i < 22; ++i) {
        if (i == 6) {
          CHECK(std::isnan(got.total[i]));
          for (std::size_t j = 0; j < 5; ++j) CHECK(std::isnan(got.feature[i * 5 + j]));
          continue;
        }
        CHECK(got.total[i] == expected.total[i]);
        for (std::size_t j = 0; j < 5; ++j) CHECK(got.feature[i * 5 + j] == expected.feature[i * 5 + j]);
      }
    }
}

TEST_CASE_TEMPLATE("merging adds the first numbers, and is the logarithm of the second ones' sum", T, float,
                   double) {
  const T none = -std::numeric_limits<T>::infinity();
  const lgm::shape shape = make_shape(6, 3, 2, lgm::covariance::identity);
  const T from[] = {none, none, T(-3), T(2), none, T(-1e4), T(5), none, T(-80), T(1), T(700), T(-700)};
  guarded<T> into(6, 2);
  const T before[] = {none, none, none, T(2), T(-7), T(-1e4), none, T(4), T(-3), none, T(700), T(700)};
  std::copy_n(before, 12, into.data());
  REQUIRE(lgm::merge_row_state(context_of(1), shape, from, into.data()) == status::success);
  CHECK(into.intact());
  std::vector<real> expected, bound;
  for (std::size_t n = 0; n < 12; ++n) {
    const real pair[] = {static_cast<real>(before[n]), static_cast<real>(from[n])};
    if (n % 2 == 0) {
      expected.push_back(before[n] == none ? pair[1] : from[n] == none ? pair[0] : pair[0] + pair[1]);
      bound.push_back(std::isfinite(expected[n]) ? epsilon<T>() * std::fabs(expected[n]) : 0);
      continue;
    }
    expected.push_back(reference::log_sum_exp(
        2, [&](std::size_t k) { return pair[k]; }, [](std::size_t) { return true; }));
    bound.push_back(before[n] == none || from[n] == none ? 0 : 2 * epsilon<T>() * std::fabs(expected[n]));
  }
  check_within("merged", into, expected, bound);
  // Samples alone matter.
  lgm::shape other = shape;
  other.classes = 0;
  other.total_classes = 9;
  std::copy_n(before, 12, into.data());
  REQUIRE(lgm::merge_row_state(context_of(1), other, from, into.data()) == status::success);
  check_within("merged", into, expected, bound);
}
