// SPDX-License-Identifier: MIT
#include <lgm/lgm.hpp>

#include "support/subject.hpp"

namespace {

// Losses, and what backward needs.
template <class Context, class T>
struct forward {
  forward(const Context& c, bench::problem<Context, T>& p)
      : context(c.context), problem(p), losses(3), row_state(2 * p.shape.samples), workspace(c, p.shape) {
    result.total = losses.data();
    result.classification = losses.data() + 1;
    result.likelihood = losses.data() + 2;
    result.row_state = row_state.data();
  }
  lgm::status run() {
    return lgm::forward(context, problem.shape, problem.mixture(), problem.options, problem.features.data(),
                        problem.labels.data(), result, workspace);
  }
  std::int64_t workspace_bytes() const { return workspace.bytes(); }
  static bench::cost cost_of(const lgm::shape& s) {
    return {bench::product_operations(s, 1), bench::sample_count(s) + bench::parameter_count(s),
            2 * s.samples, 1};
  }

  decltype(Context::context) context;
  bench::problem<Context, T>& problem;
  typename Context::template array<T> losses, row_state;
  lgm::loss_result<T> result;
  bench::call_workspace<Context, T> workspace;
};

const bool added = bench::add<forward>("forward", {bench::fixed, bench::spherical, bench::diagonal});

}  // namespace
