// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cstdint>

#include "device_cost/costing_device.hpp"
#include "device_cost/meter.hpp"

// bench/device_cost.py's meter on kernels whose traffic is known. This file is compiled with -fsanitize=thread.

namespace {

constexpr std::int64_t columns = 512;

// A row of 512 floats for each task: read `reads` times, with `stride` between the lanes' elements, and written once.
struct row_kernel {
  const float* in;
  const float* shared;  // [512], the same for all tasks; null: none
  float* out;
  int reads;
  std::int64_t stride;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    float sum = 0;
    for (int n = 0; n < reads; ++n)
      sum += group.reduce(
          columns, 0.0f, [&](std::int64_t j) { return in[(task * columns + j) * stride]; }, lgm::plus{});
    group.for_each(columns, [&](std::int64_t j) {
      out[task * columns + j] = sum + (shared != nullptr ? shared[j] : 0.0f);
    });
  }
};

struct fixture {
  static constexpr std::int64_t tasks = 1000;
  bench::device_array in{8 * tasks * columns * sizeof(float)}, shared{columns * sizeof(float)},
      out{tasks * columns * sizeof(float)};

  bench::kernel_cost cost_of(int lanes, int reads, std::int64_t stride, bool with_shared) {
    bench::meter meter;
    for (const auto* each : {&in, &shared, &out}) meter.watch(each->data(), each->bytes());
    bench::costing_device device(meter);
    for (int n = 0; n < 3; ++n)
      device.launch<4, 32, 256>(lanes, tasks,
                                row_kernel{static_cast<const float*>(in.data()),
                                           with_shared ? static_cast<const float*>(shared.data()) : nullptr,
                                           static_cast<float*>(out.data()), reads, stride});
    REQUIRE(device.kernels().size() == 1);
    const bench::kernel_cost cost = device.kernels()[0];
    CHECK(cost.name == "row_kernel");
    CHECK(cost.launches == 3);
    CHECK(cost.lanes == lanes);
    CHECK(cost.tasks == tasks);
    return cost;
  }
};

constexpr double array_bytes = double(fixture::tasks) * columns * sizeof(float);

}  // namespace

TEST_CASE("memory is read and written once, and the caches are asked every time") {
  fixture f;
  for (const int lanes : {4, 32, 256}) {
    CAPTURE(lanes);
    const auto once = f.cost_of(lanes, 1, 1, false), thrice = f.cost_of(lanes, 3, 1, false);
    // Four lanes ask for half a sector at a time.
    const double asked = lanes == 4 ? 2 * array_bytes : array_bytes;
    CHECK(once.bytes == doctest::Approx(2 * array_bytes));
    CHECK(once.requested == doctest::Approx(2 * asked));
    CHECK(thrice.bytes == doctest::Approx(2 * array_bytes));
    CHECK(thrice.requested == doctest::Approx(4 * asked));
    CHECK(once.loads == columns / lanes);
    CHECK(thrice.loads == 3 * columns / lanes);
  }
}

TEST_CASE("what all tasks read is in memory once") {
  fixture f;
  const auto cost = f.cost_of(256, 1, 1, true);
  CHECK(cost.bytes == doctest::Approx(2 * array_bytes + columns * sizeof(float)));
  CHECK(cost.requested == doctest::Approx(3 * array_bytes));
}

TEST_CASE("lanes whose elements are apart ask for a sector each") {
  fixture f;
  const auto near = f.cost_of(256, 1, 1, false), apart = f.cost_of(256, 1, 8, false);
  CHECK(apart.requested - near.requested == doctest::Approx(7 * array_bytes));
  CHECK(apart.bytes - near.bytes == doctest::Approx(7 * array_bytes));
}

TEST_CASE("blocks are those of the launch") {
  fixture f;
  CHECK(f.cost_of(4, 1, 1, false).shape.blocks == (fixture::tasks * 4 + 127) / 128);
  CHECK(f.cost_of(256, 1, 1, false).shape.blocks == fixture::tasks);
}
