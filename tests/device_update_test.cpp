// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cstdint>
#include <lgm/device.hpp>
#include <lgm/schedule.hpp>
#include <vector>

#include "support/context.hpp"
#include "support/problem.hpp"

// What update_test asks of any driver, it asks of the device's too (lgm_suites); here is what only a device has.

using namespace support;

TEST_CASE("a step, new means, merged states and a scheduled margin are one launch each") {
  device_counts counts;
  auto c = device_context_of(task_groups::emulated);
  c.counts = &counts;
  // Arrays of more than one block.
  const lgm::shape shape = make_shape(700, 40, 60, lgm::covariance::diagonal);
  std::vector<float> mean(2400, 1), log_variance(2400, 1), log_prior(40, 1), gradient(2400, 0.5f);
  lgm::parameters<float> p{mean.data(), log_variance.data(), log_prior.data()};
  lgm::gradients<float, float> g;
  g.mean = g.log_variance = g.log_prior = gradient.data();
  lgm::sgd_options<float> options;
  options.mean_rate = 1;
  options.log_variance_rate = 2;
  options.log_prior_rate = 0;
  const float quarter = 0.25f;
  options.inverse_loss_scale_at = &quarter;
  REQUIRE(lgm::sgd_step(c, shape, options, g, lgm::parameters<float>{}, p) == lgm::status::success);
  CHECK(counts.launches == 1);
  for (std::size_t n = 0; n < 2400; ++n) {
    CHECK(mean[n] == 0.875f);
    CHECK(log_variance[n] == 0.75f);
  }
  for (const float v : log_prior) CHECK(v == 1);

  REQUIRE(lgm::initialize_means(c, shape, 3, 0.5f, p) == lgm::status::success);
  CHECK(counts.launches == 2);
  std::vector<float> host(2400);
  lgm::parameters<float> on_host;
  on_host.mean = host.data();
  REQUIRE(lgm::initialize_means(lgm::host_context{}, shape, 3, 0.5f, on_host) == lgm::status::success);
  CHECK(mean == host);
  for (const float v : log_variance) CHECK(v == 0);
  // A shard has the whole's numbers.
  lgm::shape shard = shape;
  shard.classes = 30;
  shard.class_begin = 10;
  shard.total_classes = 40;
  lgm::parameters<float> of_shard;
  of_shard.mean = mean.data();
  REQUIRE(lgm::initialize_means(device_context_of(task_groups::serial), shard, 3, 0.5f, of_shard) ==
          lgm::status::success);
  for (std::size_t n = 0; n < 1800; ++n) CHECK(mean[n] == host[n + 600]);

  std::vector<float> from(1400, 1), into(1400, 2);
  REQUIRE(lgm::merge_row_state(c, shape, from.data(), into.data()) == lgm::status::success);
  CHECK(counts.launches == 3);
  for (std::size_t n = 0; n < 1400; ++n) CHECK(into[n] == (n % 2 ? lgm::merged_log_sum(2.0f, 1.0f) : 3.0f));

  lgm::stepped_schedule<float> schedule;
  schedule.policy = lgm::schedule_policy::add_up;
  schedule.value = 0.125f;
  schedule.gamma = 0.25f;
  schedule.step = 10;
  const std::int64_t iteration = 25;
  float alpha = -1;
  REQUIRE(lgm::scheduled_alpha(c, schedule, &iteration, &alpha) == lgm::status::success);
  CHECK(counts.launches == 4);
  CHECK(alpha == 0.625f);
}

TEST_CASE("a schedule's pointers and step are checked") {
  const auto c = device_context_of(task_groups::serial);
  lgm::stepped_schedule<double> schedule;
  const std::int64_t iteration = 0;
  double alpha = -1;
  CHECK(lgm::scheduled_alpha(c, schedule, nullptr, &alpha) == lgm::status::null_pointer);
  CHECK(lgm::scheduled_alpha(c, schedule, &iteration, nullptr) == lgm::status::null_pointer);
  schedule.step = 0;
  CHECK(lgm::scheduled_alpha(c, schedule, &iteration, &alpha) == lgm::status::invalid_option);
  CHECK(alpha == -1);
}
