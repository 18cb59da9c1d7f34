// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/cases.hpp"
#include "support/tolerance.hpp"

// The device's losses and gradients, kernel by kernel on the host, against the reference.

namespace {

using lgm::status;
using namespace support;

// One tile; tiles that cut rows, classes or both; the smallest there are; tasks in another order.
std::vector<device_context> device_contexts() {
  return {device_context_of(task_groups::serial),
          device_context_of(task_groups::serial, std::size_t{1} << 14, true),
          device_context_of(task_groups::serial, std::size_t{1} << 15),
          device_context_of(task_groups::serial, 1)};
}

}  // namespace

TEST_CASE_TEMPLATE("losses and gradients agree with the reference at every edge", T, float, double) {
  const auto contexts = device_contexts();
  for_each_edge([&](lgm::covariance covariance, lgm::reduction reduction, const sizes3& sizes) {
    const auto p = make_problem<T>(41, strided_shape(sizes, covariance), margin_options<T>(reduction));
    const expectation<T> expected(p);
    for (const auto& c : contexts) {
      CAPTURE(c.tile_bytes);
      check_both_ways(c, p, expected);
    }
  });
}

TEST_CASE_TEMPLATE("every option is right with labels and with soft targets", T, float, double) {
  const auto contexts = device_contexts();
  for (const auto covariance : covariances)
    for (unsigned mask = 0; mask < 32; ++mask) {
      CAPTURE(name_of(covariance));
      CAPTURE(mask);
      const auto reduction = mask % 3 == 0   ? lgm::reduction::none
                             : mask % 3 == 1 ? lgm::reduction::sum
                                             : lgm::reduction::mean;
      auto p =
          make_problem<T>(42 + mask, strided_shape({11, 19, 7}, covariance), margin_options<T>(reduction));
      p.upstream_given = true;
      give(p, 7 + mask, extras_of(mask));
      const expectation<T> expected(p);
      for (const auto& c : contexts) {
        CAPTURE(c.tile_bytes);
        check_both_ways(c, p, expected);
      }
    }
}

TEST_CASE_TEMPLATE("gradients are right with few classes of many samples, and many of few", T, float,
                   double) {
  for (const auto& sizes :
       {sizes3{700, 3, 5}, sizes3{9, 900, 6}, sizes3{300, 40, 20}, sizes3{20, 100, 90}, sizes3{60, 9, 1000}})
    for (const auto covariance : covariances) {
      CAPTURE(name_of(covariance));
      CAPTURE(sizes.samples);
      const auto p =
          make_problem<T>(43, strided_shape(sizes, covariance), margin_options<T>(lgm::reduction::mean));
      const expectation<T> expected(p);
      auto c = device_context_of(task_groups::serial);
      check_both_ways(c, p, expected);
      auto small = device_context_of(task_groups::serial, std::size_t{1} << 17);
      check_both_ways(small, p, expected);
    }
}

// What lanes do with their own variables, and the barriers between their stores and loads.
TEST_CASE("groups of lanes give what one thread gives, in any order of lanes and tasks") {
  // Small enough for two launches, and not.
  for (const auto& sizes : {sizes3{7, 9, 5}, sizes3{3, 6, 1500}})
    for (const auto covariance : covariances)
      for (const bool soft : {false, true}) {
        CAPTURE(name_of(covariance));
        CAPTURE(sizes.dims);
        CAPTURE(soft);
        auto p = make_problem<double>(44, strided_shape(sizes, covariance),
                                      margin_options<double>(lgm::reduction::mean));
        give(p, 5, {true, true, false, 0.1, soft});
        const expectation<double> expected(p);
        for (const std::size_t tile_bytes : {std::size_t{64} << 20, std::size_t{1}})
          for (const auto groups : {task_groups::emulated, task_groups::threads}) {
            auto c = device_context_of(groups, tile_bytes),
                 reversed = device_context_of(groups, tile_bytes, true);
            reversed.order = lane_order::reverse;
            outputs<double> out(p), other(p);
            REQUIRE(forward_backward(c, p, out) == status::success);
            REQUIRE(forward_backward(reversed, p, other) == status::success);
            out.check_intact();
            expected.check_all(out);
            out.check_same_bits(other);
          }
      }
}

TEST_CASE("a small problem with labels takes two launches and no product") {
  for (const auto covariance : covariances)
    for (const auto& sizes : {sizes3{128, 10, 2}, sizes3{128, 10, 64}, sizes3{256, 100, 64}}) {
      CAPTURE(name_of(covariance));
      CAPTURE(sizes.classes);
      const auto p = make_problem<float>(50, strided_shape(sizes, covariance),
                                         margin_options<float>(lgm::reduction::mean));
      device_counts counts;
      auto c = device_context_of(task_groups::serial);
      c.counts = &counts;
      outputs<float> out(p);
      REQUIRE(forward_backward(c, p, out) == status::success);
      CHECK(counts.launches == 2);
      CHECK(counts.products == 0);
      check_all(p, out);
    }
}

TEST_CASE("workspace_size is enough for fewer samples too") {
  for (const auto covariance : covariances)
    for (const std::size_t tile_bytes : {std::size_t{1} << 16, std::size_t{1} << 20}) {
      CAPTURE(name_of(covariance));
      CAPTURE(tile_bytes);
      const auto c = device_context_of(task_groups::serial, tile_bytes);
      std::size_t fewer = 0;
      for (std::int64_t samples = 0; samples < 3000; samples += samples / 16 + 1) {
        CAPTURE(samples);
        const std::size_t bytes = lgm::workspace_size<double>(c, make_shape(samples, 50, 20, covariance));
        CHECK(bytes >= fewer);
        fewer = bytes;
      }
    }
}

TEST_CASE_TEMPLATE("gradients follow any gradient of the logits", T, float, double) {
  const auto contexts = device_contexts();
  for (const auto covariance : covariances)
    for (const bool labelled : {false, true})
      for (const auto reduction : reductions) {
        CAPTURE(name_of(covariance));
        CAPTURE(labelled);
        auto p = make_problem<T>(45, strided_shape({13, 21, 6}, covariance), margin_options<T>(reduction));
        p.upstream_given = true;
        give_grad_logits(p, 3);
        for (const auto& c : contexts) {
          outputs<T> out(p);
          REQUIRE(logits_backward(c, p, out.gradients(), labelled) == status::success);
          out.check_intact();
          check_logits_backward(p, out, labelled);
        }
      }
}

TEST_CASE_TEMPLATE("parameter gradients add up where asked to", T, float, double) {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    const auto p =
        make_problem<T>(46, strided_shape({12, 5, 9}, covariance), margin_options<T>(lgm::reduction::sum));
    for (const auto& context : device_contexts()) {
      outputs<T> once(p), twice(p);
      REQUIRE(forward_backward(context, p, once) == status::success);
      REQUIRE(forward_backward(context, p, twice) == status::success);
      auto gradient = twice.gradients();
      gradient.accumulate = true;
      REQUIRE(forward_backward(context, p, twice.result(), gradient) == status::success);
      once.each_gradient(twice, [&](const std::string& name, const auto& one, const auto& two) {
        CAPTURE(name);
        // Two tiles' sums are added one by one, and so in another order than their sum to itself.
        std::vector<T> doubled = one.packed();
        for (T& value : doubled) value *= name == "feature" ? T(1) : T(2);
        CHECK(steps_apart(two, doubled) <= (context.tile_bytes > 1 << 20 ? 0 : 12));
      });
    }
  }
}

TEST_CASE_TEMPLATE("a label that is no class costs its own sample alone", T, float, double) {
  for (const auto covariance : covariances)
    for (const std::int64_t bad :
         {std::int64_t{7}, std::int64_t{-1}, std::numeric_limits<std::int64_t>::max()}) {
      CAPTURE(name_of(covariance));
      CAPTURE(bad);
      auto p =
          make_problem<T>(47, strided_shape({6, 7, 5}, covariance), margin_options<T>(lgm::reduction::none));
      auto without = p;
      p.labels[2] = bad;
      without.labels[2] = without.options.ignore_label;
      for (const auto& context : device_contexts()) {
        outputs<T> got(p), ignored(p);
        REQUIRE(forward_backward(context, p, got) == status::success);
        REQUIRE(forward_backward(context, without, ignored) == status::success);
        CHECK(std::isnan(got.total[2]));
        CHECK(std::isnan(got.classification[2]));
        CHECK(std::isnan(got.likelihood[2]));
        got.total.data()[2] = got.classification.data()[2] = got.likelihood.data()[2] = T(0);
        got.check_same_bits(ignored);
      }
      p.options.reduction = lgm::reduction::mean;
      outputs<T> reduced(p);
      auto context = device_context_of(task_groups::serial);
      REQUIRE(forward_backward(context, p, reduced) == status::success);
      CHECK(std::isnan(reduced.total[0]));
      for (std::size_t n = 0; n < reduced.mean.size(); ++n) CHECK(std::isfinite(reduced.mean[n]));
    }
}

TEST_CASE("a bad alpha behind alpha_at gives losses that are no numbers and gradients of zero") {
  for (const double alpha :
       {-1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    auto p = make_problem<double>(48, strided_shape({6, 7, 5}, lgm::covariance::diagonal),
                                  margin_options<double>(lgm::reduction::mean));
    p.options.alpha_at = &alpha;
    auto c = device_context_of(task_groups::serial);
    outputs<double> out(p);
    REQUIRE(forward_backward(c, p, out) == status::success);
    CHECK(std::isnan(out.total[0]));
    out.each_gradient(out, [](const std::string& name, const auto& values, const auto&) {
      CAPTURE(name);
      for (std::size_t n = 0; n < values.size(); ++n) CHECK(values[n] == 0);
    });
  }
}

TEST_CASE("ignored rows are not read, and a feature that is not finite stays in its own sample") {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    auto p = make_problem<double>(49, strided_shape({6, 7, 5}, covariance),
                                  margin_options<double>(lgm::reduction::none));
    for (std::size_t i = 0; i < 6; ++i) p.labels[i] = static_cast<std::int64_t>(i);
    auto clean = p;
    p.labels[1] = clean.labels[1] = p.options.ignore_label;
    p.feature(1, 0) = std::numeric_limits<double>::quiet_NaN();
    p.feature(3, 2) = std::numeric_limits<double>::infinity();
    auto c = device_context_of(task_groups::serial);
    outputs<double> out(p), expected(clean);
    REQUIRE(forward_backward(c, p, out) == status::success);
    REQUIRE(forward_backward(c, clean, expected) == status::success);
    for (std::size_t i = 0; i < 6; ++i) {
      CAPTURE(i);
      if (i == 3)
        CHECK(std::isnan(out.total[i]));
      else
        CHECK(out.total[i] == expected.total[i]);
      for (std::size_t j = 0; j < 5 && i != 3; ++j)
        CHECK(out.feature[i * 5 + j] == expected.feature[i * 5 + j]);
    }
  }
}
