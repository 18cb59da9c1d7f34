// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/detail/host/eigen.hpp>
#include <lgm/group.hpp>
#include <type_traits>

// The host's group: the lanes of one SIMD register, through Eigen's packets. All memory access is unaligned,
// and the last, partial packet of a row takes the same path as the others, so that a result's bits depend
// neither on the alignment of a pointer nor on anything but the element's index.

namespace lgm::detail {

template <class T>
struct packet {
  using native = typename Eigen::internal::packet_traits<T>::type;
  static constexpr int size = Eigen::internal::unpacket_traits<native>::size;
  static constexpr bool has_masks = Eigen::internal::unpacket_traits<native>::masked_load_available &&
                                    Eigen::internal::unpacket_traits<native>::masked_store_available;

  // Eigen's mask_t: a bit a lane.
  using mask = std::conditional_t<(size > 8), std::uint16_t, std::uint8_t>;

  native value;

  packet() = default;
  packet(native v, int) : value(v) {}
  explicit packet(T v) : value(Eigen::internal::pset1<native>(v)) {}
  // Constants of formulas are written in float.
  template <class U, class = std::enable_if_t<!std::is_same<U, T>::value && std::is_same<U, float>::value>>
  explicit packet(U v) : packet(static_cast<T>(v)) {}

  EIGEN_ALWAYS_INLINE static packet load(const T* p) { return {Eigen::internal::ploadu<native>(p), 0}; }
  EIGEN_ALWAYS_INLINE void store(T* p) const { Eigen::internal::pstoreu<T, native>(p, value); }
  // The first count < size lanes; a load leaves the others zero.
  EIGEN_ALWAYS_INLINE static packet load(const T* p, int count) {
    if constexpr (has_masks) {
      return {Eigen::internal::ploadu<native>(p, static_cast<mask>((1u << count) - 1u)), 0};
    } else {
      return load_part(p, count);
    }
  }
  EIGEN_ALWAYS_INLINE void store(T* p, int count) const {
    if constexpr (has_masks) {
      Eigen::internal::pstoreu(p, value, static_cast<mask>((1u << count) - 1u));
    } else {
      store_part(p, count);
    }
  }
  // Used once a row, in every loop: a call keeps the loops short.
  [[gnu::noinline]] static packet load_part(const T* p, int count) {
    T lanes[std::size_t(size)] = {};
    for (int lane = 0; lane < count; ++lane) lanes[lane] = p[lane];
    return load(lanes);
  }
  [[gnu::noinline]] void store_part(T* p, int count) const {
    T lanes[std::size_t(size)];
    store(lanes);
    for (int lane = 0; lane < count; ++lane) p[lane] = lanes[lane];
  }

  EIGEN_ALWAYS_INLINE friend packet operator+(packet a, packet b) {
    return {Eigen::internal::padd(a.value, b.value), 0};
  }
  EIGEN_ALWAYS_INLINE friend packet operator-(packet a, packet b) {
    return {Eigen::internal::psub(a.value, b.value), 0};
  }
  EIGEN_ALWAYS_INLINE friend packet operator*(packet a, packet b) {
    return {Eigen::internal::pmul(a.value, b.value), 0};
  }
  EIGEN_ALWAYS_INLINE friend packet operator/(packet a, packet b) {
    return {Eigen::internal::pdiv(a.value, b.value), 0};
  }
  EIGEN_ALWAYS_INLINE friend packet operator-(packet a) { return {Eigen::internal::pnegate(a.value), 0}; }
  EIGEN_ALWAYS_INLINE friend packet exp(packet a) { return {Eigen::internal::pexp(a.value), 0}; }
  EIGEN_ALWAYS_INLINE friend packet log(packet a) { return {Eigen::internal::plog(a.value), 0}; }
  EIGEN_ALWAYS_INLINE friend packet fused(packet a, packet b, packet c) {
    return {Eigen::internal::pmadd(a.value, b.value, c.value), 0};
  }
  EIGEN_ALWAYS_INLINE friend packet larger(packet a, packet b) {
    return {Eigen::internal::pmax(a.value, b.value), 0};
  }
  EIGEN_ALWAYS_INLINE friend packet smaller(packet a, packet b) {
    return {Eigen::internal::pmin(a.value, b.value), 0};
  }
  EIGEN_ALWAYS_INLINE friend packet exp_above(packet a, packet bound) {
    const native below = Eigen::internal::pcmp_lt(a.value, bound.value);
    return {Eigen::internal::pandnot(Eigen::internal::pexp(a.value), below), 0};
  }
  EIGEN_ALWAYS_INLINE friend packet product_or_zero(packet weight, packet v) {
    const native is_zero = Eigen::internal::pcmp_eq(weight.value, Eigen::internal::pset1<native>(T(0)));
    return {Eigen::internal::pandnot(Eigen::internal::pmul(weight.value, v.value), is_zero), 0};
  }
  // The first count lanes of a, the others of b.
  EIGEN_ALWAYS_INLINE friend packet first_lanes(int count, packet a, packet b) {
    const native lane = Eigen::internal::plset<native>(T(0));
    const native is_first =
        Eigen::internal::pcmp_lt(lane, Eigen::internal::pset1<native>(static_cast<T>(count)));
    return {Eigen::internal::pselect(is_first, a.value, b.value), 0};
  }
  // All lanes in one.
  EIGEN_ALWAYS_INLINE friend T reduce_lanes(packet a, plus) { return Eigen::internal::predux(a.value); }
  EIGEN_ALWAYS_INLINE friend T reduce_lanes(packet a, maximum) {
    return Eigen::internal::predux_max(a.value);
  }
  EIGEN_ALWAYS_INLINE friend T reduce_lanes(packet a, minimum) {
    return Eigen::internal::predux_min(a.value);
  }
  EIGEN_ALWAYS_INLINE friend bool any_equal(packet a, packet b) {
    return Eigen::internal::predux_any(Eigen::internal::pcmp_eq(a.value, b.value));
  }
  // NaN is different from everything.
  EIGEN_ALWAYS_INLINE friend bool any_different(packet a, packet b) {
    const native same = Eigen::internal::pcmp_eq(a.value, b.value);
    const native all = Eigen::internal::pcmp_eq(b.value, b.value);
    return Eigen::internal::predux_any(Eigen::internal::pandnot(all, same));
  }
  EIGEN_ALWAYS_INLINE friend T largest(packet a) { return Eigen::internal::predux_max(a.value); }
};

// The indices [first, first + count) of a packet's lanes; count < packet::size in the last packet of a row.
struct packet_index {
  std::int64_t first;
  int count;
};

// Lanes beyond the row are zero.
template <class T>
EIGEN_ALWAYS_INLINE packet<T> load(const T* pointer, packet_index i) {
  return i.count == packet<T>::size ? packet<T>::load(pointer + i.first)
                                    : packet<T>::load(pointer + i.first, i.count);
}

template <class T>
EIGEN_ALWAYS_INLINE void store(T* pointer, packet_index i, packet<T> value) {
  if (i.count == packet<T>::size)
    value.store(pointer + i.first);
  else
    value.store(pointer + i.first, i.count);
}

// V is the type of the lanes, T that of the memory.
template <class V, class T>
EIGEN_ALWAYS_INLINE packet<V> load_as(const T* pointer, packet_index i) {
  if constexpr (std::is_same<T, V>::value) {
    return load(pointer, i);
  } else {
    V lanes[packet<V>::size] = {};
    for (int lane = 0; lane < i.count; ++lane) lanes[lane] = static_cast<V>(pointer[i.first + lane]);
    return packet<V>::load(lanes);
  }
}

template <class T, class V>
EIGEN_ALWAYS_INLINE void store_as(T* pointer, packet_index i, packet<V> value) {
  if constexpr (std::is_same<T, V>::value) {
    store(pointer, i, value);
  } else {
    V lanes[packet<V>::size];
    value.store(lanes);
    for (int lane = 0; lane < i.count; ++lane) pointer[i.first + lane] = static_cast<T>(lanes[lane]);
  }
}

template <class T, class F>
EIGEN_ALWAYS_INLINE void for_lanes(packet<T>& value, packet_index i, F f) {
  T lanes[packet<T>::size];
  value.store(lanes);
  for (int lane = 0; lane < i.count; ++lane) f(lanes[lane], i.first + lane);
  value = packet<T>::load(lanes);
}

template <class T>
EIGEN_ALWAYS_INLINE void replace(packet<T>& value, packet_index i, std::int64_t at, T replacement) {
  if (at < i.first || at >= i.first + i.count) return;
  for_lanes(value, i, [&](T& lane, std::int64_t j) {
    if (j == at) lane = replacement;
  });
}

template <class T>
struct packet_group {
  using row = serial_group::row<T>;

  template <class F>
  void for_each(std::int64_t n, F f) const {
    constexpr int size = packet<T>::size;
    std::int64_t i = 0;
    for (; i + size <= n; i += size) f(packet_index{i, size});
    if (i < n) f(packet_index{i, static_cast<int>(n - i)});
  }

  // Four packets in flight hide the latency of op. The rest goes through one short loop: f is compiled five times. A loop that
  // is unrolled in full would compile it more than eight times.
  template <class F, class Op>
  T reduce(std::int64_t n, T init, F f, Op op) const {
    constexpr int size = packet<T>::size;
    packet<T> first(init), second(init), third(init), last(init);
    std::int64_t i = 0;
    for (; i + 4 * size <= n; i += 4 * size) {
      first = op(first, f(packet_index{i, size}));
      second = op(second, f(packet_index{i + size, size}));
      third = op(third, f(packet_index{i + 2 * size, size}));
      last = op(last, f(packet_index{i + 3 * size, size}));
    }
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#pragma GCC unroll 1
#endif
    for (; i < n; i += size) {
      const int count = n - i < size ? static_cast<int>(n - i) : size;
      packet<T> value = f(packet_index{i, count});
      if (count < size) value = first_lanes(count, value, packet<T>(init));
      const packet<T> next = op(first, value);
      first = second;
      second = third;
      third = last;
      last = next;
    }
    return reduce_lanes(op(op(first, second), op(third, last)), op);
  }

  template <class F>
  void one_lane(F f) const {
    f();
  }

  row load_row(T* data, std::int64_t n) const { return {data, n}; }
  template <class F>
  void for_each(row& held, F f) const {
    for_each(held.size, [&](packet_index i) {
      packet<T> value = load(static_cast<const T*>(held.data), i);
      f(value, i);
      store(held.data, i, value);
    });
  }
  template <class F, class Op>
  T reduce(const row& held, T init, F f, Op op) const {
    return reduce(
        held.size, init, [&](packet_index i) { return f(load(static_cast<const T*>(held.data), i), i); }, op);
  }
  // Two passes, so that f is compiled no more often: a row is in the first-level cache.
  template <class F, class Op>
  T for_each_reduce(row& held, F f, T init, Op op) const {
    for_each(held, f);
    return reduce(held, init, row_value{}, op);
  }
  std::int64_t find(const row& held, T value) const {
    constexpr int size = packet<T>::size;
    std::int64_t i = 0;
    while (i + size <= held.size && !any_equal(packet<T>::load(held.data + i), packet<T>(value))) i += size;
    return i + serial_group{}.find(row{held.data + i, held.size - i}, value);
  }
};

template <class T>
serial_group scalar_group(const packet_group<T>&) {
  return {};
}

}  // namespace lgm::detail
