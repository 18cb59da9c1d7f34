// SPDX-License-Identifier: MIT
#include "support/block_device.hpp"

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>

#include "support/cases.hpp"
#include "support/tolerance.hpp"

// The device's drivers in the groups and the kernel of a GPU, against the reference, the same bits in every order of the
// threads; and, where loads and stores are seen, without a race between the threads of a launch.

namespace {

using lgm::status;
using namespace support;

constexpr lane_order orders[] = {lane_order::forward, lane_order::reverse, lane_order::shuffled};

block_context context_of(lane_order order, std::size_t tile_bytes, bool watched = false) {
  block_context c;
  c.order = order;
  c.tile_bytes = tile_bytes;
  c.watched = watched;
  c.most_blocks = watched ? 1024 : 3;
  c.sampled = false;
  return c;
}

status step(const block_context& c, const problem<float>& p, outputs<float>& out) {
  return run<float>(c, p.shape, [&](lgm::workspace w) {
    return with_targets(p, [&](const auto& targets) {
      return lgm::forward_backward(c, p.shape, p.mixture(), p.call_options(), p.features.data(), targets,
                                   p.upstream_data(), out.result(), out.gradients(), w);
    });
  });
}

// Groups of 4, 32 and 256 lanes; rows that one block has, that several share; few launches, and many.
constexpr sizes3 shapes[] = {{7, 5, 3}, {3, 40, 70}, {2, 600, 9}, {2, 3, 600}};

}  // namespace

TEST_CASE("losses and gradients are right in a GPU's own groups, with labels and soft targets") {
  bool soft = false;
  for (const auto& sizes : shapes)
    for (const auto covariance : covariances) {
      soft = !soft;
      CAPTURE(name_of(covariance));
      CAPTURE(sizes.classes);
      CAPTURE(sizes.dims);
      CAPTURE(soft);
      auto p = make_problem<float>(44, strided_shape(sizes, covariance),
                                   margin_options<float>(lgm::reduction::mean));
      give(p, 5, {true, true, false, 0.1, soft});
      const expectation<float> expected(p);
      for (const std::size_t tile_bytes : {std::size_t{64} << 20, std::size_t{1} << 14}) {
        CAPTURE(tile_bytes);
        outputs<float> of[3] = {outputs<float>(p), outputs<float>(p), outputs<float>(p)};
        for (std::size_t n = 0; n < 3; ++n) {
          CAPTURE(to_string(orders[n]));
          REQUIRE(step(context_of(orders[n], tile_bytes), p, of[n]) == status::success);
          of[n].check_intact();
          if (n > 0) of[n].check_same_bits(of[0]);
        }
        expected.check_all(of[0]);
      }
    }
}

TEST_CASE("logits and scores are right in a GPU's own groups") {
  for (const auto& sizes : shapes)
    for (const auto covariance : covariances) {
      CAPTURE(name_of(covariance));
      CAPTURE(sizes.classes);
      const auto p = make_problem<float>(51, strided_shape(sizes, covariance),
                                         margin_options<float>(lgm::reduction::mean));
      const block_context c = context_of(lane_order::shuffled, std::size_t{1} << 14);
      guarded<float> out(sizes.samples, sizes.classes, p.shape.logits_stride);
      REQUIRE(run<float>(c, p.shape, [&](lgm::workspace w) {
                return lgm::logits(c, p.shape, p.mixture(), p.call_options(), p.features.data(),
                                   p.labels.data(), out.data(), w);
              }) == status::success);
      CHECK(out.intact());
      check_logits(p, out, true);
      score_outputs<float> scores(p.shape);
      REQUIRE(run<float>(c, p.shape, [&](lgm::workspace w) {
                return lgm::score(c, p.shape, p.mixture(), p.features.data(), scores.result(), w);
              }) == status::success);
      scores.check_intact();
      check_scores(p, scores);
    }
}

// A launch that has a race throws.
TEST_CASE("no two threads of a launch touch what one of them stores without a barrier between") {
  for (const auto& sizes : {sizes3{3, 5, 3}, sizes3{2, 40, 33}})
    for (const auto covariance : covariances)
      for (const bool soft : {false, true}) {
        CAPTURE(name_of(covariance));
        CAPTURE(sizes.classes);
        CAPTURE(soft);
        auto p = make_problem<float>(44, strided_shape(sizes, covariance),
                                     margin_options<float>(lgm::reduction::mean));
        give(p, 5, {true, true, false, 0.1, soft});
        outputs<float> out(p);
        // Tiles of one sample are many launches.
        for (const std::size_t tile_bytes : {std::size_t{64} << 20, std::size_t{1}})
          CHECK(step(context_of(lane_order::forward, tile_bytes, true), p, out) == status::success);
        const expectation<float> expected(p);
        expected.check_all(out);
      }
}
