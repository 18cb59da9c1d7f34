// SPDX-License-Identifier: MIT
#include <lgm/lgm.hpp>

#include "support/subject.hpp"

namespace {

// Logits of every sample and class, without a margin.
template <class Context, class T>
struct logits {
  logits(const Context& c, bench::problem<Context, T>& p)
      : context(c.context), problem(p), out(p.shape.samples * p.shape.classes), workspace(c, p.shape) {}
  lgm::status run() {
    return lgm::logits(context, problem.shape, problem.mixture(), problem.features.data(), out.data(),
                       workspace);
  }
  std::int64_t workspace_bytes() const { return workspace.bytes(); }
  static bench::cost cost_of(const lgm::shape& s) {
    return {bench::product_operations(s, 1), s.samples * s.dims + bench::parameter_count(s),
            s.samples * s.classes, 1};
  }

  decltype(Context::context) context;
  bench::problem<Context, T>& problem;
  typename Context::template array<T> out;
  bench::call_workspace<Context, T> workspace;
};

const bool added = bench::add<logits>("logits", {bench::fixed, bench::spherical, bench::diagonal});

}  // namespace
