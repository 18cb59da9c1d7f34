// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <lgm/detail/packet_group.hpp>
#include <lgm/formula.hpp>
#include <lgm/group.hpp>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "support/emulated_group.hpp"
#include "support/thread_group.hpp"

// Each call of a group, for one thread, the lanes of a SIMD register and lanes that are threads, at sizes
// around the number of lanes.

namespace {

// For scalar indices; those of packets bring their own.
using lgm::for_lanes;
using lgm::load;
using lgm::load_as;
using lgm::replace;
using lgm::store;
using lgm::store_as;

using support::held_rows;
using support::lane_order;

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
  T sum, top, least;
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
    std::vector<T> doubled(in.size() + 1, T(99)), held(in), changed(doubled), counted(doubled);
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
      auto row = group.hold(held.data(), n);
      group.for_each(row, [&](auto& value, auto i) {
        value = value + load(data, i);
        replace(value, i, std::int64_t(3), T(50));
      });
      row.store(changed.data());
      a.fifty = group.find(row, T(50));
      a.absent = group.find(row, T(77));
      a.least = group.reduce(
          row, infinity, [](auto value, auto) { return value; }, lgm::minimum{});
      group.for_each(row, [&](auto& value, auto i) {
        for_lanes(value, i, [&](T& element, std::int64_t at) {
          ++visits[static_cast<std::size_t>(at)];
          element = static_cast<T>(at);
        });
      });
      row.store(held.data());  // back to where it came from
      auto again = group.hold(held.data(), n);
      again.store(counted.data());
      group.once([&] { ++calls; });
    });

    T sum = 0, top = -infinity, least = infinity;
    for (std::size_t i = 0; i < in.size(); ++i) {
      CHECK(doubled[i] == 2 * in[i]);
      CHECK(changed[i] == (i == 3 ? T(50) : 2 * in[i]));
      CHECK(visits[i] == 1);
      CHECK(held[i] == static_cast<T>(i));
      CHECK(counted[i] == static_cast<T>(i));
      sum += in[i];  // whole numbers: exact in any order
      top = std::max(top, in[i]);
      least = std::min(least, changed[i]);
    }
    for (const auto* array : {&doubled, &changed, &held, &counted}) CHECK(array->back() == T(99));
    for (const answers<T>& a : got) {
      CHECK(a.sum == sum);
      CHECK(a.top == top);
      CHECK(a.least == least);
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
      auto row = group.hold(row_written.data(), n);
      group.for_each(row, [&](auto& value, auto) { value = value + value; });
      row.store(row_out.data());
      sum += total(row_out);
      group.once([&] { single = T(7); });
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
        const auto row = group.hold(values.data(), n);
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

}  // namespace

TEST_CASE_TEMPLATE("one thread", T, float, double) {
  check_all_calls<T>(support::one_lane<lgm::serial_group>{});
}

TEST_CASE_TEMPLATE("the lanes of a register", T, float, double) {
  check_all_calls<T>(support::one_lane<lgm::detail::packet_group<T>>{});
}

TEST_CASE_TEMPLATE("lanes released one at a time", T, float, double) {
  const auto check = [](int lanes, lane_order order, held_rows rows) {
    CAPTURE(lanes);
    CAPTURE(to_string(order));
    CAPTURE(static_cast<int>(rows));
    check_all_calls<T>(support::emulated_group{lanes, order, rows});
  };
  for (const auto order : {lane_order::forward, lane_order::reverse, lane_order::shuffled})
    for (const auto rows : {held_rows::in_registers, held_rows::in_memory})
      for (const int lanes : {1, 2, 5}) check(lanes, order, rows);
  for (const int lanes : {31, 32, 33}) {
    check(lanes, lane_order::reverse, held_rows::in_registers);
    check(lanes, lane_order::shuffled, held_rows::in_memory);
  }
  check(128, lane_order::shuffled, held_rows::in_registers);
}

TEST_CASE_TEMPLATE("lanes that run freely", T, float, double) {
  for (const int lanes : {1, 2, 5, 33})
    for (const auto rows : {held_rows::in_registers, held_rows::in_memory}) {
      CAPTURE(lanes);
      check_all_calls<T>(support::thread_group{lanes, rows});
    }
}

TEST_CASE("a store in the phase that reads it gives other bits in another order") {
  // What the orders are for. Both functions turn an array round; the second has lost a barrier.
  const std::int64_t n = 70;
  const auto turned = [&](const support::emulated_group& team, bool one_phase) {
    std::vector<double> middle(static_cast<std::size_t>(n), 0.0), out(static_cast<std::size_t>(n), 0.0);
    const auto at = [](std::vector<double>& v, std::int64_t i) -> double& {
      return v[static_cast<std::size_t>(i)];
    };
    team.run([&](const auto& group, int) {
      group.for_each(n, [&](std::int64_t i) {
        at(middle, i) = static_cast<double>(i);
        if (one_phase) at(out, i) = at(middle, n - 1 - i);
      });
      if (!one_phase) group.for_each(n, [&](std::int64_t i) { at(out, i) = at(middle, n - 1 - i); });
    });
    return out;
  };
  for (const int lanes : {2, 31, 32, 33, 128}) {
    CAPTURE(lanes);
    const support::emulated_group forward{lanes, lane_order::forward}, reverse{lanes, lane_order::reverse},
        shuffled{lanes, lane_order::shuffled};
    CHECK(turned(forward, false) == turned(reverse, false));
    CHECK(turned(forward, false) == turned(shuffled, false));
    CHECK(turned(forward, true) != turned(reverse, true));
  }
}

TEST_CASE("an algorithm that leaves a changed row in registers and reads its memory is seen") {
  const auto sum = [](held_rows rows) {
    std::vector<double> values(9, 1.0);
    double result = 0;
    support::emulated_group{4, lane_order::forward, rows}.run([&](const auto& group, int) {
      auto row = group.hold(values.data(), std::int64_t(9));
      group.for_each(row, [](double& value, std::int64_t) { value = 2; });
      const double total = group.reduce(
          9, 0.0, [&](std::int64_t i) { return row.data[i]; }, lgm::plus{});
      group.once([&] { result = total; });
    });
    return result;
  };
  CHECK(sum(held_rows::in_registers) != sum(held_rows::in_memory));
}

TEST_CASE("orders are what they say, and shuffled ones change from phase to phase") {
  const auto visited = [](lane_order order, std::uint64_t seed) {
    std::vector<std::int64_t> lanes;
    support::emulated_group{8, order, held_rows::in_registers, seed}.run([&](const auto& group, int) {
      for (int phase = 0; phase < 3; ++phase) group.for_each(8, [&](std::int64_t i) { lanes.push_back(i); });
    });
    return lanes;
  };
  const std::vector<std::int64_t> up{0, 1, 2, 3, 4, 5, 6, 7}, down(up.rbegin(), up.rend());
  const auto part = [](const std::vector<std::int64_t>& all, int phase) {
    return std::vector<std::int64_t>(all.begin() + 8 * phase, all.begin() + 8 * (phase + 1));
  };
  const auto forward = visited(lane_order::forward, 1), reverse = visited(lane_order::reverse, 1),
             shuffled = visited(lane_order::shuffled, 1);
  for (int phase = 0; phase < 3; ++phase) {
    CHECK(part(forward, phase) == up);
    CHECK(part(reverse, phase) == down);
    auto sorted = part(shuffled, phase);
    std::sort(sorted.begin(), sorted.end());
    CHECK(sorted == up);
  }
  CHECK(part(shuffled, 0) != part(shuffled, 1));
  CHECK(part(shuffled, 1) != part(shuffled, 2));
  CHECK(shuffled == visited(lane_order::shuffled, 1));
  CHECK(shuffled != visited(lane_order::shuffled, 2));
}

// What a group of many lanes cannot do ends in an exception, not in a deadlock or a wrong number.
TEST_CASE_TEMPLATE("misuse is reported, and the next run is not harmed", Team, support::emulated_group,
                   support::thread_group) {
  const auto team = [] {
    if constexpr (std::is_same_v<Team, support::emulated_group>)
      return support::emulated_group{5, lane_order::shuffled};
    else
      return support::thread_group{5};
  }();
  const auto nothing = [](auto) {};
  const auto sum = [](const auto& group, std::int64_t n) {
    return group.reduce(
        n, 0.0, [](auto) { return 1.0; }, lgm::plus{});
  };
  // Lanes that part.
  CHECK_THROWS_AS(team.run([&](const auto& group, int lane) {
    if (lane == 3)
      group.for_each(7, nothing);
    else
      sum(group, 7);
  }),
                  support::group_misuse);
  // Other sizes.
  CHECK_THROWS_AS(team.run([&](const auto& group, int lane) { group.for_each(lane == 2 ? 6 : 7, nothing); }),
                  support::group_misuse);
  // A lane that leaves early, or stays on.
  CHECK_THROWS_AS(team.run([&](const auto& group, int lane) {
    group.for_each(7, nothing);
    if (lane != 0) sum(group, 7);
  }),
                  support::group_misuse);
  CHECK_THROWS_AS(team.run([&](const auto& group, int lane) {
    if (lane == 4) sum(group, 7);
  }),
                  support::group_misuse);
  // A call inside a phase, which only one lane would make.
  CHECK_THROWS_WITH_AS(
      team.run([&](const auto& group, int) { group.for_each(1, [&](auto) { sum(group, 7); }); }),
      "reduce inside for_each", support::group_misuse);
  CHECK_THROWS_AS(team.run([&](const auto& group, int) { group.once([&] { group.for_each(7, nothing); }); }),
                  support::group_misuse);
  // Whatever a lane throws comes out.
  CHECK_THROWS_WITH_AS(team.run([&](const auto& group, int lane) {
    sum(group, 7);
    if (lane == 1) throw std::runtime_error("lane one");
    sum(group, 7);
  }),
                       "lane one", std::runtime_error);
  std::vector<double> sums(5);
  team.run([&](const auto& group, int lane) { sums[static_cast<std::size_t>(lane)] = sum(group, 7); });
  CHECK(sums == std::vector<double>(5, 7.0));
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
