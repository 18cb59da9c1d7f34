// SPDX-License-Identifier: MIT
#include "support/cuda_array.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>

// The arrays of the tests for a device, where the device's memory is the test's own (support/cuda_fibres).

using support::cuda_array;

TEST_CASE("what one side writes is there for the other") {
  cuda_array<double> a(3);
  for (std::int64_t n = 0; n < 3; ++n) a[n] = static_cast<double>(n);
  double* const device = a.data();
  CHECK(device != &a[0]);
  CHECK(a.data() == device);
  CHECK(device[2] == 2);
  device[1] = 7;  // a kernel
  CHECK(a[1] == 7);
  a[0] = 5;
  CHECK(device[0] == 0);
  CHECK(a.data()[0] == 5);
  CHECK(device[1] == 7);
  const cuda_array<double>& constant = a;
  device[2] = 9;
  CHECK(constant[2] == 9);
}

TEST_CASE("what nobody has written is seen") {
  cuda_array<float> a(4), b(4);
  CHECK(std::isnan(a[0]));
  CHECK(std::isnan(a.data()[3]));
  CHECK_FALSE(a.written());
  for (int n = 0; n < 3; ++n) a.data()[n] = 1;
  CHECK_FALSE(a.written());
  a.data()[3] = 1;
  CHECK(a.written());
  CHECK(a.intact());
  CHECK_FALSE(a.same_bits(b));
  for (int n = 0; n < 4; ++n) b[n] = 1;
  CHECK(a.same_bits(b));
  a.data()[4] = 1;  // behind the last
  CHECK_FALSE(a.intact());
  a.clear();
  CHECK(a.intact());
  CHECK(std::isnan(a.data()[0]));
}

TEST_CASE("a copy that fails leaves what is no number") {
  cuda_array<float> a(2);
  a[0] = a[1] = 1;
  float* const device = a.data();
  support::device_allocations().erase(device);
  CHECK(std::isnan(a[0]));
  CHECK(std::isnan(a[1]));
  support::device_allocations()[device] = 3 * sizeof(float);
}
