// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <lgm/cuda_context.cuh>
#include <lgm/detail/cuda_device.cuh>
#include <lgm/device.hpp>
#include <lgm/types.hpp>

// The functions of device.hpp for CUDA: with this file included they take a cuda_context.

namespace lgm::detail {

template <>
struct device_traits<cuda_context> {
  using device_type = cuda_device;
  static std::size_t scratch_bytes(const cuda_context&, const shape& s) {
    return cuda_device::scratch_bytes(s);
  }
};

}  // namespace lgm::detail
