// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <lgm/detail/host/parallel.hpp>
#include <lgm/host.hpp>
#include <numeric>

#include "support/array.hpp"

namespace bench {

// The loss and its gradients as published layers compute them: the formulas one after the other, in loops over
// samples, classes and dimensions, with whole matrices in between. Averaged over the samples; every label counts.
template <class T>
class naive_lgm {
 public:
  naive_lgm(const lgm::host_context& context, const lgm::shape& shape)
      : context_(context),
        shape_(shape),
        distance_(shape.samples * shape.classes),
        weight_(shape.samples * shape.classes),
        slope_(shape.samples * shape.classes),
        inverse_variance_(shape.classes * shape.dims),
        variance_gradient_(shape.classes * shape.dims),
        half_log_det_(shape.classes),
        loss_(shape.samples) {}

  std::int64_t bytes() const {
    return (3 * distance_.size() + 2 * inverse_variance_.size() + half_log_det_.size() + loss_.size()) *
           std::int64_t(sizeof(T));
  }

  // gradient.log_variance is not read with unit variances; the other pointers are not null. Returns the loss.
  T forward_backward(const lgm::mixture<T>& m, const lgm::loss_options<T>& options, const T* features,
                     const std::int64_t* labels, const lgm::gradients<T, T>& gradient) {
    if (shape_.covariance == lgm::covariance::identity)
      return step<true>(m, options, features, labels, gradient);
    return step<false>(m, options, features, labels, gradient);
  }

 private:
  template <bool Unit>
  T step(const lgm::mixture<T>& m, const lgm::loss_options<T>& options, const T* features,
         const std::int64_t* labels, const lgm::gradients<T, T>& gradient) {
    const std::int64_t samples = shape_.samples, classes = shape_.classes, dims = shape_.dims;
    const T share = T(1) / static_cast<T>(samples);
    const bool spherical = shape_.covariance == lgm::covariance::spherical;
    for (std::int64_t k = 0; k < classes; ++k) {
      T sum = 0;
      for (std::int64_t j = 0; j < dims && !Unit; ++j) {
        const T log_variance = m.log_variance[spherical ? k : k * dims + j];
        inverse_variance_[k * dims + j] = std::exp(-log_variance);
        sum += log_variance;
      }
      half_log_det_[k] = sum / 2;
    }
    for_each(samples, [&](std::int64_t i) {
      const T* const x = features + i * dims;
      T* const d = distance_.data() + i * classes;
      T* const w = weight_.data() + i * classes;
      T* const g = slope_.data() + i * classes;
      const std::int64_t z = labels[i];
      for (std::int64_t k = 0; k < classes; ++k) {
        const T* const mean = m.mean + k * dims;
        const T* const inverse = inverse_variance_.data() + k * dims;
        T sum = 0;
        for (std::int64_t j = 0; j < dims; ++j) {
          const T difference = x[j] - mean[j];
          sum += difference * difference * (Unit ? T(1) : inverse[j]);
        }
        d[k] = sum / 2;
        g[k] = m.log_prior[k] - half_log_det_[k] - (k == z ? 1 + options.alpha : T(1)) * d[k];
      }
      const T max = *std::max_element(g, g + classes);
      const T target = g[z] - max;
      T sum = 0;
      for (std::int64_t k = 0; k < classes; ++k) sum += g[k] = std::exp(g[k] - max);
      loss_[i] = std::log(sum) - target + options.lambda * (d[z] + half_log_det_[z]);
      for (std::int64_t k = 0; k < classes; ++k) {
        g[k] = share * (g[k] / sum - (k == z ? T(1) : T(0)));
        w[k] = k == z ? -g[k] * (1 + options.alpha) + share * options.lambda : -g[k];
      }
      T* const out = gradient.feature + i * dims;
      std::fill(out, out + dims, T(0));
      for (std::int64_t k = 0; k < classes; ++k) {
        const T* const mean = m.mean + k * dims;
        const T* const inverse = inverse_variance_.data() + k * dims;
        const T weight = w[k];
        for (std::int64_t j = 0; j < dims; ++j)
          out[j] += weight * (Unit ? T(1) : inverse[j]) * (x[j] - mean[j]);
      }
    });
    for_each(classes, [&](std::int64_t k) {
      const T* const mean = m.mean + k * dims;
      const T* const inverse = inverse_variance_.data() + k * dims;
      T* const out = gradient.mean + k * dims;
      T* const variance = variance_gradient_.data() + k * dims;
      std::fill(out, out + dims, T(0));
      std::fill(variance, variance + dims, T(0));
      T slopes = 0;
      for (std::int64_t i = 0; i < samples; ++i) {
        const T* const x = features + i * dims;
        const T w = weight_[i * classes + k], g = slope_[i * classes + k];
        const T own = labels[i] == k ? share * options.lambda : T(0);
        slopes += g;
        for (std::int64_t j = 0; j < dims; ++j) {
          const T difference = x[j] - mean[j], scaled = difference * (Unit ? T(1) : inverse[j]);
          out[j] -= w * scaled;
          if (!Unit) variance[j] += (own - g - w * difference * scaled) / 2;
        }
      }
      gradient.log_prior[k] = slopes;
      if (Unit) return;
      if (spherical)
        gradient.log_variance[k] = std::accumulate(variance, variance + dims, T(0));
      else
        std::copy(variance, variance + dims, gradient.log_variance + k * dims);
    });
    return share * std::accumulate(loss_.data(), loss_.data() + samples, T(0));
  }

  template <class F>
  void for_each(std::int64_t n, F f) const {
    lgm::detail::parallel_for<lgm::detail::host_threads>(
        context_.parallel_for, lgm::detail::host::threads(context_), n, [&](std::int64_t i, int) { f(i); });
  }

  lgm::host_context context_;
  lgm::shape shape_;
  array<T> distance_, weight_, slope_;             // [samples, classes]: d_k, w_k and g_k
  array<T> inverse_variance_, variance_gradient_;  // [classes, dims]
  array<T> half_log_det_;                          // [classes]
  array<T> loss_;                                  // [samples]
};

}  // namespace bench
