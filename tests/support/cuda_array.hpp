// SPDX-License-Identifier: MIT
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace support {

// An array of the host and one of the device, of the same numbers: whoever is asked for them next gets what the other has
// written. Holds NaN (of reals) at first, so that what is not written shows, and one element more behind the last.
template <class T>
class cuda_array {
 public:
  explicit cuda_array(std::int64_t size)
      : size_(size), host_(static_cast<std::size_t>(size + 1) * sizeof(T)) {
    if (cudaMalloc(reinterpret_cast<void**>(&device_), host_.size()) != cudaSuccess) device_ = nullptr;
    clear();
  }
  ~cuda_array() { cudaFree(device_); }
  cuda_array(const cuda_array&) = delete;
  cuda_array& operator=(const cuda_array&) = delete;

  // Back to NaN. Neither this nor what follows may be called while work on the array is under way.
  void clear() {
    std::memset(host_.data(), poison, host_.size());
    newer_ = side::host;
  }
  // For the device, which may write there. Not for the first time, or after the host has written, while a stream captures.
  T* data() {
    if (newer_ == side::host) copy(device_, host_.data(), cudaMemcpyHostToDevice);
    newer_ = side::device;
    return device_;
  }
  // For the host.
  T& operator[](std::int64_t n) {
    fetch();
    newer_ = side::host;
    return reinterpret_cast<T*>(host_.data())[n];
  }
  const T& operator[](std::int64_t n) const {
    fetch();
    return reinterpret_cast<const T*>(host_.data())[n];
  }
  std::int64_t size() const { return size_; }
  // Nothing was written behind the last element.
  bool intact() const { return is_poison(size_); }
  // No element is as it was at first.
  bool written() const {
    for (std::int64_t n = 0; n < size_; ++n)
      if (is_poison(n)) return false;
    return true;
  }
  bool same_bits(const cuda_array& other) const {
    fetch();
    other.fetch();
    return host_ == other.host_;
  }

 private:
  enum class side { host, device, neither };
  static constexpr unsigned char poison = 0xFF;

  bool is_poison(std::int64_t n) const {
    fetch();
    for (std::size_t byte = 0; byte < sizeof(T); ++byte)
      if (host_[static_cast<std::size_t>(n) * sizeof(T) + byte] != poison) return false;
    return true;
  }
  void fetch() const {
    if (newer_ != side::device) return;
    copy(host_.data(), device_, cudaMemcpyDeviceToHost);
    newer_ = side::neither;
  }
  // A copy that fails leaves NaN. Streams that do not wait for the default one see it all the same: it is waited for.
  void copy(void* to, const void* from, cudaMemcpyKind kind) const {
    if (device_ == nullptr || cudaMemcpy(to, from, host_.size(), kind) != cudaSuccess ||
        cudaStreamSynchronize(nullptr) != cudaSuccess)
      std::memset(host_.data(), poison, host_.size());
  }

  T* device_ = nullptr;
  std::int64_t size_;
  mutable std::vector<unsigned char> host_;
  mutable side newer_ = side::host;  // which has what the other has not
};

// The same of the host alone.
template <class T>
class host_array {
 public:
  explicit host_array(std::int64_t size) : values_(static_cast<std::size_t>(size)) {}
  T* data() { return values_.data(); }
  T& operator[](std::int64_t n) { return values_[static_cast<std::size_t>(n)]; }
  const T& operator[](std::int64_t n) const { return values_[static_cast<std::size_t>(n)]; }
  std::int64_t size() const { return static_cast<std::int64_t>(values_.size()); }

 private:
  std::vector<T> values_;
};

constexpr int skipped = 77;  // what the test driver takes for "not run"

inline bool has_device() {
  int devices = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
}

}  // namespace support
