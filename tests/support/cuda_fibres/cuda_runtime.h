// SPDX-License-Identifier: MIT
#pragma once

#include "support/cuda_fibres.hpp"

// What the library's device code uses of CUDA's language, for the host's compiler. The blocks run one after the other: what a
// block shares is a static variable, which the next block finds as it was left, as it would on a device.

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __grid_constant__
#define __launch_bounds__(...)

#define threadIdx (::support::cuda_fibres::running().thread())
#define blockIdx (::support::cuda_fibres::running().block())
#define blockDim (::support::cuda_fibres::running().threads())
#define gridDim (::support::cuda_fibres::running().blocks())

inline void __syncthreads() { ::support::cuda_fibres::running().sync_threads(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { ::support::cuda_fibres::running().sync_warp(mask); }

// Of lanes of the whole warp alone: narrower segments are not needed.
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int step, int width = 32) {
  if (width != 32) throw ::support::cuda_misuse("a shuffle within a part of a warp");
  return ::support::cuda_fibres::running().shuffle_xor(mask, value, step);
}
