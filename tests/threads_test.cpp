// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "support/cases.hpp"
#include "support/problem.hpp"
#include "support/sharded.hpp"
#include "support/tolerance.hpp"

// Problems that are large enough for a step to be divided among threads: small ones, and small tiles, are not.

namespace {

using lgm::status;
using namespace support;

const lgm::host_context contexts[] = {context_of(3), context_of(2)};

// The sums by class over the rows of a tile are cut into parts, and so are the products.
template <class T>
void require_parts(const lgm::host_context& context, const lgm::shape& shape) {
  const auto plan = lgm::detail::host_plan::make<T>(shape, context.threads, context.tile_bytes);
  REQUIRE(plan.threads_for(plan.rows * (plan.classes + shape.dims) * 8) > 1);
  REQUIRE(plan.threads_for(plan.rows * plan.operand * shape.dims) > 1);
}

}  // namespace

TEST_CASE_TEMPLATE("weighted, smoothed and soft losses on several threads agree with the reference", T, float,
                   double) {
  for (const auto covariance : covariances)
    for (const unsigned mask : {no_extras, weights | smoothing, soft, soft | weights | smoothing}) {
      CAPTURE(name_of(covariance));
      CAPTURE(mask);
      auto p =
          make_problem<T>(701, make_shape(490, 61, 9, covariance), margin_options<T>(lgm::reduction::mean));
      give(p, mask, extras_of(mask));
      const expectation<T> expected(p);
      for (const auto& context : contexts) {
        require_parts<T>(context, p.shape);
        check_both_ways(context, p, expected);
        outputs<T> first(p), again(p);
        REQUIRE(forward_backward(context, p, first) == status::success);
        REQUIRE(forward_backward(context, p, again) == status::success);
        again.check_same_bits(first);
        check_assembled(expected,
                        run_sharded(context, p, {0, 30, 61}, merging::forwards, expected.out.counted));
      }
    }
}

TEST_CASE_TEMPLATE("slopes of the logits on several threads agree with the reference", T, float, double) {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    auto p =
        make_problem<T>(702, make_shape(490, 61, 9, covariance), margin_options<T>(lgm::reduction::mean));
    give(p, 702, {true, true});
    give_grad_logits(p, 702);
    for (const auto& context : contexts) {
      outputs<T> out(p), again(p);
      REQUIRE(logits_backward(context, p, out.gradients()) == status::success);
      out.check_intact();
      check_logits_backward(p, out);
      REQUIRE(logits_backward(context, p, again.gradients()) == status::success);
      again.check_same_bits(out);
    }
  }
}

TEST_CASE_TEMPLATE("after fork one thread does", T, float, double) {
  const auto p = make_problem<T>(703, make_shape(490, 61, 9, lgm::covariance::diagonal),
                                 margin_options<T>(lgm::reduction::mean));
  outputs<T> before(p), after(p);
  REQUIRE(forward_backward(contexts[0], p, before) == status::success);  // which starts OpenMP's threads
  REQUIRE(forward_backward(context_of(1), p, after) == status::success);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    alarm(60);
    outputs<T> found(p);
    const bool done = forward_backward(context_of(1), p, found) == status::success;
    const std::size_t bytes = p.samples() * p.dims() * sizeof(T);
    _exit(done && std::memcmp(found.feature.data(), after.feature.data(), bytes) == 0 ? 0 : 1);
  }
  int ended = -1;
  REQUIRE(waitpid(child, &ended, 0) == child);
  CHECK(ended == 0);
}
