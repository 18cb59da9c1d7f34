// SPDX-License-Identifier: MIT
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cstddef>
#include <lgm/cuda_context.cuh>
#include <lgm/detail/cuda/cuda_device.cuh>
#include <lgm/detail/cuda/product_scratch.hpp>
#include <lgm/detail/number_format.hpp>
#include <lgm/device.hpp>
#include <lgm/types.hpp>

// The functions of device.hpp for CUDA: with this file included they take a cuda_context, and features and feature gradients
// of __half and __nv_bfloat16.

namespace lgm::detail {

template <>
struct feature_type<__half> {
  using parameter = float;
  static constexpr number_format format = number_format::half;
};
template <>
struct feature_type<__nv_bfloat16> {
  using parameter = float;
  static constexpr number_format format = number_format::bfloat16;
};

template <>
struct device_traits<cuda_context> {
  using device_type = cuda_device;
  static std::size_t scratch_bytes(const cuda_context&, const shape& s) { return product_scratch_bytes(s); }
};

}  // namespace lgm::detail
