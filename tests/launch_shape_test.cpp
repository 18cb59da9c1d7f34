// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <lgm/detail/cuda/launch_shape.hpp>
#include <lgm/detail/device/call.hpp>

#include "support/cases.hpp"
#include "support/recording_device.hpp"

// Grids within a device's limits, and what a call would launch, at shapes far beyond this machine's memory.

namespace {

using lgm::detail::launch_shape;
using support::recording_device;

// The limits of every device that the library compiles for.
void check_limits(const launch_shape& s, int lanes, std::int64_t tasks) {
  CHECK(s.blocks >= 1);
  CHECK(s.blocks <= 2147483647);
  CHECK(s.threads <= 1024);
  CHECK(s.threads % 32 == 0);
  CHECK(s.threads == s.groups * lanes);
  if (lanes > 32) CHECK(s.groups == 1);
  // As many groups as tasks where the grid has room, and no block without a task.
  CHECK((s.blocks - 1) * s.groups < tasks);
  if (s.blocks < launch_shape::most_blocks) CHECK(tasks <= s.blocks * s.groups);
}

using lgm::detail::number_format;

template <class T>
recording_device record(const lgm::shape& shape, const lgm::detail::device_limits& limits, bool gradients,
                        number_format format = number_format::full) {
  recording_device device;
  // Addresses that nothing reads: of an array each, apart from one another.
  const auto address = [](std::uintptr_t n) { return reinterpret_cast<T*>(n << 56); };
  const auto labels = reinterpret_cast<const std::int64_t*>(address(7));
  auto call = lgm::detail::call_of<lgm::detail::any_kind>(shape, lgm::mixture<T>{address(1)},
                                                          lgm::loss_options<T>{}, address(9), labels);
  call.features.format = format;
  call.result.total = address(2);
  if (gradients) call.gradient = {address(3), format, address(4), address(5), address(6)};
  call.request(lgm::detail::loss_function::forward_backward);
  const lgm::workspace w{address(8), lgm::detail::device_loss_bytes<T>(shape, limits, format)};
  REQUIRE(lgm::detail::device_run_loss<recording_device, T>(device, limits, call, w) == lgm::status::success);
  return device;
}

}  // namespace

TEST_CASE("any number of tasks becomes a grid within the limits") {
  for (const int lanes : {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024})
    for (std::int64_t exponent = 0; exponent <= 62; ++exponent)
      for (const std::int64_t more : {-1, 0, 1}) {
        const std::int64_t tasks = (std::int64_t(1) << exponent) + more;
        if (tasks < 1) continue;
        CAPTURE(lanes);
        CAPTURE(tasks);
        check_limits(launch_shape::make(lanes, tasks), lanes, tasks);
      }
}

TEST_CASE("calls at the shapes of the design's list and beyond stay within the limits and the workspace") {
  const support::sizes3 shapes[] = {{128, 10, 2},        {128, 10, 64},         {256, 100, 384},
                                    {1024, 1000, 512},   {4096, 1000, 2048},    {2048, 10000, 512},
                                    {1024, 100000, 512}, {16384, 250000, 2048}, {64, 10000000, 128},
                                    {100000000, 100, 16}};
  struct kind {
    number_format format;
    lgm::precision precision;
  };
  const kind kinds[] = {
      {number_format::full, lgm::precision::highest},     {number_format::full, lgm::precision::tf32},
      {number_format::full, lgm::precision::split_tf32},  {number_format::half, lgm::precision::highest},
      {number_format::bfloat16, lgm::precision::highest}, {number_format::bfloat16, lgm::precision::fast}};
  for (const auto covariance : support::covariances)
    for (const auto& sizes : shapes) {
      CAPTURE(support::name_of(covariance));
      CAPTURE(sizes.samples);
      CAPTURE(sizes.classes);
      const lgm::shape shape = support::make_shape(sizes.samples, sizes.classes, sizes.dims, covariance);
      const std::size_t bytes = std::size_t{256} << 20;
      for (const kind& each : kinds)
        for (const bool gradients : {false, true}) {
          const lgm::detail::device_limits limits{bytes, each.precision};
          CHECK(lgm::detail::device_loss_bytes<float>(shape, limits, each.format) <= bytes);
          const recording_device device = record<float>(shape, limits, gradients, each.format);
          for (const auto& l : device.launches) check_limits(l.shape, l.lanes, l.tasks);
          for (const auto& p : device.products) {
            CHECK(p.ldc >= p.n);
            CHECK(p.lda >= (p.transpose_a ? p.m : p.k));
            CHECK(p.ldb >= (p.transpose_b ? p.k : p.n));
            // Rows that tensor cores take whole.
            if (lgm::detail::is_narrow(p.format)) CHECK((p.lda % 8 == 0 && p.ldb % 8 == 0));
          }
        }
    }
}

TEST_CASE("forward_backward multiplies three times where whole rows fit, four times where they do not") {
  const auto times = [](const lgm::shape& s, lgm::precision precision, number_format format) {
    double sum = 0;
    for (const auto& p : record<float>(s, {std::size_t{256} << 20, precision}, true, format).products)
      sum += static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k);
    return sum /
           (static_cast<double>(s.samples) * static_cast<double>(s.classes) * static_cast<double>(s.dims));
  };
  using lgm::precision;
  const lgm::shape few = support::make_shape(4096, 1000, 2048, lgm::covariance::identity),
                   many = support::make_shape(4096, 1000000, 64, lgm::covariance::identity);
  CHECK(times(few, precision::highest, number_format::full) == 3);
  CHECK(times(many, precision::highest, number_format::full) == 4);
  CHECK(times(few, precision::tf32, number_format::full) == 3);
  CHECK(times(many, precision::tf32, number_format::full) == 4);
  CHECK(times(few, precision::split_tf32, number_format::full) == 9);
  // A product of means that are split in two is made of two.
  CHECK(times(few, precision::highest, number_format::bfloat16) == 2 + 2 + 1);
  CHECK(times(few, precision::highest, number_format::half) == 3 + 2 + 2);
  CHECK(times(few, precision::fast, number_format::bfloat16) == 3);
  CHECK(times(few, precision::fast, number_format::half) == 2 + 1 + 2);
}

TEST_CASE("a workspace for some samples is enough for fewer") {
  for (const auto covariance : support::covariances)
    for (const std::int64_t classes : {10, 1000, 100000})
      for (const std::size_t tile_bytes :
           {std::size_t{1} << 14, std::size_t{1} << 22, std::size_t{1} << 30}) {
        CAPTURE(support::name_of(covariance));
        CAPTURE(classes);
        CAPTURE(tile_bytes);
        const lgm::detail::device_limits limits{tile_bytes, lgm::precision::highest};
        const std::size_t bytes = lgm::detail::device_loss_bytes<float>(
            support::make_shape(9000, classes, 32, covariance), limits, number_format::full);
        for (const std::int64_t samples :
             {1, 2, 3, 7, 100, 255, 256, 257, 1000, 4095, 4096, 4097, 4500, 8999})
          for (const bool forward_only : {false, true}) {
            CAPTURE(samples);
            const lgm::shape fewer = support::make_shape(samples, classes, 32, covariance);
            const auto plan =
                lgm::detail::device_plan::make<float>(fewer, limits, number_format::full, forward_only);
            CHECK(lgm::detail::device_bytes<float>(plan, fewer) <= bytes);
          }
      }
}

TEST_CASE("samples beyond 2^31 are counted in 64 bits") {
  const lgm::shape shape = support::make_shape(std::int64_t{3} << 30, 100, 2, lgm::covariance::identity);
  const recording_device device = record<float>(shape, {std::size_t{256} << 20}, false);
  double rows = 0;
  for (const auto& p : device.products) rows += static_cast<double>(p.m);
  CHECK(rows == static_cast<double>(shape.samples));
}
