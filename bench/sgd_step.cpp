// SPDX-License-Identifier: MIT
#include <lgm/lgm.hpp>

#include "support/subject.hpp"

namespace {

// A step with momentum on all parameters, whose gradients are zero: it leaves the problem as it is.
template <class Context, class T>
struct sgd_step {
  sgd_step(const Context& c, bench::problem<Context, T>& p)
      : context(c.context), problem(p), velocity(bench::parameter_count(p.shape)), zero(velocity.size()) {
    const auto zeros = bench::zeros<T>(velocity.size());
    Context::copy(zeros.data(), zeros.size(), velocity.data());
    Context::copy(zeros.data(), zeros.size(), zero.data());
    options.mean_rate = options.log_variance_rate = options.log_prior_rate = T(0.01);
    options.momentum = T(0.9);
  }
  lgm::status run() {
    const lgm::parameters<T> gradients = parts(zero);
    return lgm::sgd_step(context, problem.shape, options,
                         {nullptr, gradients.mean, gradients.log_variance, gradients.log_prior},
                         parts(velocity),
                         {problem.mean.data(), problem.log_variance.data(), problem.log_prior.data()});
  }
  std::int64_t workspace_bytes() const { return 0; }
  static bench::cost cost_of(const lgm::shape& s) {
    const std::int64_t each = bench::parameter_count(s);
    return {4 * static_cast<double>(each), 3 * each, 2 * each, 0};
  }

  using array = typename Context::template array<T>;
  lgm::parameters<T> parts(array& all) const {
    const std::int64_t means = problem.mean.size(), variances = problem.log_variance.size();
    return {all.data(), all.data() + means, all.data() + means + variances};
  }

  decltype(Context::context) context;
  bench::problem<Context, T>& problem;
  array velocity, zero;
  lgm::sgd_options<T> options;
};

const bool added = bench::add<sgd_step>("sgd_step", {bench::fixed, bench::spherical, bench::diagonal});

}  // namespace
