// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "input_file.hpp"
#include "model_file.hpp"
#include "npz.hpp"

// Reading arrays a batch of rows at a time, in as much memory as a batch needs, whatever the file holds: NumPy's .npy
// and IDX files, gzipped or plain, from pipes and standard input too, and NumPy's .npz files. Whatever is wrong with a file
// throws std::runtime_error, "FILE: reason" in one line.

namespace detector {

// An array of rows: the first dimension counts them, a row is all that the others hold.
class row_reader {
 public:
  virtual ~row_reader() = default;
  row_reader(const row_reader&) = delete;
  row_reader& operator=(const row_reader&) = delete;

  const std::filesystem::path& path() const { return path_; }
  const std::vector<std::int64_t>& shape() const { return shape_; }  // no dimension is empty
  std::int64_t rows() const { return shape_.front(); }
  std::int64_t columns() const { return columns_; }  // values of a row: 1 if there is one dimension
  // NumPy's kind and bytes: "b1", "i1" to "i8", "u1" to "u8" or "f2" to "f8"; of an IDX file "u1".
  const std::string& dtype() const { return dtype_; }
  bool has_whole_numbers() const { return dtype_[0] != 'f'; }

  // Reads the next rows, at most so many, as floats [rows, columns()] and returns how many there were: fewer only at
  // the end, 0 beyond it. With the last row the file is checked to its end.
  std::int64_t read(std::int64_t rows, float* out) { return read_rows(rows, out); }
  // The same for whole numbers, such as labels; a file of floats is an error.
  std::int64_t read(std::int64_t rows, std::int64_t* out) { return read_rows(rows, out); }

  // All rows that are left. Memory grows with what the file really holds, whatever its header claims.
  std::vector<float> read_all() { return read_rest<float>(); }
  std::vector<std::int64_t> read_all_whole() { return read_rest<std::int64_t>(); }

 protected:
  row_reader(const std::filesystem::path& path, std::unique_ptr<trainer::byte_source> source)
      : path_(path), source_(std::move(source)) {}

  [[noreturn]] void fail(const std::string& reason) const { trainer::fail_file(path_, reason); }

  void read_header(std::uint8_t* out, std::size_t bytes) {
    if (source_->read(out, bytes) < bytes) fail("truncated: the header is incomplete");
  }

  struct layout {
    std::vector<std::int64_t> shape;
    std::string dtype;
    bool is_big_endian = false;
    bool is_fortran_order = false;  // the first index changes fastest
  };

  // To be called once, with the header behind.
  void set_layout(const layout& of) {
    constexpr std::int64_t max_columns = std::int64_t{1} << 31, max_values = std::int64_t{1} << 56;
    const std::vector<std::int64_t>& shape = of.shape;
    if (shape.empty()) fail("is a single value, not an array of rows");
    std::int64_t columns = 1;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      if (shape[i] == 0) fail("one of its dimensions is empty");
      if (i == 0) continue;
      if (columns > max_columns / shape[i]) fail("its dimensions are too large");
      columns *= shape[i];
    }
    if (shape[0] > max_values / columns) fail("its dimensions are too large");
    shape_ = shape;
    columns_ = columns;
    total_ = shape_[0] * columns;
    dtype_ = of.dtype;
    is_big_endian_ = of.is_big_endian;
    is_fortran_order_ = of.is_fortran_order && shape_.size() > 1;
    value_bytes_ = static_cast<std::size_t>(dtype_[1] - '0');
  }

 private:
  template <class T>
  std::int64_t read_rows(std::int64_t rows, T* out) {
    const std::int64_t next = std::min(rows, (total_ - done_) / columns_);
    read_values(next * columns_, out);
    return next;
  }

  template <class T>
  std::vector<T> read_rest() {
    constexpr std::int64_t first_values = 1 << 16;
    std::vector<T> result;
    while (done_ < total_) {
      const auto have = static_cast<std::int64_t>(result.size());
      const std::int64_t next = std::min(total_ - done_, std::max(first_values, have));
      result.resize(static_cast<std::size_t>(have + next));
      read_values(next, result.data() + have);
    }
    return result;
  }

  template <class T>
  void read_values(std::int64_t count, T* out) {
    if (std::is_integral_v<T> && !has_whole_numbers()) fail("has floats where whole numbers are needed");
    if (is_fortran_order_ && whole_.empty()) read_whole();
    constexpr std::int64_t chunk = 1 << 15;
    while (count > 0) {
      const std::int64_t next = std::min(count, chunk);
      const std::size_t bytes = static_cast<std::size_t>(next) * value_bytes_;
      buffer_.resize(std::max(buffer_.size(), bytes));
      if (is_fortran_order_) {
        pick(next);
      } else {
        read_bytes(buffer_.data(), bytes, done_);
      }
      convert(next, out);
      done_ += next;
      out += next;
      count -= next;
      if (done_ == total_ && !is_fortran_order_) check_end();
    }
  }

  // The values' next bytes; before: how many values have been read.
  void read_bytes(std::uint8_t* out, std::size_t bytes, std::int64_t before) {
    const std::size_t got = source_->read(out, bytes);
    if (got == bytes) return;
    fail("truncated: " + std::to_string(before + static_cast<std::int64_t>(got / value_bytes_)) + " of " +
         std::to_string(total_) + " values");
  }

  // Reading on to the end also compares the checksum of packed data.
  void check_end() {
    std::uint8_t beyond = 0;
    if (source_->read(&beyond, 1) != 0)
      fail("trailing bytes after its " + std::to_string(total_) + " values");
  }

  // In Fortran order the first row ends where the file does.
  void read_whole() {
    constexpr std::size_t first_bytes = 1 << 16;
    const std::size_t bytes = static_cast<std::size_t>(total_) * value_bytes_;
    while (whole_.size() < bytes) {
      const std::size_t have = whole_.size(), next = std::min(bytes - have, std::max(first_bytes, have));
      whole_.resize(have + next);
      read_bytes(whole_.data() + have, next, static_cast<std::int64_t>(have / value_bytes_));
    }
    check_end();
    // Column by column of a row, how far it lies from the row's first value, in columns.
    column_place_.resize(static_cast<std::size_t>(columns_));
    for (std::int64_t column = 0; column < columns_; ++column) {
      std::int64_t rest = column, place = 0;
      std::int64_t step = columns_;
      for (std::size_t axis = shape_.size() - 1; axis > 0; --axis) {
        step /= shape_[axis];
        place += rest % shape_[axis] * step;
        rest /= shape_[axis];
      }
      column_place_[static_cast<std::size_t>(column)] = place;
    }
  }

  // Puts the next values together in the order of rows.
  void pick(std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t row = (done_ + i) / columns_, column = (done_ + i) % columns_;
      const std::int64_t from = row + shape_[0] * column_place_[static_cast<std::size_t>(column)];
      std::memcpy(buffer_.data() + static_cast<std::size_t>(i) * value_bytes_,
                  whole_.data() + static_cast<std::size_t>(from) * value_bytes_, value_bytes_);
    }
  }

  template <class T>
  void convert(std::int64_t count, T* out) const {
    switch (dtype_[0]) {
      case 'b':
        std::transform(buffer_.begin(), buffer_.begin() + count, out,
                       [](std::uint8_t value) { return static_cast<T>(value != 0 ? 1 : 0); });
        break;
      case 'i':
        switch (value_bytes_) {
          case 1: convert_from<std::int8_t>(count, out); break;
          case 2: convert_from<std::int16_t>(count, out); break;
          case 4: convert_from<std::int32_t>(count, out); break;
          default: convert_from<std::int64_t>(count, out); break;
        }
        break;
      case 'u':
        switch (value_bytes_) {
          case 1: convert_from<std::uint8_t>(count, out); break;
          case 2: convert_from<std::uint16_t>(count, out); break;
          case 4: convert_from<std::uint32_t>(count, out); break;
          default: convert_from<std::uint64_t>(count, out); break;
        }
        break;
      default:
        switch (value_bytes_) {
          case 2: convert_from<Eigen::half>(count, out); break;
          case 4: convert_from<float>(count, out); break;
          default: convert_from<double>(count, out); break;
        }
    }
  }

  template <class From, class T>
  void convert_from(std::int64_t count, T* out) const {
    constexpr std::size_t size = sizeof(From);
    using bits_type =
        std::conditional_t<size == 1, std::uint8_t,
                           std::conditional_t<size == 2, std::uint16_t,
                                              std::conditional_t<size == 4, std::uint32_t, std::uint64_t>>>;
    for (std::int64_t i = 0; i < count; ++i) {
      const std::uint8_t* const bytes = buffer_.data() + static_cast<std::size_t>(i) * size;
      std::uint64_t bits = 0;
      for (std::size_t j = 0; j < size; ++j)
        bits |= static_cast<std::uint64_t>(bytes[j]) << 8 * (is_big_endian_ ? size - 1 - j : j);
      const From value = Eigen::numext::bit_cast<From>(static_cast<bits_type>(bits));
      if constexpr (std::is_same_v<From, std::uint64_t> && std::is_integral_v<T>) {
        if (value > static_cast<std::uint64_t>(std::numeric_limits<T>::max()))
          fail("holds " + std::to_string(value) + ", which is too large");
      }
      // A dtype of one byte holds numbers, no characters; int keeps them all.
      if constexpr (size == 1) {
        out[i] = static_cast<T>(int{value});
      } else {
        out[i] = static_cast<T>(value);
      }
    }
  }

  std::filesystem::path path_;
  std::unique_ptr<trainer::byte_source> source_;
  std::vector<std::int64_t> shape_;
  std::string dtype_;
  bool is_big_endian_ = false, is_fortran_order_ = false;
  std::int64_t columns_ = 0, total_ = 0, done_ = 0;  // total_, done_: values
  std::size_t value_bytes_ = 0;
  std::vector<std::uint8_t> buffer_, whole_;  // whole_: all of a file in Fortran order
  std::vector<std::int64_t> column_place_;
};

namespace detail {

// The dictionary in a .npy file's header, which is written as Python writes it:
// {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
class npy_header {
 public:
  std::string descr;           // empty: not a string, which is how NumPy describes a structured dtype
  bool fortran_order = false;  // the first index changes fastest
  std::vector<std::int64_t> shape;

  explicit npy_header(const std::string& text) : text_(text) {}

  // Whether the text is such a dictionary with these three keys and no other.
  bool parse() {
    bool has_descr = false, has_order = false, has_shape = false;
    if (!take('{')) return false;
    while (!take('}')) {
      std::string key;
      if (!take_string(key) || !take(':')) return false;
      if (key == "descr" && !has_descr) {
        has_descr = true;
        if (!take_string(descr) && !skip_list()) return false;
      } else if (key == "fortran_order" && !has_order) {
        has_order = true;
        fortran_order = take_word("True");
        if (!fortran_order && !take_word("False")) return false;
      } else if (key == "shape" && !has_shape) {
        has_shape = true;
        if (!take_shape()) return false;
      } else {
        return false;
      }
      if (!take(',') && peek() != '}') return false;
    }
    return peek() == '\0' && has_descr && has_order && has_shape;
  }

 private:
  // The next character that is not white space; '\0' at the end.
  char peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool take(char expected) {
    if (peek() != expected || at_ >= text_.size()) return false;
    ++at_;
    return true;
  }
  bool take_word(const std::string& word) {
    peek();
    if (text_.compare(at_, word.size(), word) != 0) return false;
    at_ += word.size();
    return true;
  }
  bool take_string(std::string& out) {
    const char quote = peek();
    if (quote != '\'' && quote != '"') return false;
    const std::size_t end = text_.find(quote, at_ + 1);
    if (end == std::string::npos) return false;
    out = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return true;
  }
  bool take_shape() {
    if (!take('(')) return false;
    while (!take(')')) {
      constexpr std::size_t max_digits = 18;
      peek();
      std::size_t digits = 0;
      std::int64_t size = 0;
      for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_, ++digits) {
        if (digits == max_digits) return false;
        size = 10 * size + (text_[at_] - '0');
      }
      if (digits == 0) return false;
      take('L');  // a long integer, as Python 2 writes it
      shape.push_back(size);
      if (!take(',') && peek() != ')') return false;
    }
    return true;
  }
  // A list with what it holds: the fields of a structured dtype.
  bool skip_list() {
    if (peek() != '[') return false;
    int depth = 0;
    std::string ignored;
    while (peek() != '\0') {
      const char c = peek();
      if (c == '\'' || c == '"') {
        if (!take_string(ignored)) return false;
        continue;
      }
      ++at_;
      depth += c == '[' ? 1 : c == ']' ? -1 : 0;
      if (depth == 0) return true;
    }
    return false;
  }

  const std::string& text_;
  std::size_t at_ = 0;
};

}  // namespace detail

// A .npy file, version 1 to 3: booleans, whole numbers and floats of up to 64 bits, in either order of bytes and of values.
class npy_reader final : public row_reader {
 public:
  npy_reader(const std::filesystem::path& path, std::unique_ptr<trainer::byte_source> source)
      : row_reader(path, std::move(source)) {
    std::array<std::uint8_t, 8> begin{};  // the magic number, and the version
    read_header(begin.data(), begin.size());
    if (std::memcmp(begin.data(), "\x93NUMPY", 6) != 0) fail("wrong magic number: not a .npy file");
    if (begin[6] < 1 || begin[6] > 3 || begin[7] != 0) {
      fail("version " + std::to_string(begin[6]) + "." + std::to_string(begin[7]) +
           " of the .npy format, not 1.0, 2.0 or 3.0");
    }
    std::array<std::uint8_t, 4> length_bytes{};
    read_header(length_bytes.data(), begin[6] == 1 ? 2 : 4);
    const auto length =
        trainer::detail::little_endian<std::uint32_t>(reinterpret_cast<const char*>(length_bytes.data()));
    constexpr std::uint32_t max_length = 1u << 20;
    if (length > max_length) fail("its header is too long");
    std::string text(length, '\0');
    read_header(reinterpret_cast<std::uint8_t*>(text.data()), length);

    detail::npy_header header(text);
    if (!header.parse()) fail("its header is not that of a .npy file");
    if (header.descr.empty()) fail("has a structured dtype, not plain numbers");
    const char order = header.descr[0];
    const std::string dtype = header.descr.substr(1);
    constexpr std::string_view known[] = {"b1", "i1", "i2", "i4", "i8", "u1",
                                          "u2", "u4", "u8", "f2", "f4", "f8"};
    // Of one byte there is no order.
    const bool is_single = dtype.size() == 2 && dtype[1] == '1';
    if (std::find(std::begin(known), std::end(known), dtype) == std::end(known) ||
        (order != '<' && order != '>' && !(order == '|' && is_single))) {
      fail("dtype " + trainer::printable(header.descr) +
           " is not bool, a whole number or a float of up to 64 bits");
    }
    set_layout({std::move(header.shape), dtype, order == '>', header.fortran_order});
  }
};

// An IDX file of unsigned bytes.
class idx_reader final : public row_reader {
 public:
  idx_reader(const std::filesystem::path& path, std::unique_ptr<trainer::byte_source> source)
      : row_reader(path, std::move(source)) {
    constexpr std::uint8_t unsigned_byte = 0x08;
    std::array<std::uint8_t, 4> begin{};
    read_header(begin.data(), begin.size());
    if (begin[0] != 0 || begin[1] != 0 || begin[2] != unsigned_byte || begin[3] == 0)
      fail("wrong magic number: not an IDX file of unsigned bytes");
    std::vector<std::int64_t> shape;
    for (int i = 0; i < begin[3]; ++i) {
      std::array<std::uint8_t, 4> bytes{};
      read_header(bytes.data(), bytes.size());
      std::int64_t size = 0;
      for (const std::uint8_t byte : bytes) size = size << 8 | byte;
      shape.push_back(size);
    }
    set_layout({std::move(shape), "u1"});
  }
};

// Any of them, by what the file begins with; "-" is standard input. Of a .npz file that holds several arrays FILE:NAME is one.
inline std::unique_ptr<row_reader> open_rows(const std::filesystem::path& path) {
  const npz_array array = npz_array_of(path);
  auto file = std::make_unique<trainer::input_file>(array.file);
  const std::filesystem::path& shown = array.name.empty() ? file->path() : path;
  const std::string_view begin = file->begin(4);
  if (begin == "PK\x03\x04" || begin == "PK\x05\x06") {
    return std::make_unique<npy_reader>(shown, std::make_unique<detail::npz_source>(shown, array));
  }
  if (!array.name.empty()) trainer::fail_file(array.file, "is not a .npz file");
  if (begin.size() < 4) trainer::fail_file(shown, "truncated: the header is incomplete");
  const std::filesystem::path name = shown;
  if (begin[0] == '\x93') return std::make_unique<npy_reader>(name, std::move(file));
  if (begin[0] == '\0') return std::make_unique<idx_reader>(name, std::move(file));
  trainer::fail_file(shown, "wrong magic number: neither a .npy, a .npz nor an IDX file");
}

}  // namespace detector
