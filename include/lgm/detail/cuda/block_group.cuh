// SPDX-License-Identifier: MIT
#pragma once

#include <cuda_runtime.h>
#include <cstdint>
#include <lgm/config.hpp>

// Groups (group.hpp) of a device's threads: a part of a warp, and a block. The only file with barriers.
//
// A reduction combines the lanes in a tree that depends on their number alone, and passes the lower lane's value first. So all
// lanes get the same bits, even from an operator that does not commute for NaN.

namespace lgm::detail {

// The calls of a group, over the primitives of a kind of group: Base::lanes, Base::lane(), Base::sync() and combine(value, op).
// Vectors: how many vectors of 16 bytes of a row a lane keeps in registers. Each algorithm on a row is compiled once for every
// element of a lane. Long algorithms are better off with 0: their rows stay in memory, in the first-level cache, and pass
// through a lane's registers 16 bytes at a time.
template <class Base, int Vectors>
class lane_calls : public Base {
 public:
  static constexpr int lanes = Base::lanes;

  // A row in registers where it fits: lane l has vectors l, lanes + l, ... A longer one stays in memory, and is changed
  // there. Which lane has an element depends on its index alone, whatever the memory's alignment.
  template <class T>
  class row {
   public:
    T* data;
    std::int64_t size;

    __device__ row(T* from, std::int64_t n) : data(from), size(n) {
      if (!is_held()) return;
      const bool aligned = is_aligned(data);
#pragma unroll
      for (int v = 0; v < vectors; ++v) {
        const vector loaded = load_vector(data, index(v, 0), size, aligned);
#pragma unroll
        for (int e = 0; e < width; ++e) own_[v * width + e] = loaded.values[e];
      }
    }
    row(const row&) = delete;
    row& operator=(const row&) = delete;

    __device__ void store(T* out) const {
      if (is_held()) {
        const bool aligned = is_aligned(out);
#pragma unroll
        for (int v = 0; v < vectors; ++v) {
          vector stored;
#pragma unroll
          for (int e = 0; e < width; ++e) stored.values[e] = own_[v * width + e];
          store_vector(stored, out, index(v, 0), size, aligned);
        }
      } else if (out != data) {
        for (std::int64_t i = Base::lane(); i < size; i += lanes) out[i] = data[i];
      }
      Base::sync();
    }

    // f(value&, i) for the lane's elements.
    template <class F>
    __device__ void visit(F& f) {
      if (!is_held()) {
        const bool aligned = is_aligned(data);
        for (std::int64_t first = index(0, 0); first < size; first += step) {
          vector v = load_vector(data, first, size, aligned);
          visit_vector(v, first, size, f);
          store_vector(v, data, first, size, aligned);
        }
        return;
      }
#pragma unroll
      for (int v = 0; v < vectors; ++v)
#pragma unroll
        for (int e = 0; e < width; ++e)
          if (index(v, e) < size) f(own_[v * width + e], index(v, e));
    }
    template <class F>
    __device__ void visit(F& f) const {
      if (!is_held()) {
        const bool aligned = is_aligned(data);
        for (std::int64_t first = index(0, 0); first < size; first += step) {
          vector v = load_vector(data, first, size, aligned);
          visit_vector(v, first, size, f);
        }
        return;
      }
#pragma unroll
      for (int v = 0; v < vectors; ++v)
#pragma unroll
        for (int e = 0; e < width; ++e)
          if (index(v, e) < size) f(own_[v * width + e], index(v, e));
    }

   private:
    static constexpr int width = 16 / sizeof(T), vectors = Vectors;
    static constexpr std::int64_t step = std::int64_t(lanes) * width;  // from a lane's vector to its next
    struct alignas(16) vector {
      T values[width];
    };

    __device__ static bool is_aligned(const T* pointer) {
      return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
    }
    // Elements [first, first + width) of n.
    __device__ static vector load_vector(const T* from, std::int64_t first, std::int64_t n, bool aligned) {
      if (aligned && first + width <= n) return *reinterpret_cast<const vector*>(from + first);
      vector v;
#pragma unroll
      for (int e = 0; e < width; ++e) v.values[e] = first + e < n ? from[first + e] : T(0);
      return v;
    }
    __device__ static void store_vector(const vector& v, T* to, std::int64_t first, std::int64_t n,
                                        bool aligned) {
      if (aligned && first + width <= n) {
        *reinterpret_cast<vector*>(to + first) = v;
        return;
      }
#pragma unroll
      for (int e = 0; e < width; ++e)
        if (first + e < n) to[first + e] = v.values[e];
    }
    // f(value&, i) for each element of the vector. Each in turn moves to the first place, so that f is compiled once and no
    // register is indexed.
    template <class F>
    __device__ static void visit_vector(vector& v, std::int64_t first, std::int64_t n, F& f) {
#pragma unroll 1
      for (int e = 0; e < width; ++e) {
        if (first + e < n) f(v.values[0], first + e);
        const T visited = v.values[0];
#pragma unroll
        for (int other = 0; other + 1 < width; ++other) v.values[other] = v.values[other + 1];
        v.values[width - 1] = visited;
      }
    }

    __device__ bool is_held() const { return Vectors > 0 && size <= std::int64_t(lanes) * width * vectors; }
    __device__ static std::int64_t index(int v, int e) {
      return std::int64_t(v * lanes + Base::lane()) * width + e;
    }

    T own_[vectors > 0 ? width* vectors : 1];
  };

  template <class F>
  __device__ void for_each(std::int64_t n, F f) const {
    for (std::int64_t i = Base::lane(); i < n; i += lanes) f(i);
    Base::sync();
  }
  template <class T, class F, class Op>
  __device__ T reduce(std::int64_t n, T init, F f, Op op) const {
    for (std::int64_t i = Base::lane(); i < n; i += lanes) init = op(init, f(i));
    return Base::combine(init, op);
  }
  template <class F>
  __device__ void one_lane(F f) const {
    if (Base::lane() == 0) f();
    Base::sync();
  }

  template <class T>
  __device__ row<T> load_row(T* data, std::int64_t n) const {
    return row<T>(data, n);
  }
  template <class T, class F>
  __device__ void for_each(row<T>& held, F f) const {
    held.visit(f);
    Base::sync();
  }
  template <class T, class F, class Op>
  __device__ T reduce(const row<T>& held, T init, F f, Op op) const {
    const auto add = [&](T value, std::int64_t i) { init = op(init, f(value, i)); };
    held.visit(add);
    return Base::combine(init, op);
  }
  template <class T>
  __device__ std::int64_t find(const row<T>& held, T value) const {
    std::int64_t lowest = held.size;
    const auto look = [&](T element, std::int64_t i) {
      if (element == value && i < lowest) lowest = i;
    };
    held.visit(look);
    return Base::combine(lowest, [](std::int64_t a, std::int64_t b) { return b < a ? b : a; });
  }
};

// The lanes [first, first + Lanes) of a warp, first being a multiple of Lanes.
template <int Lanes>
class warp_lanes {
 public:
  static_assert(Lanes >= 2 && Lanes <= 32 && (Lanes & (Lanes - 1)) == 0, "a power of two within a warp");
  static constexpr int lanes = Lanes;
  __device__ static int lane() { return static_cast<int>(threadIdx.x % Lanes); }
  __device__ static void sync() { __syncwarp(mask()); }

 protected:
  template <class T, class Op>
  __device__ T combine(T value, Op op) const {
    const unsigned all = mask();
#pragma unroll
    for (int step = 1; step < Lanes; step *= 2) {
      const T other = __shfl_xor_sync(all, value, step, 32);
      value = (lane() & step) == 0 ? op(value, other) : op(other, value);
    }
    // The shuffles order nothing but themselves.
    __syncwarp(all);
    return value;
  }

 private:
  __device__ static unsigned mask() {
    if (Lanes == 32) return 0xffffffffu;
    return ((1u << (Lanes % 32)) - 1u) << (threadIdx.x % 32 / Lanes * Lanes);
  }
};

// All threads of a block.
template <int Threads>
class block_lanes {
 public:
  static_assert(Threads % 32 == 0 && Threads >= 64 && Threads <= 1024, "whole warps");
  static constexpr int lanes = Threads;
  __device__ static int lane() { return static_cast<int>(threadIdx.x); }
  __device__ static void sync() { __syncthreads(); }

 protected:
  // Two sets of places in turn: a warp that is ahead writes the next values while another still reads these.
  template <class T, class Op>
  __device__ T combine(T value, Op op) const {
    static_assert(sizeof(T) <= sizeof(double), "lanes combine numbers");
    constexpr int warps = Threads / 32;
    __shared__ double places[2][warps];
    T* const mine = reinterpret_cast<T*>(places[buffer_]);
    buffer_ = 1 - buffer_;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const T other = __shfl_xor_sync(0xffffffffu, value, step);
      value = (lane() & step) == 0 ? op(value, other) : op(other, value);
    }
    if (lane() % 32 == 0) mine[lane() / 32] = value;
    __syncthreads();
    value = mine[0];
#pragma unroll
    for (int w = 1; w < warps; ++w) value = op(value, mine[w]);
    return value;
  }

 private:
  mutable int buffer_ = 0;
};

template <int Lanes, int Vectors = 0>
using warp_group = lane_calls<warp_lanes<Lanes>, Vectors>;
template <int Threads, int Vectors = 0>
using block_group = lane_calls<block_lanes<Threads>, Vectors>;

}  // namespace lgm::detail
