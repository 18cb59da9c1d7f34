// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <lgm/schedule.hpp>
#include <limits>

namespace {

template <class T>
lgm::stepped_schedule<T> schedule(lgm::schedule_policy policy, double value, std::int64_t step, double gamma,
                                  double min, double max) {
  lgm::stepped_schedule<T> s;
  s.policy = policy;
  s.value = static_cast<T>(value);
  s.step = step;
  s.gamma = static_cast<T>(gamma);
  s.min = static_cast<T>(min);
  s.max = static_cast<T>(max);
  return s;
}

constexpr std::int64_t last = std::numeric_limits<std::int64_t>::max();

}  // namespace

TEST_CASE_TEMPLATE("a default schedule is zero at any iteration", T, float, double) {
  const lgm::stepped_schedule<T> s;
  CHECK(s(0) == T(0));
  CHECK(s(1000000) == T(0));
  CHECK(s(last) == T(0));
}

TEST_CASE_TEMPLATE("constant gives its value, clamped", T, float, double) {
  CHECK(schedule<T>(lgm::schedule_policy::constant, 0.25, 10, 2, 0, 1)(12345) == T(0.25));
  CHECK(schedule<T>(lgm::schedule_policy::constant, 3, 10, 2, 0, 1)(0) == T(1));
  CHECK(schedule<T>(lgm::schedule_policy::constant, -3, 10, 2, 0.5, 1)(0) == T(0.5));
}

TEST_CASE_TEMPLATE("step_up multiplies after every step iterations", T, float, double) {
  const auto s = schedule<T>(lgm::schedule_policy::step_up, 0.125, 5000, 2, 0, 0.75);
  CHECK(s(0) == T(0.125));
  CHECK(s(4999) == T(0.125));
  CHECK(s(5000) == T(0.25));
  CHECK(s(9999) == T(0.25));
  CHECK(s(10000) == T(0.5));
  CHECK(s(14999) == T(0.5));
  CHECK(s(15000) == T(0.75));  // 1, clamped
  CHECK(s(last) == T(0.75));   // infinity, clamped
  CHECK(schedule<T>(lgm::schedule_policy::step_up, 0, 1, 2, 0, 1)(last) == T(0));
  const auto falling = schedule<T>(lgm::schedule_policy::step_up, 1, 2, 0.5, 0.2, 1);
  CHECK(falling(3) == T(0.5));
  CHECK(falling(4) == T(0.25));
  CHECK(falling(6) == T(0.2));
  CHECK(falling(last) == T(0.2));
}

TEST_CASE_TEMPLATE("add_up adds after every step iterations", T, float, double) {
  const auto s = schedule<T>(lgm::schedule_policy::add_up, 0.25, 3, 0.125, 0, 0.625);
  CHECK(s(0) == T(0.25));
  CHECK(s(2) == T(0.25));
  CHECK(s(3) == T(0.375));
  CHECK(s(6) == T(0.5));
  CHECK(s(9) == T(0.625));
  CHECK(s(12) == T(0.625));
  CHECK(s(last) == T(0.625));
  const auto falling = schedule<T>(lgm::schedule_policy::add_up, 1, 1, -0.25, 0.125, 1);
  CHECK(falling(2) == T(0.5));
  CHECK(falling(100) == T(0.125));
}

TEST_CASE_TEMPLATE("ramp is linear to max", T, float, double) {
  const auto s = schedule<T>(lgm::schedule_policy::ramp, 0.5, 8, 7, 0, 2.5);
  CHECK(s(0) == T(0.5));
  CHECK(s(1) == T(0.75));
  CHECK(s(4) == T(1.5));
  CHECK(s(7) == T(2.25));
  CHECK(s(8) == T(2.5));
  CHECK(s(9) == T(2.5));
  CHECK(s(last) == T(2.5));
}

TEST_CASE_TEMPLATE("odd arguments have defined answers", T, float, double) {
  for (const auto policy : {lgm::schedule_policy::constant, lgm::schedule_policy::step_up,
                            lgm::schedule_policy::add_up, lgm::schedule_policy::ramp}) {
    const auto s = schedule<T>(policy, 0.25, 4, 1.5, 0, 10);
    CHECK(s(-1) == s(0));
    CHECK(s(std::numeric_limits<std::int64_t>::min()) == s(0));
    // A step below 1 counts as 1.
    for (const std::int64_t step : {std::int64_t{0}, std::int64_t{-7}})
      for (std::int64_t t = 0; t < 5; ++t)
        CHECK(schedule<T>(policy, 0.25, step, 1.5, 0, 10)(t) == schedule<T>(policy, 0.25, 1, 1.5, 0, 10)(t));
  }
}

TEST_CASE_TEMPLATE("the value depends on nothing but the iteration", T, float, double) {
  const auto s = schedule<T>(lgm::schedule_policy::step_up, 0.1, 7, 1.5, 0, 5);
  T first[40];
  for (std::int64_t t = 0; t < 40; ++t) first[t] = s(t);
  for (std::int64_t t = 39; t >= 0; --t) CHECK(s(t) == first[t]);
  for (std::int64_t t = 1; t < 40; ++t) CHECK(first[t] >= first[t - 1]);
}
