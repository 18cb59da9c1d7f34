// SPDX-License-Identifier: MIT
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace support {

// Memory that host and device both see; holds NaN (of reals) at first, so that what is not written shows, and one element
// more behind the last.
template <class T>
class cuda_array {
 public:
  explicit cuda_array(std::int64_t size) : size_(size) {
    if (cudaMallocManaged(&data_, bytes()) != cudaSuccess) data_ = nullptr;
    clear();
  }
  ~cuda_array() { cudaFree(data_); }
  cuda_array(const cuda_array&) = delete;
  cuda_array& operator=(const cuda_array&) = delete;

  // Back to NaN. No work on it may be under way.
  void clear() {
    if (data_ != nullptr) std::memset(static_cast<void*>(data_), poison, bytes());
  }
  T* data() { return data_; }
  T& operator[](std::int64_t n) { return data_[n]; }
  std::int64_t size() const { return size_; }
  // Nothing was written behind the last element.
  bool intact() const {
    const auto* const end = reinterpret_cast<const unsigned char*>(data_ + size_);
    for (std::size_t n = 0; n < sizeof(T); ++n)
      if (end[n] != poison) return false;
    return true;
  }
  // No element is as it was at first.
  bool written() const {
    unsigned char first[sizeof(T)];
    std::memset(first, poison, sizeof first);
    for (std::int64_t n = 0; n < size_; ++n)
      if (std::memcmp(data_ + n, first, sizeof first) == 0) return false;
    return true;
  }
  bool same_bits(const cuda_array& other) const {
    return size_ == other.size_ && std::memcmp(data_, other.data_, bytes()) == 0;
  }

 private:
  static constexpr unsigned char poison = 0xFF;
  std::size_t bytes() const { return static_cast<std::size_t>(size_ + 1) * sizeof(T); }

  T* data_ = nullptr;
  std::int64_t size_;
};

constexpr int skipped = 77;  // what the test driver takes for "not run"

inline bool has_device() {
  int devices = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
}

}  // namespace support
