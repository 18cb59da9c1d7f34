// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <lgm/detail/scalar.hpp>
#include <lgm/types.hpp>

namespace lgm::detail {

// Stands for any size that no memory has. Two of them can still be added without overflow.
constexpr std::int64_t endless_size = std::int64_t(1) << 61;

// a b, both >= 0, or endless_size.
inline std::int64_t bounded_product(std::int64_t a, std::int64_t b) {
  return a > 0 && b > endless_size / a ? endless_size : a * b;
}

// The largest n of [low, high] for which fits(n), low if none does. What fits, fits with less as well.
template <class Fits>
std::int64_t largest_that_fits(std::int64_t low, std::int64_t high, Fits fits) {
  if (fits(high)) return high;
  while (low < high) {
    const std::int64_t middle = low + (high - low + 1) / 2;
    if (fits(middle))
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

// Hands out consecutive pieces of a workspace. Without memory it only adds up their bytes. The same code runs for both, so that
// the size cannot differ from the pieces.
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
    return static_cast<T*>(take_bytes(count, sizeof(T)));
  }

  // What a caller has to bring, wherever its memory begins.
  std::size_t bytes() const { return used_ + alignment; }

 private:
  // A plan takes dozens of pieces.
  [[gnu::noinline]] void* take_bytes(std::int64_t count, std::int64_t each) {
    void* const piece = base_ == nullptr ? nullptr : base_ + used_;
    constexpr auto most = static_cast<std::size_t>(endless_size);
    const auto bytes = static_cast<std::size_t>(bounded_product(count, each));
    used_ = smaller(used_ + (bytes + alignment - 1) / alignment * alignment, most);
    return piece;
  }

  char* base_ = nullptr;
  std::size_t used_ = 0;
};

}  // namespace lgm::detail
