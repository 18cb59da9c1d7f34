// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <lgm/detail/host/packet_group.hpp>
#include <lgm/group.hpp>
#include <lgm/row.hpp>
#include <vector>

#include "support/lane_group.hpp"
#include "support/problem.hpp"
#include "support/reference.hpp"
#include "support/tolerance.hpp"

// Runs an algorithm under every kind of group. An algorithm is a struct:
//
//   struct centre_row_run {
//     static constexpr int variants = 1;                       // what in.variant goes through
//     template <class Group, class T>                          // called once per lane
//     static void run(const Group&, const inputs<T>& in, const arrays<T>& out, std::vector<T>& answers);
//     template <class T>                                       // in long double, from the formula
//     static void expect(const inputs<T>& in, expectation_of<T>& e);
//   };
//
// and check_algorithm<centre_row_run>() is its test: the same bits in every order of lanes and in free
// threads, equal answers in all lanes, and all groups within the stated bounds of the reference and of one
// thread.

namespace support {

// Long double copies of what the algorithms compute in T.
template <class T>
real widen(T value) {
  return static_cast<real>(value);
}

// A row of products of one sample with n classes, and the classes' constants, made so that rounding decides
// nothing: logits are near the largest (within 11) or far from it (40 and more), and where `cancels`, every
// third class has a norm that the product cannot be trusted with.
template <class T>
struct class_row {
  T half_norm = T(3.5), max_scale = T(1), max_norm = T(0);
  std::vector<T> bias, offset, scale, norm, half_log_det, products,
      direct;  // direct[k]: d_k, half a unit from the product's
  bool spherical;

  // peak: one class is nearest by far, and the last is its twin.
  class_row(generator& random, std::int64_t n, bool is_spherical, bool cancels, bool peak);

  // A frame that leaves nothing out.
  lgm::row_frame<T> frame() const { return {half_norm, T(spherical ? 0 : 1)}; }
  // The struct is written by those who fill it; algorithms only read.
  lgm::class_constants<T> constants() const {
    const auto pointer = [](const std::vector<T>& array) { return const_cast<T*>(array.data()); };
    return {pointer(bias), pointer(offset),       spherical ? pointer(scale) : nullptr,
            pointer(norm), pointer(half_log_det), max_scale,
            max_norm};
  }
  // The logit as the product gives it, and what rounding may do to it.
  real expanded(std::size_t k) const {
    return widen(products[k]) + widen(offset[k]) - widen(half_norm) * widen(scale[k]);
  }
  real expanded_bound(std::size_t k) const {
    return 2 * epsilon<T>() *
           (std::fabs(widen(products[k])) + std::fabs(widen(offset[k])) + widen(half_norm) * widen(scale[k]));
  }
  bool untrusted(std::size_t k) const { return norm[k] > T(1000); }
};

// Numbers of every kind that algorithms read; a function of the size and the variant alone.
template <class T>
struct inputs {
  std::int64_t n;
  int variant;
  // [n + 1], the last element being a guard that no algorithm may write or depend on.
  std::vector<T> features, mean, centre, log_variance, gradient, a, b, c, d;
  std::vector<class_row<T>> rows;
  // Finished logits [n]: the target's is -infinity, some are too far away to count, and two share the
  // largest.
  std::vector<T> logits;
  std::int64_t target;
  std::vector<T> logits_of_all;  // the same with a logit for the target
  std::vector<T> soft_target,
      class_weight;  // [n] and [n + 1]; every third class is no target, and neither is `target`

  inputs(std::int64_t size, int which);

  const class_row<T>& row(bool spherical, bool cancels, bool peak = false) const {
    return rows[(spherical ? 4u : 0u) + (cancels ? 2u : 0u) + (peak ? 1u : 0u)];
  }
  T largest_logit() const {
    T top = -lgm::numeric<T>::infinity;
    for (const T l : logits) top = std::max(top, l);
    return top;
  }
  // The parameters of a class with n dimensions, in each form of the covariance.
  lgm::class_parameters<T> parameters(lgm::covariance form) const {
    lgm::shape shape;
    shape.dims = n;
    shape.covariance = form;
    return {shape, {mean.data(), log_variance.data(), nullptr}, 0};
  }
  real log_variance_at(lgm::covariance form, std::size_t j) const {
    if (form == lgm::covariance::identity) return 0;
    return widen(log_variance[form == lgm::covariance::spherical ? 0 : j]);
  }
};

inline lgm::covariance form_of(int variant) { return static_cast<lgm::covariance>(variant % 3); }

// The memory that the lanes share. a to d start as the inputs' and are results, whole; what scratch holds is
// not.
template <class T>
struct arrays {
  T *a, *b, *c, *d, *scratch;
};

// element(k) of an array, of one lane or a packet of them.
template <class T>
auto elements_of(const std::vector<T>& from) {
  return [data = from.data()](auto k) {
    using lgm::load;
    return load(data, k);
  };
}

// A row that starts as a copy of an input, in memory of the results.
template <class Group, class T>
auto hold_copy(const Group& group, const std::vector<T>& from, T* to) {
  using lgm::load;
  using lgm::store;
  const auto n = static_cast<std::int64_t>(from.size());
  group.for_each(n, [&](auto k) { store(to, k, load(from.data(), k)); });
  return group.load_row(to, n);
}

// What an algorithm should give, with what each value may be off by. Arrays that it does not write stay as
// they were.
template <class T>
struct expectation_of {
  struct bounded {
    real value, bound;
  };
  std::vector<bounded> answers, a, b, c, d;

  explicit expectation_of(const inputs<T>& in);
  void answer(real value, real bound = 0) { answers.push_back({value, bound}); }
  void flatten(std::vector<real>& values, std::vector<real>& bounds) const;
};

// A sum of n terms: its value, and what its rounding costs.
struct real_sum {
  real value = 0, size = 0, error = 0;
  // error_of_term: beyond the few roundings that growth() allows for.
  void add(real term, real error_of_term = 0) {
    value += term;
    size += std::fabs(term);
    error += error_of_term;
  }
  template <class T>
  real bound(std::int64_t n) const {
    return growth<T>(size_of(n)) * size + error;
  }
};

// An algorithm, compiled for each kind of group.
template <class T>
struct algorithm {
  template <class Group>
  using call = void (*)(const Group&, const inputs<T>&, const arrays<T>&, std::vector<T>& answers);

  call<lgm::serial_group> serial;
  call<lgm::detail::packet_group<T>> packet;
  call<lane_group> lanes;
  void (*expect)(const inputs<T>&, expectation_of<T>&);
};

// One algorithm in one type and variant, at sizes around a number of lanes.
template <class T>
void check_lanes(const algorithm<T>& a, int lanes, int variant);

template <class A, class T>
void check_lanes(int lanes, int variant) {
  check_lanes<T>({&A::template run<lgm::serial_group, T>, &A::template run<lgm::detail::packet_group<T>, T>,
                  &A::template run<lane_group, T>, &A::template expect<T>},
                 lanes, variant);
}

template <class A>
void check_algorithm() {
  for (int variant = 0; variant < A::variants; ++variant)
    for (const int lanes : {2, 31, 32, 33, 128}) {
      // A change of lanes costs microseconds. All variants in both types at two of the numbers; at the others
      // the first variant in float and the last in double.
      const bool all = lanes == 2 || lanes == 32;
      if (all || variant == 0) check_lanes<A, float>(lanes, variant);
      if (all || variant == A::variants - 1) check_lanes<A, double>(lanes, variant);
    }
}

}  // namespace support
