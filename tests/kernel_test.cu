// SPDX-License-Identifier: MIT

// The formulas and the algorithms of rows and columns in a kernel of one's own, a thread a sample or a class. Compiling
// it, with warnings as errors, shows that nothing in them is for the host alone; on a machine with a device the
// kernels also run, against the same templates on the host.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <lgm/column.hpp>
#include <lgm/config.hpp>
#include <lgm/formula.hpp>
#include <lgm/group.hpp>
#include <lgm/row.hpp>
#include <lgm/schedule.hpp>
#include <lgm/types.hpp>

#include "support/cuda_array.hpp"

namespace {

// All arrays of one small problem, in the memory of whoever computes it.
template <class T>
struct problem {
  lgm::shape shape;
  lgm::mixture<T> mixture;
  T alpha;
  const T* features;           // [samples, dims]
  const std::int64_t* labels;  // [samples]
  T* logits;                   // [samples, classes]
  T* loss;                     // [samples]
  T* mean;                     // [classes, dims], after a step along the gradient of its class's likelihood
  T* log_variance_gradient;    // [classes, dims]
};

// eq:logit and eq:classification of sample i.
template <class T>
LGM_HD void compute_row(const problem<T>& p, std::int64_t i) {
  const lgm::serial_group group;
  const std::int64_t classes = p.shape.classes, dims = p.shape.dims, z = p.labels[i];
  const T* const features = p.features + i * dims;
  T* const logits = p.logits + i * classes;
  const T log_prior = -std::log(static_cast<T>(classes));
  const T none = -lgm::numeric<T>::infinity;

  const lgm::class_parameters<T> own(p.shape, p.mixture, z);
  const lgm::row_target<T> target = lgm::target_of(group, dims, features, own, log_prior, p.alpha);
  auto row = group.load_row(logits, classes);
  group.for_each(row, [&](T& l, std::int64_t k) {
    const lgm::class_parameters<T> c(p.shape, p.mixture, k);
    const T distance = T(0.5) * lgm::squared_distance(group, dims, features, c);
    l = k == z ? none : lgm::logit(log_prior - lgm::half_log_det(group, dims, c), distance, T(1));
  });
  const T top = group.reduce(
      row, none, [](T l, std::int64_t) { return l; }, lgm::maximum{});
  lgm::row_evidence<T> evidence = lgm::evidence_of(group, row, top, 0, true);
  evidence.merge(lgm::row_evidence<T>());
  logits[z] = target.logit;
  p.loss[i] = lgm::classification_loss(lgm::rest(lgm::log_parts<T>(evidence.others), target.logit));
}

// Gradients of the likelihood alone for class k, and a step against them.
template <class T>
LGM_HD void compute_column(const problem<T>& p, std::int64_t k) {
  const lgm::serial_group group;
  const std::int64_t dims = p.shape.dims;
  const lgm::class_parameters<T> c(p.shape, p.mixture, k);
  T difference[8] = {}, square[8] = {}, gradient[8];
  lgm::class_sums<T> sums{difference, square};
  for (std::int64_t i = 0; i < p.shape.samples; ++i)
    if (p.labels[i] == k)
      lgm::add_target(group, dims, p.features + i * dims, c.mean, T(1), T(1), T(0), T(0), sums);
  lgm::write_mean_gradient(group, dims, c, sums, false, gradient);
  lgm::write_log_variance_gradient(group, dims, c, sums, false, p.log_variance_gradient + k * dims);
  lgm::stepped_schedule<T> rate;
  rate.value = T(0.125);
  const T unbounded = lgm::numeric<T>::infinity;
  const lgm::sgd_rule<T> rule{rate(k), T(0), T(0), T(1), false, -unbounded, unbounded};
  T* const mean = p.mean + k * dims;
  group.for_each(dims, [&](std::int64_t j) { mean[j] = c.mean[j]; });
  lgm::sgd_update(group, dims, rule, gradient, static_cast<T*>(nullptr), mean);
}

template <class T>
__global__ void compute_rows(problem<T> p) {
  const std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < p.shape.samples) compute_row(p, i);
}
template <class T>
__global__ void compute_columns(problem<T> p) {
  const std::int64_t k = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (k < p.shape.classes) compute_column(p, k);
}

// The arrays of a problem. array: host_array or cuda_array.
template <template <class> class array, class T>
struct arrays {
  array<T> features, mean, log_variance, logits, loss, moved, gradient;
  array<std::int64_t> labels;

  explicit arrays(const lgm::shape& s)
      : features(s.samples * s.dims),
        mean(s.classes * s.dims),
        log_variance(s.classes * s.dims),
        logits(s.samples * s.classes),
        loss(s.samples),
        moved(s.classes * s.dims),
        gradient(s.classes * s.dims),
        labels(s.samples) {
    for (std::int64_t n = 0; n < mean.size(); ++n) {
      mean[n] = static_cast<T>(lgm::normal_at(1, static_cast<std::uint64_t>(n)));
      log_variance[n] = static_cast<T>(lgm::normal_at(2, static_cast<std::uint64_t>(n)) / 4);
    }
    for (std::int64_t n = 0; n < features.size(); ++n)
      features[n] = static_cast<T>(lgm::normal_at(3, static_cast<std::uint64_t>(n)));
    for (std::int64_t i = 0; i < s.samples; ++i) labels[i] = i % s.classes;
  }
  problem<T> on(const lgm::shape& s) {
    return {s,
            {mean.data(), log_variance.data()},
            T(0.25),
            features.data(),
            labels.data(),
            logits.data(),
            loss.data(),
            moved.data(),
            gradient.data()};
  }
};

template <class T>
bool near(const char* what, const support::host_array<T>& host, const support::cuda_array<T>& device,
          double tolerance) {
  for (std::int64_t n = 0; n < host.size(); ++n) {
    const double expected = static_cast<double>(host[n]), found = static_cast<double>(device[n]);
    if (std::fabs(found - expected) <= tolerance * (1 + std::fabs(expected))) continue;
    std::printf("%s[%d]: %g on the host, %g on the device\n", what, static_cast<int>(n), expected, found);
    return false;
  }
  return device.intact();
}

template <class T>
bool run(double tolerance) {
  lgm::shape shape;
  shape.samples = 100;
  shape.classes = 7;
  shape.dims = 5;
  arrays<support::host_array, T> host(shape);
  arrays<support::cuda_array, T> device(shape);
  const problem<T> p = host.on(shape);
  for (std::int64_t i = 0; i < shape.samples; ++i) compute_row(p, i);
  for (std::int64_t k = 0; k < shape.classes; ++k) compute_column(p, k);

  const problem<T> q = device.on(shape);
  compute_rows<<<4, 32>>>(q);
  compute_columns<<<1, 32>>>(q);
  if (cudaDeviceSynchronize() != cudaSuccess) {
    std::printf("a kernel failed: %s\n", cudaGetErrorString(cudaGetLastError()));
    return false;
  }
  return near("logits", host.logits, device.logits, tolerance) &&
         near("loss", host.loss, device.loss, tolerance) &&
         near("mean", host.moved, device.moved, tolerance) &&
         near("log variance gradient", host.gradient, device.gradient, tolerance);
}

}  // namespace

int main() {
  if (!support::has_device()) {
    std::printf("skipped: no CUDA device\n");
    return support::skipped;
  }
  return run<float>(1e-5) && run<double>(1e-13) ? 0 : 1;
}
