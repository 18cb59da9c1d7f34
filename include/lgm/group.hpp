// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/scalar.hpp>

// A group is the set of lanes that work on one row or one column together: one thread, the lanes of a CUDA
// warp, a thread block, or the lanes of a SIMD register on the host. The algorithms in row.hpp and column.hpp
// are templates over it, and so are written once. They name no lane and hold no barrier; every call below
// ends in one.
//
//   for_each(n, f)               f(i) for every index i of [0, n)
//   reduce(n, init, f, op)       op over all f(i), init where n is 0; op is commutative and init its neutral
//                                element; every lane gets the same value
//   one_lane(f)                  f() by one lane, any one
//   load_row(pointer, n)         a row that the lanes keep at hand between the calls that take it:
//   for_each(row, f)             f(value&, i)
//   reduce(row, init, f, op)     f(value, i)
//   for_each_reduce(row, f, init, op)
//                                for_each(row, f), and op over the values that it leaves, in one pass where that is quicker
//   find(row, value)             the lowest index that holds value, n where none does
//   row.store(out)               writes the row to memory: to where it was taken from, or clear of it
//
// What an algorithm may rely on, and what it must do:
// - Every lane runs the whole algorithm. Its variables, and the objects that it gets by reference, are the lane's own. Only the
//   memory behind pointers is shared.
// - All lanes make the same calls with the same sizes. So they branch on their arguments, and on what reduce and find return,
//   and on nothing else: these are the same in all lanes.
// - A call runs f once for each index, in no order, in the lane that has the index. for_each(n) may give an index to another
//   lane than a held row does. f stores to element i alone, and loads nothing that another index stores in this call. What f
//   leaves in a captured variable is the part of one lane, not a result.
// - After a call, every lane sees what the call stored.
// - f makes no call of the group, because the other lanes would not make it. It may use a serial_group.
// - A held row lives in registers, or in its memory, where it is changed in place. Before a for_each(row) changes it, row.data
//   may be read. After that the memory's contents are undefined until row.store(row.data). Nothing else writes there while the
//   row is held. A row is not copied: a copy may or may not follow its changes.
//
// Where lanes are those of a SIMD register, i is a packet_index and value a packet: load, store, load_as,
// store_as, replace and for_lanes treat both alike.

namespace lgm {

// What algorithms read and write through, for scalar lanes.
template <class T>
LGM_HD T load(const T* pointer, std::int64_t i) {
  return pointer[i];
}
template <class T>
LGM_HD void store(T* pointer, std::int64_t i, T value) {
  pointer[i] = value;
}
// The same where memory holds another type than the lanes: V is theirs.
template <class V, class T>
LGM_HD V load_as(const T* pointer, std::int64_t i) {
  return static_cast<V>(pointer[i]);
}
template <class T, class V>
LGM_HD void store_as(T* pointer, std::int64_t i, V value) {
  pointer[i] = static_cast<T>(value);
}
// Puts `replacement` where index i is `at`.
template <class T>
LGM_HD void replace(T& value, std::int64_t i, std::int64_t at, T replacement) {
  if (i == at) value = replacement;
}
// f(value&, i) for each scalar of a value.
template <class T, class F>
LGM_HD void for_lanes(T& value, std::int64_t i, F f) {
  f(value, i);
}
// For reductions of a row's own values.
struct row_value {
  template <class V, class Index>
  LGM_HD V operator()(V value, Index) const {
    return value;
  }
};
// The reductions' operators.
struct plus {
  template <class V>
  LGM_HD V operator()(V a, V b) const {
    return a + b;
  }
};
struct maximum {
  template <class V>
  LGM_HD V operator()(V a, V b) const {
    using detail::larger;
    return larger(a, b);
  }
};
struct minimum {
  template <class V>
  LGM_HD V operator()(V a, V b) const {
    using detail::smaller;
    return smaller(a, b);
  }
};

namespace detail {

// A group whose indices are std::int64_t: the group itself, or one thread where its lanes are those of a SIMD register
// (packet_group.hpp).
template <class Group>
LGM_HD const Group& scalar_group(const Group& group) {
  return group;
}

}  // namespace detail

// One thread.
struct serial_group {
  template <class T>
  struct row {
    T* data;
    std::int64_t size;
    LGM_HD void store(T* out) const {
      if (out == data) return;
      for (std::int64_t i = 0; i < size; ++i) out[i] = data[i];
    }
  };

  template <class F>
  LGM_HD void for_each(std::int64_t n, F f) const {
    for (std::int64_t i = 0; i < n; ++i) f(i);
  }
  // Four interleaved sums: a long sum is rounded less, and additions do not wait for one another.
  template <class T, class F, class Op>
  LGM_HD T reduce(std::int64_t n, T init, F f, Op op) const {
    T parts[4] = {init, init, init, init};
    std::int64_t i = 0;
    for (; i + 4 <= n; i += 4)
      for (int part = 0; part < 4; ++part) parts[part] = op(parts[part], f(i + part));
    for (; i < n; ++i) parts[0] = op(parts[0], f(i));
    return op(op(parts[0], parts[1]), op(parts[2], parts[3]));
  }
  template <class F>
  LGM_HD void one_lane(F f) const {
    f();
  }

  // The row stays in memory; changes are made in place.
  template <class T>
  LGM_HD row<T> load_row(T* data, std::int64_t n) const {
    return {data, n};
  }
  template <class T, class F>
  LGM_HD void for_each(row<T>& held, F f) const {
    for (std::int64_t i = 0; i < held.size; ++i) f(held.data[i], i);
  }
  template <class T, class F, class Op>
  LGM_HD T reduce(const row<T>& held, T init, F f, Op op) const {
    for (std::int64_t i = 0; i < held.size; ++i) init = op(init, f(held.data[i], i));
    return init;
  }
  template <class T, class F, class Op>
  LGM_HD T for_each_reduce(row<T>& held, F f, T init, Op op) const {
    for (std::int64_t i = 0; i < held.size; ++i) {
      f(held.data[i], i);
      init = op(init, held.data[i]);
    }
    return init;
  }
  template <class T>
  LGM_HD std::int64_t find(const row<T>& held, T value) const {
    for (std::int64_t i = 0; i < held.size; ++i)
      if (held.data[i] == value) return i;
    return held.size;
  }
};

}  // namespace lgm
