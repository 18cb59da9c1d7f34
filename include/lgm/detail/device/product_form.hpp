// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/number_format.hpp>
#include <lgm/row.hpp>
#include <lgm/types.hpp>
#include <type_traits>

namespace lgm::detail {

// The operands of a call's products: how each is made of one number or of the sum of two, high + low, where low is what
// rounding leaves of high. Two sums are multiplied in up to three products, without low times low.
struct product_form {
  number_format format = number_format::full;
  int feature_parts = 1, mean_parts = 1, weight_parts = 1;
  // Features enter the products as they are, not centred: centred features would have to be rounded. What that adds to the
  // products is one constant for each class.
  bool uncentred = false;

  // The error of these products, as a fraction of the product of their operands' norms: what the means leave out and, where
  // features have two parts, low times low.
  template <class T>
  T epsilon() const {
    const T u = unit_roundoff<T>(format, numeric<T>::epsilon);
    return mean_parts > 1 ? (feature_parts > 1 ? T(2) : T(1)) * u * u : u;
  }
  // Logit errors up to this many epsilons are accepted. The target is 1e-4, as for float. The floor is 256: below it, an
  // untrained model, whose classes still overlap, would have every logit computed twice.
  template <class T>
  T trusted() const {
    if (format == number_format::full) return cancellation<T>::trusted;
    return larger(T(1e-4) / epsilon<T>(), T(256));
  }

  // features: their format.
  static product_form make(number_format features, covariance form, precision p) {
    product_form f;
    if (form == covariance::diagonal) return f;
    if (is_narrow(features)) {
      const bool fast = p == precision::fast;
      f.format = number_format::bfloat16;
      // 11 bits are two times 8 exactly.
      f.feature_parts = features == number_format::half ? 2 : 1;
      f.mean_parts = fast ? 1 : 2;
      f.uncentred = true;
    } else if (p != precision::highest) {
      f.format = number_format::tf32;
      f.feature_parts = f.mean_parts = f.weight_parts = p == precision::tf32 ? 1 : 2;
    }
    return f;
  }
};

// T: what is computed in.
template <class T>
status check_precision(precision p, number_format features) {
  switch (p) {
    case precision::highest: return status::success;
    case precision::split_tf32:
    case precision::tf32:
      return std::is_same<T, float>::value && !is_narrow(features) ? status::success : status::not_supported;
    case precision::fast: return is_narrow(features) ? status::success : status::not_supported;
  }
  return status::invalid_option;
}

// Where an operand's numbers lie.
template <class T>
struct product_operand {
  void *high = nullptr, *low = nullptr;  // low null: one part
  number_format format = number_format::full;

  // Stores value at index i; returns it as stored.
  LGM_HD T store(std::int64_t i, T value) const {
    const T kept = rounded_to(format, value);
    write_number(high, format, i, kept);
    if constexpr (std::is_same<T, float>::value) {
      if (low == nullptr) return kept;
      const T rest = rounded_to(format, value - kept);
      write_number(low, format, i, rest);
      return kept + rest;
    }
    return kept;
  }
  LGM_HD T at(std::int64_t i) const {
    const T value = read_number<T>(high, format, i);
    if constexpr (std::is_same<T, float>::value)
      return low == nullptr ? value : value + read_number<T>(low, format, i);
    return value;
  }
};

// A sample's features, centred, and not rounded as an operand's are: the feature gradient's part outside the products may take
// them exactly.
template <class T>
struct centred_features {
  number_array<T> features;
  const T* offset;  // [dims]
};
template <class T>
LGM_HD T load(const centred_features<T>& row, std::int64_t j) {
  return load(row.features, j) - row.offset[j];
}

// A sample's features among the operands.
template <class T>
struct feature_row {
  product_operand<T> operand;
  std::int64_t first;
  bool uncentred;
};
// For centre_row. Returns the value before rounding, so that the norm is that of the features themselves. The rounding error r
// then changes a logit by r mu'_k / Lambda_k, which cancellation bounds. With the norm of the rounded value it would change by
// r (x' - mu'_k). That is less near a class, where logits are computed again anyway. It is more far from all classes, where the
// target's logit comes from differences and would not have the same error.
template <class T>
LGM_HD T store_centred(const feature_row<T>& row, std::int64_t j, T value, T offset) {
  row.operand.store(row.first + j, row.uncentred ? value : value - offset);
  return value - offset;
}

// A class's mean among the operands, multiplied by its scale.
template <class T>
struct scaled_row {
  product_operand<T> operand;
  std::int64_t first;
};
// For centre_class: the mean that was stored, without the scale.
template <class T>
LGM_HD T store_scaled(const scaled_row<T>& row, std::int64_t j, T value, T scale) {
  const T kept = row.operand.store(row.first + j, scale * value);
  if constexpr (std::is_same<T, float>::value)
    if (row.operand.format != number_format::full) return scale > T(0) ? kept / scale : T(0);
  return value;
}

// A weight as the products will take it, so that sums of weights are theirs. Weights of 16 bits are stored as they are made.
template <class T>
struct weight_rounding {
  number_format format;
  int parts;
  product_operand<T> out;  // of 16 bits, else nothing
  std::int64_t first = 0;  // where the row begins there

  LGM_HD T operator()(T weight, std::int64_t k) const {
    if constexpr (std::is_same<T, float>::value) {
      if (out.high != nullptr) return out.store(first + k, weight);
      const T kept = rounded_to(format, weight);
      return parts == 1 ? kept : kept + rounded_to(format, weight - kept);
    }
    return weight;
  }
};

}  // namespace lgm::detail
