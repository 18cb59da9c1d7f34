// SPDX-License-Identifier: MIT
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/problem.hpp"
#include "support/tolerance.hpp"

// A mixture whose classes are divided among several calls, and what they have together.

namespace support {

// The shards' first classes, and the number of classes last.
using cuts = std::vector<std::size_t>;

// Whole, in two, uneven, with empty shards at the ends and in the middle, and a class each.
inline std::vector<cuts> divisions_of(std::size_t classes) {
  std::vector<cuts> all{{0, classes}, {0, 0, classes, classes}};
  if (classes > 1) all.push_back({0, classes / 2, classes});
  if (classes > 2) all.push_back({0, 1, 1, classes - 1, classes});
  cuts each;
  for (std::size_t k = 0; k <= classes; ++k) each.push_back(k);
  all.push_back(each);
  return all;
}

// Whether one of the shards has all of them.
inline bool whole_shard(const cuts& at, std::size_t classes) {
  for (std::size_t s = 0; s + 1 < at.size(); ++s)
    if (at[s + 1] - at[s] == classes) return true;
  return false;
}

enum class merging { forwards, backwards, tree };
constexpr merging mergings[] = {merging::forwards, merging::backwards, merging::tree};

// All states merged, in one order or another.
template <class T>
std::vector<T> merged(const suite_context& context, const lgm::shape& shape,
                      std::vector<std::vector<T>> states, merging order) {
  const auto merge = [&](std::size_t from, std::size_t into) {
    REQUIRE(lgm::merge_row_state(context, shape, states[from].data(), states[into].data()) ==
            lgm::status::success);
  };
  const std::size_t n = states.size();
  std::size_t last = 0;
  switch (order) {
    case merging::forwards:
      for (std::size_t s = 1; s < n; ++s) merge(s, 0);
      break;
    case merging::backwards:
      last = n - 1;
      for (std::size_t s = n - 1; s > 0; --s) merge(s - 1, last);
      break;
    case merging::tree:
      for (std::size_t step = 1; step < n; step *= 2)
        for (std::size_t s = 0; s + step < n; s += 2 * step) merge(s + step, s);
      break;
  }
  return states[last];
}

// What the shards have together: parts added up, parameters side by side.
template <class T>
struct assembled {
  std::vector<T> row_state, log_evidence;
  std::vector<real> total, classification, likelihood, feature;
  std::vector<T> mean, log_variance, log_prior;

  void add(std::vector<real>& sum, const guarded<T>& part) {
    if (sum.empty()) sum.assign(part.size(), 0);
    for (std::size_t n = 0; n < part.size(); ++n) sum[n] += static_cast<real>(part[n]);
  }
  void add_gradients(const outputs<T>& part) {
    add(feature, part.feature);
    const auto append = [](std::vector<T>& all, const guarded<T>& values) {
      for (std::size_t n = 0; n < values.size(); ++n) all.push_back(values[n]);
    };
    append(mean, part.mean);
    append(log_variance, part.log_variance);
    append(log_prior, part.log_prior);
  }
};

template <class T>
std::vector<problem<T>> shards_of(const problem<T>& p, const cuts& at) {
  std::vector<problem<T>> shards;
  for (std::size_t s = 0; s + 1 < at.size(); ++s) shards.push_back(shard_of(p, at[s], at[s + 1] - at[s]));
  return shards;
}

template <class T>
assembled<T> run_sharded(const suite_context& context, const problem<T>& p, const cuts& at, merging order,
                         std::int64_t counted) {
  const auto shards = shards_of(p, at);
  std::vector<std::vector<T>> states;
  for (const auto& shard : shards) {
    outputs<T> out(shard);
    REQUIRE(forward(context, shard, out.result()) == lgm::status::success);
    out.check_intact();
    states.push_back(out.row_state.packed());
  }
  assembled<T> all;
  all.row_state = merged(context, p.shape, states, order);
  for (const auto& shard : shards) {
    outputs<T> out(shard);
    auto result = out.result();
    result.row_state = nullptr;
    result.correct = nullptr;
    REQUIRE(finish_forward(context, shard, all.row_state.data(), result) == lgm::status::success);
    REQUIRE(backward(context, shard, all.row_state.data(), out.gradients()) == lgm::status::success);
    out.check_intact();
    CHECK(out.row_state.untouched());
    CHECK(out.correct.untouched());
    CHECK(out.counted[0] == counted);
    // Every shard has the same evidence of the whole.
    if (all.log_evidence.empty()) all.log_evidence = out.log_evidence.packed();
    for (std::size_t i = 0; i < all.log_evidence.size(); ++i) {
      const T mine = out.log_evidence[i], first = all.log_evidence[i];
      CHECK((mine == first || (std::isnan(mine) && std::isnan(first))));
    }
    all.add(all.total, out.total);
    all.add(all.classification, out.classification);
    all.add(all.likelihood, out.likelihood);
    all.add_gradients(out);
  }
  return all;
}

template <class T>
void check_assembled(const expectation<T>& expected, const assembled<T>& got) {
  const auto losses = [&](const std::vector<real>& each) {
    return reference::reduced(expected.in, expected.out, each);
  };
  check_within("total", got.total, losses(expected.out.total), expected.bound.total);
  check_within("classification", got.classification, losses(expected.out.classification),
               expected.bound.classification);
  check_within("likelihood", got.likelihood, losses(expected.out.likelihood), expected.bound.likelihood);
  check_within("log_evidence", got.log_evidence, expected.out.log_evidence, expected.bound.log_evidence);
  const expected_state state = expected_shard_state<T>(expected.in, expected.out, expected.bound);
  check_within("row_state", got.row_state, state.value, state.bound);
  check_within("feature gradient", got.feature, expected.out.feature, expected.bound.feature);
  check_within("mean gradient", got.mean, expected.out.mean, expected.bound.mean);
  check_within("log_variance gradient", got.log_variance, expected.out.log_variance,
               expected.bound.log_variance);
  check_within("log_prior gradient", got.log_prior, expected.out.log_prior, expected.bound.log_prior);
}

}  // namespace support
