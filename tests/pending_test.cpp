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
  T out[4] = {7, 7, 7, 7};
  const lgm::mixture<T> m{one};
  const lgm::loss_options<T> o;
  const lgm::soft_targets<T> targets{one};
  lgm::loss_result<T> result;
  result.total = out;
  lgm::gradients<T, T> gradient;
  gradient.feature = out + 1;
  const lgm::workspace w;
  CHECK(lgm::forward(ctx, s, m, o, one, targets, result, w) == lgm::status::not_supported);
  CHECK(lgm::backward(ctx, s, m, o, one, targets, one, nullptr, gradient, w) == lgm::status::not_supported);
  CHECK(lgm::forward_backward(ctx, s, m, o, one, targets, nullptr, result, gradient, w) ==
        lgm::status::not_supported);
  CHECK(lgm::logits_backward(ctx, s, m, o, one, label, one, nullptr, gradient, w) ==
        lgm::status::not_supported);
  CHECK(lgm::merge_row_state(ctx, s, one, out + 2) == lgm::status::not_supported);
  for (const T v : out) CHECK(v == T(7));
}
