// SPDX-License-Identifier: MIT

// The CUDA driver against the host's in double, on random problems of all shapes. Compiling it, with warnings as errors,
// instantiates every kernel; it runs where there is a device, and elsewhere says that it is skipped.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <lgm/lgm.cuh>
#include <type_traits>

#include "support/cuda_calls.hpp"

namespace {

constexpr int skipped = 77;  // what the test driver takes for "not run"

// Memory that host and device both see; holds NaN (of reals), so that what is not written shows.
template <class T>
class array {
 public:
  explicit array(std::int64_t size) : size_(size) {
    if (cudaMallocManaged(&data_, static_cast<std::size_t>(size + 1) * sizeof(T)) != cudaSuccess)
      data_ = nullptr;
    if (data_ != nullptr)
      std::memset(static_cast<void*>(data_), 0xFF, static_cast<std::size_t>(size + 1) * sizeof(T));
  }
  ~array() { cudaFree(data_); }
  array(const array&) = delete;
  array& operator=(const array&) = delete;
  T* data() { return data_; }
  T& operator[](std::int64_t n) { return data_[n]; }
  std::int64_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  std::int64_t size_;
};

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
void expect_near(const char* what, array<double>& host, array<T>& device, double tolerance,
                 const lgm::shape& s) {
  double error = 0, scale = 0;
  for (std::int64_t n = 0; n < host.size(); ++n) {
    if (number(device[n]) == host[n]) continue;  // infinities too
    const double difference = std::fabs(number(device[n]) - host[n]);
    error = std::isnan(difference) ? INFINITY : std::fmax(error, difference);
    if (std::isfinite(host[n])) scale = std::fmax(scale, std::fabs(host[n]));
  }
  expect(error <= tolerance * (1 + scale), what, s);
}

// The arrays of a call.
template <class T, class F = T>
struct arrays {
  array<F> features;
  array<T> mean, log_variance, log_prior, moved, row_state, merged, total;
  array<F> feature;
  array<T> mean_gradient, log_variance_gradient, log_prior_gradient, logits, log_mixture, mahalanobis;

  explicit arrays(const lgm::shape& s)
      : features(s.samples * s.dims),
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

  call_arrays<T, F> pointers(array<std::int64_t>& labels) {
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
  arrays<double> host(s);
  arrays<T, F> device(s);
  array<std::int64_t> labels(s.samples);
  const auto fill = [&](array<double>& from, auto& to, double scale, double offset) {
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
  for (std::int64_t i = 0; i < s.samples; ++i) labels[i] = i % 7 == 3 ? -100 : (i * 2654435761) % s.classes;
  expect(run_on_host(s, host.pointers(labels)) == lgm::status::success, "the host's calls", s);
  const std::size_t bytes = lgm::workspace_size<F>(ctx, s);
  array<unsigned char> memory(static_cast<std::int64_t>(bytes));
  expect(run_calls(ctx, s, device.pointers(labels), {memory.data(), bytes}) == lgm::status::success,
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

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return skipped;
  }
  lgm::cuda_context ctx;
  if (cudaStreamCreate(&ctx.stream) != cudaSuccess || cublasCreate(&ctx.handle) != CUBLAS_STATUS_SUCCESS) {
    std::printf("no stream, or no cuBLAS handle\n");
    return 1;
  }
  const std::int64_t sizes[][3] = {{1, 1, 1},    {3, 2, 5},       {128, 10, 2},    {128, 10, 64},
                                   {33, 65, 17}, {256, 100, 384}, {1000, 257, 31}, {100, 3000, 40},
                                   {700, 3, 5},  {64, 1025, 513}};
  for (const auto covariance :
       {lgm::covariance::identity, lgm::covariance::spherical, lgm::covariance::diagonal})
    for (const auto& size : sizes)
      for (const std::size_t tile_bytes : {std::size_t(256) << 20, std::size_t(1) << 16}) {
        lgm::shape s;
        s.samples = size[0];
        s.classes = size[1];
        s.dims = size[2];
        s.covariance = covariance;
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
  lgm::stepped_schedule<double> schedule;
  schedule.policy = lgm::schedule_policy::add_up;
  schedule.gamma = 0.25;
  array<std::int64_t> iteration(1);
  array<double> alpha(1);
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
