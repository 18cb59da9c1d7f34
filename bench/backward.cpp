// SPDX-License-Identifier: MIT
#include <lgm/lgm.hpp>

#include "support/subject.hpp"

namespace {

// All gradients from what forward left: it makes the logits once more.
template <class Context, class T>
struct backward {
  backward(const Context& c, bench::problem<Context, T>& p)
      : context(c.context), problem(p), row_state(2 * p.shape.samples), workspace(c, p.shape) {
    lgm::loss_result<T> result;
    result.row_state = row_state.data();
    prepared = lgm::forward(context, problem.shape, problem.mixture(), problem.options,
                            problem.features.data(), problem.labels.data(), result, workspace);
  }
  lgm::status run() {
    if (prepared != lgm::status::success) return prepared;
    return lgm::backward(context, problem.shape, problem.mixture(), problem.options, problem.features.data(),
                         problem.labels.data(), row_state.data(), nullptr, problem.gradients(), workspace);
  }
  std::int64_t workspace_bytes() const { return workspace.bytes(); }
  static bench::cost cost_of(const lgm::shape& s) {
    return {bench::product_operations(s, 3),
            bench::sample_count(s) + bench::parameter_count(s) + 2 * s.samples,
            s.samples * s.dims + bench::parameter_count(s), 3};
  }

  decltype(Context::context) context;
  bench::problem<Context, T>& problem;
  typename Context::template array<T> row_state;
  bench::call_workspace<Context, T> workspace;
  lgm::status prepared;
};

const bool added = bench::add<backward>("backward", {bench::fixed, bench::spherical, bench::diagonal});

}  // namespace
