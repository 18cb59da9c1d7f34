// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <lgm/column.hpp>
#include <lgm/detail/host/packet_group.hpp>
#include <lgm/detail/row_record.hpp>
#include <lgm/row.hpp>
#include <vector>

#include "support/problem.hpp"

// The row algorithms as a kernel of one's own would call them: one sample, a range of classes, any group.

namespace {

using namespace support;
using real = reference::real;

// One sample against `classes` classes, as the library's products would leave it: a row of x'.mu'_k /
// Lambda_k.
template <class T>
struct one_row {
  problem<T> p;
  reference::output exact;
  std::vector<T> offset, centred, bias, constant, scale, norm, half_log_det, products;
  T half_norm = 0;
  lgm::class_constants<T> constants{};

  template <class Group>
  one_row(const Group& group, std::uint64_t seed, std::int64_t classes, std::int64_t dims,
          lgm::covariance covariance, const recipe& how = {})
      : p(make_problem<T>(seed, make_shape(1, classes, dims, covariance), options(),
                          recipe_without_ignored(how))),
        exact(reference::evaluate(to_reference(p))) {
    offset.assign(size_of(dims), T(how.offset));
    centred.resize(size_of(dims));
    half_norm = lgm::centre_row(group, dims, p.features.data(), offset.data(), centred.data());
    for (std::int64_t k = 0; k < classes; ++k) {
      const auto c = parameters_of(k);
      const T inverse =
          covariance == lgm::covariance::spherical ? lgm::inverse_variance(*c.log_variance) : T(1);
      std::vector<T> operand(size_of(dims));
      norm.push_back(lgm::centre_class(group, dims, c, offset.data(), inverse, operand.data()));
      half_log_det.push_back(lgm::half_log_det(group, dims, c));
      bias.push_back(p.log_prior[size_of(k)] - half_log_det.back());
      constant.push_back(bias.back() - T(0.5) * norm.back());
      scale.push_back(inverse);
      T product = 0;
      for (std::size_t j = 0; j < size_of(dims); ++j) product += centred[j] * operand[j];
      products.push_back(product);
    }
    const bool spherical = covariance == lgm::covariance::spherical;
    constants = {bias.data(), constant.data(),     spherical ? scale.data() : nullptr,
                 norm.data(), half_log_det.data(), T(1),
                 T(0)};
    for (std::size_t k = 0; k < size_of(classes); ++k) {
      if (spherical) constants.max_scale = std::max(constants.max_scale, scale[k]);
      constants.max_norm = std::max(constants.max_norm, norm[k]);
    }
  }

  static lgm::loss_options<T> options() {
    lgm::loss_options<T> o;
    o.alpha = T(0.25);
    o.lambda = T(0.5);
    o.reduction = lgm::reduction::sum;
    return o;
  }
  static recipe recipe_without_ignored(recipe how) {
    how.ignored = 0;
    return how;
  }
  lgm::class_parameters<T> parameters_of(std::int64_t k) const {
    return {p.shape, {p.mean.data(), p.log_variance.data(), p.log_prior.data()}, k};
  }
  std::int64_t target() const { return p.labels[0]; }
  // One that leaves nothing out.
  lgm::row_frame<T> frame() const { return {half_norm, T(constants.scale == nullptr ? 1 : 0)}; }
  template <class Group>
  auto direct(const Group& group) const {
    return [this, &group](std::int64_t k) {
      return T(0.5) * lgm::squared_distance(group, p.shape.dims, p.features.data(), parameters_of(k));
    };
  }
  // The constants of the classes from `begin` on.
  lgm::class_constants<T> from(std::int64_t begin) const {
    lgm::class_constants<T> c = constants;
    c.bias += begin;
    c.half_log_det += begin;
    c.offset += begin;
    c.norm += begin;
    if (c.scale != nullptr) c.scale += begin;
    return c;
  }
};

template <class T>
real tolerance(const one_row<T>& row) {
  real size = 10;
  for (const real l : row.exact.logit) size = std::max(size, std::fabs(l));
  return size * 64 * static_cast<real>(std::numeric_limits<T>::epsilon());
}

template <class T, class Group>
void check_row(const Group& group) {
  std::uint64_t seed = 1;
  for (const lgm::covariance covariance : {lgm::covariance::identity, lgm::covariance::spherical}) {
    for (const std::int64_t classes : {1, 2, 7, 8, 9, 16, 17, 50}) {
      for (const std::int64_t dims : {1, 5, 16, 33}) {
        CAPTURE(classes);
        CAPTURE(dims);
        const one_row<T> row(group, ++seed, classes, dims, covariance);
        const std::int64_t z = row.target();
        const real near = tolerance(row);
        const auto& o = row.p.options;

        const auto target = lgm::target_of(group, dims, row.p.features.data(), row.parameters_of(z),
                                           row.p.log_prior[size_of(z)], o.alpha);
        CHECK(std::fabs(static_cast<real>(target.logit) - row.exact.target_logit[0]) < near);
        CHECK(std::fabs(static_cast<real>(target.distance) - row.exact.distance[size_of(z)]) < near);

        // The whole row, and the row in two ranges that merge, in either order.
        for (const std::int64_t cut : {std::int64_t(0), classes / 2}) {
          for (const bool reversed : {false, true}) {
            std::vector<T> values = row.products;
            std::vector<lgm::row_evidence<T>> parts;
            std::vector<T> class_sum(size_of(classes), T(0)), class_distance(size_of(classes), T(0));
            const auto range = [&](std::int64_t begin, std::int64_t count) {
              auto held = group.load_row(values.data() + begin, count);
              const T top = lgm::finish_logits(group, held, row.from(begin), row.frame(), z - begin,
                                               -lgm::numeric<T>::infinity,
                                               [&](std::int64_t k) { return row.direct(group)(begin + k); });
              parts.push_back(lgm::evidence_of(group, held, top, begin, true));
            };
            if (reversed) range(cut, classes - cut);
            range(0, cut);
            if (!reversed) range(cut, classes - cut);
            lgm::row_evidence<T> all;
            for (const auto& part : parts) all.merge(part);

            for (std::size_t k = 0; k < size_of(classes); ++k) {
              if (k != size_of(z)) CHECK(std::fabs(static_cast<real>(values[k]) - row.exact.logit[k]) < near);
            }
            CHECK(values[size_of(z)] == -lgm::numeric<T>::infinity);
            if (classes > 1) {
              CHECK(std::fabs(static_cast<real>(all.others.value()) - row.exact.rest[0]) < near);
              std::int64_t best = -1;
              for (std::int64_t k = 0; k < classes; ++k)
                if (k != z && (best < 0 || values[size_of(k)] > values[size_of(best)])) best = k;
              CHECK(all.best == best);
            } else {
              CHECK(all.best == -1);
              CHECK(all.others.value() == -lgm::numeric<T>::infinity);
            }

            const lgm::log_evidence<T> evidence(target.logit, all.others);
            T sum = 0;
            const auto weigh = [&](std::int64_t begin, std::int64_t count) {
              auto held = group.load_row(values.data() + begin, count);
              const lgm::weight_sums<T> part = lgm::finish_weights(
                  group, held, row.from(begin), row.frame(), evidence, T(-1), T(0), nullptr, z - begin,
                  {class_sum.data() + begin, class_distance.data() + begin});
              // base_scale is 0 where classes have scales.
              sum += covariance == lgm::covariance::spherical ? part.beyond : part.weight;
            };
            weigh(0, cut);
            weigh(cut, classes - cut);
            real exact_sum = 0;
            for (std::size_t k = 0; k < size_of(classes); ++k) {
              const real weight = k == size_of(z) ? 0 : row.exact.weight[k];
              exact_sum += weight * static_cast<real>(row.scale[k]);
              CHECK(std::fabs(static_cast<real>(values[k]) - weight) <
                    near * std::max(std::fabs(weight), real(1e-20)));
              CHECK(class_sum[k] == values[k]);
              CHECK(std::fabs(static_cast<real>(class_distance[k]) - weight * row.exact.distance[k]) <
                    near * (1 + row.exact.distance[k]) * std::max(std::fabs(weight), real(1e-20)));
            }
            CHECK(std::fabs(static_cast<real>(sum) - exact_sum) <=
                  near * std::max(std::fabs(exact_sum), real(1e-20)));
          }
        }

        // eq:grad_feature put together from the row's parts.
        std::vector<T> gradient(size_of(dims), T(0)), begun(size_of(dims), T(1));
        T weight_sum = 0;
        for (std::size_t k = 0; k < size_of(classes); ++k) {
          if (k == size_of(z)) continue;
          const T w = static_cast<T>(row.exact.weight[k]) * row.scale[k];
          weight_sum += w;
          for (std::size_t j = 0; j < size_of(dims); ++j)
            gradient[j] -= w * (row.p.mean[k * size_of(dims) + j] - row.offset[j]);
        }
        lgm::feature_terms<T> terms;
        terms.sample = weight_sum;
        terms.difference = static_cast<T>(row.exact.weight[size_of(z)]) * row.scale[size_of(z)];
        lgm::init_feature_gradient(group, dims, row.p.features.data(), row.centred.data(), terms,
                                   row.parameters_of(z), row.offset.data(), false, begun.data());
        for (std::size_t j = 0; j < size_of(dims); ++j)
          CHECK(std::fabs(static_cast<real>(begun[j] + gradient[j]) - row.exact.feature[j]) < near * 4);

        // The nearest class.
        std::vector<T> values = row.products, distances(size_of(classes));
        const auto held = group.load_row(values.data(), classes);
        const auto nearest = lgm::nearest_of(group, held, row.constants, row.frame(), 100, row.direct(group),
                                             distances.data());
        CHECK(values == row.products);
        std::size_t closest = 0;
        for (std::size_t k = 0; k < size_of(classes); ++k)
          if (row.exact.distance[k] < row.exact.distance[closest]) closest = k;
        CHECK(nearest.index == 100 + static_cast<std::int64_t>(closest));
        CHECK(std::fabs(static_cast<real>(nearest.distance) - row.exact.distance[closest]) < near);
      }
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("one row is right under one thread", T, float, double) {
  check_row<T>(lgm::serial_group{});
}

TEST_CASE_TEMPLATE("one row is right under the lanes of a register", T, float, double) {
  check_row<T>(lgm::detail::packet_group<T>{});
}

TEST_CASE_TEMPLATE("of equally good classes the lowest is the best, whatever the order of merging", T, float,
                   double) {
  const auto evidence = [](std::int64_t best, T logit) {
    lgm::row_evidence<T> e;
    e.others = {logit, T(1)};
    e.best = best;
    return e;
  };
  const lgm::row_evidence<T> parts[] = {evidence(7, T(2)), evidence(3, T(2)), evidence(5, T(2)),
                                        evidence(1, T(1)), lgm::row_evidence<T>{}};
  std::size_t order[] = {0, 1, 2, 3, 4};
  do {
    lgm::row_evidence<T> all;
    for (const std::size_t n : order) all.merge(parts[n]);
    CHECK(all.best == 3);
    CHECK(all.others.max == T(2));
  } while (std::next_permutation(std::begin(order), std::end(order)));
}

namespace {

// Distances that rounding has put in the wrong order: all that may be the least are computed again.
template <class T, class Group>
void check_nearest_again(const Group& group) {
  const std::int64_t n = 21, least = 4, nearest = 18, far = 11;
  const auto slot = [](std::int64_t k) { return size_of(k); };
  // Of 2 |mu'_k|^2 / Lambda_k = 4096 a distance of 8.5 keeps steps of 2^-13 in float.
  const T step = T(4096) * lgm::numeric<T>::epsilon;
  std::vector<T> zero(size_of(n), T(0)), norm(size_of(n), T(4096)), products(size_of(n), T(2000));
  std::vector<T> distances(size_of(n)), direct(size_of(n), T(48));
  products[slot(least)] = T(2040);
  products[slot(nearest)] = T(2040) - step;
  products[slot(far)] = T(2039);
  direct[slot(least)] = T(8.75);
  direct[slot(nearest)] = T(8.25);
  direct[slot(far)] = T(1);  // nobody asks: the product is not that far off
  const lgm::class_constants<T> c{zero.data(), zero.data(), nullptr, norm.data(), zero.data(), T(1), T(4096)};
  const auto held = group.load_row(products.data(), n);
  const auto found = lgm::nearest_of(
      group, held, c, lgm::row_frame<T>(T(0.5), T(1)), 100, [&](std::int64_t k) { return direct[slot(k)]; },
      distances.data());
  CHECK(found.index == 100 + nearest);
  CHECK(found.distance == T(8.25));
}

}  // namespace

TEST_CASE_TEMPLATE("of classes as near as rounding can tell, the nearest by the differences", T, float,
                   double) {
  check_nearest_again<T>(lgm::serial_group{});
  check_nearest_again<T>(lgm::detail::packet_group<T>{});
}

TEST_CASE_TEMPLATE("a range of the target alone has no logit, however far its class is", T, float, double) {
  T zero = 0, norm = 4096, product = 2000;
  const lgm::class_constants<T> c{&zero, &zero, nullptr, &norm, &zero, T(1), norm};
  const lgm::serial_group group;
  auto held = group.load_row(&product, std::int64_t(1));
  const T none = -lgm::numeric<T>::infinity;
  CHECK(lgm::finish_logits(group, held, c, lgm::row_frame<T>(T(0.5), T(1)), 0, none,
                           [](std::int64_t) { return T(1); }) == none);
  CHECK(product == none);
}

TEST_CASE("logits near the largest are computed again where the product cancels") {
  // Means 100 apart in each of 256 dimensions: d_k from the product alone is off by whole units.
  recipe far;
  far.spread = 100;
  const lgm::detail::packet_group<float> group;
  one_row<float> row(group, 3, 6, 256, lgm::covariance::identity, far);
  const std::int64_t z = row.target(), twin = (z + 1) % 6;
  // A competitor a tenth of a standard deviation from the target's mean.
  std::vector<float> mean = row.p.mean;
  for (std::size_t j = 0; j < 256; ++j)
    row.p.mean[size_of(twin) * 256 + j] = mean[size_of(z) * 256 + j] + 0.1f;
  row.exact = reference::evaluate(to_reference(row.p));
  std::vector<float> operand(256);
  row.norm[size_of(twin)] =
      lgm::centre_class(group, 256, row.parameters_of(twin), row.offset.data(), 1.0f, operand.data());
  row.constant[size_of(twin)] = row.bias[size_of(twin)] - 0.5f * row.norm[size_of(twin)];
  float product = 0;
  for (std::size_t j = 0; j < 256; ++j) product += row.centred[j] * operand[j];
  row.products[size_of(twin)] = product;

  const float expanded = product + row.constant[size_of(twin)] - row.half_norm;
  const real exact = row.exact.logit[size_of(twin)];
  CHECK(std::fabs(static_cast<real>(expanded) - exact) > 0.01L);

  std::vector<float> values = row.products;
  auto held = group.load_row(values.data(), std::int64_t(6));
  int computed = 0;
  const auto direct = [&](std::int64_t k) {
    ++computed;
    return row.direct(group)(k);
  };
  const float top = lgm::finish_logits(group, held, row.constants, row.frame(), z, -1000.0f, direct);
  CHECK(std::fabs(static_cast<real>(values[size_of(twin)]) - exact) < 2e-4L);
  CHECK(top == values[size_of(twin)]);
  CHECK(computed == 1);  // the others are far away, and left as they are
}

TEST_CASE("evidence of two ranges adds up where only one of them has a near class") {
  constexpr double shared = 50, near = -3, far = -45;  // H, and the ranges' only logits
  const auto evidence = [&](double logit, double omitted) {
    lgm::row_evidence<double> e;
    e.others.max = logit + omitted;
    e.others.sum = 1;
    return e;
  };
  for (const bool first_is_near : {false, true})
    for (const bool second_is_near : {false, true}) {
      CAPTURE(first_is_near);
      CAPTURE(second_is_near);
      lgm::detail::row_record<double> r;
      r.frame = lgm::row_frame<double>(shared, 1.0);
      first_is_near ? r.frame.omit_nothing() : r.frame.omit_shared();
      const double first = first_is_near ? near : far, second = second_is_near ? near : far;
      r.evidence = evidence(first, r.frame.omitted);
      const double omitted = second_is_near ? 0 : shared;
      r.add(evidence(second, omitted), omitted, false);
      CHECK(r.frame.omitted == (first_is_near || second_is_near ? 0 : shared));
      CHECK(r.frame.complete(r.evidence.others.value()) ==
            doctest::Approx(std::log(std::exp(first) + std::exp(second))).epsilon(1e-12));
    }
}
