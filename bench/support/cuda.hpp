// SPDX-License-Identifier: MIT
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <lgm/detail/device/product_form.hpp>
#include <lgm/detail/number_format.hpp>
#include <lgm/types.hpp>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/array.hpp"
#include "support/compiled_cuda.hpp"
#include "support/cuda_memory.hpp"
#include "support/naive_cuda.hpp"
#include "support/narrow.hpp"
#include "support/problem.hpp"

// The contexts of lgm_bench_cuda: host.hpp's counterpart.

namespace bench {

// The products alone: cublasLt's, as the library calls it, on whole matrices that are there already. As many of each, of
// operands of the same type, as the library makes of features F at the context's precision.
template <class F, class T>
class cuda_products {
 public:
  cuda_products(const support::compiled_cuda& context, std::int64_t samples, std::int64_t classes,
                std::int64_t dims)
      : context_(context),
        samples_(samples),
        classes_(classes),
        dims_(dims),
        form_(lgm::detail::product_form::make(lgm::detail::feature_type<F>::format, lgm::covariance::identity,
                                              context.precision)),
        logits_(samples * classes),
        narrow_mean_(narrow ? classes * dims : 0),
        narrow_weights_(narrow ? samples * classes : 0),
        feature_sums_(narrow ? samples * dims : 0),
        scratch_(scratch_bytes()) {
    fill(narrow_mean_);
    fill(narrow_weights_);
  }

  std::int64_t bytes() const {
    return (logits_.size() + feature_sums_.size()) * std::int64_t(sizeof(T)) +
           (narrow_mean_.size() + narrow_weights_.size()) * std::int64_t(sizeof(F)) + scratch_.size();
  }

  void forward(const F* features, const T* mean) {
    support::compiled_cuda_device device(context_, scratch());
    multiply_forward(device, features, mean);
  }
  void all(const F* features, const T* mean, F* feature_gradient, T* mean_gradient) {
    support::compiled_cuda_device device(context_, scratch());
    multiply_forward(device, features, mean);
    multiply(device, form_.weight_parts + form_.mean_parts - 1, false, false, samples_, dims_, classes_,
             either(narrow_weights_, logits_.data()), classes_, either(narrow_mean_, mean), dims_,
             either(feature_sums_, feature_gradient), dims_);
    multiply(device, form_.weight_parts + form_.feature_parts - 1, true, false, classes_, dims_, samples_,
             either(narrow_weights_, logits_.data()), classes_, features, dims_, mean_gradient, dims_);
  }

 private:
  static constexpr bool narrow = !std::is_same<F, T>::value;

  // With features of T everything is where the problem has it; else in memory of its own.
  template <class Own, class Given>
  static auto either(cuda_array<Own>& own, Given* given) {
    if constexpr (narrow)
      return own.data();
    else
      return given;
  }
  // The same numbers over and over: products of zeros draw less power, and may be faster.
  static void fill(cuda_array<F>& out) {
    random_numbers random;
    bench::array<F> numbers(std::min(out.size(), std::int64_t(1) << 20));
    for (std::int64_t n = 0; n < numbers.size(); ++n) numbers[n] = static_cast<F>(random.normal());
    for (std::int64_t n = 0; n < out.size(); n += numbers.size())
      cudaMemcpy(out.data() + n, numbers.data(),
                 static_cast<std::size_t>(std::min(numbers.size(), out.size() - n)) * sizeof(F),
                 cudaMemcpyDefault);
  }

  void multiply_forward(support::compiled_cuda_device& device, const F* features, const T* mean) {
    multiply(device, form_.feature_parts + form_.mean_parts - 1, false, true, samples_, classes_, dims_,
             features, dims_, either(narrow_mean_, mean), dims_, logits_.data(), classes_);
  }
  // A product of each pair of parts, without low times low: all of the same operands, which costs as much.
  void multiply(support::compiled_cuda_device& device, int pairs, bool transpose_a, bool transpose_b,
                std::int64_t m, std::int64_t n, std::int64_t k, const void* a, std::int64_t lda,
                const void* b, std::int64_t ldb, T* c, std::int64_t ldc) {
    for (int pair = 0; pair < pairs; ++pair)
      device.multiply(form_.format, transpose_a, transpose_b, m, n, k, T(1), a, lda, b, ldb,
                      pair == 0 ? T(0) : T(1), c, ldc);
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
  lgm::detail::product_form form_;
  cuda_array<T> logits_;
  cuda_array<F> narrow_mean_, narrow_weights_;
  cuda_array<T> feature_sums_;
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

// Kinds of products: the type of features beside parameters of T, and precisions by what a context is called.
struct full_products {
  template <class T>
  using feature = T;
  static constexpr std::pair<const char*, lgm::precision> precisions[] = {{"cuda", lgm::precision::highest}};
};
struct tf32_products {
  template <class T>
  using feature = T;
  static constexpr std::pair<const char*, lgm::precision> precisions[] = {
      {"cuda-split-tf32", lgm::precision::split_tf32}, {"cuda-tf32", lgm::precision::tf32}};
};
struct bfloat16_products {
  template <class T>
  using feature = support::brain16;
  static constexpr std::pair<const char*, lgm::precision> precisions[] = {
      {"cuda-bfloat16", lgm::precision::highest}, {"cuda-bfloat16-fast", lgm::precision::fast}};
};

template <class Products>
struct cuda_with {
  std::string name;
  support::compiled_cuda context;

  // Every call is timed by itself: the cache is emptied before each.
  static constexpr double most_calls = 1;

  static std::vector<cuda_with> all() {
    std::vector<cuda_with> contexts;
    for (const auto& [name, precision] : Products::precisions) {
      support::compiled_cuda context;
      context.waits = false;
      context.tile_bytes = lgm::cuda_context().tile_bytes;
      context.precision = precision;
      contexts.push_back({name, context});
    }
    return contexts;
  }
  std::string threads() const { return "1"; }  // of the host's
  void enter() const {}

  template <class F>
  static double seconds(F f) {
    static cuda_stopwatch watch;
    return watch.seconds(nullptr, f);
  }

  template <class T>
  using feature = typename Products::template feature<T>;
  template <class T>
  using array = cuda_array<T>;
  template <class T>
  static void copy(const T* from, std::int64_t n, T* to) {
    cudaMemcpy(to, from, static_cast<std::size_t>(n) * sizeof(T), cudaMemcpyDefault);
  }

  template <class T>
  using products = cuda_products<feature<T>, T>;
  template <class T>
  using plain_products = cuda_products<feature<T>, T>;
  template <class T>
  using memory_pass = cuda_memory_pass<T>;
  template <class T>
  using naive_lgm = naive_cuda<T>;
};
using cuda = cuda_with<full_products>;
using cuda_tf32 = cuda_with<tf32_products>;
using cuda_bfloat16 = cuda_with<bfloat16_products>;

}  // namespace bench
