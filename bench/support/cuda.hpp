// SPDX-License-Identifier: MIT
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <lgm/types.hpp>
#include <string>
#include <vector>

#include "support/compiled_cuda.hpp"
#include "support/cuda_memory.hpp"
#include "support/naive_cuda.hpp"

// The context of lgm_bench_cuda: host.hpp's counterpart.

namespace bench {

// The products alone: cublasLt's, as the library calls it, on whole matrices that are there already.
template <class T>
class cuda_products {
 public:
  cuda_products(const support::compiled_cuda& context, std::int64_t samples, std::int64_t classes,
                std::int64_t dims)
      : context_(context),
        samples_(samples),
        classes_(classes),
        dims_(dims),
        logits_(samples * classes),
        scratch_(scratch_bytes()) {}

  std::int64_t bytes() const { return logits_.size() * std::int64_t(sizeof(T)) + scratch_.size(); }

  void forward(const T* features, const T* mean) {
    support::compiled_cuda_device device(context_, scratch());
    multiply_forward(device, features, mean);
  }
  void all(const T* features, const T* mean, T* feature_gradient, T* mean_gradient) {
    support::compiled_cuda_device device(context_, scratch());
    multiply_forward(device, features, mean);
    const T* const w = logits_.data();
    device.multiply(full, false, false, samples_, dims_, classes_, T(1), w, classes_, mean, dims_, T(0),
                    feature_gradient, dims_);
    device.multiply(full, true, false, classes_, dims_, samples_, T(1), w, classes_, features, dims_, T(0),
                    mean_gradient, dims_);
  }

 private:
  static constexpr auto full = lgm::detail::number_format::full;

  void multiply_forward(support::compiled_cuda_device& device, const T* features, const T* mean) {
    device.multiply(full, false, true, samples_, classes_, dims_, T(1), features, dims_, mean, dims_, T(0),
                    logits_.data(), classes_);
  }
  std::int64_t scratch_bytes() const {
    lgm::shape s;
    s.samples = samples_;
    s.classes = classes_;
    s.dims = dims_;
    return static_cast<std::int64_t>(
        lgm::detail::device_traits<support::compiled_cuda>::scratch_bytes(context_, s));
  }
  lgm::workspace scratch() { return {scratch_.data(), static_cast<std::size_t>(scratch_.size())}; }

  support::compiled_cuda context_;
  std::int64_t samples_, classes_, dims_;
  cuda_array<T> logits_;
  cuda_array<char> scratch_;
};

// The floor of what computes little: a copy that reads and writes as many bytes together.
template <class T>
class cuda_memory_pass {
 public:
  cuda_memory_pass(const support::compiled_cuda& context, std::int64_t read, std::int64_t written)
      : stream_(context.stream), from_((read + written) / 2), to_(from_.size()) {}
  void run() {
    cudaMemcpyAsync(to_.data(), from_.data(), static_cast<std::size_t>(from_.size()) * sizeof(T),
                    cudaMemcpyDefault, stream_);
  }

 private:
  cudaStream_t stream_;
  cuda_array<T> from_, to_;
};

struct cuda {
  std::string name;
  support::compiled_cuda context;

  // Every call is timed by itself: the cache is emptied before each.
  static constexpr double most_calls = 1;

  static std::vector<cuda> all() {
    support::compiled_cuda context;
    context.waits = false;
    context.tile_bytes = lgm::cuda_context().tile_bytes;
    return {{"cuda", context}};
  }
  std::string threads() const { return "1"; }  // of the host's
  void enter() const {}

  template <class F>
  static double seconds(F f) {
    static cuda_stopwatch watch;
    return watch.seconds(nullptr, f);
  }

  template <class T>
  using array = cuda_array<T>;
  template <class T>
  static void copy(const T* from, std::int64_t n, T* to) {
    cudaMemcpy(to, from, static_cast<std::size_t>(n) * sizeof(T), cudaMemcpyDefault);
  }

  template <class T>
  using products = cuda_products<T>;
  template <class T>
  using plain_products = cuda_products<T>;
  template <class T>
  using memory_pass = cuda_memory_pass<T>;
  template <class T>
  using naive_lgm = naive_cuda<T>;
};

}  // namespace bench
