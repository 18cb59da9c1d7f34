// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "support/cases.hpp"
#include "support/tolerance.hpp"

// Few rows and so many classes that a row is split among groups, kernel by kernel on the host, against the reference.

namespace {

using lgm::status;
using namespace support;

// Rows of one tile, of tiles of some classes with a short one last, and in another order of tasks.
template <class T>
std::vector<device_context> split_contexts(const lgm::shape& s) {
  std::vector<device_context> contexts = {device_context_of(task_groups::serial),
                                          device_context_of(task_groups::serial, std::size_t{3} << 20, true)};
  for (const auto& c : contexts)
    for (const bool forward_only : {false, true}) {
      const auto plan = lgm::detail::device_plan::make<T>(s, {c.tile_bytes, c.precision},
                                                          lgm::detail::number_format::full, forward_only);
      REQUIRE(plan.class_parts > 1);
      REQUIRE(plan.whole_rows == (c.tile_bytes > std::size_t{3} << 20));
    }
  return contexts;
}

lgm::shape split_shape(lgm::covariance covariance) { return strided_shape({3, 70001, 2}, covariance); }

}  // namespace

TEST_CASE_TEMPLATE("losses and gradients of rows in parts are right", T, float, double) {
  std::size_t n = 0;
  for (const auto covariance : covariances)
    for (const bool soft : {false, true}) {
      if (n++ % every(3) != 0) continue;
      CAPTURE(name_of(covariance));
      CAPTURE(soft);
      auto p = make_problem<T>(91, split_shape(covariance), margin_options<T>(lgm::reduction::mean));
      p.upstream_given = true;
      give(p, 5, {true, true, false, 0.1, soft});
      if (!soft) {
        // In the first range, in the last of the first tile and beyond; one row does not count.
        p.labels = {0, 70000, p.options.ignore_label};
      }
      const expectation<T> expected(p);
      for (const auto& c : split_contexts<T>(p.shape)) {
        CAPTURE(c.tile_bytes);
        check_both_ways(c, p, expected);
      }
    }
}

TEST_CASE_TEMPLATE("logits, scores and gradients of any loss of rows in parts are right", T, float, double) {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    auto p = make_problem<T>(92, split_shape(covariance), margin_options<T>(lgm::reduction::sum));
    p.labels = {40000, p.options.ignore_label, 3};
    give_grad_logits(p, 6);
    for (const auto& c : split_contexts<T>(p.shape)) {
      CAPTURE(c.tile_bytes);
      guarded<T> out(3, 70001, p.shape.logits_stride);
      REQUIRE(logits(c, p, out.data(), true) == status::success);
      CHECK(out.intact());
      check_logits(p, out, true);
      score_outputs<T> scores(p.shape);
      REQUIRE(score(c, p, scores.result()) == status::success);
      scores.check_intact();
      check_scores(p, scores);
      outputs<T> device(p), host(p);
      REQUIRE(logits_backward(c, p, device.gradients()) == status::success);
      REQUIRE(logits_backward(context_of(1), p, host.gradients()) == status::success);
      device.each_gradient(host, [](const std::string& name, const auto& mine, const auto& theirs) {
        CAPTURE(name);
        double worst = 0, scale = 0;
        for (std::size_t n = 0; n < mine.size(); ++n) {
          scale = std::max(scale, std::fabs(static_cast<double>(theirs[n])));
          worst = std::max(worst, std::fabs(static_cast<double>(mine[n]) - static_cast<double>(theirs[n])));
        }
        CHECK(worst <= 2e5 * static_cast<double>(std::numeric_limits<T>::epsilon()) * scale / 100);
      });
    }
  }
}

// The same ranges of two tiles are merged first: of two classes that are alike, the second tile's is met before the first's.
TEST_CASE("ties go to the lowest class, in whatever range and tile it is") {
  const auto shape = split_shape(lgm::covariance::identity);
  const auto c = split_contexts<double>(shape).back();
  for (const bool forward_only : {false, true}) {
    const auto plan = lgm::detail::device_plan::make<double>(shape, {c.tile_bytes, c.precision},
                                                             lgm::detail::number_format::full, forward_only);
    const std::size_t low = size_of(plan.classes) - 100, high = size_of(plan.classes) + 100;
    REQUIRE(high < 70001);
    auto p = make_problem<double>(93, shape, margin_options<double>(lgm::reduction::mean));
    p.log_prior_given = false;
    for (const std::size_t k : {low, high})
      for (std::size_t j = 0; j < 2; ++j) p.mean[k * 2 + j] = p.feature(0, j);
    p.labels = {static_cast<std::int64_t>(low), p.options.ignore_label, p.options.ignore_label};
    for (const bool soft : {false, true}) {
      CAPTURE(soft);
      p.soft = soft;
      p.targets.assign(3 * 70001, 0.0);
      p.targets[low] = p.targets[high] = 0.5;
      outputs<double> out(p);
      REQUIRE(forward_backward(c, p, out) == status::success);
      CHECK(out.correct[0] == 1);
      check_all(p, out);
    }
    // The largest target alone is tied, then the largest logit alone: the other class of the two would answer otherwise.
    const auto correct = [&](double target_of_low, double distance_of_high) {
      auto q = p;
      q.targets[low] = target_of_low;
      q.mean[high * 2] += distance_of_high;
      outputs<double> out(q);
      REQUIRE(forward_backward(c, q, out) == status::success);
      return out.correct[0];
    };
    CHECK(correct(0.5, 1.0) == 1);
    CHECK(correct(0.0, 0.0) == 0);
    score_outputs<double> scores(p.shape);
    REQUIRE(score(c, p, scores.result()) == status::success);
    CHECK(scores.predicted[0] == static_cast<std::int64_t>(low));
    check_scores(p, scores);
  }
}

TEST_CASE("rows in parts are right under groups of lanes") {
  auto p = make_problem<double>(94, make_shape(2, 9001, 3, lgm::covariance::spherical),
                                margin_options<double>(lgm::reduction::none));
  const expectation<double> expected(p);
  for (const auto groups : {task_groups::emulated, task_groups::threads}) {
    const auto c = device_context_of(groups);
    check_both_ways(c, p, expected);
    score_outputs<double> scores(p.shape);
    REQUIRE(score(c, p, scores.result()) == status::success);
    check_scores(p, scores);
  }
}
