// SPDX-License-Identifier: MIT
#include "support/subject.hpp"

namespace {

// A linear layer, softmax and cross entropy, with all gradients: see support/softmax_head.hpp.
template <class Context, class T>
struct softmax {
  softmax(const Context& c, bench::problem<Context, T>& p)
      : problem(p), head(c.context, p.shape.samples, p.shape.classes, p.shape.dims) {}
  lgm::status run() {
    benchmark::DoNotOptimize(head.forward_backward(
        problem.features.data(), problem.labels.data(), problem.mean.data(), problem.log_prior.data(),
        problem.feature_gradient.data(), problem.mean_gradient.data(), problem.log_prior_gradient.data()));
    return lgm::status::success;
  }
  std::int64_t workspace_bytes() const { return head.bytes(); }
  static bench::cost cost_of(const lgm::shape& s) { return bench::step_cost(s); }

  bench::problem<Context, T>& problem;
  typename Context::template softmax_head<T> head;
};

constexpr bench::variant linear{"linear", lgm::covariance::identity};

const bool added = bench::add<softmax>("softmax", {linear}) && bench::add_curves<softmax>("softmax", linear);

}  // namespace
