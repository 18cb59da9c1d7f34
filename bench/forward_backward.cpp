// SPDX-License-Identifier: MIT
#include <lgm/lgm.hpp>

#include "support/subject.hpp"

namespace {

// Losses and all gradients of a step.
template <class Context, class T>
struct forward_backward {
  forward_backward(const Context& c, bench::problem<Context, T>& p)
      : context(c.context), problem(p), losses(3), workspace(c, p.shape) {
    result.total = losses.data();
    result.classification = losses.data() + 1;
    result.likelihood = losses.data() + 2;
  }
  lgm::status run() {
    return lgm::forward_backward(context, problem.shape, problem.mixture(), problem.options,
                                 problem.features.data(), problem.labels.data(), nullptr, result,
                                 problem.gradients(), workspace);
  }
  std::int64_t workspace_bytes() const { return workspace.bytes(); }
  static bench::cost cost_of(const lgm::shape& s) { return bench::step_cost(s); }

  decltype(Context::context) context;
  bench::problem<Context, T>& problem;
  typename Context::template array<T> losses;
  lgm::loss_result<T> result;
  bench::call_workspace<Context, T> workspace;
};

const bool added =
    bench::add<forward_backward>("forward_backward", {bench::fixed, bench::spherical, bench::diagonal}) &&
    bench::add_reduced<forward_backward>("forward_backward", {bench::fixed, bench::spherical}) &&
    bench::add_curves<forward_backward>("forward_backward", bench::fixed);

}  // namespace
