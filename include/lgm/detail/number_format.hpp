// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <cstring>
#include <lgm/config.hpp>
#include <type_traits>

// Numbers that memory holds in another format than they are computed in: features and their gradients of 16 bits, and the
// operands of products for tensor cores. All of it is integer arithmetic on a float's bits, rounding to nearest, ties to
// even, so that host and device agree to the bit, and no kernel is compiled once for each type of the features.

namespace lgm::detail {

enum class number_format {
  full,      // T itself
  tf32,      // a float of which 10 bits after the leading one may be set; 4 bytes
  half,      // IEEE binary16
  bfloat16,  // the upper half of a float
};

LGM_HD constexpr bool is_narrow(number_format f) {
  return f == number_format::half || f == number_format::bfloat16;
}
template <class T>
LGM_HD constexpr std::int64_t bytes_of(number_format f) {
  return is_narrow(f) ? 2 : static_cast<std::int64_t>(sizeof(T));
}
// Half a unit in the last place, relative.
template <class T>
constexpr T unit_roundoff(number_format f, T full) {
  return f == number_format::full ? full : f == number_format::bfloat16 ? T(0x1p-8) : T(0x1p-11);
}

LGM_HD inline std::uint32_t bits_of(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
LGM_HD inline float float_of(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// A float's bits with the last `dropped` ones rounded away. Infinities and NaN stay what they are.
LGM_HD inline std::uint32_t rounded_bits(std::uint32_t bits, int dropped) {
  const std::uint32_t unit = std::uint32_t(1) << dropped;
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (bits | 0x00400000u) & ~(unit - 1);
  return (bits + (unit / 2 - 1) + ((bits >> dropped) & 1u)) & ~(unit - 1);
}

LGM_HD inline float bfloat16_value(std::uint16_t bits) { return float_of(std::uint32_t(bits) << 16); }
LGM_HD inline std::uint16_t bfloat16_bits(float value) {
  return static_cast<std::uint16_t>(rounded_bits(bits_of(value), 16) >> 16);
}

LGM_HD inline float half_value(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000u) << 16, exponent = (bits >> 10) & 31u, fraction = bits & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  return float_of(sign | ((exponent == 31 ? 255u : exponent + 112u) << 23) | (fraction << 13));
}
LGM_HD inline std::uint16_t half_bits(float value) {
  const std::uint32_t bits = bits_of(value), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  std::uint32_t half;
  if (magnitude > 0x7f800000u)
    half = 0x7e00u;
  else if (magnitude >= 0x477ff000u)  // 65520, halfway to what would be the next number
    half = 0x7c00u;
  else if (magnitude <
           0x38800000u)  // below 2^-14 the steps are 2^-24; an addition to 2^23 rounds to whole ones
    half = bits_of(float_of(magnitude) * 0x1p24f + 0x1p23f) & 0x7fffu;
  else
    half = (rounded_bits(magnitude, 13) >> 13) - (112u << 10);
  return static_cast<std::uint16_t>(sign | half);
}

// A value as the format holds it.
template <class T>
LGM_HD T rounded_to(number_format f, T value) {
  if constexpr (std::is_same<T, float>::value) {
    if (f == number_format::tf32) return float_of(rounded_bits(bits_of(value), 13));
    if (f == number_format::bfloat16) return bfloat16_value(bfloat16_bits(value));
    if (f == number_format::half) return half_value(half_bits(value));
  }
  return value;
}

// Element i of an array of the format.
template <class T>
LGM_HD T read_number(const void* data, number_format f, std::int64_t i) {
  if constexpr (std::is_same<T, float>::value) {
    if (f == number_format::bfloat16) return bfloat16_value(static_cast<const std::uint16_t*>(data)[i]);
    if (f == number_format::half) return half_value(static_cast<const std::uint16_t*>(data)[i]);
  }
  return static_cast<const T*>(data)[i];
}
template <class T>
LGM_HD void write_number(void* data, number_format f, std::int64_t i, T value) {
  if constexpr (std::is_same<T, float>::value) {
    if (f == number_format::bfloat16) {
      static_cast<std::uint16_t*>(data)[i] = bfloat16_bits(value);
      return;
    }
    if (f == number_format::half) {
      static_cast<std::uint16_t*>(data)[i] = half_bits(value);
      return;
    }
  }
  static_cast<T*>(data)[i] = rounded_to(f, value);
}

// Numbers of a format, read as T: what the algorithms of rows and columns take for a sample's features.
template <class T>
struct number_array {
  const void* data = nullptr;
  number_format format = number_format::full;

  LGM_HD number_array from(std::int64_t first) const {
    return {static_cast<const char*>(data) + first * bytes_of<T>(format), format};
  }
};
template <class T>
LGM_HD T load(const number_array<T>& numbers, std::int64_t i) {
  return read_number<T>(numbers.data, numbers.format, i);
}
template <class V, class T>
LGM_HD V load_as(const number_array<T>& numbers, std::int64_t i) {
  return static_cast<V>(load(numbers, i));
}

// The format of a type of features, and the type that is computed in. Types of 16 bits bring a specialisation of their own.
template <class F>
struct feature_type;
template <>
struct feature_type<float> {
  using parameter = float;
  static constexpr number_format format = number_format::full;
};
template <>
struct feature_type<double> {
  using parameter = double;
  static constexpr number_format format = number_format::full;
};
template <class F>
using parameter_t = typename feature_type<std::remove_cv_t<F>>::parameter;

template <class F>
number_array<parameter_t<F>> array_of(const F* features) {
  return {features, feature_type<F>::format};
}

}  // namespace lgm::detail
