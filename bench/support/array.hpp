// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <type_traits>

namespace bench {

// Host memory that begins with a cache line and holds anything at first.
template <class T>
class array {
  static_assert(std::is_trivially_copyable<T>::value, "nothing is constructed here");

 public:
  array() = default;
  explicit array(std::int64_t size)
      : size_(size),
        data_(static_cast<T*>(::operator new(static_cast<std::size_t>(size) * sizeof(T), line))) {}

  std::int64_t size() const { return size_; }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  T& operator[](std::int64_t i) { return data()[i]; }
  const T& operator[](std::int64_t i) const { return data()[i]; }

 private:
  static constexpr std::align_val_t line{64};
  struct release {
    void operator()(T* data) const { ::operator delete(data, line); }
  };

  std::int64_t size_ = 0;
  std::unique_ptr<T, release> data_;
};

}  // namespace bench
