// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <lgm/cblas.hpp>
#include <limits>
#include <vector>

#include "support/problem.hpp"

// The caller's own products: host_context::gemm, and lgm/cblas.hpp that makes one of a CBLAS.

namespace {

using namespace support;

// A CBLAS as its reference header declares it, but for the loops: enums by value, int sizes.
enum order { row_major = 101, column_major = 102 };
enum transpose { no_transpose = 111, yes_transpose = 112 };
int calls = 0;
int unexpected = 0;

template <class T, class Int>
void naive_gemm(int layout, int ta, int tb, Int m, Int n, Int k, T alpha, const T* a, Int lda, const T* b,
                Int ldb, T beta, T* c, Int ldc) {
  ++calls;
  unexpected += layout != row_major || (ta != no_transpose && ta != yes_transpose) ||
                (tb != no_transpose && tb != yes_transpose) || m <= 0 || n <= 0 || k <= 0 ||
                lda < (ta == no_transpose ? k : m) || ldb < (tb == no_transpose ? n : k) || ldc < n ||
                (beta != T(0) && beta != T(1));
  for (Int i = 0; i < m; ++i)
    for (Int j = 0; j < n; ++j) {
      T sum = 0;
      for (Int l = 0; l < k; ++l)
        sum += (ta == no_transpose ? a[i * lda + l] : a[l * lda + i]) *
               (tb == no_transpose ? b[l * ldb + j] : b[j * ldb + l]);
      T& out = c[i * ldc + j];
      out = beta == T(0) ? alpha * sum : alpha * sum + out;  // with beta 0, c may hold anything
    }
}

void naive_sgemm(const order layout, const transpose ta, const transpose tb, const int m, const int n,
                 const int k, const float alpha, const float* a, const int lda, const float* b, const int ldb,
                 const float beta, float* c, const int ldc) {
  naive_gemm<float, int>(layout, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
void naive_dgemm(const order layout, const transpose ta, const transpose tb, const int m, const int n,
                 const int k, const double alpha, const double* a, const int lda, const double* b,
                 const int ldb, const double beta, double* c, const int ldc) {
  naive_gemm<double, int>(layout, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
// Another, with 64-bit sizes and plain ints for its enums, that answers something.
int naive_sgemm_64(int layout, int ta, int tb, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
                   const float* a, std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c,
                   std::int64_t ldc) {
  naive_gemm<float, std::int64_t>(layout, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  return 0;
}
int naive_dgemm_64(int layout, int ta, int tb, std::int64_t m, std::int64_t n, std::int64_t k, double alpha,
                   const double* a, std::int64_t lda, const double* b, std::int64_t ldb, double beta,
                   double* c, std::int64_t ldc) {
  naive_gemm<double, std::int64_t>(layout, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  return 0;
}

template <class T>
bool refuse(void* user, bool, bool, std::int64_t, std::int64_t, std::int64_t, T, const T*, std::int64_t,
            const T*, std::int64_t, T, T*, std::int64_t) {
  ++*static_cast<int*>(user);
  return false;
}

template <class T>
void check_near(const guarded<T>& mine, const guarded<T>& eigen, const char* name) {
  INFO(name);
  double scale = 0;
  for (std::size_t n = 0; n < eigen.size(); ++n)
    scale = std::max(scale, std::fabs(static_cast<double>(eigen[n])));
  // Two orders of summation over at most 70 terms of the largest size.
  const double allowed = 70 * 2 * static_cast<double>(std::numeric_limits<T>::epsilon()) * scale;
  for (std::size_t n = 0; n < eigen.size(); ++n)
    CHECK(std::fabs(static_cast<double>(mine[n]) - static_cast<double>(eigen[n])) <= allowed);
}

// Everything that is made of products, with the hook and without.
template <class T>
void compare(const lgm::gemm_hook& hook, std::size_t tile_bytes) {
  for (const auto covariance : covariances) {
    INFO(name_of(covariance));
    auto shape = make_shape(37, 45, 19, covariance);
    shape.feature_stride = 23;
    shape.gradient_stride = 21;
    shape.logits_stride = 50;
    const auto p = make_problem<T>(7, shape, margin_options<T>(lgm::reduction::mean));
    for (const int threads : {1, 3}) {
      lgm::host_context plain = context_of(threads, tile_bytes), hooked = plain;
      hooked.gemm = hook;
      outputs<T> eigen(p), mine(p);
      CHECK(forward_backward(plain, p, eigen) == lgm::status::success);
      calls = 0;
      CHECK(forward_backward(hooked, p, mine) == lgm::status::success);
      // A diagonal covariance is not made of products.
      CHECK((calls > 0) == (covariance != lgm::covariance::diagonal));
      mine.check_intact();
      mine.each(eigen, [](const std::string& name, const auto& a, const auto& b) {
        if constexpr (std::is_same<std::decay_t<decltype(a)>, guarded<T>>::value) {
          if (name != "row_state") check_near<T>(a, b, name.c_str());
        } else {
          CHECK(a.same_bits(b));
        }
      });
      outputs<T> parameters(p);
      lgm::gradients<T, T> without_features = parameters.gradients();
      without_features.feature = nullptr;
      CHECK(forward_backward(hooked, p, parameters.result(), without_features) == lgm::status::success);
      CHECK(parameters.mean.same_bits(mine.mean));
      CHECK(parameters.log_variance.same_bits(mine.log_variance));
      CHECK(parameters.feature.untouched());
      guarded<T> eigen_logits(37, 45, 50), mine_logits(37, 45, 50);
      for (auto [context, out] : {std::pair(plain, &eigen_logits), std::pair(hooked, &mine_logits)})
        CHECK(run<T>(context, p.shape, [&, context = context, out = out](lgm::workspace w) {
                return lgm::logits(context, p.shape, p.mixture(), p.features.data(), out->data(), w);
              }) == lgm::status::success);
      CHECK(mine_logits.intact());
      check_near(mine_logits, eigen_logits, "logits");
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("a CBLAS gives what Eigen gives", T, float, double) {
  unexpected = 0;
  for (const std::size_t tile_bytes : {std::size_t{64} << 20, std::size_t{1} << 15}) {
    compare<T>(lgm::cblas_gemm<naive_sgemm, naive_dgemm>(), tile_bytes);
    compare<T>(lgm::cblas_gemm<naive_sgemm_64, naive_dgemm_64>(), tile_bytes);
  }
  CHECK(unexpected == 0);
}

TEST_CASE_TEMPLATE("gradients that accumulate are added to, whoever multiplies", T, float, double) {
  for (const auto covariance : {lgm::covariance::identity, lgm::covariance::spherical})
    for (const std::size_t tile_bytes : {std::size_t{64} << 20, std::size_t{1} << 15}) {
      CAPTURE(name_of(covariance));
      CAPTURE(tile_bytes);
      const auto p =
          make_problem<T>(10, make_shape(37, 45, 19, covariance), margin_options<T>(lgm::reduction::mean));
      lgm::host_context plain = context_of(2, tile_bytes), hooked = plain;
      hooked.gemm = lgm::cblas_gemm<naive_sgemm, naive_dgemm>();
      outputs<T> eigen(p), mine(p);
      for (auto [context, out] : {std::pair(plain, &eigen), std::pair(hooked, &mine)}) {
        for (auto* buffer : {&out->mean, &out->log_variance, &out->log_prior})
          for (std::size_t n = 0; n < buffer->size(); ++n) buffer->data()[n] = T(1) + T(n % 3);
        lgm::gradients<T, T> gradient = out->gradients();
        gradient.accumulate = true;
        CHECK(forward_backward(context, p, out->result(), gradient) == lgm::status::success);
      }
      mine.check_intact();
      mine.each_gradient(eigen, [](const std::string& name, const auto& a, const auto& b) {
        check_near<T>(a, b, name.c_str());
      });
    }
}

TEST_CASE_TEMPLATE("a CBLAS whitens as Eigen does", T, float, double) {
  constexpr std::int64_t dims = 70, samples = 20;
  constexpr std::size_t d = dims;
  const auto shape = make_shape(samples, 2, dims, lgm::covariance::identity);
  generator random(9);
  std::vector<T> count(2, T(40)), mean(2 * d), scatter(d * d), features(size_of(samples) * d);
  for (T& x : features) x = static_cast<T>(random.normal());
  // Diagonally dominant.
  for (std::size_t i = 0; i < d; ++i)
    for (std::size_t j = i; j < d; ++j)
      scatter[i * d + j] = static_cast<T>(i == j ? 80 + 40 * random.uniform() : random.uniform());
  lgm::class_moments<T> moments;
  moments.count = count.data();
  moments.mean = mean.data();
  moments.scatter = scatter.data();
  lgm::host_context plain = context_of(2), hooked = plain;
  hooked.gemm = lgm::cblas_gemm<naive_sgemm, naive_dgemm>();
  guarded<T> eigen(samples, dims), mine(samples, dims);
  unexpected = 0;
  for (auto [context, out] : {std::pair(plain, &eigen), std::pair(hooked, &mine)}) {
    calls = 0;
    std::vector<T> matrix(d * d), offset(d);
    const lgm::whitening<T> map{matrix.data(), offset.data()};
    scratch memory(lgm::whitening_workspace_size<T>(context, shape));
    CHECK(lgm::estimate_whitening(context, shape, moments, lgm::whitening_options<T>{}, map, memory.get()) ==
          lgm::status::success);
    CHECK(run<T>(context, shape, [&, context = context, out = out](lgm::workspace w) {
            return lgm::whiten(context, shape, map, features.data(), out->data(), w);
          }) == lgm::status::success);
    // Two blocks: L_21, its product with itself, two for their inverse; and the rows.
    CHECK(calls == (out == &mine ? 5 : 0));
  }
  CHECK(unexpected == 0);
  check_near(mine, eigen, "whitened");
}

TEST_CASE_TEMPLATE("a hook that refuses leaves the work to Eigen, bit for bit", T, float, double) {
  int refusals = 0;
  lgm::host_context plain = context_of(2), hooked = plain;
  hooked.gemm.user = &refusals;
  hooked.gemm.sgemm = refuse<float>;
  hooked.gemm.dgemm = refuse<double>;
  for (const auto covariance : {lgm::covariance::identity, lgm::covariance::spherical}) {
    const auto p =
        make_problem<T>(8, make_shape(33, 20, 17, covariance), margin_options<T>(lgm::reduction::mean));
    outputs<T> eigen(p), mine(p);
    CHECK(forward_backward(plain, p, eigen) == lgm::status::success);
    CHECK(forward_backward(hooked, p, mine) == lgm::status::success);
    mine.check_same_bits(eigen);
  }
  CHECK(refusals > 0);
}

TEST_CASE("sizes beyond the BLAS's integers are refused, not truncated") {
  const auto hook = lgm::cblas_gemm<naive_sgemm, naive_dgemm>();
  const float a[4] = {1, 2, 3, 4}, b[4] = {1, 1, 1, 1};
  float c[4] = {7, 7, 7, 7};
  calls = 0;
  const std::int64_t beyond = std::int64_t{1} << 31;
  CHECK_FALSE(hook.sgemm(nullptr, false, false, 2, 2, 2, 1, a, beyond, b, 2, 0, c, 2));
  CHECK_FALSE(hook.sgemm(nullptr, false, false, 2, 2, 2, 1, a, 2, b, beyond, 0, c, 2));
  CHECK_FALSE(hook.sgemm(nullptr, false, false, 2, 2, 2, 1, a, 2, b, 2, 0, c, beyond));
  CHECK_FALSE(hook.sgemm(nullptr, false, false, beyond, 2, 2, 1, a, 2, b, 2, 0, c, 2));
  CHECK(calls == 0);
  CHECK(c[0] == 7);
  CHECK(hook.sgemm(nullptr, false, false, 2, 2, 2, 1, a, 2, b, 2, 0, c, 2));
  CHECK(c[0] == 3);
  CHECK(c[3] == 7);
}
