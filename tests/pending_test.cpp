// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cstdint>
#include <lgm/lgm.hpp>

// Functions that are declared but not computed yet answer so, with arguments that are otherwise good, and write nothing.

TEST_CASE_TEMPLATE("declared functions answer not_supported", T, float, double) {
  const lgm::host_context ctx;
  const lgm::shape s{1, 1, 1};
  const T one[2] = {1, 1};
  const std::int64_t label[1] = {0};
  T out[8] = {7, 7, 7, 7, 7, 7, 7, 7};
  const lgm::loss_options<T> o;
  const lgm::class_moments<T> moments{out + 2, out + 3, out + 4};
  const lgm::parameters<T> parameters{out + 5};
  const lgm::workspace w;
  CHECK(lgm::accumulate_moments(ctx, s, o, one, label, moments, w) == lgm::status::not_supported);
  CHECK(lgm::merge_moments(ctx, s, moments, moments) == lgm::status::not_supported);
  CHECK(lgm::estimate(ctx, s, moments, lgm::estimate_options<T>{}, parameters) == lgm::status::not_supported);
  for (const T v : out) CHECK(v == T(7));
}
