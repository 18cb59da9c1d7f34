// SPDX-License-Identifier: MIT

// The operators on CUDA: on PyTorch's current stream and cuBLAS handle, with workspaces from its allocator. Features of
// float16 and bfloat16 are read as they are, next to parameters of float32.

#include <ATen/cuda/CUDAContext.h>

#include <lgm/lgm.cuh>

#include "operators.hpp"

namespace lgm_torch {
namespace {

struct cuda_backend {
  static lgm::cuda_context context(const at::Device& device) {
    lgm::cuda_context context;
    context.stream = at::cuda::getCurrentCUDAStream(device.index());
    context.handle = at::cuda::getCurrentCUDABlasHandle();
    return context;
  }
  static at::ScalarType computed_as(at::ScalarType features, at::ScalarType parameters) {
    const bool as_it_is = features == at::kHalf || features == at::kBFloat16;
    return as_it_is && parameters == at::kFloat ? features : parameters;
  }
  template <class T, class Use>
  static void with_features(const Tensor& features, Use use) {
    if constexpr (std::is_same_v<T, float>) {
      const void* const data = features.numel() > 0 ? features.const_data_ptr() : nullptr;
      if (features.scalar_type() == at::kHalf) return use(static_cast<const __half*>(data));
      if (features.scalar_type() == at::kBFloat16) return use(static_cast<const __nv_bfloat16*>(data));
    }
    use(pointer<const T>(features));
  }
  template <class T>
  static lgm::status schedule(const lgm::cuda_context& context, const lgm::stepped_schedule<T>& schedule,
                              const std::int64_t* iteration, T* out) {
    return lgm::scheduled_alpha(context, schedule, iteration, out);
  }
  template <class T>
  static void set_alpha(lgm::loss_options<T>& options, const Tensor& alpha) {
    options.alpha_at = alpha.const_data_ptr<T>();
  }
};

}  // namespace
}  // namespace lgm_torch

TORCH_LIBRARY_IMPL(lgm, CUDA, m) { lgm_torch::operators<lgm_torch::cuda_backend>::register_in(m); }
