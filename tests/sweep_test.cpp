// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <string>

#include "support/problem.hpp"
#include "support/sharded.hpp"
#include "support/tolerance.hpp"

// Random shapes, strides, covariances, options and values, each case from its own seed and each output
// against the reference within the bounds of support/tolerance.hpp. LGM_SWEEP sets the number of cases of
// each type, and LGM_SWEEP_FIRST the first seed, so that one failing case runs alone with LGM_SWEEP=1.

namespace {

using lgm::status;
using namespace support;

std::uint64_t number_from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

// Sizes around the widths of vector units, cache lines and blocks, and a few beyond.
constexpr std::int64_t sizes[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 63, 64, 65, 100, 130, 257};

template <class T>
T chosen(generator& random, std::initializer_list<double> values) {
  return static_cast<T>(random.pick(values));
}

template <class T>
void check_case(std::uint64_t seed) {
  CAPTURE(seed);
  generator random(seed * 2 + 1);
  lgm::shape shape;
  do {
    shape.samples = random.pick(sizes);
    shape.classes = random.pick(sizes);
    shape.dims = random.pick(sizes);
  } while (shape.samples * shape.classes * shape.dims > 300000);
  shape.covariance = random.pick(covariances);
  if (random.chance(0.4)) shape.feature_stride = shape.dims + random.below(9);
  if (random.chance(0.4)) shape.gradient_stride = shape.dims + random.below(9);
  if (random.chance(0.4)) shape.logits_stride = shape.classes + random.below(9);
  if (random.chance(0.3)) shape.total_classes = shape.classes;

  lgm::loss_options<T> options;
  options.alpha = chosen<T>(random, {0, 0.1, 0.3, 1, 5});
  options.lambda = chosen<T>(random, {0, 0.01, 0.1, 1});
  options.reduction = random.pick(reductions);
  if (random.chance(0.3)) options.ignore_label = shape.classes + 3;
  const T alpha_at = chosen<T>(random, {0, 0.2, 2});
  if (random.chance(0.2)) options.alpha_at = &alpha_at;

  recipe how;
  how.spread = chosen<double>(random, {0, 0.5, 1, 4});
  how.noise = chosen<double>(random, {0.2, 1, 2});
  how.log_variance = chosen<double>(random, {0, 1, 3});
  how.ignored = chosen<double>(random, {0, 0.1, 0.5, 1});
  how.offset = chosen<double>(random, {0, 0, 20});
  auto p = make_problem<T>(seed, shape, options, how);
  p.log_variance_given = random.chance(0.85);
  p.log_prior_given = random.chance(0.7);
  p.upstream_given = random.chance(0.5);
  // Soft targets need a class; the labels then are not looked at.
  const bool soft = shape.classes > 0 && random.chance(0.3);
  if (soft && random.chance(0.5)) p.target_stride = shape.classes + random.below(9);
  give(p, seed,
       {random.chance(0.3), random.chance(0.3), random.chance(0.2),
        random.chance(0.3) ? random.uniform() : 0.0, soft});
  give_grad_logits(p, seed);

  suite_context context;
  context.threads = static_cast<int>(1 + random.below(3));
  context.tile_bytes = random.pick(std::initializer_list<std::size_t>{1, 1 << 12, 1 << 14, 1 << 16, 1 << 26});
  const bool batch_invariant = random.chance(0.8);
  // Of the host alone.
  const auto choose = [](auto& c, [[maybe_unused]] bool invariant) {
    if constexpr (!suite_is_device) c.batch_invariant = invariant;
  };
  choose(context, batch_invariant);
  const std::size_t offset = static_cast<std::size_t>(random.below(16));
  INFO("samples ", shape.samples, " classes ", shape.classes, " dims ", shape.dims, " ",
       name_of(shape.covariance), " ", name_of(options.reduction), " threads ", context.threads, " tile ",
       context.tile_bytes, " batch_invariant ", batch_invariant, " alpha ",
       static_cast<double>(options.alpha), " lambda ", static_cast<double>(options.lambda), " offset ",
       how.offset, " soft ", soft);
  const char* call = "forward_backward";
  INFO("in ", std::string(call));

  const expectation<T> expected(p);
  outputs<T> fused(p, offset), apart(p, offset);
  REQUIRE(forward_backward(context, p, fused.result(), fused.gradients(), offset) == status::success);
  fused.check_intact();
  expected.check_all(fused);

  call = "forward and backward";
  // The separate calls take another type of label where it holds the labels.
  const auto separately = [&](const auto& labels) {
    REQUIRE(run<T>(
                context, shape,
                [&](lgm::workspace w) {
                  return lgm::forward(context, shape, p.mixture(), p.call_options(), p.features.data(),
                                      labels.data(), apart.result(), w);
                },
                offset) == status::success);
    REQUIRE(run<T>(
                context, shape,
                [&](lgm::workspace w) {
                  return lgm::backward(context, shape, p.mixture(), p.call_options(), p.features.data(),
                                       labels.data(), apart.row_state.data(), p.upstream_data(),
                                       apart.gradients(), w);
                },
                offset) == status::success);
    apart.check_intact();
    expected.check_all(apart);
  };
  const bool small = options.ignore_label >= 0 && shape.classes + 3 <= 255;
  if (soft) {
    REQUIRE(forward(context, p, apart.result(), offset) == status::success);
    REQUIRE(backward(context, p, apart.row_state.data(), apart.gradients(), offset) == status::success);
    apart.check_intact();
    expected.check_all(apart);
  } else if (small && random.chance(0.5)) {
    separately(p.template labels_as<std::uint8_t>());
  } else {
    separately(p.template labels_as<std::int32_t>());
  }

  call = "shards";
  cuts at{0};
  while (at.size() < 4 && random.chance(0.6))
    at.push_back(at.back() + size_of(random.below(shape.classes - static_cast<std::int64_t>(at.back()) + 1)));
  at.push_back(p.classes());
  check_assembled(expectation<T>(p, {}, true),
                  run_sharded(context, p, at, random.pick(mergings), expected.out.counted));

  // What follows knows labels alone.
  p.soft = false;
  for (const bool margin : {false, true}) {
    call = margin ? "logits with the margin" : "logits";
    guarded<T> out(shape.samples, shape.classes, shape.logits_stride, offset);
    REQUIRE(logits(context, p, out.data(), margin, offset) == status::success);
    CHECK(out.intact());
    check_logits(p, out, margin);
    outputs<T> slopes(p, offset);
    REQUIRE(logits_backward(context, p, slopes.gradients(), margin, offset) == status::success);
    slopes.check_intact();
    check_logits_backward(p, slopes, margin);
  }

  call = "score";
  score_outputs<T> scores(shape, offset);
  REQUIRE(score(context, p, scores.result(), offset) == status::success);
  scores.check_intact();
  if (shape.classes > 0) check_scores(p, scores);
}

}  // namespace

TEST_CASE_TEMPLATE("every function agrees with float64 at sizes around every edge", T, float, double) {
  const std::uint64_t first = number_from_environment("LGM_SWEEP_FIRST", 0);
  const std::uint64_t count = number_from_environment("LGM_SWEEP", 400);
  for (std::uint64_t seed = first; seed < first + count; ++seed) check_case<T>(seed);
}
