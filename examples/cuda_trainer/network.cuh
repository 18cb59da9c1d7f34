// SPDX-License-Identifier: MIT
#pragma once

#include <cublas_v2.h>
#include <thrust/device_vector.h>
#include <thrust/execution_policy.h>
#include <thrust/fill.h>
#include <thrust/for_each.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/transform.h>

#include <cmath>
#include <cstdint>
#include <lgm/column.hpp>
#include <lgm/formula.hpp>

#include "must.hpp"

// Two dense layers with a ReLU between them: features = relu(x w1 + b1) w2 + b2. Matrices are row-major in device memory,
// and everything is enqueued on one stream without waiting.

namespace cuda_trainer {

// f(i) for every index of [0, n), a thread each.
template <class F>
void for_each_index(cudaStream_t stream, std::int64_t n, F f) {
  const thrust::counting_iterator<std::int64_t> first(0);
  thrust::for_each(thrust::cuda::par_nosync.on(stream), first, first + n, f);
}

// cuBLAS is column-major: row-major c [m, n] = op(a) op(b) is its transpose, op(b)' op(a)', of the same memory.
inline void multiply(cublasHandle_t handle, bool transpose_a, bool transpose_b, std::int64_t m,
                     std::int64_t n, std::int64_t k, const float* a, const float* b, float* c) {
  const float one = 1, zero = 0;
  const auto operation = [](bool transposed) { return transposed ? CUBLAS_OP_T : CUBLAS_OP_N; };
  const auto size = [](std::int64_t value) { return static_cast<int>(value); };
  must(cublasSgemm(handle, operation(transpose_b), operation(transpose_a), size(n), size(m), size(k), &one, b,
                   size(transpose_b ? k : n), a, size(transpose_a ? m : k), &zero, c, size(n)));
}

class network {
 public:
  // Batches may have up to `rows` samples.
  network(std::int64_t inputs, std::int64_t hidden, std::int64_t outputs, std::int64_t rows,
          std::uint64_t seed)
      : inputs_(inputs),
        hidden_(hidden),
        outputs_(outputs),
        parameters_(static_cast<std::size_t>(size())),
        gradient_(parameters_.size()),
        velocity_(parameters_.size()),
        hidden_values_(static_cast<std::size_t>(rows * hidden)),
        hidden_gradient_(hidden_values_.size()),
        ones_(static_cast<std::size_t>(rows), 1.0f) {
    // He's initialisation of both weights; biases are zero.
    initialize(weight1(parameters_), inputs * hidden, inputs, seed);
    initialize(weight2(parameters_), hidden * outputs, hidden, seed + 1);
  }

  // out [rows, outputs].
  void forward(cublasHandle_t handle, cudaStream_t stream, std::int64_t rows, const float* x, float* out) {
    float* const h = data(hidden_values_);
    const float *const b1 = bias1(parameters_), *const b2 = bias2(parameters_);
    const std::int64_t width = hidden_, outputs = outputs_;
    multiply(handle, false, false, rows, hidden_, inputs_, x, weight1(parameters_), h);
    for_each_index(stream, rows * hidden_, [=] __device__(std::int64_t i) {
      const float sum = h[i] + b1[i % width];
      h[i] = sum > 0 ? sum : 0;
    });
    multiply(handle, false, false, rows, outputs_, hidden_, h, weight2(parameters_), out);
    for_each_index(stream, rows * outputs_, [=] __device__(std::int64_t i) { out[i] += b2[i % outputs]; });
  }

  // The parameters' gradients, from that of the last forward(x)'s features, out_gradient [rows, outputs].
  void backward(cublasHandle_t handle, cudaStream_t stream, std::int64_t rows, const float* x,
                const float* out_gradient) {
    const float* const h = data(hidden_values_);
    float* const g = data(hidden_gradient_);
    multiply(handle, true, false, hidden_, outputs_, rows, h, out_gradient, weight2(gradient_));
    multiply(handle, false, false, 1, outputs_, rows, data(ones_), out_gradient, bias2(gradient_));
    multiply(handle, false, true, rows, hidden_, outputs_, out_gradient, weight2(parameters_), g);
    for_each_index(stream, rows * hidden_, [=] __device__(std::int64_t i) {
      if (h[i] <= 0) g[i] = 0;
    });
    multiply(handle, true, false, inputs_, hidden_, rows, x, g, weight1(gradient_));
    multiply(handle, false, false, 1, hidden_, rows, data(ones_), g, bias1(gradient_));
  }

  // A step of SGD with momentum: the library's own update, a thread a parameter.
  void step(cudaStream_t stream, float rate, float momentum) {
    float *const p = data(parameters_), *const v = data(velocity_);
    const float* const g = data(gradient_);
    const float unbounded = lgm::numeric<float>::infinity;
    const lgm::sgd_rule<float> rule{rate, momentum, 0, 1, false, -unbounded, unbounded};
    for_each_index(stream, size(), [=] __device__(std::int64_t i) {
      lgm::sgd_update(lgm::serial_group{}, 1, rule, g + i, v + i, p + i);
    });
  }

  // Public, as nvcc wants functions that have a kernel.
  static void initialize(float* out, std::int64_t n, std::int64_t inputs, std::uint64_t seed) {
    const double deviation = std::sqrt(2.0 / static_cast<double>(inputs));
    for_each_index(nullptr, n, [=] __device__(std::int64_t i) {
      out[i] = static_cast<float>(deviation * lgm::normal_at(seed, static_cast<std::uint64_t>(i)));
    });
  }

 private:
  using array = thrust::device_vector<float>;
  static float* data(array& a) { return thrust::raw_pointer_cast(a.data()); }

  // All parameters in one array: w1 [inputs, hidden], b1 [hidden], w2 [hidden, outputs], b2 [outputs].
  std::int64_t size() const { return (inputs_ + 1) * hidden_ + (hidden_ + 1) * outputs_; }
  float* weight1(array& a) const { return data(a); }
  float* bias1(array& a) const { return data(a) + inputs_ * hidden_; }
  float* weight2(array& a) const { return bias1(a) + hidden_; }
  float* bias2(array& a) const { return weight2(a) + hidden_ * outputs_; }

  std::int64_t inputs_, hidden_, outputs_;
  array parameters_, gradient_, velocity_, hidden_values_, hidden_gradient_, ones_;
};

}  // namespace cuda_trainer
