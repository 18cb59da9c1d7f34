// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <map>

// What support/cuda_array.hpp uses of CUDA's memory, for a test without CUDA: device memory is the host's, elsewhere, and a copy
// in the wrong direction or beyond an allocation fails.

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
using cudaStream_t = struct CUstream_st*;

namespace support {

inline std::map<const void*, std::size_t>& device_allocations() {
  static std::map<const void*, std::size_t> all;
  return all;
}

}  // namespace support

inline cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  *pointer = std::malloc(bytes);
  support::device_allocations()[*pointer] = bytes;
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* pointer) {
  support::device_allocations().erase(pointer);
  std::free(pointer);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const auto& all = support::device_allocations();
  const auto device = all.find(kind == cudaMemcpyHostToDevice ? to : from);
  if (device == all.end() || device->second < bytes ||
      all.count(kind == cudaMemcpyHostToDevice ? from : to) > 0)
    return cudaErrorInvalidValue;
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
