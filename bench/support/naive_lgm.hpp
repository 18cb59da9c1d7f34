// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <lgm/detail/parallel.hpp>
#include <lgm/host.hpp>

#include "support/array.hpp"

namespace bench {

// The loss and its gradients as published layers compute them: the formulas one after the other, in loops over samples,
// classes and dimensions, with whole matrices in between. Averaged over the samples; every label counts.
template <class T>
class naive_lgm {
 public:
  naive_lgm(const lgm::host_context& context, const lgm::shape& shape)
      : context_(context),
        shape_(shape),
        distance_(shape.samples * shape.classes),
        weight_(shape.samples * shape.classes),
        slope_(shape.samples * shape.classes),
        inverse_variance_(lgm::log_variance_size(shape)),
        half_log_det_(shape.classes),
        loss_(shape.samples) {}

  std::int64_t bytes() const {
    return (3 * distance_.size() + inverse_variance_.size() + half_log_det_.size() + loss_.size()) *
           std::int64_t(sizeof(T));
  }

  // gradient.log_variance is not read with unit variances; the other pointers are not null. Returns the loss.
  T forward_backward(const lgm::mixture<T>& m, const lgm::loss_options<T>& options, const T* features,
                     const std::int64_t* labels, const lgm::gradients<T, T>& gradient) {
    const std::int64_t samples = shape_.samples, classes = shape_.classes, dims = shape_.dims;
    const T share = T(1) / static_cast<T>(samples);
    const std::int64_t variances = inverse_variance_.size(), each = variances / classes;
    for (std::int64_t n = 0; n < variances; ++n) inverse_variance_[n] = std::exp(-m.log_variance[n]);
    for (std::int64_t k = 0; k < classes; ++k) {
      T sum = 0;
      for (std::int64_t j = 0; j < each; ++j) sum += m.log_variance[k * each + j];
      half_log_det_[k] = sum * static_cast<T>(spherical() ? dims : 1) / 2;
    }
    for_each(samples, [&](std::int64_t i) {
      const T* const x = features + i * dims;
      T* const d = distance_.data() + i * classes;
      T* const w = weight_.data() + i * classes;
      T* const g = slope_.data() + i * classes;
      const std::int64_t z = labels[i];
      for (std::int64_t k = 0; k < classes; ++k) {
        T sum = 0;
        for (std::int64_t j = 0; j < dims; ++j) {
          const T difference = x[j] - m.mean[k * dims + j];
          sum += difference * difference * inverse_variance(k, j);
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
      for (std::int64_t k = 0; k < classes; ++k)
        for (std::int64_t j = 0; j < dims; ++j)
          out[j] += w[k] * inverse_variance(k, j) * (x[j] - m.mean[k * dims + j]);
    });
    for_each(classes, [&](std::int64_t k) {
      T* const mean = gradient.mean + k * dims;
      T* const variance = each > 0 ? gradient.log_variance + k * each : nullptr;
      std::fill(mean, mean + dims, T(0));
      gradient.log_prior[k] = 0;
      std::fill(variance, variance + each, T(0));
      for (std::int64_t i = 0; i < samples; ++i) {
        const T w = weight_[i * classes + k], g = slope_[i * classes + k];
        const T own = labels[i] == k ? share * options.lambda : T(0);
        gradient.log_prior[k] += g;
        for (std::int64_t j = 0; j < dims; ++j) {
          const T difference = features[i * dims + j] - m.mean[k * dims + j];
          const T scaled = difference * inverse_variance(k, j);
          mean[j] -= w * scaled;
          if (each > 0) variance[spherical() ? 0 : j] += (own - g - w * difference * scaled) / 2;
        }
      }
    });
    T loss = 0;
    for (std::int64_t i = 0; i < samples; ++i) loss += loss_[i];
    return share * loss;
  }

 private:
  bool spherical() const { return shape_.covariance == lgm::covariance::spherical; }
  T inverse_variance(std::int64_t k, std::int64_t j) const {
    if (inverse_variance_.size() == 0) return 1;
    return inverse_variance_[spherical() ? k : k * shape_.dims + j];
  }

  template <class F>
  void for_each(std::int64_t n, F f) const {
    lgm::detail::parallel_for<lgm::detail::host_threads>(context_.parallel_for, lgm::host::threads(context_),
                                                         n, [&](std::int64_t i, int) { f(i); });
  }

  lgm::host_context context_;
  lgm::shape shape_;
  array<T> distance_, weight_, slope_;  // [samples, classes]: d_k, w_k and g_k
  array<T> inverse_variance_;           // of the mixture's shape
  array<T> half_log_det_;               // [classes]
  array<T> loss_;                       // [samples]
};

}  // namespace bench
