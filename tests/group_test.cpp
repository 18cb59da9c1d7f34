// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <lgm/detail/packet_group.hpp>
#include <lgm/formula.hpp>
#include <lgm/group.hpp>
#include <limits>
#include <vector>

// Each call of a group, for one thread and for the lanes of a SIMD register, at sizes around the register's.

namespace {

// For scalar indices; those of packets bring their own.
using lgm::for_lanes;
using lgm::load;
using lgm::load_as;
using lgm::replace;
using lgm::store;
using lgm::store_as;

template <class T>
std::vector<std::int64_t> sizes() {
  const std::int64_t lanes = lgm::detail::packet<T>::size;
  return {
      0, 1, lanes - 1, lanes, lanes + 1, 2 * lanes, 3 * lanes + 2, 4 * lanes, 4 * lanes + 1, 9 * lanes - 1};
}

template <class T>
std::vector<T> ramp(std::int64_t n) {
  std::vector<T> values;
  for (std::int64_t i = 0; i < n; ++i) values.push_back(static_cast<T>((i * 7) % 11) - T(5));
  return values;
}

template <class T, class Group>
void check_group(const Group& group) {
  for (const std::int64_t n : sizes<T>()) {
    CAPTURE(n);
    const std::vector<T> in = ramp<T>(n);
    const T* data = in.data();
    // One element after the end, which nothing may touch.
    std::vector<T> out(in.size() + 1, T(99));

    group.for_each(n, [&](auto i) { store(out.data(), i, load(data, i) + load(data, i)); });
    for (std::size_t i = 0; i < in.size(); ++i) CHECK(out[i] == 2 * in[i]);
    CHECK(out.back() == T(99));

    // Memory of another type, wider and narrower.
    const std::vector<double> wide(in.begin(), in.end());
    std::vector<float> narrow(in.size() + 1, 99.0f);
    group.for_each(n, [&](auto i) {
      const auto v = load_as<T>(wide.data(), i);
      store_as(narrow.data(), i, v + load_as<T>(data, i));
    });
    for (std::size_t i = 0; i < in.size(); ++i) CHECK(narrow[i] == static_cast<float>(2 * in[i]));
    CHECK(narrow.back() == 99.0f);
    std::vector<double> widened(in.size() + 1, 99.0);
    group.for_each(n, [&](auto i) { store_as(widened.data(), i, load_as<T>(narrow.data(), i)); });
    for (std::size_t i = 0; i < in.size(); ++i) CHECK(widened[i] == static_cast<double>(2 * in[i]));
    CHECK(widened.back() == 99.0);

    T sum = 0, top = -lgm::numeric<T>::infinity;
    for (const T v : in) {
      sum += v;  // whole numbers: exact in any order
      top = std::max(top, v);
    }
    CHECK(group.reduce(
              n, T(0), [&](auto i) { return load(data, i); }, lgm::plus{}) == sum);
    CHECK(group.reduce(
              n, -lgm::numeric<T>::infinity, [&](auto i) { return load(data, i); }, lgm::maximum{}) == top);

    std::vector<T> held = in;
    held.push_back(T(99));
    auto row = group.hold(held.data(), n);
    group.for_each(row, [&](auto& value, auto i) {
      value = value + load(data, i);
      replace(value, i, std::int64_t(3), T(50));
    });
    row.store(out.data());
    for (std::size_t i = 0; i < in.size(); ++i) CHECK(out[i] == (i == 3 ? T(50) : 2 * in[i]));
    CHECK(held.back() == T(99));
    CHECK(group.find(row, T(50)) == (n > 3 ? 3 : n));
    CHECK(group.find(row, T(77)) == n);
    const T least = group.reduce(
        row, lgm::numeric<T>::infinity, [](auto value, auto) { return value; }, lgm::minimum{});
    T expected = lgm::numeric<T>::infinity;
    for (std::size_t i = 0; i < in.size(); ++i) expected = std::min(expected, out[i]);
    CHECK(least == expected);

    std::int64_t visited = 0;
    group.for_each(row, [&](auto& value, auto i) {
      for_lanes(value, i, [&](T& lane, std::int64_t at) {
        ++visited;
        lane = static_cast<T>(at);
      });
    });
    CHECK(visited == n);
    for (std::int64_t i = 0; i < n; ++i) CHECK(held[static_cast<std::size_t>(i)] == static_cast<T>(i));
  }
  int calls = 0;
  group.once([&] { ++calls; });
  CHECK(calls == 1);
}

}  // namespace

TEST_CASE_TEMPLATE("one thread", T, float, double) { check_group<T>(lgm::serial_group{}); }

TEST_CASE_TEMPLATE("the lanes of a register", T, float, double) {
  check_group<T>(lgm::detail::packet_group<T>{});
}

TEST_CASE_TEMPLATE("a packet computes what its lanes would", T, float, double) {
  using P = lgm::detail::packet<T>;
  for (const T v : {T(-700), T(-90), T(-80.5), T(-1), T(0), T(0.5), T(30)}) {
    const T bound = T(-80);
    const P result = exp_above(P(v), P(bound));
    T lanes[P::size];
    result.store(lanes);
    for (const T lane : lanes) {
      if (v < bound)
        CHECK(lane == T(0));
      else
        CHECK(lane == doctest::Approx(std::exp(v)).epsilon(4 * std::numeric_limits<T>::epsilon()));
    }
    CHECK(largest(P(v)) == v);
    CHECK(largest(product_or_zero(P(v), P(T(3)))) == v * T(3));
    CHECK(largest(product_or_zero(P(T(0)), P(std::numeric_limits<T>::infinity()))) == T(0));
    CHECK(std::isnan(largest(exp_above(P(std::numeric_limits<T>::quiet_NaN()), P(bound)))));
  }
  const T least = std::numeric_limits<T>::min(), infinity = std::numeric_limits<T>::infinity();
  for (const T v : {least, T(1e-10), T(0.9999), T(1), T(1.0001), T(7), T(1e30)})
    CHECK(std::fabs(largest(log(P(v))) - std::log(v)) <=
          2 * std::numeric_limits<T>::epsilon() * std::fabs(std::log(v)));
  CHECK(largest(log(P(infinity))) == infinity);
  CHECK(std::isnan(largest(log(P(std::numeric_limits<T>::quiet_NaN())))));
  // What is not a number stays so where it is the first.
  CHECK(std::isnan(largest(larger(P(std::numeric_limits<T>::quiet_NaN()), P(T(1))))));
}

TEST_CASE_TEMPLATE("an element's bits do not depend on its place in a packet or on the row's length", T,
                   float, double) {
  // exp in the last, partial packet must be the same function as in a full one.
  const std::int64_t lanes = lgm::detail::packet<T>::size, n = 5 * lanes;
  std::vector<T> in, whole(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) in.push_back(static_cast<T>(i) * T(-0.37));
  const lgm::detail::packet_group<T> group;
  const auto transform = [&](const T* from, T* to, std::int64_t count) {
    group.for_each(count, [&](auto i) { store(to, i, exp(load(from, i))); });
  };
  transform(in.data(), whole.data(), n);
  for (std::int64_t begin = 0; begin < lanes; ++begin) {
    for (std::int64_t count = 1; count <= n - begin; ++count) {
      std::vector<T> part(static_cast<std::size_t>(count));
      transform(in.data() + begin, part.data(), count);
      bool same = true;
      for (std::int64_t i = 0; i < count; ++i)
        same = same && part[static_cast<std::size_t>(i)] == whole[static_cast<std::size_t>(begin + i)];
      CHECK(same);
    }
  }
}
