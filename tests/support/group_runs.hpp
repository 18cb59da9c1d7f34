// SPDX-License-Identifier: MIT
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <lgm/detail/packet_group.hpp>
#include <lgm/row.hpp>
#include <string>
#include <utility>
#include <vector>

#include "support/emulated_group.hpp"
#include "support/problem.hpp"
#include "support/reference.hpp"
#include "support/thread_group.hpp"
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
  class_row(generator& random, std::int64_t n, bool is_spherical, bool cancels, bool peak)
      : spherical(is_spherical) {
    for (std::int64_t k = 0; k < n; ++k) {
      if (peak && n > 3 && k == n - 1) {
        for (auto* array : {&bias, &offset, &scale, &norm, &half_log_det, &products, &direct})
          array->push_back((*array)[size_of(n / 3)]);
        break;
      }
      const auto push = [](std::vector<T>& array, double value) { array.push_back(static_cast<T>(value)); };
      const bool unlikely = k % 9 == 7;  // near its class, which has next to no prior
      push(bias, unlikely ? -45.0 : random.uniform(-3, 0));
      push(half_log_det, random.uniform(-1, 1));
      push(scale, spherical ? random.uniform(0.5, 2) : 1.0);
      push(norm, cancels && k % 3 == 1 ? random.uniform(3000, 5000) : random.uniform(0.5, 5));
      offset.push_back(bias.back() - norm.back() / 2);
      const double logit = peak && k == n / 3 ? 20
                           : unlikely         ? random.uniform(-45.25, -45.125)
                           : k % 5 == 4       ? random.uniform(-50, -40)
                                              : random.uniform(-10, 0);
      products.push_back(static_cast<T>(logit) - offset.back() + half_norm * scale.back());
      direct.push_back(bias.back() - static_cast<T>(logit + random.uniform(0.25, 0.5)));
    }
    for (const T s : scale) max_scale = std::max(max_scale, s);
    for (const T m : norm) max_norm = std::max(max_norm, m);
  }

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

  inputs(std::int64_t size, int which) : n(size), variant(which), target(size > 0 ? size / 2 : -1) {
    generator random(static_cast<std::uint64_t>(size * 64 + which));
    const auto fill = [&](std::vector<T>& array, auto value) {
      for (std::int64_t i = 0; i <= n; ++i) array.push_back(static_cast<T>(value()));
    };
    for (auto* array : {&features, &mean, &centre, &gradient, &a, &b, &c, &d})
      fill(*array, [&] { return random.normal(); });
    fill(log_variance, [&] { return random.uniform(-1, 1); });
    for (const bool spherical : {false, true})
      for (const bool cancels : {false, true})
        for (const bool peak : {false, true}) rows.emplace_back(random, n, spherical, cancels, peak);
    for (std::int64_t k = 0; k < n; ++k)
      logits.push_back(static_cast<T>(k % 7 == 6   ? -1000.0
                                      : k % 5 == 4 ? random.uniform(-60, -40)
                                                   : random.uniform(-10, 0)));
    for (const std::int64_t k : {n / 3, n - 1})
      if (n > 1) logits[size_of(k)] = T(0.5);
    for (std::int64_t k = 0; k < n; ++k) {
      soft_target.push_back(static_cast<T>(k % 3 == 0 || k == target ? 0.0 : random.uniform(0, 1)));
    }
    fill(class_weight, [&] { return random.uniform(0.5, 2); });
    logits_of_all = logits;
    if (n > 0) logits[size_of(target)] = -lgm::numeric<T>::infinity;
  }

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
  return group.hold(to, n);
}

// What an algorithm should give, with what each value may be off by. Arrays that it does not write stay as
// they were.
template <class T>
struct expectation_of {
  struct bounded {
    real value, bound;
  };
  std::vector<bounded> answers, a, b, c, d;

  explicit expectation_of(const inputs<T>& in) {
    const auto untouched = [](const std::vector<T>& from, std::vector<bounded>& to) {
      for (const T value : from) to.push_back({widen(value), 0});
    };
    untouched(in.a, a);
    untouched(in.b, b);
    untouched(in.c, c);
    untouched(in.d, d);
  }
  void answer(real value, real bound = 0) { answers.push_back({value, bound}); }
  void flatten(std::vector<real>& values, std::vector<real>& bounds) const {
    for (const auto* part : {&answers, &a, &b, &c, &d})
      for (const bounded& each : *part) {
        values.push_back(each.value);
        bounds.push_back(each.bound);
      }
  }
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

// All that came out of one run: answers, a, b, c, d.
template <class T>
using outcome = std::vector<T>;

template <class T>
bool same_bits(const outcome<T>& x, const outcome<T>& y) {
  return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof(T)) == 0);
}

// The cases one after the other in one run of the team.
template <class A, class T, class Team>
std::vector<outcome<T>> run_cases(const Team& team, const std::vector<inputs<T>>& cases) {
  struct memory {
    std::vector<T> a, b, c, d, scratch;
    std::vector<std::vector<T>> answers;  // of each lane
  };
  std::vector<memory> memories;
  for (const inputs<T>& in : cases)
    memories.push_back({in.a, in.b, in.c, in.d, std::vector<T>(in.a.size(), T(77)),
                        std::vector<std::vector<T>>(static_cast<std::size_t>(team.lanes()))});
  team.run([&](const auto& group, int lane) {
    for (std::size_t c = 0; c < cases.size(); ++c) {
      memory& m = memories[c];
      A::run(group, cases[c], arrays<T>{m.a.data(), m.b.data(), m.c.data(), m.d.data(), m.scratch.data()},
             m.answers[static_cast<std::size_t>(lane)]);
    }
  });
  std::vector<outcome<T>> results;
  for (const memory& m : memories) {
    bool equal = true;
    for (const auto& answers : m.answers) equal = equal && same_bits(answers, m.answers[0]);
    CHECK_MESSAGE(equal, "lanes have different answers");
    results.push_back(m.answers[0]);
    for (const auto* part : {&m.a, &m.b, &m.c, &m.d})
      results.back().insert(results.back().end(), part->begin(), part->end());
  }
  return results;
}

// One algorithm in one type and variant, at sizes around a number of lanes.
template <class A, class T>
void check_lanes(int lanes, int variant) {
  CAPTURE(lanes);
  CAPTURE(variant);
  CAPTURE(sizeof(T));
  std::vector<inputs<T>> cases;
  for (const int n : {0, 1, lanes - 1, lanes, lanes + 1, 3 * lanes + 2}) cases.emplace_back(n, variant);

  const auto serial = run_cases<A>(one_lane<lgm::serial_group>{}, cases);
  const auto packet = run_cases<A>(one_lane<lgm::detail::packet_group<T>>{}, cases);
  const auto forward = run_cases<A>(emulated_group{lanes, lane_order::forward}, cases);
  for (std::size_t c = 0; c < cases.size(); ++c) {
    CAPTURE(cases[c].n);
    expectation_of<T> e(cases[c]);
    A::expect(cases[c], e);
    std::vector<real> exact, bounds;
    e.flatten(exact, bounds);
    const std::vector<real> one_thread(serial[c].begin(), serial[c].end());
    check_within("one thread", serial[c], exact, bounds);
    check_within("a register", packet[c], exact, bounds);
    check_within("a register, against one thread,", packet[c], one_thread, bounds);
    check_within("lanes", forward[c], exact, bounds);
    check_within("lanes, against one thread,", forward[c], one_thread, bounds);
  }

  const auto check = [&](const std::string& name, const auto& team) {
    const auto got = run_cases<A>(team, cases);
    for (std::size_t c = 0; c < cases.size(); ++c)
      CHECK_MESSAGE(same_bits(got[c], forward[c]), name << " has other bits at size " << cases[c].n);
  };
  check("reverse", emulated_group{lanes, lane_order::reverse});
  check("shuffled, rows in memory,", emulated_group{lanes, lane_order::shuffled, held_rows::in_memory, 8});
  if (lanes <= 33) check("free threads", thread_group{lanes});
  if (lanes > 32) return;
  check("shuffled", emulated_group{lanes, lane_order::shuffled, held_rows::in_registers, 7});
  check("free threads, rows in memory,", thread_group{lanes, held_rows::in_memory});
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
