// SPDX-License-Identifier: MIT
#include "support/subject.hpp"

namespace {

// The loss and all gradients as published layers compute them: see support/naive_lgm.hpp.
template <class Context, class T>
struct naive {
  naive(const Context& c, bench::problem<Context, T>& p) : problem(p), head(c.context, p.shape) {}
  lgm::status run() {
    benchmark::DoNotOptimize(head.forward_backward(problem.mixture(), problem.options,
                                                   problem.features.data(), problem.labels.data(),
                                                   problem.gradients()));
    return lgm::status::success;
  }
  std::int64_t workspace_bytes() const { return head.bytes(); }
  static bench::cost cost_of(const lgm::shape& s) { return bench::step_cost(s); }

  bench::problem<Context, T>& problem;
  typename Context::template naive_lgm<T> head;
};

// Beyond this many products it takes seconds.
constexpr std::int64_t most = 1'000'000'000;
const bool added = bench::add<naive>("naive", {bench::fixed, bench::spherical, bench::diagonal}, most);

}  // namespace
