// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <lgm/cblas.hpp>
#include <limits>
#include <string>
#include <vector>

#include "support/naive_lgm.hpp"
#include "support/plain_gemm.hpp"
#include "support/problem.hpp"
#include "support/products.hpp"
#include "support/softmax_head.hpp"

// What the benchmarks hold against the library computes what it says.

namespace {

using namespace support;

// max |got - expected| is at most `share` of the largest |expected|.
template <class Got, class Expected>
void check_close(const std::string& name, const Got& got, const Expected& expected, std::size_t size,
                 double share) {
  double error = 0, scale = 0;
  for (std::size_t n = 0; n < size; ++n) {
    const double difference = std::fabs(static_cast<double>(got[n]) - static_cast<double>(expected[n]));
    error = difference <= error ? error : difference;
    scale = std::max(scale, std::fabs(static_cast<double>(expected[n])));
  }
  CHECK_MESSAGE(error <= share * scale,
                name << " is off by " << error << " where " << scale << " is the largest");
}

lgm::host_context hooked(lgm::host_context context) {
  context.gemm.sgemm = support::plain_gemm<float>;
  context.gemm.dgemm = support::plain_gemm<double>;
  return context;
}

// Threads, and tiles of everything, of some rows, and of some classes.
std::vector<lgm::host_context> contexts() {
  std::vector<lgm::host_context> all;
  for (const int threads : {1, 2, 3})
    for (const std::size_t tile_bytes : {std::size_t{1} << 20, std::size_t{4000}, std::size_t{1}}) {
      all.push_back(context_of(threads, tile_bytes));
      all.push_back(hooked(context_of(threads, tile_bytes)));
    }
  return all;
}

// The second is worth threads.
const lgm::shape sizes[] = {make_shape(1, 1, 1, lgm::covariance::identity),
                            make_shape(70, 90, 60, lgm::covariance::identity),
                            make_shape(37, 21, 19, lgm::covariance::identity)};

template <class T>
constexpr double rounding() {
  return 100 * static_cast<double>(std::numeric_limits<T>::epsilon());
}

}  // namespace

TEST_CASE_TEMPLATE("naive L-GM gives the library's loss and gradients", T, float, double) {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    recipe how;
    how.ignored = 0;
    how.spread = 0.5;
    const auto p =
        make_problem<T>(7, make_shape(29, 17, 13, covariance), margin_options<T>(lgm::reduction::mean), how);
    outputs<T> expected(p), got(p);
    REQUIRE(forward_backward(context_of(1), p, expected) == lgm::status::success);
    for (const int threads : {1, 3}) {
      bench::naive_lgm<T> head(context_of(threads), p.shape);
      const T loss =
          head.forward_backward(p.mixture(), p.options, p.features.data(), p.labels.data(), got.gradients());
      check_close("loss", &loss, expected.total, 1, rounding<T>());
      check_close("feature gradient", got.feature, expected.feature, got.feature.size(), rounding<T>());
      check_close("mean gradient", got.mean, expected.mean, got.mean.size(), rounding<T>());
      check_close("log_variance gradient", got.log_variance, expected.log_variance, got.log_variance.size(),
                  rounding<T>());
      check_close("log_prior gradient", got.log_prior, expected.log_prior, got.log_prior.size(),
                  rounding<T>());
      got.check_intact();
    }
  }
}

TEST_CASE_TEMPLATE("the softmax head gives cross entropy and its gradients", T, float, double) {
  for (const lgm::shape& s : sizes) {
    const auto p = make_problem<T>(11, s, {}, {0.2, 1, 0, 0, 0});
    const std::size_t samples = p.samples(), classes = p.classes(), dims = p.dims();
    CAPTURE(samples);
    // In long double, one formula after the other; the slope of a logit is p_k - [k == z].
    std::vector<real> feature(samples * dims, 0), weight(classes * dims, 0), bias(classes, 0);
    real sum_of_losses = 0;
    for (std::size_t i = 0; i < samples; ++i) {
      std::vector<real> logit(classes);
      for (std::size_t k = 0; k < classes; ++k) {
        logit[k] = p.log_prior[k];
        for (std::size_t j = 0; j < dims; ++j)
          logit[k] += static_cast<real>(p.feature(i, j)) * static_cast<real>(p.mean[k * dims + j]);
      }
      const std::size_t z = size_of(p.labels[i]);
      const real evidence = reference::log_sum_exp(
          classes, [&](std::size_t k) { return logit[k]; }, [](std::size_t) { return true; });
      sum_of_losses += evidence - logit[z];
      for (std::size_t k = 0; k < classes; ++k) {
        const real slope = (std::exp(logit[k] - evidence) - (k == z ? 1 : 0)) / static_cast<real>(samples);
        bias[k] += slope;
        for (std::size_t j = 0; j < dims; ++j) {
          feature[i * dims + j] += slope * static_cast<real>(p.mean[k * dims + j]);
          weight[k * dims + j] += slope * static_cast<real>(p.feature(i, j));
        }
      }
    }
    const real loss = sum_of_losses / static_cast<real>(samples);

    for (const lgm::host_context& context : contexts()) {
      CAPTURE(context.threads);
      CAPTURE(context.tile_bytes);
      bench::softmax_head<T> head(context, s.samples, s.classes, s.dims);
      guarded<T> dx(s.samples, s.dims), dw(s.classes, s.dims), db(s.classes);
      // Twice, as the second call finds what the first left behind.
      for (int call = 0; call < 2; ++call) {
        const T got = head.forward_backward(p.features.data(), p.labels.data(), p.mean.data(),
                                            p.log_prior.data(), dx.data(), dw.data(), db.data());
        check_close("loss", &got, &loss, 1, rounding<T>());
        check_close("feature gradient", dx, feature, dx.size(), rounding<T>());
        check_close("weight gradient", dw, weight, dw.size(), rounding<T>());
        check_close("bias gradient", db, bias, db.size(), rounding<T>());
      }
      CHECK(dx.intact());
      CHECK(dw.intact());
      CHECK(db.intact());
    }
  }
}

TEST_CASE("a label that is nearly certain, or nearly impossible, keeps the digits of its loss") {
  for (const float margin : {30.0F, -70.0F}) {
    const float features[] = {1}, weight[] = {margin, 0}, bias[] = {0, 0};
    const std::int64_t labels[] = {0};
    float dx = 0, dw[2] = {}, db[2] = {};
    bench::softmax_head<float> head(context_of(1), 1, 2, 1);
    const double loss = head.forward_backward(features, labels, weight, bias, &dx, dw, db);
    const double expected = margin > 0 ? std::exp(-30.0) : 70.0;
    CHECK(loss == doctest::Approx(expected).epsilon(1e-5));
    CHECK(static_cast<double>(db[0]) == doctest::Approx(margin > 0 ? -expected : -1.0).epsilon(1e-5));
  }
}

TEST_CASE_TEMPLATE("the products of the floor are those of Eigen", T, float, double) {
  for (const lgm::shape& s : sizes) {
    const auto p = make_problem<T>(13, s, {}, {1, 1, 0, 0, 0});
    CAPTURE(p.samples());
    using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const matrix x = Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
                         p.features.data(), s.samples, s.dims)
                         .template cast<double>();
    const matrix mu = Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
                          p.mean.data(), s.classes, s.dims)
                          .template cast<double>();
    const matrix w = x * mu.transpose(), dx = w * mu, dmu = w.transpose() * x;
    for (const lgm::host_context& context : contexts()) {
      CAPTURE(context.threads);
      CAPTURE(context.tile_bytes);
      const auto check = [&](auto products) {
        guarded<T> feature(s.samples, s.dims), mean(s.classes, s.dims);
        for (int call = 0; call < 2; ++call)
          products.all(p.features.data(), p.mean.data(), feature.data(), mean.data());
        check_close("features'", feature, dx.data(), feature.size(), rounding<T>());
        check_close("means'", mean, dmu.data(), mean.size(), rounding<T>());
        CHECK(feature.intact());
        CHECK(mean.intact());
      };
      check(bench::products<T>(context, s.samples, s.classes, s.dims));
      check(bench::plain_products<T>(context, s.samples, s.classes, s.dims));
    }
  }
}
