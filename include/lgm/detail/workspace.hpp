// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <lgm/types.hpp>

namespace lgm::detail {

// Hands out consecutive pieces of a workspace. One walk serves both purposes: over no memory it only adds up
// the bytes, so that what is sized cannot differ from what is carved.
class arena {
 public:
  static constexpr std::size_t alignment = 64;  // a cache line, and the widest SIMD register

  arena() = default;
  explicit arena(const workspace& w) {
    const auto address = reinterpret_cast<std::uintptr_t>(w.data);
    base_ = static_cast<char*>(w.data) + (alignment - address % alignment) % alignment;
  }

  // count elements, aligned to a cache line; null when only adding up.
  template <class T>
  T* take(std::int64_t count) {
    T* piece = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += (static_cast<std::size_t>(count) * sizeof(T) + alignment - 1) / alignment * alignment;
    return piece;
  }

  // What a caller has to bring, wherever its memory begins.
  std::size_t bytes() const { return used_ + alignment; }

 private:
  char* base_ = nullptr;
  std::size_t used_ = 0;
};

}  // namespace lgm::detail
