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
#include "support/tolerance.hpp"

// gradients.accumulate, and what it is for: a batch in parts.

namespace {

using lgm::status;
using namespace support;

template <class T>
lgm::gradients<T, T> accumulating(outputs<T>& out, unsigned mask = outputs<T>::gradient_mask) {
  lgm::gradients<T, T> g = out.gradients(mask);
  g.accumulate = true;
  return g;
}

// Writes random numbers into the parameters' gradients.
template <class T>
void fill_parameters(outputs<T>& out, std::uint64_t seed) {
  generator random(seed);
  for (auto* buffer : {&out.mean, &out.log_variance, &out.log_prior})
    for (std::size_t n = 0; n < buffer->size(); ++n) buffer->data()[n] = static_cast<T>(4 * random.normal());
}

// `got` is `before` plus the expected gradient. A sum of the samples' terms with one more: it may be added first, so that
// its own rounding counts once a term at most.
template <class T>
void check_added(const std::string& name, const guarded<T>& got, const guarded<T>& before,
                 const std::vector<real>& gradient, const std::vector<real>& bound, std::size_t terms) {
  std::vector<real> sum(gradient), allowed(bound);
  for (std::size_t n = 0; n < sum.size(); ++n) {
    sum[n] += static_cast<real>(before[n]);
    allowed[n] += growth<T>(terms) * std::fabs(static_cast<real>(before[n]));
  }
  check_within(name, got, sum, allowed);
}

template <class T>
void check_accumulated(const problem<T>& p, const outputs<T>& got, const outputs<T>& before,
                       const reference::output& out, const loss_bounds& bound) {
  check_within("feature gradient", got.feature, out.feature, bound.feature);
  check_added("mean gradient", got.mean, before.mean, out.mean, bound.mean, p.samples());
  check_added("log_variance gradient", got.log_variance, before.log_variance, out.log_variance,
              bound.log_variance, p.samples());
  check_added("log_prior gradient", got.log_prior, before.log_prior, out.log_prior, bound.log_prior,
              p.samples());
}

// Samples [begin, end) of a problem with packed features.
template <class T>
problem<T> samples_of(const problem<T>& p, std::size_t begin, std::size_t end) {
  problem<T> part = p;
  const auto cut = [&](const auto& values, std::size_t each) {
    std::decay_t<decltype(values)> kept;
    if (!values.empty())
      kept.assign(values.begin() + static_cast<std::ptrdiff_t>(begin * each),
                  values.begin() + static_cast<std::ptrdiff_t>(end * each));
    return kept;
  };
  part.shape.samples = static_cast<std::int64_t>(end - begin);
  part.features = cut(p.features, p.dims());
  part.labels = cut(p.labels, 1);
  part.sample_weight = cut(p.sample_weight, 1);
  part.targets = cut(p.targets, p.classes());
  part.grad_logits = cut(p.grad_logits, p.classes());
  return part;
}

}  // namespace

TEST_CASE_TEMPLATE("accumulating adds one more gradient and overwrites the features'", T, float, double) {
  std::uint64_t seed = 401;
  for_each_edge([&](lgm::covariance covariance, lgm::reduction reduction, const sizes3& size) {
    for (const bool soft : {false, true}) {
      CAPTURE(soft);
      auto p = make_problem<T>(++seed, strided_shape(size, covariance), margin_options<T>(reduction));
      give(p, seed, {true, true, false, 0.1, soft});
      give_grad_logits(p, seed);
      const expectation<T> expected(p);
      const auto slopes = reference::evaluate_logits_backward(expected.in, packed_grad_logits(p));
      const auto slope_bound = bound_logits_backward<T>(expected.in, slopes);
      for (const auto& context : tiled_contexts()) {
        outputs<T> before(p);
        fill_parameters(before, seed);
        outputs<T> fused(p), apart(p), free(p);
        for (auto* out : {&fused, &apart, &free}) fill_parameters(*out, seed);
        REQUIRE(forward_backward(context, p, fused.result(), accumulating(fused)) == status::success);
        fused.check_intact();
        expected.check_results(fused);
        check_accumulated(p, fused, before, expected.out, expected.bound);
        REQUIRE(forward(context, p, apart.result()) == status::success);
        REQUIRE(backward(context, p, apart.row_state.data(), accumulating(apart)) == status::success);
        apart.check_intact();
        check_accumulated(p, apart, before, expected.out, expected.bound);
        if (soft) continue;
        REQUIRE(logits_backward(context, p, accumulating(free)) == status::success);
        free.check_intact();
        check_accumulated(p, free, before, slopes, slope_bound);
      }
    }
  });
}

TEST_CASE_TEMPLATE("adding to zero is writing", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto& context : tiled_contexts()) {
      CAPTURE(name_of(covariance));
      const auto p =
          make_problem<T>(402, make_shape(31, 9, 6, covariance), margin_options<T>(lgm::reduction::mean));
      outputs<T> written(p), added(p);
      for (auto* buffer : {&added.mean, &added.log_variance, &added.log_prior})
        std::fill_n(buffer->data(), buffer->size(), T(0));
      REQUIRE(forward_backward(context, p, written) == status::success);
      REQUIRE(forward_backward(context, p, added.result(), accumulating(added)) == status::success);
      added.each(written, [](const std::string& name, const auto& mine, const auto& theirs) {
        bool same = true;
        for (std::size_t n = 0; n < mine.size(); ++n)
          same = same && (mine[n] == theirs[n] || (mine[n] != mine[n] && theirs[n] != theirs[n]));
        CHECK_MESSAGE(same, name);
      });
    }
}

// Gradients are added up as they are asked for: a sum of parts, each divided by the whole batch's weights.
TEST_CASE_TEMPLATE("micro-batches with a normalizer add up to the whole batch", T, float, double) {
  for (const auto covariance : covariances)
    for (const bool soft : {false, true})
      for (const bool weighted : {false, true}) {
        CAPTURE(name_of(covariance));
        CAPTURE(soft);
        CAPTURE(weighted);
        auto p =
            make_problem<T>(403, make_shape(61, 7, 9, covariance), margin_options<T>(lgm::reduction::mean));
        give(p, 403, {weighted, weighted, false, weighted ? 0.1 : 0.0, soft});
        const expectation<T> whole(p);
        std::vector<T> normalizer(1, static_cast<T>(whole.out.divisor));
        for (const auto& context : tiled_contexts()) {
          outputs<T> sum(p);
          std::vector<T> feature;
          double total = 0, classification = 0, likelihood = 0;
          std::int64_t counted = 0;
          const std::size_t cuts[] = {0, 0, 1, 20, 20, 48, 61};  // two of them empty, the first among them
          for (std::size_t part = 0; part + 1 < std::size(cuts); ++part) {
            auto q = samples_of(p, cuts[part], cuts[part + 1]);
            q.normalizer = normalizer;
            outputs<T> out(q);
            auto gradients = out.gradients();
            gradients.mean = sum.mean.data();
            gradients.log_variance = sum.log_variance.data();
            gradients.log_prior = sum.log_prior.data();
            gradients.accumulate = part > 0;
            REQUIRE(forward_backward(context, q, out.result(), gradients) == status::success);
            CHECK(out.feature.intact());
            for (std::size_t n = 0; n < out.feature.size(); ++n) feature.push_back(out.feature[n]);
            total += static_cast<double>(out.total[0]);
            classification += static_cast<double>(out.classification[0]);
            likelihood += static_cast<double>(out.likelihood[0]);
            counted += out.counted[0];
          }
          sum.check_intact();
          CHECK(counted == whole.out.counted);
          // The parts' own roundings are within the bounds' growth of 61 terms.
          check_within("feature gradient", feature, whole.out.feature, whole.bound.feature);
          check_within("mean gradient", sum.mean, whole.out.mean, whole.bound.mean);
          check_within("log_variance gradient", sum.log_variance, whole.out.log_variance,
                       whole.bound.log_variance);
          check_within("log_prior gradient", sum.log_prior, whole.out.log_prior, whole.bound.log_prior);
          const auto one = [](double value) { return std::vector<double>{value}; };
          check_within("total", one(total), reference::reduced(whole.in, whole.out, whole.out.total),
                       whole.bound.total);
          check_within("classification", one(classification),
                       reference::reduced(whole.in, whole.out, whole.out.classification),
                       whole.bound.classification);
          check_within("likelihood", one(likelihood),
                       reference::reduced(whole.in, whole.out, whole.out.likelihood), whole.bound.likelihood);
        }
      }
}

TEST_CASE_TEMPLATE("where there is no gradient, accumulating leaves every bit", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions)
      for (const auto& context : tiled_contexts()) {
        CAPTURE(name_of(covariance));
        CAPTURE(name_of(reduction));
        const auto check_unchanged = [&](const problem<T>& p, bool free) {
          outputs<T> before(p), out(p);
          fill_parameters(before, 404);
          fill_parameters(out, 404);
          if (free)
            REQUIRE(logits_backward(context, p, accumulating(out)) == status::success);
          else
            REQUIRE(forward_backward(context, p, out.result(), accumulating(out)) == status::success);
          out.check_intact();
          CHECK(out.mean.same_bits(before.mean));
          CHECK(out.log_variance.same_bits(before.log_variance));
          CHECK(out.log_prior.same_bits(before.log_prior));
          CHECK(out.feature.all_zero());
        };
        auto empty = make_problem<T>(405, make_shape(0, 5, 4, covariance), margin_options<T>(reduction));
        check_unchanged(empty, false);
        check_unchanged(empty, true);
        empty.soft = true;
        check_unchanged(empty, false);
        auto ignored = make_problem<T>(406, make_shape(9, 5, 4, covariance), margin_options<T>(reduction),
                                       {1, 1, 1, 1, 0});
        for (T& value : ignored.features) value = std::numeric_limits<T>::quiet_NaN();
        check_unchanged(ignored, false);
        ignored.grad_logits.assign(45, T(0));
        check_unchanged(ignored, true);
        const T bad = T(-1);
        auto spoilt = make_problem<T>(407, make_shape(9, 5, 4, covariance), margin_options<T>(reduction));
        spoilt.options.alpha_at = &bad;
        spoilt.grad_logits.assign(45, T(1));
        check_unchanged(spoilt, false);
        check_unchanged(spoilt, true);
      }
}

TEST_CASE_TEMPLATE("each gradient accumulates alone, with the same bits", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto& context : tiled_contexts()) {
      CAPTURE(name_of(covariance));
      const auto p =
          make_problem<T>(408, make_shape(23, 8, 5, covariance), margin_options<T>(lgm::reduction::mean));
      outputs<T> all(p);
      fill_parameters(all, 408);
      REQUIRE(forward_backward(context, p, all.result(), accumulating(all)) == status::success);
      for (unsigned mask = 0; mask <= outputs<T>::gradient_mask; ++mask) {
        CAPTURE(mask);
        outputs<T> before(p), some(p);
        fill_parameters(before, 408);
        fill_parameters(some, 408);
        REQUIRE(forward_backward(context, p, some.result(), accumulating(some, mask)) == status::success);
        CHECK(some.mean.same_bits(mask & 2 ? all.mean : before.mean));
        CHECK(some.log_variance.same_bits(mask & 4 ? all.log_variance : before.log_variance));
        CHECK(some.log_prior.same_bits(mask & 8 ? all.log_prior : before.log_prior));
      }
    }
}
