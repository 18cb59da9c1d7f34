// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "idx.hpp"
#include "model_file.hpp"

// Reading arrays a batch of rows at a time, in as much memory as a batch needs, whatever the file holds: NumPy's .npy
// and IDX files, gzipped or plain, pipes too. Whatever is wrong with a file throws std::runtime_error, "FILE:
// reason" in one line.

namespace detector {

// An array of rows: the first dimension counts them, a row is all that the others hold.
class row_reader {
 public:
  using start = std::array<std::uint8_t, 4>;  // of a file: enough to know its kind

  virtual ~row_reader() = default;
  row_reader(const row_reader&) = delete;
  row_reader& operator=(const row_reader&) = delete;

  const std::filesystem::path& path() const { return path_; }
  const std::vector<std::int64_t>& shape() const { return shape_; }  // no dimension is empty
  std::int64_t rows() const { return shape_.front(); }
  std::int64_t columns() const { return columns_; }    // values of a row: 1 if there is one dimension
  const std::string& dtype() const { return dtype_; }  // "f4", "f8", "i4", "i8" or "u1"; of an IDX file "u1"
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
  row_reader(const std::filesystem::path& path, trainer::detail::gz_reader&& file)
      : path_(path), file_(std::move(file)) {}

  [[noreturn]] void fail(const std::string& reason) const { trainer::fail_file(path_, reason); }

  void read_header(std::uint8_t* out, std::size_t bytes) {
    if (file_.read(out, bytes) < bytes) fail("truncated: the header is incomplete");
  }

  // To be called once, with the header behind.
  void set_layout(std::vector<std::int64_t> shape, const std::string& dtype) {
    constexpr std::int64_t max_columns = std::int64_t{1} << 31, max_values = std::int64_t{1} << 56;
    if (shape.empty()) fail("is a single value, not an array of rows");
    std::int64_t columns = 1;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      if (shape[i] == 0) fail("one of its dimensions is empty");
      if (i == 0) continue;
      if (columns > max_columns / shape[i]) fail("its dimensions are too large");
      columns *= shape[i];
    }
    if (shape[0] > max_values / columns) fail("its dimensions are too large");
    shape_ = std::move(shape);
    columns_ = columns;
    total_ = shape_[0] * columns;
    dtype_ = dtype;
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
    constexpr std::int64_t chunk = 1 << 15;
    while (count > 0) {
      const std::int64_t next = std::min(count, chunk);
      const std::size_t bytes = static_cast<std::size_t>(next) * value_bytes_;
      buffer_.resize(std::max(buffer_.size(), bytes));
      const std::size_t got = file_.read(buffer_.data(), bytes);
      if (got < bytes) {
        fail("truncated: " + std::to_string(done_ + static_cast<std::int64_t>(got / value_bytes_)) + " of " +
             std::to_string(total_) + " values");
      }
      convert(next, out);
      done_ += next;
      out += next;
      count -= next;
      if (done_ < total_) continue;
      // Reading on to the end also makes zlib compare the checksum.
      std::uint8_t beyond = 0;
      if (file_.read(&beyond, 1) != 0) fail("trailing bytes after its " + std::to_string(total_) + " values");
    }
  }

  template <class T>
  void convert(std::int64_t count, T* out) const {
    if (dtype_ == "u1") {
      std::copy_n(buffer_.begin(), count, out);
    } else if (dtype_ == "i4") {
      convert_from<std::int32_t>(count, out);
    } else if (dtype_ == "i8") {
      convert_from<std::int64_t>(count, out);
    } else if (dtype_ == "f4") {
      convert_from<float>(count, out);
    } else {
      convert_from<double>(count, out);
    }
  }
  template <class From, class T>
  void convert_from(std::int64_t count, T* out) const {
    const char* bytes = reinterpret_cast<const char*>(buffer_.data());
    for (std::int64_t i = 0; i < count; ++i) {
      out[i] = static_cast<T>(
          trainer::detail::little_endian<From>(bytes + static_cast<std::size_t>(i) * sizeof(From)));
    }
  }

  std::filesystem::path path_;
  trainer::detail::gz_reader file_;
  std::vector<std::int64_t> shape_;
  std::string dtype_;
  std::int64_t columns_ = 0, total_ = 0, done_ = 0;  // total_, done_: values
  std::size_t value_bytes_ = 0;
  std::vector<std::uint8_t> buffer_;
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

// A .npy file, version 1 to 3: f4, f8, i4, i8 or u1, little-endian, in C order.
class npy_reader final : public row_reader {
 public:
  // `file` is of that path, and `begin` read from it already.
  npy_reader(const std::filesystem::path& path, trainer::detail::gz_reader&& file, const start& begin)
      : row_reader(path, std::move(file)) {
    if (begin != start{0x93, 'N', 'U', 'M'}) fail("wrong magic number: not a .npy file");
    std::array<std::uint8_t, 4> rest{};  // of the magic number, and the version
    read_header(rest.data(), rest.size());
    if (rest[0] != 'P' || rest[1] != 'Y') fail("wrong magic number: not a .npy file");
    if (rest[2] < 1 || rest[2] > 3 || rest[3] != 0) {
      fail("version " + std::to_string(rest[2]) + "." + std::to_string(rest[3]) +
           " of the .npy format, not 1.0, 2.0 or 3.0");
    }
    std::array<std::uint8_t, 4> length_bytes{};
    read_header(length_bytes.data(), rest[2] == 1 ? 2 : 4);
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
    if (order == '>') fail("dtype " + trainer::printable(header.descr) + " is big-endian");
    if (dtype != "u1" &&
        (order != '<' || (dtype != "f4" && dtype != "f8" && dtype != "i4" && dtype != "i8"))) {
      fail("dtype " + trainer::printable(header.descr) + " is not one of f4, f8, i4, i8 and u1");
    }
    if (header.fortran_order) fail("is in Fortran order, column by column, not row by row");
    set_layout(std::move(header.shape), dtype);
  }
};

// An IDX file of unsigned bytes.
class idx_reader final : public row_reader {
 public:
  // `file` is of that path, and `begin` read from it already.
  idx_reader(const std::filesystem::path& path, trainer::detail::gz_reader&& file, const start& begin)
      : row_reader(path, std::move(file)) {
    constexpr std::uint8_t unsigned_byte = 0x08;
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
    set_layout(std::move(shape), "u1");
  }
};

// Either of them, by what the file begins with.
inline std::unique_ptr<row_reader> open_rows(const std::filesystem::path& path) {
  trainer::detail::gz_reader file(path);
  row_reader::start begin{};
  if (file.read(begin.data(), begin.size()) < begin.size())
    trainer::fail_file(path, "truncated: the header is incomplete");
  if (begin[0] == 0x93) return std::make_unique<npy_reader>(path, std::move(file), begin);
  if (begin[0] == 0) return std::make_unique<idx_reader>(path, std::move(file), begin);
  trainer::fail_file(path, "wrong magic number: neither a .npy nor an IDX file");
}

}  // namespace detector
