// SPDX-License-Identifier: MIT
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <lgm/detail/host/packet_group.hpp>
#include <lgm/formula.hpp>
#include <lgm/group.hpp>
#include <vector>

// What every group promises (group.hpp), asked of a team: anything with lanes() and run(f), which calls f(group, lane) once per
// lane.

namespace support {

// For scalar indices; those of packets bring their own.
using lgm::for_lanes;
using lgm::load;
using lgm::load_as;
using lgm::replace;
using lgm::store;
using lgm::store_as;

// Sizes around the number of lanes; where there is one lane, around the register's.
template <class T>
std::vector<std::int64_t> sizes(std::int64_t lanes) {
  if (lanes == 1) lanes = lgm::detail::packet<T>::size;
  return {
      0, 1, lanes - 1, lanes, lanes + 1, 2 * lanes, 3 * lanes + 2, 4 * lanes, 4 * lanes + 1, 9 * lanes - 1};
}

template <class T>
std::vector<T> ramp(std::int64_t n) {
  std::vector<T> values;
  for (std::int64_t i = 0; i < n; ++i) values.push_back(static_cast<T>((i * 7) % 11) - T(5));
  return values;
}

// What one lane gets from the calls that answer.
template <class T>
struct answers {
  T sum, top, least, tripled_sum;
  std::int64_t fifty, absent;
};

// Every call, by a group of any kind: `team` runs it once per lane.
template <class T, class Team>
void check_group(const Team& team) {
  constexpr T infinity = lgm::numeric<T>::infinity;
  for (const std::int64_t n : sizes<T>(team.lanes())) {
    CAPTURE(n);
    const std::vector<T> in = ramp<T>(n);
    const T* data = in.data();
    // One element after the end, which nothing may touch.
    std::vector<T> doubled(in.size() + 1, T(99)), held(in), changed(doubled), tripled(doubled),
        counted(doubled);
    held.push_back(T(99));
    std::vector<int> visits(in.size(), 0);
    std::vector<answers<T>> got(static_cast<std::size_t>(team.lanes()));
    int calls = 0;
    team.run([&](const auto& group, int lane) {
      answers<T>& a = got[static_cast<std::size_t>(lane)];
      group.for_each(n, [&](auto i) { store(doubled.data(), i, load(data, i) + load(data, i)); });
      a.sum = group.reduce(
          n, T(0), [&](auto i) { return load(data, i); }, lgm::plus{});
      a.top = group.reduce(
          n, -infinity, [&](auto i) { return load(data, i); }, lgm::maximum{});
      auto row = group.load_row(held.data(), n);
      group.for_each(row, [&](auto& value, auto i) {
        value = value + load(data, i);
        replace(value, i, std::int64_t(3), T(50));
      });
      row.store(changed.data());
      a.fifty = group.find(row, T(50));
      a.absent = group.find(row, T(77));
      a.least = group.reduce(
          row, infinity, [](auto value, auto) { return value; }, lgm::minimum{});
      a.tripled_sum = group.for_each_reduce(
          row, [&](auto& value, auto i) { value = value + load(data, i); }, T(0), lgm::plus{});
      row.store(tripled.data());
      group.for_each(row, [&](auto& value, auto i) {
        for_lanes(value, i, [&](T& element, std::int64_t at) {
          ++visits[static_cast<std::size_t>(at)];
          element = static_cast<T>(at);
        });
      });
      row.store(held.data());  // back to where it came from
      auto again = group.load_row(held.data(), n);
      again.store(counted.data());
      group.one_lane([&] { ++calls; });
    });

    T sum = 0, tripled_sum = 0, top = -infinity, least = infinity;
    for (std::size_t i = 0; i < in.size(); ++i) {
      CHECK(doubled[i] == 2 * in[i]);
      CHECK(changed[i] == (i == 3 ? T(50) : 2 * in[i]));
      CHECK(tripled[i] == changed[i] + in[i]);
      tripled_sum += tripled[i];
      CHECK(visits[i] == 1);
      CHECK(held[i] == static_cast<T>(i));
      CHECK(counted[i] == static_cast<T>(i));
      sum += in[i];  // whole numbers: exact in any order
      top = std::max(top, in[i]);
      least = std::min(least, changed[i]);
    }
    for (const auto* array : {&doubled, &changed, &tripled, &held, &counted}) CHECK(array->back() == T(99));
    for (const answers<T>& a : got) {
      CHECK(a.sum == sum);
      CHECK(a.top == top);
      CHECK(a.least == least);
      CHECK(a.tripled_sum == tripled_sum);
      CHECK(a.fifty == (n > 3 ? 3 : n));
      CHECK(a.absent == n);
    }
    CHECK(calls == 1);
  }
}

// Memory of another type than the lanes', wider and narrower.
template <class T, class Team>
void check_conversions(const Team& team) {
  for (const std::int64_t n : sizes<T>(team.lanes())) {
    CAPTURE(n);
    const std::vector<T> in = ramp<T>(n);
    const std::vector<double> wide(in.begin(), in.end());
    std::vector<float> narrow(in.size() + 1, 99.0f);
    std::vector<double> widened(in.size() + 1, 99.0);
    team.run([&](const auto& group, int) {
      group.for_each(n, [&](auto i) {
        const auto v = load_as<T>(wide.data(), i);
        store_as(narrow.data(), i, v + load_as<T>(in.data(), i));
      });
      group.for_each(n, [&](auto i) { store_as(widened.data(), i, load_as<T>(narrow.data(), i)); });
    });
    for (std::size_t i = 0; i < in.size(); ++i) {
      CHECK(narrow[i] == static_cast<float>(2 * in[i]));
      CHECK(widened[i] == static_cast<double>(2 * in[i]));
    }
    CHECK(narrow.back() == 99.0f);
    CHECK(widened.back() == 99.0);
  }
}

// Each call ends in a barrier: what it wrote, every lane reads afterwards.
template <class T, class Team>
void check_barriers(const Team& team) {
  for (const std::int64_t n : sizes<T>(team.lanes())) {
    CAPTURE(n);
    const std::vector<T> in = ramp<T>(n);
    const T* data = in.data();
    std::vector<T> written(in), row_written(in), row_out(in), reduced(in);
    std::vector<T> sums(static_cast<std::size_t>(team.lanes()));
    T single = 0;
    // Every lane adds up all elements by itself.
    const auto total = [](const std::vector<T>& from) {
      T sum = 0;
      for (const T value : from) sum += value;
      return sum;
    };
    team.run([&](const auto& group, int lane) {
      T& sum = sums[static_cast<std::size_t>(lane)];
      sum = 0;
      group.for_each(n, [&](auto i) { store(written.data(), i, load(data, i) + load(data, i)); });
      sum += total(written);
      sum += group.reduce(
          n, T(0),
          [&](auto i) {
            const auto value = load(data, i);
            store(reduced.data(), i, value + value);
            return value;
          },
          lgm::plus{});
      sum += total(reduced);
      auto row = group.load_row(row_written.data(), n);
      group.for_each(row, [&](auto& value, auto) { value = value + value; });
      row.store(row_out.data());
      sum += total(row_out);
      group.one_lane([&] { single = T(7); });
      sum += single;
    });
    T expected = 7;
    for (const T v : in) expected += 7 * v;
    for (const T sum : sums) CHECK(sum == expected);
  }
}

// find answers the lowest of equal values, whichever lane has it; reduce answers init where there is nothing.
template <class T, class Team>
void check_ties(const Team& team) {
  for (const std::int64_t n : sizes<T>(team.lanes())) {
    for (const std::int64_t first : {std::int64_t(0), n / 3, n - 1}) {
      if (first < 0 || first >= n) continue;
      std::vector<T> values(static_cast<std::size_t>(n), T(1));
      for (std::int64_t i = first; i < n; i += 2) values[static_cast<std::size_t>(i)] = T(2);
      values[static_cast<std::size_t>(n - 1)] = T(2);
      std::vector<std::int64_t> found(static_cast<std::size_t>(team.lanes()));
      team.run([&](const auto& group, int lane) {
        const auto row = group.load_row(values.data(), n);
        found[static_cast<std::size_t>(lane)] = group.find(row, T(2));
      });
      for (const std::int64_t at : found) CHECK(at == first);
    }
  }
  const T one = 1;
  std::vector<T> empty(static_cast<std::size_t>(team.lanes()), T(99));
  team.run([&](const auto& group, int lane) {
    empty[static_cast<std::size_t>(lane)] = group.reduce(
        0, T(0), [&](auto i) { return load(&one, i); }, lgm::plus{});
  });
  for (const T sum : empty) CHECK(sum == T(0));
}

template <class T, class Team>
void check_all_calls(const Team& team) {
  check_group<T>(team);
  check_conversions<T>(team);
  check_barriers<T>(team);
  check_ties<T>(team);
}

}  // namespace support
