// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <lgm/column.hpp>
#include <lgm/detail/host/packet_group.hpp>
#include <vector>

#include "support/problem.hpp"

// The column algorithms: the gradients of one class put together from sums over its samples.

namespace {

using namespace support;
using real = reference::real;

template <class T, class Group>
void check_columns(const Group& group) {
  std::uint64_t seed = 40;
  for (const lgm::covariance covariance :
       {lgm::covariance::identity, lgm::covariance::spherical, lgm::covariance::diagonal}) {
    for (const std::int64_t dims : {1, 3, 16, 17, 70}) {
      CAPTURE(dims);
      lgm::loss_options<T> options;
      options.alpha = T(0.5);
      options.lambda = T(0.25);
      options.reduction = lgm::reduction::sum;
      recipe how;
      how.ignored = 0;
      const problem<T> p = make_problem<T>(++seed, make_shape(20, 3, dims, covariance), options, how);
      const reference::input in = to_reference(p);
      const reference::output exact = reference::evaluate(in);
      const real epsilon = static_cast<real>(std::numeric_limits<T>::epsilon());
      const std::vector<T> offset(size_of(dims), T(0.125));
      const bool diagonal = covariance == lgm::covariance::diagonal;
      for (std::int64_t k = 0; k < 3; ++k) {
        const lgm::class_parameters<T> c(p.shape, {p.mean.data(), p.log_variance.data(), nullptr}, k);
        std::vector<T> difference(size_of(dims), T(0)), square(size_of(dims), T(0));
        lgm::class_sums<T> sums{difference.data(), diagonal ? square.data() : nullptr};
        T weight_sum = 0;
        real size = 0;
        for (std::size_t i = 0; i < 20; ++i) {
          const T w = static_cast<T>(exact.weight[i * 3 + size_of(k)] * exact.factor[i]);
          size += std::fabs(static_cast<real>(w)) * 100;
          if (p.labels[i] == k) continue;
          weight_sum += w;
          sums.distance += w * static_cast<T>(exact.distance[i * 3 + size_of(k)]);
          for (std::size_t j = 0; j < size_of(dims); ++j) {
            const T t = p.feature(i, j) - p.mean[size_of(k) * size_of(dims) + j];
            difference[j] += w * (p.feature(i, j) - offset[j]);
            square[j] += w * t * t;
          }
        }
        std::vector<T> begun(size_of(dims));
        lgm::begin_class_sum(group, dims, c.mean, offset.data(), weight_sum, begun.data());
        for (std::size_t j = 0; j < size_of(dims); ++j) difference[j] += begun[j];
        sums.variance_weight = weight_sum;
        sums.probability = -weight_sum;
        for (std::size_t i = 0; i < 20; ++i) {
          if (p.labels[i] != k) continue;
          const real miss = -exact.posterior_slope[i * 3 + size_of(k)], factor = exact.factor[i];
          lgm::add_target(group, dims, &p.features[i * size_of(dims)], c.mean,
                          static_cast<T>(factor * exact.weight[i * 3 + size_of(k)]),
                          static_cast<T>(factor * (miss + real(options.lambda))),
                          static_cast<T>(factor * miss), static_cast<T>(exact.distance[i * 3 + size_of(k)]),
                          sums);
        }
        CHECK(std::fabs(static_cast<real>(sums.probability) - exact.log_prior[size_of(k)]) < size * epsilon);

        for (const bool add : {false, true}) {
          std::vector<T> mean(size_of(dims) + 1, T(2)), log_variance(size_of(dims) + 1, T(2));
          lgm::write_mean_gradient(group, dims, c, sums, add, mean.data());
          const std::size_t variances = covariance == lgm::covariance::identity ? 0
                                        : diagonal                              ? size_of(dims)
                                                                                : 1;
          if (variances > 0) lgm::write_log_variance_gradient(group, dims, c, sums, add, log_variance.data());
          for (std::size_t j = 0; j < size_of(dims); ++j)
            CHECK(std::fabs(static_cast<real>(mean[j]) - (add ? 2 : 0) -
                            exact.mean[size_of(k) * size_of(dims) + j]) < (size + 2) * epsilon);
          for (std::size_t j = 0; j < variances; ++j)
            CHECK(std::fabs(static_cast<real>(log_variance[j]) - (add ? 2 : 0) -
                            exact.log_variance[size_of(k) * variances + j]) <
                  (size + 2) * static_cast<real>(dims) * 10 * epsilon);
          CHECK(mean.back() == T(2));
          CHECK(log_variance.back() == T(2));
        }
      }
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("one class's sums are right under one thread", T, float, double) {
  check_columns<T>(lgm::serial_group{});
}

TEST_CASE_TEMPLATE("one class's sums are right under the lanes of a register", T, float, double) {
  check_columns<T>(lgm::detail::packet_group<T>{});
}
