// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "idx.hpp"

// Reading arrays a batch of rows at a time, in as much memory as a batch needs, whatever the file holds: NumPy's .npy and
// IDX files, gzipped or plain, pipes too. Whatever is wrong with a file throws std::runtime_error, "FILE: reason" in
// one line.

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
  std::int64_t columns() const { return columns_; }    // values of a row: 1 if there is one dimension
  const std::string& dtype() const { return dtype_; }  // "f4", "f8", "i4", "i8" or "u1"; of an IDX file "u1"
  bool has_whole_numbers() const { return dtype_[0] != 'f'; }

  // Reads the next rows, at most so many, as floats [rows, columns()] and returns how many there were: fewer only at the
  // end, 0 beyond it. With the last row the rest of the file is checked.
  std::int64_t read(std::int64_t rows, float* out);
  // The same for whole numbers, such as labels; floats are an error.
  std::int64_t read(std::int64_t rows, std::int64_t* out);

  // All rows that are left. Their memory grows with what the file really holds.
  std::vector<float> read_all();
  std::vector<std::int64_t> read_all_whole();

 protected:
  explicit row_reader(const std::filesystem::path& path) : path_(path), file_(path) {}
  row_reader(const std::filesystem::path& path, trainer::detail::gz_reader&& file)
      : path_(path), file_(std::move(file)) {}

  [[noreturn]] void fail(const std::string& reason) const { trainer::fail_file(path_, reason); }
  // Takes the bytes that are needed; where the file ends before: "truncated: the header is incomplete".
  void read_header(std::uint8_t* out, std::size_t bytes);
  void set_layout(std::vector<std::int64_t> shape, std::string dtype);

 private:
  template <class T>
  std::int64_t read_as(std::int64_t rows, T* out);
  template <class T>
  std::vector<T> read_all_as();

  std::filesystem::path path_;
  trainer::detail::gz_reader file_;
  std::vector<std::int64_t> shape_;
  std::string dtype_;
  std::int64_t columns_ = 0, done_ = 0;
  std::size_t value_bytes_ = 0;
  std::vector<std::uint8_t> buffer_;
};

// A .npy file, version 1 to 3: f4, f8, i4, i8 or u1, little-endian, in C order.
class npy_reader final : public row_reader {
 public:
  explicit npy_reader(const std::filesystem::path& path);

 private:
  friend std::unique_ptr<row_reader> open_rows(const std::filesystem::path& path);
  using magic_start = std::array<std::uint8_t, 4>;
  npy_reader(const std::filesystem::path& path, trainer::detail::gz_reader&& file, const magic_start& start);
  void read_layout(const magic_start& start);
};

// An IDX file of unsigned bytes.
class idx_reader final : public row_reader {
 public:
  explicit idx_reader(const std::filesystem::path& path);

 private:
  friend std::unique_ptr<row_reader> open_rows(const std::filesystem::path& path);
  using magic_start = std::array<std::uint8_t, 4>;
  idx_reader(const std::filesystem::path& path, trainer::detail::gz_reader&& file, const magic_start& magic);
  void read_layout(const magic_start& magic);
};

// Either of them, by what the file begins with.
std::unique_ptr<row_reader> open_rows(const std::filesystem::path& path);

}  // namespace detector
