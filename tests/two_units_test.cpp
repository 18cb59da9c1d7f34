// SPDX-License-Identifier: MIT
#include "two_units_test/unit.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#if defined(LGM_TEST_OPENMP_UNIT)
#include <omp.h>
#endif

// Files that were compiled with and without OpenMP, and that bring hooks or none, make one program, and each computes
// what it would alone. A linker that took one file's function for another's would show in threads where there
// should be none, in none where there should be some, or in other bits.

namespace {

using lgm::status;
using two_units::results;

constexpr lgm::covariance covariances[] = {lgm::covariance::identity, lgm::covariance::spherical,
                                           lgm::covariance::diagonal};

template <class T>
constexpr two_units::unit<T> pick(two_units::unit<float> f, two_units::unit<double> d) {
  if constexpr (std::is_same<T, float>::value)
    return f;
  else
    return d;
}

template <class V>
bool same_bits(const std::vector<V>& a, const std::vector<V>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(V)) == 0);
}

template <class T>
bool near(const std::vector<T>& a, const std::vector<T>& b) {
  const double tolerance = sizeof(T) == 4 ? 1e-5 : 1e-13;
  double largest = 1e-3;
  for (const T value : a) largest = std::max(largest, std::fabs(static_cast<double>(value)));
  for (std::size_t n = 0; n < a.size(); ++n)
    if (!(std::fabs(static_cast<double>(a[n]) - static_cast<double>(b[n])) <= tolerance * largest))
      return false;
  return a.size() == b.size();
}

template <class T>
void check_succeeded(const results<T>& r) {
  CHECK(r.loss_status == status::success);
  CHECK(r.score_status == status::success);
  CHECK(r.step_status == status::success);
  CHECK(r.total > T(0));
}

template <class T>
void check_same_bits(const results<T>& a, const results<T>& b) {
  check_succeeded(b);
  CHECK(std::memcmp(&a.total, &b.total, sizeof(T)) == 0);
  CHECK(same_bits(a.features, b.features));
  CHECK(same_bits(a.mean, b.mean));
  CHECK(same_bits(a.log_variance, b.log_variance));
  CHECK(same_bits(a.posterior, b.posterior));
  CHECK(same_bits(a.moved, b.moved));
  CHECK(a.predicted == b.predicted);
}

template <class T>
void check_near(const results<T>& a, const results<T>& b) {
  check_succeeded(b);
  CHECK(near<T>({a.total}, {b.total}));
  CHECK(near(a.features, b.features));
  CHECK(near(a.mean, b.mean));
  CHECK(near(a.log_variance, b.log_variance));
  CHECK(near(a.posterior, b.posterior));
  CHECK(near(a.moved, b.moved));
  CHECK(a.predicted == b.predicted);
}

}  // namespace

TEST_CASE_TEMPLATE("files with different settings agree", T, float, double) {
#if defined(LGM_TEST_OPENMP_UNIT)
  const int threads_before = omp_get_max_threads();
  omp_set_num_threads(3);
#endif
  for (const lgm::covariance covariance : covariances) {
    CAPTURE(static_cast<int>(covariance));
    const auto serial = pick<T>(two_units::serial_float, two_units::serial_double)(covariance);
    check_succeeded(serial);
    CHECK(serial.default_bytes == serial.one_thread_bytes);
    CHECK(serial.default_bytes != serial.three_thread_bytes);

    // This file, compiled as the other tests are.
    check_same_bits(serial, two_units::compute<T>(two_units::three_threads(), covariance));

    const auto pool = pick<T>(two_units::pool_float, two_units::pool_double)(covariance);
    check_same_bits(serial, pool);
    CHECK(pool.hook_calls > 0);

#if defined(LGM_TEST_OPENMP_UNIT)
    const auto openmp = pick<T>(two_units::openmp_float, two_units::openmp_double)(covariance);
    check_same_bits(serial, openmp);
    CHECK(openmp.default_bytes == openmp.three_thread_bytes);
#endif

    const auto gemm = pick<T>(two_units::gemm_float, two_units::gemm_double)(covariance);
    check_near(serial, gemm);
    // A diagonal covariance is computed from differences, without products.
    CHECK((gemm.hook_calls > 0) == (covariance != lgm::covariance::diagonal));
  }
#if defined(LGM_TEST_OPENMP_UNIT)
  omp_set_num_threads(threads_before);
#endif
}
