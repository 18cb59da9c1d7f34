// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/config.hpp>
#include <type_traits>

namespace lgm::detail {

// Labels of any integer type, in the context's memory; read as std::int64_t, one at a time.
class label_view {
 public:
  label_view() = default;
  template <class L>
  explicit label_view(const L* data) : data_(data), kind_(kind_of<L>()) {}

  LGM_HD bool is_null() const { return data_ == nullptr; }
  LGM_HD std::int64_t operator[](std::int64_t i) const {
    switch (kind_) {
      case 1: return at<std::uint8_t>(i);
      case -1: return at<std::int8_t>(i);
      case 2: return at<std::uint16_t>(i);
      case -2: return at<std::int16_t>(i);
      case 4: return at<std::uint32_t>(i);
      case -4: return at<std::int32_t>(i);
      case 8: return at<std::int64_t>(i);
      default: return at<other_int64>(i);
    }
  }

 private:
  // long and long long are two types of one size; this is the one that std::int64_t is not.
  using other_int64 = std::conditional_t<std::is_same<std::int64_t, long>::value, long long, long>;

  // The type's size, negative for a signed type of less than 8 bytes; 0: other_int64. 8 bytes, signed or not, are read as
  // signed.
  template <class L>
  static constexpr int kind_of() {
    static_assert(std::is_integral<L>::value, "labels are integers");
    constexpr int size = static_cast<int>(sizeof(L));
    if (size == 8) return std::is_same<std::make_signed_t<L>, std::int64_t>::value ? 8 : 0;
    return std::is_signed<L>::value ? -size : size;
  }
  template <class L>
  LGM_HD std::int64_t at(std::int64_t i) const {
    return static_cast<const L*>(data_)[i];
  }

  const void* data_ = nullptr;
  int kind_ = 8;
};

}  // namespace lgm::detail
