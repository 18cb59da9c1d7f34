// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/cases.hpp"
#include "support/precision.hpp"
#include "support/tolerance.hpp"

// 16-bit features and products of reduced precision, kernel by kernel on the host, against the reference on the features as
// rounded, within what follows from the rounding of the operands.

namespace {

using lgm::status;
using namespace support;

#define LGM_EVERY_KIND \
  tf32, split_tf32, brain, brain_to_float, fast_brain, support::half, half_to_float, fast_half

// Small problems in one tile take two launches and no product: the first context shows those, the others tiles that cut rows,
// classes or both.
template <class Kind>
std::vector<device_context> contexts_of() {
  return {context_for<Kind>(), context_for<Kind>(std::size_t{1} << 15), context_for<Kind>(1)};
}

template <class Kind>
void check_both_ways_as(const device_context& context, const problem<float>& p,
                        const expectation<float>& expected) {
  outputs<float> fused(p), apart(p);
  REQUIRE(forward_backward_as<Kind>(context, p, fused) == status::success);
  fused.check_intact();
  expected.check_all(fused);
  REQUIRE(forward_and_backward_as<Kind>(context, p, apart) == status::success);
  apart.check_intact();
  expected.check_all(apart);
}

}  // namespace

TEST_CASE_TEMPLATE("losses and gradients are right at every edge of a size", Kind, LGM_EVERY_KIND) {
  CAPTURE(name_of<Kind>());
  for_each_edge([&](lgm::covariance covariance, lgm::reduction reduction, const sizes3& sizes) {
    const auto p = rounded_to<Kind>(
        make_problem<float>(81, strided_shape(sizes, covariance), margin_options<float>(reduction)));
    const expectation<float> expected(p, model_of<Kind>(covariance));
    for (const auto& c : contexts_of<Kind>()) {
      CAPTURE(c.tile_bytes);
      check_both_ways_as<Kind>(c, p, expected);
    }
  });
}

TEST_CASE_TEMPLATE("every option is right with labels and with soft targets", Kind, LGM_EVERY_KIND) {
  CAPTURE(name_of<Kind>());
  for (const auto covariance : covariances)
    for (const unsigned mask :
         {no_extras, weights, weights | normalizer, smoothing, weights | normalizer | smoothing, soft,
          soft | weights, soft | smoothing, soft | weights | normalizer | smoothing}) {
      CAPTURE(name_of(covariance));
      CAPTURE(mask);
      auto p = rounded_to<Kind>(make_problem<float>(82 + mask, strided_shape({11, 19, 7}, covariance),
                                                    margin_options<float>(reductions[mask % 3])));
      p.upstream_given = true;
      give(p, 7 + mask, extras_of(mask));
      const expectation<float> expected(p, model_of<Kind>(covariance));
      for (const auto& c : contexts_of<Kind>()) {
        CAPTURE(c.tile_bytes);
        check_both_ways_as<Kind>(c, p, expected);
      }
    }
}

// Sizes at which the products are made in one tile as well.
TEST_CASE_TEMPLATE("losses and gradients are right for wide rows, many classes and few", Kind,
                   LGM_EVERY_KIND) {
  CAPTURE(name_of<Kind>());
  std::size_t n = 0;
  for (const auto& sizes : {sizes3{40, 300, 33}, sizes3{5, 1100, 8}, sizes3{300, 9, 300}})
    for (const auto covariance : covariances) {
      if (n++ % every(4) != 0) continue;
      CAPTURE(name_of(covariance));
      CAPTURE(sizes.classes);
      const auto p = rounded_to<Kind>(make_problem<float>(83, strided_shape(sizes, covariance),
                                                          margin_options<float>(lgm::reduction::mean)));
      const expectation<float> expected(p, model_of<Kind>(covariance));
      for (const std::size_t tile_bytes : {std::size_t{64} << 20, std::size_t{1} << 18})
        check_both_ways_as<Kind>(context_for<Kind>(tile_bytes), p, expected);
    }
}

TEST_CASE_TEMPLATE("logits, scores and gradients of any loss are right in every precision", Kind,
                   LGM_EVERY_KIND) {
  CAPTURE(name_of<Kind>());
  using F = typename Kind::feature;
  std::size_t n = 0;
  for (const auto covariance : covariances)
    for (const auto& sizes : {sizes3{13, 21, 6}, sizes3{6, 400, 30}})
      for (const bool labelled : {false, true})
        for (const auto& c : contexts_of<Kind>()) {
          if (n++ % every(5) != 0) continue;
          CAPTURE(name_of(covariance));
          CAPTURE(labelled);
          CAPTURE(c.tile_bytes);
          const product_model model = model_of<Kind>(covariance);
          auto p = rounded_to<Kind>(make_problem<float>(84, strided_shape(sizes, covariance),
                                                        margin_options<float>(lgm::reduction::mean)));
          p.upstream_given = true;
          give_grad_logits(p, 3);
          const std::vector<F> features(p.features.begin(), p.features.end());
          const std::int64_t* const labels = labelled ? p.labels.data() : nullptr;
          scratch memory(lgm::workspace_size<F>(c, p.shape));

          guarded<float> logits(sizes.samples, sizes.classes, p.shape.logits_stride);
          REQUIRE(lgm::logits(c, p.shape, p.mixture(), p.call_options(), features.data(), labels,
                              logits.data(), memory.get()) == status::success);
          check_logits(p, logits, labelled, model);

          score_outputs<float> scores(p.shape);
          REQUIRE(lgm::score(c, p.shape, p.mixture(), features.data(), scores.result(), memory.get()) ==
                  status::success);
          check_scores(p, scores, model);

          outputs<float> out(p);
          const auto run_backward = [&](const auto* x, const auto& gradient, lgm::workspace w) {
            return lgm::logits_backward(c, p.shape, p.mixture(), p.call_options(), x, labels,
                                        p.grad_logits.data(), p.upstream_data(), gradient, w);
          };
          REQUIRE(call_as<Kind>(c, p, out, run_backward) == status::success);
          check_logits_backward(p, out, labelled, model);
          CHECK(memory.intact());
        }
}

// Ranges of a row's weights, which lie apart from the tile, or in two parts.
TEST_CASE_TEMPLATE("rows that are split among groups", Kind, split_tf32, brain, fast_half) {
  const auto p = rounded_to<Kind>(make_problem<float>(86, make_shape(2, 9001, 3, lgm::covariance::spherical),
                                                      margin_options<float>(lgm::reduction::mean)));
  const expectation<float> expected(p, model_of<Kind>(lgm::covariance::spherical));
  check_both_ways_as<Kind>(context_for<Kind>(), p, expected);
}

// Features that are not centred leave a constant in each class's products, which its range of the row's classes has to find.
TEST_CASE_TEMPLATE("the nearest class of a row in parts is right far from zero", Kind, brain, support::half,
                   fast_half) {
  CAPTURE(name_of<Kind>());
  using F = typename Kind::feature;
  recipe far;
  far.offset = 8;
  for (const auto covariance : {lgm::covariance::identity, lgm::covariance::spherical}) {
    CAPTURE(name_of(covariance));
    const auto p = rounded_to<Kind>(make_problem<float>(88, make_shape(2, 9001, 3, covariance),
                                                        margin_options<float>(lgm::reduction::mean), far));
    const std::vector<F> features(p.features.begin(), p.features.end());
    const auto c = context_for<Kind>();
    scratch memory(lgm::workspace_size<F>(c, p.shape));
    score_outputs<float> scores(p.shape);
    REQUIRE(lgm::score(c, p.shape, p.mixture(), features.data(), scores.result(), memory.get()) ==
            status::success);
    check_scores(p, scores, model_of<Kind>(covariance));
  }
}

TEST_CASE_TEMPLATE("groups of lanes, in any order", Kind, tf32, split_tf32, brain, support::half) {
  CAPTURE(name_of<Kind>());
  for (const auto& sizes : {sizes3{7, 9, 5}, sizes3{3, 6, 1500}})
    for (const auto covariance : covariances)
      for (const bool soft : {false, true}) {
        CAPTURE(name_of(covariance));
        CAPTURE(sizes.dims);
        auto p = rounded_to<Kind>(make_problem<float>(85, strided_shape(sizes, covariance),
                                                      margin_options<float>(lgm::reduction::mean)));
        give(p, 5, {true, true, false, 0.1, soft});
        const expectation<float> expected(p, model_of<Kind>(covariance));
        for (const std::size_t tile_bytes : {std::size_t{64} << 20, std::size_t{1}}) {
          auto c = context_for<Kind>(tile_bytes), reversed = c;
          c.groups = reversed.groups = task_groups::emulated;
          reversed.backwards = true;
          reversed.order = lane_order::reverse;
          outputs<float> out(p), other(p);
          REQUIRE(forward_backward_as<Kind>(c, p, out) == status::success);
          REQUIRE(forward_backward_as<Kind>(reversed, p, other) == status::success);
          expected.check_all(out);
          out.check_same_bits(other);
        }
      }
}

// Double has no tensor cores' formats, floats are not of 16 bits, and those need no TF32.
TEST_CASE("a precision that does not go with the features enqueues nothing") {
  const auto p = make_problem<float>(86, make_shape(9, 5, 4, lgm::covariance::identity));
  const auto answer = [&p](lgm::precision precision, const auto& features) {
    device_counts counts;
    auto c = device_context_of(task_groups::serial);
    c.precision = precision;
    c.counts = &counts;
    using F = std::decay_t<decltype(features[0])>;
    const bool sized = lgm::workspace_size<F>(c, p.shape) > 0;
    std::vector<char> memory(1 << 20);
    outputs<float> out(p);
    const lgm::workspace w{memory.data(), memory.size()};
    const status loss = lgm::forward(c, p.shape, p.mixture(), p.call_options(), features.data(),
                                     p.labels.data(), out.result(), w);
    lgm::score_result<float> scores;
    std::vector<float> density(9);
    scores.log_density = density.data();
    CHECK(lgm::score(c, p.shape, p.mixture(), features.data(), scores, w) == loss);
    CHECK(sized == (loss == status::success));
    CHECK((counts.launches > 0) == (loss == status::success));
    if (loss != status::success) CHECK(out.untouched());
    return loss;
  };
  const std::vector<half16> half(p.features.begin(), p.features.end());
  const std::vector<brain16> brain(p.features.begin(), p.features.end());
  using lgm::precision;
  for (const auto tensor : {precision::tf32, precision::split_tf32}) {
    CHECK(answer(tensor, p.features) == status::success);
    CHECK(lgm::detail::check_precision<double>(tensor, lgm::detail::number_format::full) ==
          status::not_supported);
    CHECK(answer(tensor, half) == status::not_supported);
    CHECK(answer(tensor, brain) == status::not_supported);
  }
  CHECK(answer(precision::fast, p.features) == status::not_supported);
  CHECK(answer(precision::fast, half) == status::success);
  CHECK(answer(precision::fast, brain) == status::success);
  CHECK(answer(precision::highest, half) == status::success);
  CHECK(answer(static_cast<lgm::precision>(9), p.features) == status::invalid_option);
}

TEST_CASE_TEMPLATE("moments of 16-bit features are those of the numbers that they stand for", F, half16,
                   brain16) {
  lgm::loss_options<float> options;
  auto p = make_problem<float>(87, strided_shape({60, 5, 40}, lgm::covariance::diagonal), options,
                               {3, 1, 1, 0.2, 7});
  for (float& x : p.features) x = F(static_cast<double>(x));
  const std::vector<F> features(p.features.begin(), p.features.end());
  const auto c = device_context_of(task_groups::serial);
  const auto moments = [&](const auto* x) {
    std::vector<double> all(5 + 3 * 200 + 1600, 0.0);
    const lgm::class_moments<double> m{all.data(), all.data() + 5, all.data() + 205, all.data() + 605,
                                       all.data() + 405};
    std::vector<char> memory(lgm::workspace_size<std::decay_t<decltype(*x)>>(c, p.shape));
    REQUIRE(lgm::accumulate_moments(c, p.shape, p.call_options(), x, p.labels.data(), m,
                                    {memory.data(), memory.size()}) == status::success);
    return all;
  };
  CHECK(moments(features.data()) == moments(p.features.data()));
}
