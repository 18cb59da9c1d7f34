// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <initializer_list>
#include <iterator>
#include <lgm/types.hpp>
#include <limits>
#include <memory>
#include <vector>

#include "support.hpp"

// Arguments from the fuzzer's bytes: choices, the memory that pointers point to, and an oracle for what is wrong with
// them that shares no code with the library.

namespace fuzz {

// The fuzzer's bytes as choices. Past their end every choice is its first.
class choices {
 public:
  choices(const std::uint8_t* data, std::size_t size) : at_(data), end_(data + size) {}

  unsigned byte() { return at_ == end_ ? 0u : *at_++; }
  // True for few bytes, not for 0.
  bool rarely() { return byte() > 240; }
  bool often() { return byte() % 4 != 3; }
  std::int64_t number() {
    std::uint64_t bits = 0;
    for (int i = 0; i < 8; ++i) bits = bits << 8 | byte();
    std::int64_t value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  template <class V>
  V one_of(std::initializer_list<V> values) {
    return *std::next(values.begin(), static_cast<std::ptrdiff_t>(byte() % values.size()));
  }

  // A size: mostly small, sometimes anything.
  std::int64_t size() {
    const auto b = static_cast<std::int64_t>(byte());
    if (b < 200) return b % 12;
    return b < 236 ? (b - 200) * 9 : any_size();
  }
  std::int64_t any_size() {
    constexpr std::int64_t last = std::numeric_limits<std::int64_t>::max();
    const unsigned b = byte();
    if (b % 16 == 15) return number();
    const std::int64_t powers[] = {1,     last / 4, last / 8,     last / 16,     last / 17,  -1,
                                   last,  -2,       last / 2 + 1, -last - 1,     3037000499, 759250124,
                                   -last, 1 << 20,  1 << 30,      last / 16 + 1, last / 32};
    if (b % 16 < 8) return powers[(b / 16 + b % 8 * 2) % std::size(powers)];
    return std::int64_t{1} << (byte() % 63);
  }

 private:
  const std::uint8_t *at_, *end_;
};

// Numbers for whole arrays, from a seed of the fuzzer's.
class generator {
 public:
  explicit generator(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {  // splitmix64
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

 private:
  std::uint64_t state_;
};

// What values an array holds.
enum class values { real, log_variance, weight, wild };

template <class T>
T special(unsigned which) {
  using limits = std::numeric_limits<T>;
  const T all[] = {limits::quiet_NaN(),
                   limits::infinity(),
                   -limits::infinity(),
                   limits::max(),
                   limits::lowest(),
                   limits::denorm_min(),
                   limits::min(),
                   T(0),
                   -T(0),
                   T(1e30),
                   T(-1),
                   T(0.5)};
  return all[which % std::size(all)];
}

template <class T>
T value(generator& random, values kind) {
  const std::uint64_t bits = random.next();
  const T unit = static_cast<T>(bits % 1025) / T(1024);
  if (kind == values::wild && bits >> 60 == 0) return special<T>(static_cast<unsigned>(bits >> 40));
  if (kind == values::log_variance) return T(4) * unit - T(2);
  if (kind == values::weight) return unit;
  return T(16) * unit - T(8);
}

// The memory behind the pointers of one call: each piece is of exactly the length that the call may use, so that
// AddressSanitizer sees any other use, and remembers what it held.
class memory {
 public:
  // Elements of an array of rows; the last row is not padded.
  static std::int64_t span(std::int64_t rows, std::int64_t columns, std::int64_t stride) {
    return rows == 0 || columns == 0 ? 0 : (rows - 1) * (stride == 0 ? columns : stride) + columns;
  }

  // [rows, columns] of elements from make(), rows `stride` elements apart (0: packed), beginning `offset` elements after
  // an aligned address.
  template <class T, class Make>
  T* take(bool written, std::int64_t rows, std::int64_t columns, std::int64_t stride, std::size_t offset,
          Make make) {
    piece p;
    const auto count = static_cast<std::size_t>(span(rows, columns, stride));
    p.written = written;
    p.begin = offset * sizeof(T);
    p.bytes = count * sizeof(T);
    p.rows = static_cast<std::size_t>(rows);
    p.row_bytes = static_cast<std::size_t>(columns) * sizeof(T);
    p.stride_bytes = static_cast<std::size_t>(stride == 0 ? columns : stride) * sizeof(T);
    p.live.reset(new unsigned char[p.begin + p.bytes]);
    T* const data = reinterpret_cast<T*>(p.live.get() + p.begin);
    for (std::size_t i = 0; i < count; ++i) data[i] = make();
    p.initial.assign(p.live.get() + p.begin, p.live.get() + p.begin + p.bytes);
    pieces_.push_back(std::move(p));
    return data;
  }

  void require_untouched() const {
    for (const piece& p : pieces_) require(p.unchanged(), "a call that fails writes nothing");
  }
  void require_only_outputs_written() const {
    for (const piece& p : pieces_) {
      if (!p.written) require(p.unchanged(), "inputs are never written");
      for (std::size_t r = 0; p.written && p.row_bytes > 0 && r + 1 < p.rows; ++r) {
        const std::size_t padding = r * p.stride_bytes + p.row_bytes;
        require(
            std::memcmp(p.data() + padding, p.initial.data() + padding, p.stride_bytes - p.row_bytes) == 0,
            "nothing is written between rows");
      }
    }
  }

  // What all pieces hold now, and what they held at first, again in place.
  std::vector<unsigned char> contents() const {
    std::vector<unsigned char> all;
    for (const piece& p : pieces_) all.insert(all.end(), p.data(), p.data() + p.bytes);
    return all;
  }
  void restore() {
    for (piece& p : pieces_)
      if (p.bytes > 0) std::memcpy(p.live.get() + p.begin, p.initial.data(), p.bytes);
  }

 private:
  struct piece {
    std::unique_ptr<unsigned char[]> live;
    std::vector<unsigned char> initial;
    std::size_t begin = 0, bytes = 0, rows = 0, row_bytes = 0, stride_bytes = 0;
    bool written = false;

    const unsigned char* data() const { return live.get() + begin; }
    bool unchanged() const { return bytes == 0 || std::memcmp(data(), initial.data(), bytes) == 0; }
  };
  std::deque<piece> pieces_;
};

// Things that are wrong with the arguments of a call: it must name one of them, and succeed where there is none.
class faults {
 public:
  void add(bool wrong, lgm::status name) {
    if (wrong) set_ |= 1u << static_cast<unsigned>(name);
  }
  // May be wrong, or not.
  void allow(bool doubtful, lgm::status name) {
    if (doubtful) doubtful_ |= 1u << static_cast<unsigned>(name);
  }
  bool none() const { return set_ == 0; }
  bool explains(lgm::status answer) const {
    const unsigned bit = 1u << static_cast<unsigned>(answer);
    return answer == lgm::status::success ? none() : ((set_ | doubtful_) & bit) != 0;
  }

 private:
  unsigned set_ = 0, doubtful_ = 0;
};

using wide = __int128;
constexpr wide addressable = std::numeric_limits<std::int64_t>::max() / 16;

inline std::int64_t total_classes(const lgm::shape& s) {
  return s.total_classes == 0 ? s.classes : s.total_classes;
}
inline std::int64_t or_packed(std::int64_t stride, std::int64_t length) {
  return stride == 0 ? length : stride;
}
inline bool product_too_large(wide a, wide b) { return a > 0 && b > 0 && a * b > addressable; }

inline faults faults_of(const lgm::shape& s, int threads) {
  using lgm::status;
  faults f;
  f.add(threads < 0 || s.samples < 0 || s.classes < 0 || s.dims < 0 || s.total_classes < 0,
        status::negative_size);
  f.add(static_cast<int>(s.covariance) < 0 || static_cast<int>(s.covariance) > 2, status::invalid_option);
  f.add(s.class_begin < 0 || wide(s.class_begin) + s.classes > total_classes(s), status::invalid_class_range);
  const std::int64_t features = or_packed(s.feature_stride, s.dims),
                     gradient = or_packed(s.gradient_stride, s.dims),
                     logits = or_packed(s.logits_stride, s.classes);
  f.add(features < s.dims || gradient < s.dims || logits < s.classes, status::stride_too_small);
  f.add(product_too_large(s.samples, features) || product_too_large(s.samples, gradient) ||
            product_too_large(s.samples, logits) || product_too_large(total_classes(s), s.dims),
        status::size_too_large);
  return f;
}

// Hooks of the context: slots in another order, and products that are refused (those that are made: plain_gemm.hpp).

inline void slots_backwards(void*, int slots, void (*call)(void*, int), void* state) {
  for (int slot = slots; slot-- > 0;) call(state, slot);
}

template <class T>
bool no_gemm(void*, bool, bool, std::int64_t, std::int64_t, std::int64_t, T, const T*, std::int64_t, const T*,
             std::int64_t, T, T*, std::int64_t) {
  return false;
}

}  // namespace fuzz
