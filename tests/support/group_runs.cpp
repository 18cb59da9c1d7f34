// SPDX-License-Identifier: MIT
#include "support/group_runs.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "support/emulated_group.hpp"
#include "support/thread_group.hpp"

namespace support {

template <class T>
class_row<T>::class_row(generator& random, std::int64_t n, bool is_spherical, bool cancels, bool peak)
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

template <class T>
inputs<T>::inputs(std::int64_t size, int which) : n(size), variant(which), target(size > 0 ? size / 2 : -1) {
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

template <class T>
expectation_of<T>::expectation_of(const inputs<T>& in) {
  const auto untouched = [](const std::vector<T>& from, std::vector<bounded>& to) {
    for (const T value : from) to.push_back({widen(value), 0});
  };
  untouched(in.a, a);
  untouched(in.b, b);
  untouched(in.c, c);
  untouched(in.d, d);
}

template <class T>
void expectation_of<T>::flatten(std::vector<real>& values, std::vector<real>& bounds) const {
  for (const auto* part : {&answers, &a, &b, &c, &d})
    for (const bounded& each : *part) {
      values.push_back(each.value);
      bounds.push_back(each.bound);
    }
}

namespace {

// All that came out of one run: answers, a, b, c, d.
template <class T>
using outcome = std::vector<T>;

template <class T>
bool same_bits(const outcome<T>& x, const outcome<T>& y) {
  return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof(T)) == 0);
}

// The cases one after the other in one run of the team.
template <class T, class Team, class Call>
std::vector<outcome<T>> run_cases(const Team& team, Call call, const std::vector<inputs<T>>& cases) {
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
      call(group, cases[c], arrays<T>{m.a.data(), m.b.data(), m.c.data(), m.d.data(), m.scratch.data()},
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

}  // namespace

template <class T>
void check_lanes(const algorithm<T>& a, int lanes, int variant) {
  CAPTURE(lanes);
  CAPTURE(variant);
  CAPTURE(sizeof(T));
  std::vector<inputs<T>> cases;
  for (const int n : {0, 1, lanes - 1, lanes, lanes + 1, 3 * lanes + 2}) cases.emplace_back(n, variant);

  const auto serial = run_cases(one_lane<lgm::serial_group>{}, a.serial, cases);
  const auto packet = run_cases(one_lane<lgm::detail::packet_group<T>>{}, a.packet, cases);
  const auto forward = run_cases(emulated_group{lanes, lane_order::forward}, a.lanes, cases);
  for (std::size_t c = 0; c < cases.size(); ++c) {
    CAPTURE(cases[c].n);
    expectation_of<T> e(cases[c]);
    a.expect(cases[c], e);
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
    const auto got = run_cases(team, a.lanes, cases);
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

template struct class_row<float>;
template struct class_row<double>;
template struct inputs<float>;
template struct inputs<double>;
template struct expectation_of<float>;
template struct expectation_of<double>;
template void check_lanes(const algorithm<float>&, int, int);
template void check_lanes(const algorithm<double>&, int, int);

}  // namespace support
