// SPDX-License-Identifier: MIT
#include "support/memory.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "support/narrow.hpp"

namespace support {

template <class T>
guarded<T>::guarded(std::int64_t rows, std::int64_t columns, std::int64_t stride, std::size_t offset)
    : rows_(size_of(rows)), columns_(size_of(columns)), stride_(size_of(stride == 0 ? columns : stride)) {
  length_ = rows_ == 0 ? 0 : (rows_ - 1) * stride_ + columns_;
  bytes_.resize(64 + (2 * guard + offset + length_) * sizeof(T));
  const std::size_t past = reinterpret_cast<std::uintptr_t>(bytes_.data()) % 64;
  start_ = (past == 0 ? 0 : 64 - past) + (guard + offset) * sizeof(T);
  clear();
}

template <class T>
void guarded<T>::clear() {
  std::memset(bytes_.data(), poison_byte(std::is_floating_point<T>::value), bytes_.size());
}

template <class T>
bool guarded<T>::intact() const {
  return poisoned(0, start_) && poisoned(start_ + length_ * sizeof(T), bytes_.size()) && padding_intact();
}

template <class T>
bool guarded<T>::written() const {
  for (std::size_t n = 0; n < size(); ++n)
    if (element_poisoned(n)) return false;
  return true;
}

template <class T>
bool guarded<T>::same_bits(const guarded& other) const {
  if (rows_ != other.rows_ || columns_ != other.columns_) return false;
  for (std::size_t row = 0; row < rows_; ++row)
    if (columns_ > 0 && std::memcmp(&at(row, 0), &other.at(row, 0), columns_ * sizeof(T)) != 0) return false;
  return true;
}

template <class T>
bool guarded<T>::all_zero() const {
  for (std::size_t n = 0; n < size(); ++n)
    if (!((*this)[n] == T(0))) return false;
  return true;
}

template <class T>
std::vector<T> guarded<T>::packed() const {
  std::vector<T> values(size());
  for (std::size_t n = 0; n < size(); ++n) values[n] = (*this)[n];
  return values;
}

template <class T>
bool guarded<T>::poisoned(std::size_t begin, std::size_t end) const {
  const auto expected = static_cast<unsigned char>(poison_byte(std::is_floating_point<T>::value));
  for (std::size_t n = begin; n < end; ++n)
    if (bytes_[n] != expected) return false;
  return true;
}

template <class T>
bool guarded<T>::element_poisoned(std::size_t n) const {
  const std::size_t begin = start_ + (n / columns_ * stride_ + n % columns_) * sizeof(T);
  return poisoned(begin, begin + sizeof(T));
}

template <class T>
bool guarded<T>::padding_intact() const {
  if (stride_ == columns_) return true;
  for (std::size_t row = 0; row + 1 < rows_; ++row) {
    const std::size_t begin = start_ + (row * stride_ + columns_) * sizeof(T);
    if (!poisoned(begin, begin + (stride_ - columns_) * sizeof(T))) return false;
  }
  return true;
}

template class guarded<float>;
template class guarded<double>;
template class guarded<std::int64_t>;
template class guarded<unsigned char>;
template class guarded<half16>;
template class guarded<brain16>;

}  // namespace support
