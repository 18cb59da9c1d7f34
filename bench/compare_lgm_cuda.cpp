// SPDX-License-Identifier: MIT

// The library's CUDA driver behind a few C functions, for compare.py to load: they enqueue on a stream that PyTorch gives,
// on device memory that is PyTorch's. compare_lgm.cpp is the host's.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <lgm/types.hpp>
#include <string>

#include "support/compiled_cuda.hpp"
#include "support/narrow.hpp"

extern "C" {

// All pointers are of device memory; what a covariance does not have may be null.
struct lgm_compare_cuda_problem {
  std::int64_t samples, classes, dims;
  std::int32_t covariance, precision;  // as lgm::covariance and lgm::precision
  std::int32_t bfloat16;               // whether features and their gradient are that, and not float
  float alpha, lambda;
  const void* features;
  const float *mean, *log_variance, *log_prior;
  const std::int64_t* labels;
  float* loss;
  void* feature_gradient;
  float *mean_gradient, *log_variance_gradient, *log_prior_gradient;
  void* workspace;
  std::int64_t workspace_bytes;
  cudaStream_t stream;
};

}  // extern "C"

namespace {

lgm::shape shape_of(const lgm_compare_cuda_problem& p) {
  lgm::shape s;
  s.samples = p.samples;
  s.classes = p.classes;
  s.dims = p.dims;
  s.covariance = static_cast<lgm::covariance>(p.covariance);
  return s;
}

support::compiled_cuda context_of(const lgm_compare_cuda_problem& p) {
  support::compiled_cuda context;
  context.stream = p.stream;
  context.precision = static_cast<lgm::precision>(p.precision);
  context.tile_bytes = lgm::cuda_context().tile_bytes;
  context.waits = false;
  return context;
}

template <class F>
lgm::status forward_backward(const lgm_compare_cuda_problem& p) {
  lgm::loss_options<float> options;
  options.alpha = p.alpha;
  options.lambda = p.lambda;
  lgm::loss_result<float> result;
  result.total = p.loss;
  const lgm::gradients<F, float> gradients{static_cast<F*>(p.feature_gradient), p.mean_gradient,
                                           p.log_variance_gradient, p.log_prior_gradient};
  return lgm::forward_backward(context_of(p), shape_of(p),
                               lgm::mixture<float>{p.mean, p.log_variance, p.log_prior}, options,
                               static_cast<const F*>(p.features), p.labels, nullptr, result, gradients,
                               {p.workspace, static_cast<std::size_t>(p.workspace_bytes)});
}

}  // namespace

extern "C" {

// What forward_backward needs; 0 for a shape or a precision that it would refuse.
std::int64_t lgm_compare_cuda_workspace_bytes(const lgm_compare_cuda_problem* p) {
  return static_cast<std::int64_t>(p->bfloat16 != 0
                                       ? lgm::workspace_size<support::brain16>(context_of(*p), shape_of(*p))
                                       : lgm::workspace_size<float>(context_of(*p), shape_of(*p)));
}

// Enqueues forward_backward. Null, or static text that says what went wrong.
const char* lgm_compare_cuda_forward_backward(const lgm_compare_cuda_problem* p) {
  const lgm::status answer =
      p->bfloat16 != 0 ? forward_backward<support::brain16>(*p) : forward_backward<float>(*p);
  return answer == lgm::status::success ? nullptr : lgm::to_string(answer);
}

// What was compiled: static text.
const char* lgm_compare_cuda_build() {
  static const std::string text =
      "lgm " + std::to_string(LGM_VERSION_MAJOR) + "." + std::to_string(LGM_VERSION_MINOR) + "." +
      std::to_string(LGM_VERSION_PATCH) + ", CUDA " + std::to_string(CUDART_VERSION / 1000) + "." +
      std::to_string(CUDART_VERSION % 1000 / 10);
  return text.c_str();
}

}  // extern "C"
