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
#include <vector>

namespace {

constexpr int skipped = 77;  // what the test driver takes for "not run"

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
  auto row = group.hold(logits, classes);
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

// Memory that host and device both see.
template <class T>
class array {
 public:
  explicit array(std::int64_t size) : size_(size) {
    if (cudaMallocManaged(&data_, static_cast<std::size_t>(size) * sizeof(T)) != cudaSuccess) data_ = nullptr;
  }
  ~array() { cudaFree(data_); }
  array(const array&) = delete;
  array& operator=(const array&) = delete;
  T* data() { return data_; }
  std::vector<T> copy() const { return {data_, data_ + size_}; }

 private:
  T* data_ = nullptr;
  std::int64_t size_;
};

template <class T>
bool near(const char* what, const std::vector<T>& host, const std::vector<T>& device, double tolerance) {
  for (std::size_t n = 0; n < host.size(); ++n) {
    const double expected = static_cast<double>(host[n]), found = static_cast<double>(device[n]);
    if (std::fabs(found - expected) <= tolerance * (1 + std::fabs(expected))) continue;
    std::printf("%s[%d]: %g on the host, %g on the device\n", what, static_cast<int>(n), expected, found);
    return false;
  }
  return true;
}

template <class T>
bool run(double tolerance) {
  lgm::shape shape;
  shape.samples = 100;
  shape.classes = 7;
  shape.dims = 5;
  const std::int64_t parameters = shape.classes * shape.dims;
  array<T> features(shape.samples * shape.dims), mean(parameters), log_variance(parameters);
  array<T> logits(shape.samples * shape.classes), loss(shape.samples), moved(parameters),
      gradient(parameters);
  array<std::int64_t> labels(shape.samples);
  for (std::int64_t n = 0; n < parameters; ++n) {
    mean.data()[n] = static_cast<T>(lgm::normal_at(1, static_cast<std::uint64_t>(n)));
    log_variance.data()[n] = static_cast<T>(lgm::normal_at(2, static_cast<std::uint64_t>(n)) / 4);
  }
  for (std::int64_t n = 0; n < shape.samples * shape.dims; ++n)
    features.data()[n] = static_cast<T>(lgm::normal_at(3, static_cast<std::uint64_t>(n)));
  for (std::int64_t i = 0; i < shape.samples; ++i) labels.data()[i] = i % shape.classes;

  const problem<T> p{shape,          {mean.data(), log_variance.data()},
                     T(0.25),        features.data(),
                     labels.data(),  logits.data(),
                     loss.data(),    moved.data(),
                     gradient.data()};
  for (std::int64_t i = 0; i < shape.samples; ++i) compute_row(p, i);
  for (std::int64_t k = 0; k < shape.classes; ++k) compute_column(p, k);
  const auto host_logits = logits.copy(), host_loss = loss.copy(), host_moved = moved.copy(),
             host_gradient = gradient.copy();
  // So that what is compared was written by the device.
  for (std::int64_t n = 0; n < shape.samples * shape.classes; ++n) logits.data()[n] = T(-1);
  for (std::int64_t n = 0; n < shape.samples; ++n) loss.data()[n] = T(-1);
  for (std::int64_t n = 0; n < parameters; ++n) moved.data()[n] = gradient.data()[n] = T(1000);

  compute_rows<<<4, 32>>>(p);
  compute_columns<<<1, 32>>>(p);
  if (cudaDeviceSynchronize() != cudaSuccess) {
    std::printf("a kernel failed: %s\n", cudaGetErrorString(cudaGetLastError()));
    return false;
  }
  return near("logits", host_logits, logits.copy(), tolerance) &&
         near("loss", host_loss, loss.copy(), tolerance) &&
         near("mean", host_moved, moved.copy(), tolerance) &&
         near("log variance gradient", host_gradient, gradient.copy(), tolerance);
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return skipped;
  }
  return run<float>(1e-5) && run<double>(1e-13) ? 0 : 1;
}
