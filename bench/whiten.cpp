// SPDX-License-Identifier: MIT
#include <lgm/lgm.hpp>

#include "support/subject.hpp"

namespace {

// A batch through the map of a shared covariance. It is a product with a triangular matrix: half of the floor's operations.
// Sizes have as many classes as dimensions, which makes the floor's product that of [samples, dims] by [dims, dims].
template <class Context, class T>
struct whiten {
  whiten(const Context& c, bench::problem<Context, T>& p)
      : context(c.context), problem(p), workspace(c, p.shape) {
    map.matrix = p.mean.data();
    map.offset = p.mean.data();
  }
  lgm::status run() {
    return lgm::whiten(context, problem.shape, map, problem.features.data(), problem.feature_gradient.data(),
                       workspace);
  }
  std::int64_t workspace_bytes() const { return workspace.bytes(); }
  static bench::cost cost_of(const lgm::shape& s) {
    return {bench::product_operations(s, 1) / 2, s.samples * s.dims + s.dims * s.dims / 2, s.samples * s.dims,
            1};
  }

  decltype(Context::context) context;
  bench::problem<Context, T>& problem;
  lgm::whitening<T> map;
  bench::call_workspace<Context, T> workspace;
};

const bool added =
    bench::add_at<whiten>("whiten", bench::fixed, {{128, 64, 64}, {1024, 512, 512}, {4096, 2048, 2048}});

}  // namespace
