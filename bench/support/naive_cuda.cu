// SPDX-License-Identifier: MIT
#include "support/naive_cuda.hpp"

#include <cmath>

namespace bench {

namespace {

// What all kernels read and write.
template <class T>
struct naive_arrays {
  lgm::shape s;
  lgm::mixture<T> m;
  T alpha, lambda;
  const T* features;
  const std::int64_t* labels;
  T *distance, *weight, *slope, *loss;
  lgm::gradients<T, T> gradient;

  __device__ T log_variance(std::int64_t k, std::int64_t j) const {
    if (s.covariance == lgm::covariance::identity) return T(0);
    return m.log_variance[s.covariance == lgm::covariance::spherical ? k : k * s.dims + j];
  }
  __device__ T difference(std::int64_t i, std::int64_t k, std::int64_t j) const {
    return features[i * s.dims + j] - m.mean[k * s.dims + j];
  }
};

__device__ inline std::int64_t thread_index() { return std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }

// eq:distance and eq:logit; a thread a sample and class. slope holds logits until the rows are done.
template <class T>
__global__ void naive_logits(naive_arrays<T> a) {
  const std::int64_t n = thread_index(), i = n / a.s.classes, k = n % a.s.classes;
  if (i >= a.s.samples) return;
  T distance = 0, log_det = 0;
  for (std::int64_t j = 0; j < a.s.dims; ++j) {
    const T t = a.difference(i, k, j), v = a.log_variance(k, j);
    distance += t * t * std::exp(-v);
    log_det += v;
  }
  a.distance[n] = distance / 2;
  a.slope[n] = a.m.log_prior[k] - log_det / 2 - (a.labels[i] == k ? 1 + a.alpha : T(1)) * a.distance[n];
}

// The loss and eq:weight; a thread a sample.
template <class T>
__global__ void naive_rows(naive_arrays<T> a) {
  const std::int64_t i = thread_index(), classes = a.s.classes, z = i < a.s.samples ? a.labels[i] : 0;
  if (i >= a.s.samples) return;
  T *const l = a.slope + i * classes, *const w = a.weight + i * classes, *const d = a.distance + i * classes;
  const T share = T(1) / static_cast<T>(a.s.samples);
  T top = l[0], sum = 0, log_det = 0;
  for (std::int64_t k = 1; k < classes; ++k) top = l[k] > top ? l[k] : top;
  for (std::int64_t k = 0; k < classes; ++k) sum += std::exp(l[k] - top);
  for (std::int64_t j = 0; j < a.s.dims; ++j) log_det += a.log_variance(z, j);
  a.loss[i] = top + std::log(sum) - l[z] + a.lambda * (d[z] + log_det / 2);
  for (std::int64_t k = 0; k < classes; ++k) {
    const T own = k == z ? T(1) : T(0), g = std::exp(l[k] - top) / sum - own;
    l[k] = share * g;
    w[k] = share * (own * a.lambda - g * (1 + own * a.alpha));
  }
}

// eq:grad_feature; a thread a sample and dimension.
template <class T>
__global__ void naive_features(naive_arrays<T> a) {
  const std::int64_t n = thread_index(), i = n / a.s.dims, j = n % a.s.dims;
  if (i >= a.s.samples) return;
  T sum = 0;
  for (std::int64_t k = 0; k < a.s.classes; ++k)
    sum += a.weight[i * a.s.classes + k] * std::exp(-a.log_variance(k, j)) * a.difference(i, k, j);
  a.gradient.feature[n] = sum;
}

// eq:grad_mean, and eq:grad_log_variance of a diagonal covariance; a thread a class and dimension.
template <class T>
__global__ void naive_means(naive_arrays<T> a) {
  const std::int64_t n = thread_index(), k = n / a.s.dims, j = n % a.s.dims;
  if (k >= a.s.classes) return;
  const T inverse = std::exp(-a.log_variance(k, j)), own = a.lambda / static_cast<T>(a.s.samples);
  T sum = 0, variance = 0;
  for (std::int64_t i = 0; i < a.s.samples; ++i) {
    const T t = a.difference(i, k, j), w = a.weight[i * a.s.classes + k];
    sum -= w * inverse * t;
    variance += (a.labels[i] == k ? own : T(0)) - a.slope[i * a.s.classes + k] - w * inverse * t * t;
  }
  a.gradient.mean[n] = sum;
  if (a.s.covariance == lgm::covariance::diagonal) a.gradient.log_variance[n] = variance / 2;
}

// eq:grad_log_prior, and eq:grad_log_variance of a spherical one; a thread a class.
template <class T>
__global__ void naive_classes(naive_arrays<T> a) {
  const std::int64_t k = thread_index();
  if (k >= a.s.classes) return;
  const T own = a.lambda / static_cast<T>(a.s.samples), dims = static_cast<T>(a.s.dims);
  T prior = 0, variance = 0;
  for (std::int64_t i = 0; i < a.s.samples; ++i) {
    const std::int64_t n = i * a.s.classes + k;
    prior += a.slope[n];
    variance += dims / 2 * ((a.labels[i] == k ? own : T(0)) - a.slope[n]) - a.weight[n] * a.distance[n];
  }
  a.gradient.log_prior[k] = prior;
  if (a.s.covariance == lgm::covariance::spherical) a.gradient.log_variance[k] = variance;
}

}  // namespace

template <class T>
const T* naive_cuda<T>::forward_backward(const lgm::mixture<T>& m, const lgm::loss_options<T>& options,
                                         const T* features, const std::int64_t* labels,
                                         const lgm::gradients<T, T>& gradient) {
  const naive_arrays<T> a{shape_,           m,
                          options.alpha,    options.lambda,
                          features,         labels,
                          distance_.data(), weight_.data(),
                          slope_.data(),    loss_.data(),
                          gradient};
  const auto blocks = [](std::int64_t threads) { return static_cast<unsigned>((threads + 255) / 256); };
  const std::int64_t samples = shape_.samples, classes = shape_.classes, dims = shape_.dims;
  naive_logits<<<blocks(samples * classes), 256, 0, stream_>>>(a);
  naive_rows<<<blocks(samples), 256, 0, stream_>>>(a);
  naive_features<<<blocks(samples * dims), 256, 0, stream_>>>(a);
  naive_means<<<blocks(classes * dims), 256, 0, stream_>>>(a);
  naive_classes<<<blocks(classes), 256, 0, stream_>>>(a);
  return loss_.data();
}

template class naive_cuda<float>;
template class naive_cuda<double>;

}  // namespace bench
