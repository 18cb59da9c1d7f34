// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <lgm/detail/host/sparse.hpp>
#include <vector>

#include "support/cases.hpp"
#include "support/plain_gemm.hpp"
#include "support/problem.hpp"
#include "support/tolerance.hpp"

// gradient_filter: classes of small probability are left out of the gradients, and of the products.

namespace {

using lgm::status;
using namespace support;

// Classes in pairs, a deviation or so from each other and far from all others: a sample has one competitor.
template <class T>
problem<T> paired(std::uint64_t seed, lgm::covariance covariance, lgm::reduction reduction) {
  recipe far;
  far.spread = 12;
  auto p = make_problem<T>(seed, strided_shape({150, 90, 24}, covariance), margin_options<T>(reduction), far);
  for (std::size_t k = 0; k + 1 < p.classes(); k += 2)
    for (std::size_t j = 0; j < p.dims(); ++j)
      p.mean[(k + 1) * p.dims() + j] = p.mean[k * p.dims() + j] + T(j % 3 == 0 ? 0.5 : 0);
  p.upstream_given = true;
  return p;
}

std::atomic<int> inside{0}, overlaps{0}, calls{0};

template <class T>
bool plain_product(void*, bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
                   T alpha, const T* a, std::int64_t lda, const T* b, std::int64_t ldb, T beta, T* c,
                   std::int64_t ldc) {
  ++calls;
  if (inside++ != 0) ++overlaps;
  plain_gemm(nullptr, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  --inside;
  return true;
}

suite_context hooked(suite_context context) {
  context.gemm.sgemm = plain_product<float>;
  context.gemm.dgemm = plain_product<double>;
  return context;
}

}  // namespace

// So small that nothing is left out that would otherwise count: the gradients are those of all classes.
template <class T>
const T tiny = sizeof(T) == 4 ? T(1e-34) : static_cast<T>(1e-280);

TEST_CASE_TEMPLATE("a filter far below rounding takes few products and gives the same gradients", T, float,
                   double) {
  std::uint64_t seed = 800;
  auto contexts = tiled_contexts();
  contexts.push_back(context_of(4));
  contexts.push_back(hooked(context_of(4)));
  for (const auto covariance : covariances)
    for (const auto reduction : reductions) {
      CAPTURE(name_of(covariance));
      CAPTURE(name_of(reduction));
      if (++seed % every(2) != 0) continue;
      auto p = paired<T>(seed, covariance, reduction);
      p.options.gradient_filter = tiny<T>;
      const expectation<T> expected(p);
      for (const auto& context : contexts) check_both_ways(context, p, expected);
      give(p, seed, {true, true, false, 0});
      const expectation<T> weighted(p);
      for (const auto& context : contexts) check_both_ways(context, p, weighted);
    }
  CHECK(overlaps == 0);
}

TEST_CASE("the caller's products are not asked for what has few weights") {
  auto p = paired<float>(830, lgm::covariance::identity, lgm::reduction::mean);
  const auto context = hooked(context_of(1));
  outputs<float> all(p), few(p);
  calls = 0;
  REQUIRE(forward_backward(context, p, all) == status::success);
  CHECK(calls >= 3);
  calls = 0;
  p.options.gradient_filter = tiny<float>;
  REQUIRE(forward_backward(context, p, few) == status::success);
  CHECK(calls == 1);  // the logits
}

TEST_CASE_TEMPLATE("what a filter leaves out is bounded, and losses do not see it", T, float, double) {
  for (const auto covariance : covariances)
    for (const double filter : {1e-3, 0.02, 0.3}) {
      CAPTURE(name_of(covariance));
      CAPTURE(filter);
      auto p =
          make_problem<T>(840, make_shape(60, 12, 5, covariance), margin_options<T>(lgm::reduction::sum));
      outputs<T> all(p), filtered(p);
      REQUIRE(forward_backward(context_of(1), p, all) == status::success);
      p.options.gradient_filter = static_cast<T>(filter);
      REQUIRE(forward_backward(context_of(1), p, filtered) == status::success);
      CHECK(filtered.total.same_bits(all.total));
      CHECK(filtered.row_state.same_bits(all.row_state));
      CHECK(!filtered.feature.same_bits(all.feature));
      const auto variance = [&](std::size_t k, std::size_t j) {
        if (covariance == lgm::covariance::identity) return 1.0;
        return std::exp(static_cast<double>(
            p.log_variance[covariance == lgm::covariance::diagonal ? k * p.dims() + j : k]));
      };
      std::vector<double> left_out(p.classes() * p.dims(), 0);
      int beyond = 0;
      for (std::size_t i = 0; i < p.samples(); ++i) {
        if (p.ignored(i)) continue;
        for (std::size_t j = 0; j < p.dims(); ++j) {
          double distances = 0;
          for (std::size_t k = 0; k < p.classes(); ++k) {
            const double d =
                std::fabs(static_cast<double>(p.feature(i, j) - p.mean[k * p.dims() + j])) / variance(k, j);
            distances += d;
            left_out[k * p.dims() + j] += filter * d;
          }
          beyond += !(std::fabs(static_cast<double>(filtered.feature.at(i, j) - all.feature.at(i, j))) <=
                      filter * distances + 1e-5);
        }
      }
      for (std::size_t n = 0; n < left_out.size(); ++n)
        beyond += !(std::fabs(static_cast<double>(filtered.mean[n] - all.mean[n])) <= left_out[n] + 1e-4);
      CHECK(beyond == 0);
    }
}

TEST_CASE_TEMPLATE("label smoothing, soft targets and a given gradient take no filter", T, float, double) {
  for (const bool soft : {false, true}) {
    auto p = make_problem<T>(850, make_shape(40, 9, 6, lgm::covariance::spherical),
                             margin_options<T>(lgm::reduction::mean));
    give(p, 850, {false, false, false, soft ? 0 : 0.1, soft});
    outputs<T> all(p), filtered(p);
    REQUIRE(forward_backward(context_of(1), p, all) == status::success);
    p.options.gradient_filter = T(0.3);
    REQUIRE(forward_backward(context_of(1), p, filtered) == status::success);
    filtered.check_same_bits(all);
  }
}

TEST_CASE_TEMPLATE("sparse products are the products", T, float, double) {
  generator random(860);
  for (const std::int64_t m : {1, 5, 33})
    for (const std::int64_t k : {1, 15, 16, 17, 40})
      for (const std::int64_t n : {1, 7, 16, 37}) {
        std::vector<T> a(size_of(m * (k + 2))), b(size_of(k * (n + 1)));
        std::vector<T> c(size_of(m * (n + 3)), T(2)), transposed(size_of(k * (n + 3)), T(2));
        std::vector<T> d(size_of(m * (n + 1)));
        for (T& v : a) v = random.uniform() < 0.1 ? static_cast<T>(random.normal()) : T(0);
        for (auto* values : {&b, &d})
          for (T& v : *values) v = static_cast<T>(random.normal());
        lgm::detail::sparse_gemm(m, n, k, T(-1), a.data(), k + 2, b.data(), n + 1, c.data(), n + 3);
        lgm::detail::sparse_gemm_transposed(k, n, m, a.data(), k + 2, d.data(), n + 1, transposed.data(),
                                            n + 3);
        real worst = 0;
        for (std::int64_t i = 0; i < m; ++i)
          for (std::int64_t j = 0; j < n + 3; ++j) {
            real sum = 2;
            for (std::int64_t l = 0; j < n && l < k; ++l)
              sum -= static_cast<real>(a[size_of(i * (k + 2) + l)]) *
                     static_cast<real>(b[size_of(l * (n + 1) + j)]);
            worst = std::max(worst, std::fabs(static_cast<real>(c[size_of(i * (n + 3) + j)]) - sum));
          }
        for (std::int64_t l = 0; l < k; ++l)
          for (std::int64_t j = 0; j < n + 3; ++j) {
            real sum = 2;
            for (std::int64_t i = 0; j < n && i < m; ++i)
              sum += static_cast<real>(a[size_of(i * (k + 2) + l)]) *
                     static_cast<real>(d[size_of(i * (n + 1) + j)]);
            worst = std::max(worst, std::fabs(static_cast<real>(transposed[size_of(l * (n + 3) + j)]) - sum));
          }
        CHECK(shown(worst) <= shown(100 * epsilon<T>()));
      }
  std::vector<T> weights(16 * 16, T(0));
  for (std::size_t n = 0; n < 16; ++n) weights[n * 16] = T(1);
  CHECK(lgm::detail::is_sparse(16, 16, weights.data(), 16));
  weights[1] = T(1);
  CHECK(!lgm::detail::is_sparse(16, 16, weights.data(), 16));
}
