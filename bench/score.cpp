// SPDX-License-Identifier: MIT
#include <lgm/lgm.hpp>

#include "support/subject.hpp"

namespace {

// Everything that score says of a sample.
template <class Context, class T>
struct score {
  score(const Context& c, bench::problem<Context, T>& p)
      : context(c.context),
        problem(p),
        predicted(p.shape.samples),
        scores((lgm::count_scores() - 1) * p.shape.samples),
        workspace(c, p.shape) {
    T* next = scores.data();
    lgm::for_each_score(result, [&](const char*, auto*& array) {
      if constexpr (std::is_same<decltype(array), T*&>::value) {
        array = next;
        next += p.shape.samples;
      } else {
        array = predicted.data();
      }
    });
  }
  lgm::status run() {
    return lgm::score(context, problem.shape, problem.mixture(), problem.features.data(), result, workspace);
  }
  std::int64_t workspace_bytes() const { return workspace.bytes(); }
  static bench::cost cost_of(const lgm::shape& s) {
    return {bench::product_operations(s, 1), s.samples * s.dims + bench::parameter_count(s),
            lgm::count_scores() * s.samples, 1};
  }

  decltype(Context::context) context;
  bench::problem<Context, T>& problem;
  typename Context::template array<std::int64_t> predicted;
  typename Context::template array<T> scores;
  lgm::score_result<T> result;
  bench::call_workspace<Context, T> workspace;
};

// A data set in one call, too: 2 GiB of features.
const bool added = bench::add<score>("score", {bench::fixed, bench::spherical, bench::diagonal}) &&
                   bench::add_reduced<score>("score", {bench::fixed, bench::spherical}) &&
                   bench::add_at<score>("score", bench::fixed, {{std::int64_t(1) << 20, 1000, 512}});

}  // namespace
