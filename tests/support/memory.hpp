// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <lgm/types.hpp>
#include <type_traits>
#include <vector>

// Random numbers, and memory that notices what is done to it.

namespace support {

inline std::size_t size_of(std::int64_t n) { return static_cast<std::size_t>(n); }

// A small generator of our own: the standard distributions give other numbers on other standard libraries.
class generator {
 public:
  explicit generator(std::uint64_t seed) : state_(seed) {}

  std::uint64_t bits() {
    state_ += 0x9E3779B97F4A7C15u;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  // Near enough to a normal with unit variance, and bounded by 6: the sum of twelve uniforms.
  double normal() {
    double sum = -6;
    for (int n = 0; n < 12; ++n) sum += uniform();
    return sum;
  }
  std::int64_t below(std::int64_t n) {
    return static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(n));
  }
  bool chance(double p) { return uniform() < p; }
  template <class V>
  auto pick(const V& values) {
    return *(std::begin(values) + static_cast<std::ptrdiff_t>(bits() % std::size(values)));
  }

 private:
  std::uint64_t state_;
};

// What outputs hold before a call. A NaN that arithmetic never makes for reals, so that reading an output
// before writing it shows as well.
constexpr int poison_byte(bool floating) { return floating ? 0xFF : 0xA5; }

// Rows of a stride, with a guard of poison on both sides and poison in the padding. `offset` moves the first
// element that many elements off a 64-byte boundary.
template <class T>
class guarded {  // of float, double, std::int64_t or unsigned char
 public:
  explicit guarded(std::int64_t rows, std::int64_t columns = 1, std::int64_t stride = 0,
                   std::size_t offset = 0);
  // Addresses into the storage would not survive a copy with another alignment.
  guarded(guarded&&) noexcept = default;
  guarded(const guarded&) = delete;

  void clear();
  T* data() { return reinterpret_cast<T*>(bytes_.data() + start_); }
  const T* data() const { return reinterpret_cast<const T*>(bytes_.data() + start_); }
  std::size_t rows() const { return rows_; }
  std::size_t columns() const { return columns_; }
  std::size_t size() const { return rows_ * columns_; }
  const T& at(std::size_t row, std::size_t column = 0) const { return data()[row * stride_ + column]; }
  const T& operator[](std::size_t n) const { return at(n / columns_, n % columns_); }

  // Guards and padding still hold poison.
  bool intact() const;
  // Nothing was written at all.
  bool untouched() const { return poisoned(0, bytes_.size()); }
  // Every element was written: none is wholly poison.
  bool written() const;
  // The same values bit for bit.
  bool same_bits(const guarded& other) const;
  bool all_zero() const;
  std::vector<T> packed() const;

 private:
  static constexpr std::size_t guard = 64;

  bool poisoned(std::size_t begin, std::size_t end) const;
  bool element_poisoned(std::size_t n) const;
  bool padding_intact() const;

  std::size_t rows_, columns_, stride_, length_ = 0, start_ = 0;
  std::vector<unsigned char> bytes_;
};

// A workspace of exactly so many bytes between guards, full of NaN.
class scratch {
 public:
  explicit scratch(std::size_t bytes, std::size_t offset = 0)
      : memory_(static_cast<std::int64_t>(bytes), 1, 0, offset) {
    if (bytes > 0) std::memset(memory_.data(), 0xFF, bytes);
  }
  lgm::workspace get() { return {memory_.data(), memory_.rows()}; }
  bool intact() const { return memory_.intact(); }

 private:
  guarded<unsigned char> memory_;
};

}  // namespace support
