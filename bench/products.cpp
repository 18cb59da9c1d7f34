// SPDX-License-Identifier: MIT
#include "support/subject.hpp"

namespace {

// The three products of a step and nothing else: as the library could make them, which is the floor of the other
// subjects ...
template <class Context, class T, class Products>
struct any_products {
  any_products(const Context& c, bench::problem<Context, T>& p)
      : problem(p), multiply(c.context, p.shape.samples, p.shape.classes, p.shape.dims) {}
  lgm::status run() {
    multiply.all(problem.features.data(), problem.mean.data(), problem.feature_gradient.data(),
                 problem.mean_gradient.data());
    return lgm::status::success;
  }
  std::int64_t workspace_bytes() const { return multiply.bytes(); }
  static bench::cost cost_of(const lgm::shape& s) {
    return {bench::product_operations(s, 3), s.samples * s.dims + s.classes * s.dims,
            s.samples * s.dims + s.classes * s.dims, 3};
  }

  bench::problem<Context, T>& problem;
  Products multiply;
};

template <class Context, class T>
using products = any_products<Context, T, typename Context::template products<T>>;
// ... and one call each.
template <class Context, class T>
using plain_products = any_products<Context, T, typename Context::template plain_products<T>>;

constexpr bench::variant tiled{"tiled", lgm::covariance::identity}, plain{"plain", lgm::covariance::identity};

const bool added =
    bench::add<products>("products", {tiled}) && bench::add<plain_products>("products", {plain}) &&
    bench::add_reduced<plain_products>("products", {plain}) && bench::add_curves<products>("products", tiled);

}  // namespace
