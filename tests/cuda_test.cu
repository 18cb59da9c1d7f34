// SPDX-License-Identifier: MIT

// The CUDA driver against the host's in double, on random problems of all shapes. It runs where there is a device, and
// elsewhere says that it is skipped.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <lgm/lgm.cuh>
#include <type_traits>

#include "support/compiled_cuda.hpp"
#include "support/cuda_array.hpp"
#include "support/cuda_calls.hpp"
#include "support/memory.hpp"

namespace {

using support::cuda_array;
using support::host_array;

template <class V>
double number(V value) {
  return static_cast<double>(static_cast<float>(value));
}
inline double number(double value) { return value; }

int failures = 0;

void expect(bool good, const char* what, const lgm::shape& s) {
  if (good) return;
  ++failures;
  std::printf("%s: %d samples, %d classes, %d dims, covariance %d\n", what, static_cast<int>(s.samples),
              static_cast<int>(s.classes), static_cast<int>(s.dims), static_cast<int>(s.covariance));
}

// max |device - host| over an array, as a share of the array's largest magnitude.
template <class T>
void expect_near(const char* what, const host_array<double>& host, const cuda_array<T>& device,
                 double tolerance, const lgm::shape& s) {
  double error = 0, scale = 0;
  for (std::int64_t n = 0; n < host.size(); ++n) {
    if (number(device[n]) == host[n]) continue;  // infinities too
    const double difference = std::fabs(number(device[n]) - host[n]);
    error = std::isnan(difference) ? INFINITY : std::fmax(error, difference);
    if (std::isfinite(host[n])) scale = std::fmax(scale, std::fabs(host[n]));
  }
  expect(error <= tolerance * (1 + scale), what, s);
  expect(device.intact(), "behind an array", s);
}

// The arrays of a call. array: host_array or cuda_array.
template <template <class> class array, class T, class F = T>
struct arrays {
  array<std::int64_t> labels;
  array<F> features;
  array<T> mean, log_variance, log_prior, moved, row_state, merged, total;
  array<F> feature;
  array<T> mean_gradient, log_variance_gradient, log_prior_gradient, logits, log_mixture, mahalanobis;

  explicit arrays(const lgm::shape& s)
      : labels(s.samples),
        features(s.samples * s.dims),
        mean(s.classes * s.dims),
        log_variance(lgm::log_variance_size(s)),
        log_prior(s.classes),
        moved(s.classes * s.dims),
        row_state(2 * s.samples),
        merged(2 * s.samples),
        total(s.samples),
        feature(s.samples * s.dims),
        mean_gradient(s.classes * s.dims),
        log_variance_gradient(lgm::log_variance_size(s)),
        log_prior_gradient(s.classes),
        logits(s.samples * s.classes),
        log_mixture(s.samples),
        mahalanobis(s.samples) {}

  call_arrays<T, F> pointers() {
    return {features.data(),
            mean.data(),
            log_variance.data(),
            log_prior.data(),
            labels.data(),
            moved.data(),
            row_state.data(),
            merged.data(),
            total.data(),
            feature.data(),
            mean_gradient.data(),
            log_variance_gradient.data(),
            log_prior_gradient.data(),
            logits.data(),
            log_mixture.data(),
            mahalanobis.data()};
  }
};

// F: of the features. T: of parameters and results.
template <class F, class T = F>
void compare(const lgm::cuda_context& ctx, const lgm::shape& s, std::uint64_t seed, double tolerance) {
  arrays<host_array, double> host(s);
  arrays<cuda_array, T, F> device(s);
  const auto fill = [&](host_array<double>& from, auto& to, double scale, double offset) {
    using V = std::decay_t<decltype(to[0])>;
    for (std::int64_t n = 0; n < from.size(); ++n) {
      const double value = offset + scale * lgm::normal_at(seed, static_cast<std::uint64_t>(n));
      to[n] = static_cast<V>(static_cast<T>(value));
      from[n] = number(to[n]);
    }
    ++seed;
  };
  fill(host.features, device.features, 1, 0.5);
  fill(host.mean, device.mean, 1, 0.5);
  fill(host.log_variance, device.log_variance, 0.3, 0);
  fill(host.log_prior, device.log_prior, 0.5, -2);
  for (std::int64_t i = 0; i < s.samples; ++i)
    host.labels[i] = device.labels[i] = i % 7 == 3 ? -100 : (i * 2654435761) % s.classes;
  expect(run_on_host(s, host.pointers()) == lgm::status::success, "the host's calls", s);
  const std::size_t bytes = lgm::workspace_size<F>(ctx, s);
  cuda_array<unsigned char> memory(static_cast<std::int64_t>(bytes));
  expect(run_calls(ctx, s, device.pointers(), {memory.data(), bytes}) == lgm::status::success,
         "the device's calls", s);
  expect(cudaStreamSynchronize(ctx.stream) == cudaSuccess, "a kernel", s);
  expect_near("moved means", host.moved, device.moved, tolerance, s);
  expect_near("merged row states", host.merged, device.merged, tolerance, s);
  expect_near("total", host.total, device.total, tolerance, s);
  expect_near("feature gradient", host.feature, device.feature, tolerance, s);
  expect_near("mean gradient", host.mean_gradient, device.mean_gradient, tolerance, s);
  expect_near("log_variance gradient", host.log_variance_gradient, device.log_variance_gradient, tolerance,
              s);
  expect_near("log_prior gradient", host.log_prior_gradient, device.log_prior_gradient, tolerance, s);
  expect_near("logits", host.logits, device.logits, tolerance, s);
  expect_near("log_mixture", host.log_mixture, device.log_mixture, tolerance, s);
  expect_near("squared_mahalanobis", host.mahalanobis, device.mahalanobis, tolerance, s);
}

// Sizes from one to hundreds, each as likely to be small as large, and around the groups' widths.
lgm::shape random_shape(support::generator& random) {
  constexpr std::int64_t edges[] = {1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 127, 128, 129, 255, 256, 257, 513};
  const auto size = [&](std::int64_t most) {
    if (random.chance(0.5)) return std::min(most, random.pick(edges));
    return static_cast<std::int64_t>(std::pow(static_cast<double>(most), random.uniform()));
  };
  lgm::shape s;
  s.samples = size(600);
  s.classes = size(1200);
  s.dims = size(600);
  // The host computes it too.
  while (s.samples * s.classes * s.dims > 20000000) s.samples = (s.samples + 1) / 2;
  constexpr lgm::covariance covariances[] = {lgm::covariance::identity, lgm::covariance::spherical,
                                             lgm::covariance::diagonal};
  s.covariance = random.pick(covariances);
  return s;
}

}  // namespace

int main() {
  if (!support::has_device()) {
    std::printf("skipped: no CUDA device\n");
    return support::skipped;
  }
  lgm::cuda_context ctx;
  if (cudaStreamCreate(&ctx.stream) != cudaSuccess || cublasCreate(&ctx.handle) != CUBLAS_STATUS_SUCCESS) {
    std::printf("no stream, or no cuBLAS handle\n");
    return 1;
  }
  const std::int64_t sizes[][3] = {{1, 1, 1},    {3, 2, 5},       {128, 10, 2},    {128, 10, 64},
                                   {33, 65, 17}, {256, 100, 384}, {1000, 257, 31}, {100, 3000, 40},
                                   {700, 3, 5},  {64, 1025, 513}};
  const bool few = std::getenv("LGM_TEST_PROBLEMS") != nullptr;  // under a tool that makes all slow
  for (const auto covariance :
       {lgm::covariance::identity, lgm::covariance::spherical, lgm::covariance::diagonal})
    for (const auto& size : sizes)
      for (const std::size_t tile_bytes : {std::size_t(256) << 20, std::size_t(1) << 16}) {
        lgm::shape s;
        s.samples = size[0];
        s.classes = size[1];
        s.dims = size[2];
        s.covariance = covariance;
        if (few && s.samples * s.classes * s.dims > 100000) continue;
        ctx.tile_bytes = tile_bytes;
        const auto with = [&](lgm::precision precision) {
          lgm::cuda_context c = ctx;
          c.precision = precision;
          return c;
        };
        compare<float>(ctx, s, 1, 1e-3);
        compare<double>(ctx, s, 2, 1e-10);
        compare<float>(with(lgm::precision::split_tf32), s, 3, 1e-3);
        compare<float>(with(lgm::precision::tf32), s, 4, 2e-2);
        compare<__nv_bfloat16, float>(ctx, s, 5, 3e-2);
        compare<__half, float>(ctx, s, 6, 3e-2);
        compare<__nv_bfloat16, float>(with(lgm::precision::fast), s, 7, 1e-1);
      }
  // LGM_TEST_PROBLEMS says how many; each is told by its seed.
  const char* const wanted = std::getenv("LGM_TEST_PROBLEMS");
  const int problems = wanted != nullptr ? std::atoi(wanted) : 400;
  constexpr std::size_t limits[] = {1, std::size_t(1) << 14, std::size_t(1) << 18, std::size_t(256) << 20};
  for (int n = 0; n < problems; ++n) {
    support::generator random(static_cast<std::uint64_t>(n));
    const lgm::shape s = random_shape(random);
    ctx.tile_bytes = random.pick(limits);
    if (random.chance(0.5))
      compare<float>(ctx, s, 100 + static_cast<std::uint64_t>(n), 1e-3);
    else
      compare<double>(ctx, s, 100 + static_cast<std::uint64_t>(n), 1e-10);
  }
  lgm::stepped_schedule<double> schedule;
  schedule.policy = lgm::schedule_policy::add_up;
  schedule.gamma = 0.25;
  cuda_array<std::int64_t> iteration(1);
  cuda_array<double> alpha(1);
  iteration[0] = 2500;
  const bool scheduled =
      lgm::scheduled_alpha(ctx, schedule, iteration.data(), alpha.data()) == lgm::status::success &&
      cudaStreamSynchronize(ctx.stream) == cudaSuccess;
  expect(scheduled && alpha[0] == 0.5, "scheduled_alpha", lgm::shape{});
  std::printf("%d failures\n", failures);
  cublasDestroy(ctx.handle);
  cudaStreamDestroy(ctx.stream);
  return failures == 0 ? 0 : 1;
}
