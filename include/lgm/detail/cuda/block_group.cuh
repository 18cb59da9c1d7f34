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
// Held: how many elements of a row a lane keeps in registers. Each algorithm on a row is compiled once for every element of a
// lane. Long algorithms are better off with 0: their rows stay in memory, in the caches.
template <class Base, int Held>
class lane_calls : public Base {
 public:
  static constexpr int lanes = Base::lanes;

  // A row in registers where it fits: lane l has elements l, lanes + l, ..., so that a warp's accesses to the row, and to other
  // arrays at the same indices, are to neighbours. A longer one stays in memory, and is changed there.
  template <class T>
  class row {
   public:
    T* data;
    std::int64_t size;

    __device__ row(T* from, std::int64_t count) : data(from), size(count) {
      if (!is_held()) return;
#pragma unroll
      for (int n = 0; n < Held; ++n) own_[n] = index(n) < size ? data[index(n)] : T(0);
    }
    row(const row&) = delete;
    row& operator=(const row&) = delete;

    __device__ void store(T* out) const {
      if (is_held()) {
#pragma unroll
        for (int n = 0; n < Held; ++n)
          if (index(n) < size) out[index(n)] = own_[n];
      } else if (out != data) {
        for (std::int64_t i = Base::lane(); i < size; i += lanes) out[i] = data[i];
      }
      Base::sync();
    }

    // f(value&, i) for the lane's elements.
    template <class F>
    __device__ void visit(F& f) {
      if (!is_held()) {
        for (std::int64_t i = Base::lane(); i < size; i += lanes) {
          T value = data[i];
          f(value, i);
          data[i] = value;
        }
        return;
      }
#pragma unroll
      for (int n = 0; n < Held; ++n)
        if (index(n) < size) f(own_[n], index(n));
    }
    template <class F>
    __device__ void visit(F& f) const {
      if (!is_held()) {
        for (std::int64_t i = Base::lane(); i < size; i += lanes) f(data[i], i);
        return;
      }
#pragma unroll
      for (int n = 0; n < Held; ++n)
        if (index(n) < size) f(own_[n], index(n));
    }

   private:
    __device__ bool is_held() const { return Held > 0 && size <= std::int64_t(lanes) * Held; }
    __device__ static std::int64_t index(int n) { return std::int64_t(n) * lanes + Base::lane(); }

    T own_[Held > 0 ? Held : 1];
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
  template <class T, class F, class Op>
  __device__ T for_each_reduce(row<T>& held, F f, T init, Op op) const {
    const auto add = [&](T& value, std::int64_t i) {
      f(value, i);
      init = op(init, value);
    };
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

template <int Lanes, int Held = 0>
using warp_group = lane_calls<warp_lanes<Lanes>, Held>;
template <int Threads, int Held = 0>
using block_group = lane_calls<block_lanes<Threads>, Held>;

}  // namespace lgm::detail
