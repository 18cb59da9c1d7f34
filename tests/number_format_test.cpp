// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <lgm/detail/device/product_form.hpp>
#include <lgm/detail/number_format.hpp>
#include <limits>
#include <vector>

#include "support/memory.hpp"
#include "support/narrow.hpp"

// The formats' integer arithmetic against their definitions, for every number of 16 bits and around every number that rounds.

namespace {

using lgm::detail::number_format;
using namespace support;

float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

bool same(float a, float b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

// Numbers of the format, the midpoints between them, what is next to either in float, and numbers at random.
template <class Narrow>
std::vector<float> values_around() {
  std::vector<float> values;
  const float infinity = std::numeric_limits<float>::infinity();
  for (std::uint32_t bits = 0; bits < 0x8000; ++bits) {
    const float value = Narrow::from_bits(static_cast<std::uint16_t>(bits)),
                next = Narrow::from_bits(static_cast<std::uint16_t>(bits + 1));
    if (!std::isfinite(value)) continue;
    const float middle = std::isfinite(next) ? value + (next - value) / 2 : value * (1 + 0x1p-11f);
    for (const float v : {value, middle})
      for (const float near : {v, std::nextafter(v, -infinity), std::nextafter(v, infinity)}) {
        values.push_back(near);
        values.push_back(-near);
      }
  }
  generator random(5);
  for (int n = 0; n < 200000; ++n) values.push_back(float_of(static_cast<std::uint32_t>(random.bits())));
  for (const float v : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN(), float_of(0x7f800001),
                        65504.0f, 65519.99f, 65520.0f, 0x1p-24f, 0x1p-25f, 0x1.8p-25f, 0x1p-26f})
    values.push_back(v);
  return values;
}

}  // namespace

TEST_CASE_TEMPLATE("16 bits are read as what they mean", Narrow, half16, brain16) {
  const number_format format = lgm::detail::feature_type<Narrow>::format;
  int wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto narrow = static_cast<std::uint16_t>(bits);
    const float expected = Narrow::from_bits(narrow);
    wrong += same(lgm::detail::read_number<float>(&narrow, format, 0), expected) ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE_TEMPLATE("16 bits are written to nearest, ties to even", Narrow, half16, brain16) {
  const number_format format = lgm::detail::feature_type<Narrow>::format;
  int wrong = 0;
  for (const float value : values_around<Narrow>()) {
    std::uint16_t got;
    lgm::detail::write_number(&got, format, 0, value);
    const float back = Narrow::from_bits(got), expected = Narrow(static_cast<double>(value));
    const bool good = same(back, expected) && same(lgm::detail::rounded_to(format, value), expected);
    if (!good && wrong++ == 0) MESSAGE("first of what is wrong: " << value);
  }
  CHECK(wrong == 0);
}

TEST_CASE("TF32 has 10 bits after the leading one") {
  using wide = narrow16<10, -126>;
  int wrong = 0;
  for (const float value : values_around<brain16>())
    for (const float v : {value, value * (1 + 0x1p-11f), value * (1 + 0x3p-11f), value * (1 + 0x1p-12f)})
      wrong += same(lgm::detail::rounded_to(number_format::tf32, v),
                    static_cast<float>(wide::rounded(static_cast<double>(v))))
                   ? 0
                   : 1;
  CHECK(wrong == 0);
}

TEST_CASE("operands of two parts keep what they say") {
  generator random(6);
  float high[1], low[1];
  for (const number_format format : {number_format::tf32, number_format::bfloat16}) {
    const double roundoff = format == number_format::tf32 ? 0x1p-11 : 0x1p-8;
    const lgm::detail::product_operand<float> two{high, low, format}, one{high, nullptr, format};
    for (int n = 0; n < 10000; ++n) {
      const auto v = static_cast<float>(std::exp(5 * random.normal()) * random.normal());
      const double size = std::fabs(static_cast<double>(v));
      const float kept = two.store(0, v);
      REQUIRE(std::fabs(static_cast<double>(kept) - static_cast<double>(v)) <= roundoff * roundoff * size);
      REQUIRE(two.at(0) == kept);
      REQUIRE(std::fabs(static_cast<double>(one.store(0, v)) - static_cast<double>(v)) <= roundoff * size);
      REQUIRE(one.at(0) == one.store(0, v));
      // The sum of the parts that a weight is multiplied with.
      REQUIRE(lgm::detail::weight_rounding<float>{format, 2, {}}(v, 0) == kept);
    }
    // A half is the sum of two bfloat16.
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
      const float v = half16::from_bits(static_cast<std::uint16_t>(bits));
      if (std::isfinite(v)) REQUIRE(two.store(0, v) == v);
    }
  }
}

// The means' norms are of what the products take: a mean as it was would be off by its own rounding.
TEST_CASE("a mean of reduced precision answers what was stored of it, without its scale") {
  float stored[2] = {};
  const lgm::detail::scaled_row<float> row{{stored, nullptr, number_format::tf32}, 1};
  CHECK(store_scaled(row, 0, 1 + 0x1p-12f, 4.0f) == 1);
  CHECK(stored[1] == 4);
  CHECK(store_scaled(row, 0, 1 + 0x1p-10f, 4.0f) == 1 + 0x1p-10f);
  CHECK(store_scaled(row, 0, 5.0f, 0.0f) == 0);
}
