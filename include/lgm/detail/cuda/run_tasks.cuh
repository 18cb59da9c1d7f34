// SPDX-License-Identifier: MIT
#pragma once

#include <cuda_runtime.h>
#include <cstdint>
#include <lgm/detail/cuda/block_group.cuh>
#include <lgm/detail/cuda/launch_shape.hpp>
#include <lgm/detail/device/tuning.hpp>
#include <lgm/group.hpp>
#include <type_traits>

// The one kernel: what runs a function object over a group, task by task.

namespace lgm::detail {

template <int Lanes>
struct group_of {
  using type = std::conditional_t<(Lanes > 32), block_group<(Lanes > 32 ? Lanes : 64), tuning::held>,
                                  warp_group<(Lanes > 32 ? 32 : Lanes), tuning::held>>;
};
template <>
struct group_of<1> {
  using type = serial_group;
};

// A kernel's tasks, in turn where there are more than groups.
template <int Lanes, class Kernel>
__global__ void __launch_bounds__(launch_shape::threads_of(Lanes), 1)
    run_tasks(const __grid_constant__ Kernel kernel, std::int64_t tasks) {
  constexpr int groups = launch_shape::groups_of(Lanes);
  const typename group_of<Lanes>::type group;
  const std::int64_t first = std::int64_t(blockIdx.x) * groups + threadIdx.x / Lanes,
                     step = std::int64_t(gridDim.x) * groups;
  for (std::int64_t task = first; task < tasks; task += step) {
    kernel(group, task);
    if (Lanes > 32) __syncthreads();
  }
}

}  // namespace lgm::detail
