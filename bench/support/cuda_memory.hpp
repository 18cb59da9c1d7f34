// SPDX-License-Identifier: MIT
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

namespace bench {

// Device memory that holds anything at first. Throws std::bad_alloc where there is not so much.
template <class T>
class cuda_array {
 public:
  cuda_array() = default;
  explicit cuda_array(std::int64_t size) : size_(size) {
    void* memory = nullptr;
    if (size > 0 && cudaMalloc(&memory, static_cast<std::size_t>(size) * sizeof(T)) != cudaSuccess)
      throw std::bad_alloc();
    data_ = static_cast<T*>(memory);
  }
  cuda_array(cuda_array&& other) noexcept { *this = std::move(other); }
  cuda_array& operator=(cuda_array&& other) noexcept {
    std::swap(size_, other.size_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~cuda_array() { cudaFree(data_); }

  std::int64_t size() const { return size_; }
  T* data() { return data_; }
  const T* data() const { return data_; }

 private:
  std::int64_t size_ = 0;
  T* data_ = nullptr;
};

// Times work on a stream by the device's own clock.
class cuda_stopwatch {
 public:
  cuda_stopwatch() {
    int device = 0, cache = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, device);
    flushed_ = cuda_array<char>(2 * std::int64_t(cache));
    cudaEventCreate(&begin_);
    cudaEventCreate(&end_);
  }
  ~cuda_stopwatch() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  cuda_stopwatch(const cuda_stopwatch&) = delete;
  cuda_stopwatch& operator=(const cuda_stopwatch&) = delete;

  // Of what f() enqueues on the stream. The second-level cache holds nothing of use before; and while it is emptied, the
  // host enqueues, so that what is timed are launches in a row, not the host between them.
  template <class F>
  double seconds(cudaStream_t stream, F f) {
    cudaMemsetAsync(flushed_.data(), 0, static_cast<std::size_t>(flushed_.size()), stream);
    cudaEventRecord(begin_, stream);
    f();
    cudaEventRecord(end_, stream);
    float milliseconds = 0;
    if (cudaEventSynchronize(end_) != cudaSuccess ||
        cudaEventElapsedTime(&milliseconds, begin_, end_) != cudaSuccess)
      return 0;
    return 1e-3 * static_cast<double>(milliseconds);
  }

 private:
  cuda_array<char> flushed_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace bench
