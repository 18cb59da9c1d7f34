// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <lgm/detail/host/packet_group.hpp>
#include <lgm/formula.hpp>
#include <lgm/group.hpp>
#include <limits>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "support/emulated_group.hpp"
#include "support/group_checks.hpp"
#include "support/thread_group.hpp"

// Each call of a group, for one thread, the lanes of a SIMD register and lanes that are threads, at sizes
// around the number of lanes.

namespace {

// For scalar indices; those of packets bring their own.
using lgm::load;
using lgm::store;

using support::check_all_calls;
using support::held_rows;
using support::lane_order;

}  // namespace

TEST_CASE_TEMPLATE("one thread is a group", T, float, double) {
  check_all_calls<T>(support::one_lane<lgm::serial_group>{});
}

TEST_CASE_TEMPLATE("the lanes of a register are a group", T, float, double) {
  check_all_calls<T>(support::one_lane<lgm::detail::packet_group<T>>{});
}

TEST_CASE_TEMPLATE("lanes that are released one at a time are a group", T, float, double) {
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

TEST_CASE_TEMPLATE("lanes that run freely are a group", T, float, double) {
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
      auto row = group.load_row(values.data(), std::int64_t(9));
      group.for_each(row, [](double& value, std::int64_t) { value = 2; });
      const double total = group.reduce(
          9, 0.0, [&](std::int64_t i) { return row.data[i]; }, lgm::plus{});
      group.one_lane([&] { result = total; });
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
  CHECK_THROWS_AS(
      team.run([&](const auto& group, int) { group.one_lane([&] { group.for_each(7, nothing); }); }),
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
