// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <vector>

#include "support/cases.hpp"
#include "support/problem.hpp"
#include "support/tolerance.hpp"

// The device's logits and scores, kernel by kernel on the host, against the reference.

namespace {

using lgm::status;
using namespace support;

std::vector<device_context> device_contexts() {
  return {device_context_of(task_groups::serial),
          device_context_of(task_groups::serial, std::size_t{1} << 14, true),
          device_context_of(task_groups::serial, 1)};
}

}  // namespace

TEST_CASE_TEMPLATE("logits are right with the margin and without", T, float, double) {
  const auto contexts = device_contexts();
  for (const auto covariance : covariances)
    for (const auto& sizes : edge_sizes)
      for (const bool margin : {false, true}) {
        CAPTURE(name_of(covariance));
        CAPTURE(sizes.samples);
        CAPTURE(sizes.classes);
        CAPTURE(margin);
        const auto p =
            make_problem<T>(51, strided_shape(sizes, covariance), margin_options<T>(lgm::reduction::mean));
        for (const auto& c : contexts) {
          guarded<T> out(sizes.samples, sizes.classes, p.shape.logits_stride);
          REQUIRE(logits(c, p, out.data(), margin) == status::success);
          CHECK(out.intact());
          check_logits(p, out, margin);
        }
      }
}

TEST_CASE_TEMPLATE("scores are right, all of them and each alone", T, float, double) {
  const auto contexts = device_contexts();
  for (const auto covariance : covariances)
    for (const auto& sizes : edge_sizes)
      for (const bool equal : {false, true}) {
        CAPTURE(name_of(covariance));
        CAPTURE(sizes.samples);
        CAPTURE(sizes.classes);
        auto p = make_problem<T>(52, strided_shape(sizes, covariance));
        if (equal) p.log_prior_given = p.log_variance_given = false;
        for (const auto& c : contexts) {
          score_outputs<T> all(p.shape);
          REQUIRE(score(c, p, all.result()) == status::success);
          all.check_intact();
          check_scores(p, all);
          for (unsigned bit = 0; bit < 6; ++bit) {
            CAPTURE(bit);
            score_outputs<T> one(p.shape);
            REQUIRE(score(c, p, one.result(1u << bit)) == status::success);
            unsigned at = 0;
            one.each(all, [&](const std::string&, const auto& mine, const auto& theirs) {
              if (at++ == bit)
                CHECK(mine.same_bits(theirs));
              else
                CHECK(mine.untouched());
            });
          }
        }
      }
}

TEST_CASE("groups of lanes give what one thread gives") {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    const auto p = make_problem<double>(53, strided_shape({5, 9, 6}, covariance));
    for (const std::size_t tile_bytes : {std::size_t{64} << 20, std::size_t{1}})
      for (const auto groups : {task_groups::emulated, task_groups::threads}) {
        auto c = device_context_of(groups, tile_bytes);
        score_outputs<double> out(p.shape);
        REQUIRE(score(c, p, out.result()) == status::success);
        check_scores(p, out);
        guarded<double> values(5, 9, p.shape.logits_stride);
        REQUIRE(logits(c, p, values.data()) == status::success);
        check_logits(p, values, true);
      }
  }
}
