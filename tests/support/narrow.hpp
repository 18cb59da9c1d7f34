// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <lgm/detail/number_format.hpp>
#include <limits>

// IEEE binary16 and bfloat16 on the host, in place of __half and __nv_bfloat16: what their bits mean and how they round, in
// double arithmetic straight from the definition, and none of the library's integer arithmetic.

namespace support {

// Fraction bits after the leading one, and the exponent of the smallest normal number; of 16 bits.
template <int Fraction, int Lowest>
class narrow16 {
 public:
  static constexpr int fraction = Fraction, lowest = Lowest;

  narrow16() = default;
  narrow16(double value) : bits_(encode(value)) {}
  static narrow16 from_bits(std::uint16_t bits) {
    narrow16 n;
    n.bits_ = bits;
    return n;
  }
  std::uint16_t bits() const { return bits_; }
  operator float() const { return static_cast<float>(decode()); }

  // What a float in the format becomes: to nearest, ties to even.
  static double rounded(double value) {
    if (value == 0 || !std::isfinite(value)) return value;
    const int exponent = std::ilogb(value) < lowest ? lowest : std::ilogb(value);
    const double unit = std::ldexp(1.0, exponent - fraction);
    const double result = std::nearbyint(value / unit) * unit;
    return std::fabs(result) >= std::ldexp(1.0, 2 - lowest)
               ? std::copysign(std::numeric_limits<double>::infinity(), value)
               : result;
  }

 private:
  static constexpr int exponents = (1 << (15 - Fraction)) - 1;  // of all ones

  static std::uint16_t encode(double value) {
    const unsigned sign = std::signbit(value) ? 0x8000u : 0u;
    const double v = std::fabs(rounded(value));
    unsigned magnitude;
    if (std::isnan(v))
      magnitude = (unsigned(exponents) << fraction) | (1u << (fraction - 1));
    else if (std::isinf(v))
      magnitude = unsigned(exponents) << fraction;
    else if (v < std::ldexp(1.0, lowest))
      magnitude = static_cast<unsigned>(std::ldexp(v, fraction - lowest));
    else
      magnitude = (unsigned(std::ilogb(v) - lowest) << fraction) +
                  static_cast<unsigned>(std::ldexp(v, fraction - std::ilogb(v)));
    return static_cast<std::uint16_t>(sign | magnitude);
  }
  double decode() const {
    const int exponent = (bits_ & 0x7fff) >> fraction, digits = bits_ & ((1 << fraction) - 1);
    double v;
    if (exponent == exponents)
      v = digits != 0 ? std::numeric_limits<double>::quiet_NaN() : std::numeric_limits<double>::infinity();
    else if (exponent == 0)
      v = std::ldexp(digits, lowest - fraction);
    else
      v = std::ldexp(digits + (1 << fraction), exponent - 1 + lowest - fraction);
    return (bits_ & 0x8000) != 0 ? -v : v;
  }

  std::uint16_t bits_ = 0;
};

using half16 = narrow16<10, -14>;
using brain16 = narrow16<7, -126>;

}  // namespace support

namespace lgm::detail {

template <>
struct feature_type<support::half16> {
  using parameter = float;
  static constexpr number_format format = number_format::half;
};
template <>
struct feature_type<support::brain16> {
  using parameter = float;
  static constexpr number_format format = number_format::bfloat16;
};

}  // namespace lgm::detail
