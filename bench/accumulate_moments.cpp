// SPDX-License-Identifier: MIT
#include <lgm/lgm.hpp>

#include "support/subject.hpp"

namespace {

// A batch into the moments of its classes, the scatter left out.
template <class Context, class T>
struct accumulate_moments {
  accumulate_moments(const Context& c, bench::problem<Context, T>& p)
      : context(c.context),
        problem(p),
        count(p.shape.classes),
        mean(p.mean.size()),
        residual(p.mean.size()),
        m2(p.mean.size()),
        workspace(c, p.shape) {
    const auto zeros = bench::zeros<T>(p.mean.size());
    for (array* moment : {&count, &mean, &residual, &m2})
      Context::copy(zeros.data(), moment->size(), moment->data());
    moments.count = count.data();
    moments.mean = mean.data();
    moments.mean_residual = residual.data();
    moments.m2 = m2.data();
  }
  lgm::status run() {
    return lgm::accumulate_moments(context, problem.shape, problem.options, problem.features.data(),
                                   problem.labels.data(), moments, workspace);
  }
  std::int64_t workspace_bytes() const { return workspace.bytes(); }
  // With many classes a batch has samples of some.
  static bench::cost cost_of(const lgm::shape& s) {
    const std::int64_t moments = std::min(s.samples, s.classes) * (3 * s.dims + 1);
    return {6 * static_cast<double>(s.samples * s.dims), bench::sample_count(s) + moments, moments, 0};
  }

  using array = typename Context::template array<T>;
  decltype(Context::context) context;
  bench::problem<Context, T>& problem;
  array count, mean, residual, m2;
  lgm::class_moments<T> moments;
  bench::call_workspace<Context, T> workspace;
};

const bool added = bench::add<accumulate_moments>("accumulate_moments", {bench::diagonal});

}  // namespace
