// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <lgm/detail/cuda/block_group.cuh>
#include <lgm/detail/cuda/run_tasks.cuh>
#include <lgm/formula.hpp>
#include <limits>
#include <stdexcept>
#include <vector>

#include "support/cuda_fibres.hpp"
#include "support/group_checks.hpp"

// The groups of a CUDA device themselves, and the kernel that runs tasks in them, on fibres: in any order of a block's threads.

namespace {

using support::cuda_fibres;
using support::cuda_misuse;
using support::lane_order;

constexpr lane_order orders[] = {lane_order::forward, lane_order::reverse, lane_order::shuffled};

// A block that is one group.
template <class Group>
struct cuda_team {
  lane_order order;

  int lanes() const { return Group::lanes; }
  template <class F>
  void run(const F& f) const {
    cuda_fibres(order, 3).launch(1, Group::lanes, [&] {
      const Group group;
      f(group, Group::lane());
    });
  }
};

template <class Group>
void check_calls() {
  for (const auto order : orders) {
    CAPTURE(Group::lanes);
    CAPTURE(support::to_string(order));
    support::check_all_calls<float>(cuda_team<Group>{order});
    if (Group::lanes <= 32) support::check_all_calls<double>(cuda_team<Group>{order});
  }
}

// Of every task, what each kind of call of its group has made of it.
struct counting_kernel {
  std::int64_t n;
  std::int64_t* sums;  // [tasks]
  double* stored;      // [tasks, n]
  int* visits;         // [tasks]

  template <class Group>
  void operator()(const Group& group, std::int64_t task) const {
    double* const own = stored + task * n;
    group.for_each(n, [&](std::int64_t i) { own[i] = static_cast<double>(task + i); });
    // Lanes read what others have stored, and combine twice with nothing between.
    const double sum = group.reduce(
        n, 0.0, [&](std::int64_t i) { return own[n - 1 - i]; }, lgm::plus{});
    const double largest = group.reduce(
        n, -1.0, [&](std::int64_t i) { return own[n - 1 - i]; }, lgm::maximum{});
    group.one_lane([&] {
      sums[task] = static_cast<std::int64_t>(sum + largest);
      ++visits[task];
    });
  }
};

template <int Lanes>
void check_tasks(unsigned most_blocks) {
  using lgm::detail::launch_shape;
  const std::int64_t n = 70;
  for (const auto order : orders)
    for (const std::int64_t tasks : {1, 3, 4, 5, 37}) {
      CAPTURE(Lanes);
      CAPTURE(tasks);
      CAPTURE(most_blocks);
      const launch_shape shape = launch_shape::make(Lanes, tasks);
      std::vector<std::int64_t> sums(static_cast<std::size_t>(tasks));
      std::vector<double> stored(static_cast<std::size_t>(tasks * n));
      std::vector<int> visits(static_cast<std::size_t>(tasks));
      const counting_kernel kernel{n, sums.data(), stored.data(), visits.data()};
      cuda_fibres(order, 5).launch(std::min(static_cast<unsigned>(shape.blocks), most_blocks),
                                   static_cast<unsigned>(shape.threads),
                                   [&] { lgm::detail::run_tasks<Lanes>(kernel, tasks); });
      for (std::int64_t task = 0; task < tasks; ++task) {
        CHECK(visits[static_cast<std::size_t>(task)] == 1);
        CHECK(sums[static_cast<std::size_t>(task)] == n * task + n * (n - 1) / 2 + task + n - 1);
      }
    }
}

}  // namespace

TEST_CASE("each call of a part of a warp does what group.hpp says") {
  using lgm::detail::warp_group;
  check_calls<warp_group<2>>();
  check_calls<warp_group<4>>();
  check_calls<warp_group<8, 2>>();
  check_calls<warp_group<16>>();
  check_calls<warp_group<32>>();
  check_calls<warp_group<32, 2>>();
}

TEST_CASE("each call of a block does what group.hpp says") {
  using lgm::detail::block_group;
  check_calls<block_group<64>>();
  check_calls<block_group<96, 1>>();
  for (const auto order : orders) {
    support::check_group<float>(cuda_team<block_group<256>>{order});
    support::check_group<double>(cuda_team<block_group<256, 8>>{order});
  }
  support::check_group<float>(cuda_team<block_group<1024>>{lane_order::shuffled});
}

TEST_CASE("every task is done once, by a group of its own, with any number of lanes and blocks") {
  for (const unsigned most_blocks : {1u, 2u, 1000u}) {
    check_tasks<1>(most_blocks);
    check_tasks<2>(most_blocks);
    check_tasks<4>(most_blocks);
    check_tasks<32>(most_blocks);
    check_tasks<64>(most_blocks);
    check_tasks<128>(most_blocks);
    check_tasks<256>(most_blocks);
  }
}

// An operator that does not commute for values that are not numbers: all lanes have the same bits all the same.
TEST_CASE("all lanes combine in the same order") {
  const auto check = [](auto group_of) {
    using group_type = decltype(group_of);
    for (const auto order : orders) {
      std::vector<double> got(static_cast<std::size_t>(group_type::lanes));
      cuda_team<group_type>{order}.run([&](const auto& group, int lane) {
        got[static_cast<std::size_t>(lane)] = group.reduce(
            group_type::lanes, 1.0, [](std::int64_t i) { return 1.0 + static_cast<double>(i) / 7; },
            [](double a, double b) { return a / 2 + b; });
      });
      for (const double each : got) CHECK(each == got[0]);
    }
  };
  check(lgm::detail::warp_group<8>());
  check(lgm::detail::block_group<128>());
}

// What CUDA leaves undefined ends in an exception, and the next launch is not harmed.
TEST_CASE("misuse is reported") {
  cuda_fibres device(lane_order::shuffled);
  const auto refused = [&](unsigned threads, const std::function<void(unsigned)>& kernel) {
    CHECK_THROWS_AS(device.launch(2, threads, [&] { kernel(threadIdx.x); }), cuda_misuse);
    std::vector<int> ran(2 * threads);
    device.launch(2, threads, [&] {
      __syncthreads();
      ++ran[blockIdx.x * threads + threadIdx.x];
    });
    CHECK(ran == std::vector<int>(2 * threads, 1));
  };
  // A barrier that a part of the block reaches, because others have ended or are elsewhere.
  refused(64, [](unsigned t) {
    if (t != 40) __syncthreads();
  });
  refused(64, [](unsigned t) {
    if (t == 5)
      __syncwarp(1u << 5);
    else
      __syncthreads();
  });
  // Lanes of a mask that disagree, on the mask or on the call.
  refused(32, [](unsigned t) { __syncwarp(t < 8 ? 0xffu : 0xffffffffu); });
  refused(32, [](unsigned t) {
    if (t == 3)
      __syncwarp();
    else
      __shfl_xor_sync(0xffffffffu, t, 1);
  });
  refused(32, [](unsigned t) { __shfl_xor_sync(0xffffffffu, t, t < 4 ? 1 : 2); });
  // A lane that is not in its mask, one that has ended, and one that the block has not.
  refused(32, [](unsigned) { __syncwarp(0xfffffffeu); });
  refused(32, [](unsigned t) {
    if (t != 31) __syncwarp();
  });
  refused(16, [](unsigned) { __syncwarp(); });
  // A value from beyond the mask.
  refused(32, [](unsigned t) { __shfl_xor_sync(t < 16 ? 0xffffu : 0xffff0000u, t, 16); });
  CHECK_THROWS_AS(static_cast<void>(threadIdx.x), cuda_misuse);
  CHECK_THROWS_WITH_AS(device.launch(1, 64,
                                     [] {
                                       __syncthreads();
                                       if (threadIdx.x == 33) throw std::runtime_error("thread 33");
                                       __syncthreads();
                                     }),
                       "thread 33", std::runtime_error);
}

#ifdef LGM_TEST_RACES
TEST_CASE("races are reported whatever the order of the threads") {
  std::vector<float> values(256), more(256);
  float sum = 0;
  for (const auto order : orders) {
    CAPTURE(support::to_string(order));
    cuda_fibres device(order);
    const auto races = [&](unsigned blocks, unsigned threads, const std::function<void(unsigned)>& kernel) {
      try {
        device.launch(blocks, threads, [&] { kernel(threadIdx.x); });
      } catch (const cuda_misuse&) {
        return true;
      }
      return false;
    };
    // What another stores is loaded, with a barrier and without.
    CHECK(!races(1, 64, [&](unsigned t) {
      values[t] = 1;
      __syncthreads();
      more[t] = values[63 - t];
    }));
    CHECK(races(1, 64, [&](unsigned t) {
      values[t] = 1;
      more[t] = values[63 - t];
    }));
    CHECK(races(1, 64, [&](unsigned t) {
      values[t] = 1;
      __syncwarp();
      more[t] = values[63 - t];
    }));
    CHECK(!races(1, 64, [&](unsigned t) {
      values[t] = 1;
      __syncwarp();
      more[t] = values[t ^ 31];
    }));
    // A shuffle orders no memory.
    CHECK(races(1, 32, [&](unsigned t) {
      values[t] = 1;
      __shfl_xor_sync(0xffffffffu, t, 1);
      more[t] = values[t ^ 1];
    }));
    // Loads before a store, and stores alone.
    CHECK(races(1, 32, [&](unsigned t) {
      more[t] = values[0];
      if (t == 7) values[0] = 2;
    }));
    CHECK(races(1, 32, [&](unsigned t) {
      if (t == 3 || t == 9) sum = 1;
    }));
    CHECK(!races(1, 32, [&](unsigned t) { more[t] = values[0]; }));
    // Blocks are never ordered.
    CHECK(races(2, 32, [&](unsigned t) {
      if (t == 0) sum = 1;
    }));
    CHECK(!races(2, 32, [&](unsigned t) { values[blockIdx.x * 32 + t] = sum; }));
  }
}
#endif
