// SPDX-License-Identifier: MIT

// The detector's readers of rows: .npy, .npz and IDX files, and standard input.

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zip.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "detector/npy.hpp"
#include "support/files.hpp"

namespace {

namespace fs = std::filesystem;
using detector::open_rows;
using lgm_test::contains;
using lgm_test::temporary_directory;

void write_plain(const fs::path& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  REQUIRE(file.good());
}

void write_gz(const fs::path& path, const std::string& content) {
  const gzFile file = gzopen(path.c_str(), "wb");
  REQUIRE(file != nullptr);
  REQUIRE(gzwrite(file, content.data(), static_cast<unsigned>(content.size())) ==
          static_cast<int>(content.size()));
  REQUIRE(gzclose(file) == Z_OK);
}

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// A .npy file of a version with a header, and data.
std::string npy_bytes(const std::string& header, const std::string& data, int version = 1) {
  std::string out = "\x93NUMPY";
  out += static_cast<char>(version);
  out += '\0';
  for (int shift = 0; shift < (version == 1 ? 16 : 32); shift += 8)
    out += static_cast<char>(header.size() >> shift & 0xff);
  return out + header + data;
}

std::string header_of(const std::string& descr, const std::string& shape,
                      const std::string& order = "False") {
  return "{'descr': '" + descr + "', 'fortran_order': " + order + ", 'shape': " + shape + ", }      \n";
}

// The numbers' bytes, least significant first, or last. The machine that tests is little-endian.
template <class T>
std::string data_of(const std::vector<T>& values, bool is_big_endian = false) {
  std::string out;
  for (const T value : values) {
    std::string bytes(sizeof(T), '\0');
    std::memcpy(bytes.data(), &value, sizeof(T));
    if (is_big_endian) std::reverse(bytes.begin(), bytes.end());
    out += bytes;
  }
  return out;
}

std::string idx_bytes(const std::vector<std::uint32_t>& sizes, const std::string& data) {
  std::string out{'\0', '\0', '\x08', static_cast<char>(sizes.size())};
  for (const std::uint32_t size : sizes) {
    for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(size >> shift & 0xff);
  }
  return out + data;
}

// The error of opening a file and reading all of it, which must begin with the file's name.
std::string error_of(const fs::path& path) {
  const std::string error = lgm_test::error_of([&] { open_rows(path)->read_all(); });
  CHECK_MESSAGE(error.find(path.string() + ": ") == 0, error);
  return error;
}

// An array [2, 3] in every version of the format, in both orders of bytes and of values.
template <class T>
void check_dtype(const std::string& dtype, const std::vector<T>& values, const std::vector<float>& floats) {
  CAPTURE(dtype);
  const temporary_directory directory;
  const std::vector<T> by_column{values[0], values[3], values[1], values[4], values[2], values[5]};
  for (const int version : {1, 2, 3}) {
    for (const std::string order : {"<", ">", "|"}) {
      if ((order == "|") != (sizeof(T) == 1)) continue;
      for (const bool is_fortran : {false, true}) {
        CAPTURE(order);
        CAPTURE(is_fortran);
        write_plain(directory / "a",
                    npy_bytes(header_of(order + dtype, "(2, 3)", is_fortran ? "True" : "False"),
                              data_of(is_fortran ? by_column : values, order == ">"), version));
        const std::unique_ptr<detector::row_reader> reader = open_rows(directory / "a");
        CHECK(reader->shape() == std::vector<std::int64_t>{2, 3});
        CHECK(reader->columns() == 3);
        CHECK(reader->dtype() == dtype);
        CHECK(reader->read_all() == floats);
        const std::unique_ptr<detector::row_reader> by_row = open_rows(directory / "a");
        std::vector<float> row(3);
        for (const std::size_t i : {0u, 1u}) {
          CHECK(by_row->read(1, row.data()) == 1);
          CHECK(row == std::vector<float>(floats.begin() + static_cast<std::ptrdiff_t>(3 * i),
                                          floats.begin() + static_cast<std::ptrdiff_t>(3 * i + 3)));
        }
        CHECK(by_row->read(1, row.data()) == 0);
        if (dtype[0] == 'f') {
          CHECK(contains(lgm_test::error_of([&] { open_rows(directory / "a")->read_all_whole(); }),
                         "has floats where whole numbers are needed"));
        } else if constexpr (std::is_integral_v<T>) {
          CHECK(open_rows(directory / "a")->read_all_whole() ==
                std::vector<std::int64_t>(values.begin(), values.end()));
        }
      }
    }
  }
}
template <class T>
void check_dtype(const std::string& dtype, const std::vector<T>& values) {
  check_dtype(dtype, values, std::vector<float>(values.begin(), values.end()));
}

// A ZIP archive of these files, packed or not.
void write_zip(const fs::path& path, const std::vector<std::pair<std::string, std::string>>& files,
               zip_int32_t method) {
  int code = 0;
  zip_t* const archive = zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, &code);
  REQUIRE(archive != nullptr);
  for (const auto& [name, content] : files) {
    zip_source_t* const source = zip_source_buffer(archive, content.data(), content.size(), 0);
    const zip_int64_t index = zip_file_add(archive, name.c_str(), source, 0);
    REQUIRE(index >= 0);
    REQUIRE(zip_set_file_compression(archive, static_cast<zip_uint64_t>(index), method, 0) == 0);
  }
  REQUIRE(zip_close(archive) == 0);
}

}  // namespace

TEST_CASE("npy: every dtype is read in every version") {
  check_dtype<float>("f4", {1.5f, -2, 3e-40f, 0, 1e30f, -0.0f});
  check_dtype<double>("f8", {1.5, -2, 0.1, 0, 1e30, -5});
  // 1, -2, the largest, the smallest normal, the smallest, 1/3.
  check_dtype<std::uint16_t>("f2", {0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x3555},
                             {1, -2, 65504, 6.103515625e-05f, 5.9604644775390625e-08f, 0.333251953125f});
  check_dtype<std::int8_t>("i1", {1, -2, 127, -128, 0, 7});
  check_dtype<std::int16_t>("i2", {1, -2, 32767, -32768, 258, 7});
  check_dtype<std::int32_t>("i4", {1, -2, 2147483647, -2147483647, 0, 7});
  check_dtype<std::int64_t>("i8", {1, -2, std::int64_t{1} << 40, -(std::int64_t{1} << 62), 0, 7});
  check_dtype<std::uint8_t>("u1", {0, 255, 1, 2, 3, 128});
  check_dtype<std::uint8_t>("b1", {0, 1, 1, 0, 0, 1});
  check_dtype<std::uint16_t>("u2", {0, 65535, 1, 2, 258, 32768});
  check_dtype<std::uint32_t>("u4", {0, 4294967295u, 1, 2, 258, 2147483648u});
  check_dtype<std::uint64_t>("u8", {0, 1, 2, std::uint64_t{1} << 62, 258, 7});
}

TEST_CASE("npy: numbers that are too large, and floats that are not finite") {
  const temporary_directory directory;
  const fs::path path = directory / "a";
  write_plain(path, npy_bytes(header_of("<u8", "(2,)"), data_of<std::uint64_t>({1, std::uint64_t{1} << 63})));
  CHECK(open_rows(path)->read_all() == std::vector<float>{1, 9223372036854775808.0f});
  CHECK(contains(lgm_test::error_of([&] { open_rows(path)->read_all_whole(); }),
                 "a: holds 9223372036854775808, which is too large"));
  write_plain(path, npy_bytes(header_of("<f2", "(3,)"), data_of<std::uint16_t>({0x7c00, 0xfc00, 0x7e00})));
  const std::vector<float> odd = open_rows(path)->read_all();
  CHECK(odd[0] == std::numeric_limits<float>::infinity());
  CHECK(odd[1] == -std::numeric_limits<float>::infinity());
  CHECK(std::isnan(odd[2]));
  // NumPy takes every byte but 0 for true.
  write_plain(path, npy_bytes(header_of("|b1", "(3,)"), std::string("\x00\x02\xff", 3)));
  CHECK(open_rows(path)->read_all() == std::vector<float>{0, 1, 1});
}

TEST_CASE("npy: Fortran order is read, of more dimensions and more values than a chunk") {
  const temporary_directory directory;
  constexpr std::int64_t rows = 701, middle = 7, last = 11;
  std::vector<std::int32_t> values(rows * middle * last), expected(values.size());
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < middle; ++j) {
      for (std::int64_t k = 0; k < last; ++k) {
        const auto value = static_cast<std::int32_t>(i * 10000 + j * 100 + k);
        values[static_cast<std::size_t>(i + rows * (j + middle * k))] = value;
        expected[static_cast<std::size_t>((i * middle + j) * last + k)] = value;
      }
    }
  }
  const std::string content = npy_bytes(header_of("<i4", "(701, 7, 11)", "True"), data_of(values));
  write_gz(directory / "a", content);
  CHECK((open_rows(directory / "a")->read_all() == std::vector<float>(expected.begin(), expected.end())));
  const std::unique_ptr<detector::row_reader> reader = open_rows(directory / "a");
  std::vector<std::int64_t> batch(64 * middle * last), seen;
  while (const std::int64_t got = reader->read(64, batch.data()))
    seen.insert(seen.end(), batch.begin(), batch.begin() + got * middle * last);
  CHECK((seen == std::vector<std::int64_t>(expected.begin(), expected.end())));
  write_plain(directory / "b", content.substr(0, content.size() - 5));
  CHECK(contains(error_of(directory / "b"), "truncated: 53975 of 53977 values"));
  write_plain(directory / "b", content + "x");
  CHECK(contains(error_of(directory / "b"), "trailing bytes after its 53977 values"));
  write_plain(directory / "b", npy_bytes(header_of("<i4", "(1000000000, 1000000)", "True"), "abcdefgh"));
  CHECK(contains(error_of(directory / "b"), "truncated: 2 of 1000000000000000 values"));
}

TEST_CASE("npz: the one array, or the one that is named") {
  const temporary_directory directory;
  const fs::path path = directory / "a.npz";
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  const std::string features = npy_bytes(header_of("<f4", "(3, 2)"), data_of(values)),
                    labels = npy_bytes(header_of("<i8", "(3,)"), data_of<std::int64_t>({2, 0, 1}));
  for (const zip_int32_t method : {ZIP_CM_STORE, ZIP_CM_DEFLATE}) {
    CAPTURE(method);
    write_zip(path, {{"x.npy", features}}, method);
    CHECK(open_rows(path)->read_all() == values);
    CHECK(open_rows(path.string() + ":x")->read_all() == values);
    CHECK(contains(error_of(path.string() + ":y"), "holds no array 'y', but 'x'"));
    write_zip(path, {{"x.npy", features}, {"note.txt", "hello"}, {"y.npy", labels}}, method);
    CHECK(open_rows(path.string() + ":x")->read_all() == values);
    CHECK(open_rows(path.string() + ":y")->read_all_whole() == std::vector<std::int64_t>{2, 0, 1});
    CHECK(contains(error_of(path), "holds the arrays 'x', 'y': FILE:NAME names one"));
    CHECK(contains(error_of(path.string() + ":note.txt"), "holds no array 'note.txt'"));
  }
  std::vector<std::pair<std::string, std::string>> many;
  for (int i = 0; i < 9; ++i) many.emplace_back("array-" + std::to_string(i) + ".npy", features);
  write_zip(path, many, ZIP_CM_STORE);
  CHECK(contains(error_of(path), "'array-4', ...: FILE:NAME"));
  CHECK(open_rows(path.string() + ":array-8")->read_all() == values);
  write_zip(path, {{"note.txt", "hello"}}, ZIP_CM_STORE);
  CHECK(contains(error_of(path), "is a ZIP archive without any .npy file"));
  write_zip(path, {{"x.npy", features.substr(0, features.size() - 1)}}, ZIP_CM_DEFLATE);
  CHECK(contains(error_of(path), "truncated: 5 of 6 values"));
  write_zip(path, {{"x.npy", "hello, is anybody there?"}}, ZIP_CM_STORE);
  CHECK(contains(error_of(path), "not a .npy file"));

  // An archive that was damaged, a file with such a name that is none, and names that only look like an array of one.
  write_zip(path, {{"x.npy", features}}, ZIP_CM_STORE);
  std::string content = read_file(path);
  const std::size_t at = content.find(data_of(values));
  REQUIRE(at != std::string::npos);
  content[at] = static_cast<char>(content[at] ^ 1);
  write_plain(path, content);
  CHECK(contains(error_of(path), "corrupt ZIP data"));
  write_plain(path, read_file(path).substr(0, 100));
  CHECK(contains(error_of(path), "is not a ZIP archive that can be read"));
  write_plain(path, features);
  CHECK(open_rows(path)->read_all() == values);
  CHECK(contains(lgm_test::error_of([&] { open_rows(path.string() + ":x"); }), "is not a .npz file"));
  write_plain(path.string() + ":x", features);
  CHECK(open_rows(path.string() + ":x")->read_all() == values);
  CHECK(contains(lgm_test::error_of([&] { open_rows(directory / "none.npz:x"); }), "none.npz: No such file"));
  write_zip(path, {{"x.npy", features}}, ZIP_CM_STORE);
  REQUIRE(mkfifo((directory / "pipe").c_str(), 0600) == 0);
  std::thread writer([&] { write_plain(directory / "pipe", read_file(path)); });
  CHECK(contains(error_of(directory / "pipe"), "can only be read from disk"));
  writer.join();
}

TEST_CASE("npy: standard input is read") {
  const temporary_directory directory;
  const std::string content = npy_bytes(header_of("<f4", "(3,)"), data_of<float>({1, 2, 3}));
  write_plain(directory / "plain", content);
  write_gz(directory / "gzipped", content);
  write_plain(directory / "cut", content.substr(0, content.size() - 4));
  const int old = dup(STDIN_FILENO);
  REQUIRE(old >= 0);
  const auto with = [&](const char* name, const auto& function) {
    const int file = open((directory / name).c_str(), O_RDONLY | O_CLOEXEC);
    REQUIRE(dup2(file, STDIN_FILENO) >= 0);
    close(file);
    function();
  };
  for (const char* name : {"plain", "gzipped"}) {
    with(name, [&] {
      const std::unique_ptr<detector::row_reader> reader = open_rows("-");
      CHECK(reader->path() == "standard input");
      CHECK(reader->read_all() == std::vector<float>{1, 2, 3});
    });
  }
  with("cut", [&] {
    CHECK(lgm_test::error_of([&] { open_rows("-")->read_all(); }) ==
          "standard input: truncated: 2 of 3 values");
    CHECK(lgm_test::error_of([&] { open_rows("-"); }) == "standard input: is empty");  // all has been read
  });
  dup2(old, STDIN_FILENO);
  close(old);
}

TEST_CASE("npy: batches of rows are the same plain, gzipped, and from a pipe") {
  const temporary_directory directory;
  // More values than one chunk of reading, not a multiple of the batch.
  constexpr std::int64_t rows = 10007, columns = 12;
  std::vector<float> values(rows * columns);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const std::string content = npy_bytes(header_of("<f4", "(10007, 3, 4)"), data_of(values));
  write_plain(directory / "plain", content);
  write_gz(directory / "gzipped", content);
  REQUIRE(mkfifo((directory / "pipe").c_str(), 0600) == 0);
  std::thread writer([&] { write_plain(directory / "pipe", content); });
  for (const char* name : {"plain", "gzipped", "pipe"}) {
    CAPTURE(name);
    const std::unique_ptr<detector::row_reader> reader = open_rows(directory / name);
    CHECK(reader->rows() == rows);
    CHECK(reader->columns() == columns);
    std::vector<float> batch(512 * columns), seen;
    std::int64_t got = 0;
    while ((got = reader->read(512, batch.data())) > 0) {
      CHECK((got == 512 || static_cast<std::int64_t>(seen.size()) + got * columns == rows * columns));
      seen.insert(seen.end(), batch.begin(), batch.begin() + got * columns);
    }
    CHECK(seen == values);
    CHECK(reader->read(512, batch.data()) == 0);
  }
  writer.join();
  CHECK(open_rows(directory / "gzipped")->read_all() == values);
}

TEST_CASE("npy: headers as others may write them") {
  const temporary_directory directory;
  const std::string data = data_of<float>({1, 2, 3});
  for (const char* header : {"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n",
                             "{'shape':(3,),'fortran_order':False,'descr':'<f4'}",
                             "{\"descr\": \"<f4\", \"fortran_order\": False, \"shape\": (3L,)}  ",
                             "{'descr': '<f4', 'fortran_order': False, 'shape': (3)}"}) {
    CAPTURE(header);
    write_plain(directory / "a", npy_bytes(header, data));
    const std::unique_ptr<detector::row_reader> reader = open_rows(directory / "a");
    CHECK(reader->columns() == 1);
    CHECK(reader->read_all() == std::vector<float>{1, 2, 3});
  }
}

TEST_CASE("npy: what is wrong is said, each in its own words") {
  const temporary_directory directory;
  const fs::path path = directory / "a.npy";
  const auto error_with = [&](const std::string& header, const std::string& data = "") {
    write_plain(path, npy_bytes(header, data));
    return error_of(path);
  };
  CHECK(contains(error_of(path), "No such file"));
  CHECK(contains(error_of(directory.path()), "directory"));
  for (const char* descr : {"<c8", "|O", "<U3", "|S1", "<M8", "<f16", "f4", "<", "=f4", "|f4", "<f44", "<b4",
                            "<f1", "<f3", "<i3", "|V1"}) {
    CAPTURE(descr);
    CHECK(contains(
        error_with(header_of(descr, "(3, 2)")),
        "dtype '" + std::string(descr) + "' is not bool, a whole number or a float of up to 64 bits"));
  }
  CHECK(contains(
      error_with("{'descr': [('a', '<f4'), ('b', '<i4', (2,))], 'fortran_order': False, 'shape': (3,), }"),
      "structured dtype"));
  CHECK(contains(error_with(header_of("<f\n4", "(3, 2)")), "dtype '<f?4'"));
  CHECK(contains(error_with(header_of("<f4", "()"), data_of<float>({1})), "single value"));
  CHECK(contains(error_with(header_of("<f4", "(0, 2)")), "empty"));
  CHECK(contains(error_with(header_of("<f4", "(2, 0)")), "empty"));
  for (const char* header :
       {"", "{", "{}", "[]", "{'descr': '<f4', 'fortran_order': False}", "{'descr': '<f4', 'shape': (3,)}",
        "{'fortran_order': False, 'shape': (3,)}", "{'descr': '<f4', 'fortran_order': 0, 'shape': (3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'more': 1}",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)} x",
        "{'descr': '<f4', 'fortran_order': False, 'shape': [3]}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3", "{'descr': '<f4",
        "{'descr': [('a', '<f4'), 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f4' 'fortran_order': False, 'shape': (3,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999999999,)}"}) {
    CAPTURE(header);
    CHECK(contains(error_with(header), "its header is not that of a .npy file"));
  }

  const std::string good = npy_bytes(header_of("<f4", "(3, 2)"), data_of<float>({1, 2, 3, 4, 5, 6}));
  CHECK(contains(error_with(header_of("<f4", "(3, 2)"), data_of<float>({1, 2, 3, 4})),
                 "truncated: 4 of 6 values"));
  write_plain(path, good.substr(0, good.size() - 1));
  CHECK(contains(error_of(path), "truncated: 5 of 6 values"));
  write_plain(path, good + "x");
  CHECK(contains(error_of(path), "trailing bytes after its 6 values"));
  for (const std::size_t length : {1u, 3u, 5u, 7u, 9u, 30u}) {
    CAPTURE(length);
    write_plain(path, good.substr(0, length));
    CHECK(contains(error_of(path), "truncated: the header is incomplete"));
  }
  write_plain(path, "");
  CHECK(contains(error_of(path), "is empty"));
  std::string changed = good;
  changed[4] = 'X';
  write_plain(path, changed);
  CHECK(contains(error_of(path), "wrong magic number: not a .npy file"));
  changed = good;
  changed[6] = 4;
  write_plain(path, changed);
  CHECK(contains(error_of(path), "version 4.0"));
  write_plain(path, npy_bytes(std::string(2000000, ' '), "", 2));
  CHECK(contains(error_of(path), "header is too long"));
  write_plain(path, "PK\x03\x04 and so on");
  CHECK(contains(error_of(path), "is not a ZIP archive that can be read"));
  write_plain(path, "PK and so on");
  CHECK(contains(error_of(path), "neither a .npy, a .npz nor an IDX file"));
}

TEST_CASE("npy: a header that claims too much costs no memory") {
  const temporary_directory directory;
  const fs::path path = directory / "a.npy";
  write_plain(path, npy_bytes(header_of("<f4", "(1000000000000, 10)"), data_of<float>({1, 2, 3})));
  CHECK(contains(error_of(path), "truncated: 3 of 10000000000000 values"));
  for (const char* shape : {"(999999999999999999, 999999999999999999)", "(1, 2147483649)",
                            "(2, 65536, 65536)", "(72057594037927937, 1)"}) {
    CAPTURE(shape);
    write_plain(path, npy_bytes(header_of("<f4", shape), ""));
    CHECK(contains(error_of(path), "its dimensions are too large"));
  }
}

TEST_CASE("npy: broken gzip data is refused") {
  const temporary_directory directory;
  const fs::path path = directory / "a.npy.gz";
  write_gz(path, npy_bytes(header_of("<f4", "(1000,)"), data_of(std::vector<float>(1000, 1.5f))));
  const std::string good = read_file(path);
  write_plain(path, good.substr(0, good.size() - 5));
  CHECK(contains(error_of(path), "truncated gzip data"));
  std::string changed = good;
  changed[changed.size() - 8] = static_cast<char>(changed[changed.size() - 8] ^ 1);  // the checksum
  write_plain(path, changed);
  CHECK(contains(error_of(path), "corrupt gzip data"));
  write_plain(path, good + "x");
  CHECK(contains(error_of(path), "trailing bytes after its gzip data"));
}

TEST_CASE("npy and IDX: any byte changed or cut off is an error or an array, never more") {
  const temporary_directory directory;
  const fs::path path = directory / "a";
  const std::string npy = npy_bytes(header_of("<f4", "(3, 2)"), data_of<float>({1, 2, 3, 4, 5, 6}));
  for (const std::string& good : {npy, idx_bytes({3, 1, 2}, "abcdef")}) {
    for (std::size_t at = 0; at < good.size(); ++at) {
      for (const int flip : {0x01, 0x10, 0x80, 0xff}) {
        std::string changed = good;
        changed[at] = static_cast<char>(changed[at] ^ flip);
        write_plain(path, changed);
        try {
          const std::unique_ptr<detector::row_reader> reader = open_rows(path);
          const std::int64_t total = reader->rows() * reader->columns();
          CHECK(static_cast<std::int64_t>(reader->read_all().size()) == total);
        } catch (const std::runtime_error&) {
        }
      }
      write_plain(path, good.substr(0, at));
      CHECK_THROWS_AS(open_rows(path)->read_all(), std::runtime_error);
    }
  }
}

TEST_CASE("IDX: rows of images and labels are read") {
  const temporary_directory directory;
  const fs::path path = directory / "a";
  const std::string images = idx_bytes({3, 1, 2}, std::string("\x00\x01\x7f\x80\xfe\xff", 6));
  write_plain(path, images);
  write_gz(directory / "gzipped", images);
  for (const char* name : {"a", "gzipped"}) {
    const std::unique_ptr<detector::row_reader> reader = open_rows(directory / name);
    CHECK(reader->shape() == std::vector<std::int64_t>{3, 1, 2});
    CHECK(reader->dtype() == "u1");
    std::vector<float> batch(4);
    CHECK(reader->read(2, batch.data()) == 2);
    CHECK(batch == std::vector<float>{0, 1, 127, 128});
    CHECK(reader->read(2, batch.data()) == 1);
    CHECK(batch == std::vector<float>{254, 255, 127, 128});
    CHECK(reader->read(2, batch.data()) == 0);
  }
  write_plain(path, idx_bytes({4}, std::string("\x00\x09\x02\xff", 4)));
  CHECK(open_rows(path)->columns() == 1);
  CHECK(open_rows(path)->read_all_whole() == std::vector<std::int64_t>{0, 9, 2, 255});

  write_plain(path, idx_bytes({4}, "abc"));
  CHECK(contains(error_of(path), "truncated: 3 of 4 values"));
  write_plain(path, idx_bytes({4}, "abcde"));
  CHECK(contains(error_of(path), "trailing bytes"));
  write_plain(path, idx_bytes({4, 0}, ""));
  CHECK(contains(error_of(path), "empty"));
  write_plain(path, idx_bytes({4, 5}, "").substr(0, 9));
  CHECK(contains(error_of(path), "header is incomplete"));
  for (const std::size_t at : {1u, 2u}) {
    std::string changed = images;
    changed[at] = 0x0d;
    write_plain(path, changed);
    CHECK(contains(error_of(path), "not an IDX file of unsigned bytes"));
  }
  write_plain(path, idx_bytes({}, ""));
  CHECK(contains(error_of(path), "not an IDX file of unsigned bytes"));
}

TEST_CASE("npy: files that NumPy writes") {
  const char* found = nullptr;
  for (const char* python : {"python3", "/usr/bin/python3"}) {
    const std::string probe = std::string(python) + " -c 'import numpy' 2>/dev/null";
    if (found == nullptr && std::system(probe.c_str()) == 0) found = python;
  }
  if (found == nullptr) {
    REQUIRE_MESSAGE(std::getenv("LGM_TEST_REQUIRES_NUMPY") == nullptr,
                    "there is no python3 with NumPy (Debian: python3-numpy)");
    MESSAGE("skipped: no python3 with NumPy (Debian: python3-numpy) to write files with");
    return;
  }
  const temporary_directory directory;
  const std::string command =
      std::string(found) + " '" LGM_NPY_SCRIPT "' '" + directory.path().string() + "'";
  REQUIRE(std::system(command.c_str()) == 0);

  for (const std::string dtype : {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1",
                                  ">f2", ">f8", ">i2", ">u4", "Ff4", "Fi8", "F>f4"}) {
    std::vector<std::int64_t> expected(15);
    for (std::size_t i = 0; i < 15; ++i) {
      const auto at = static_cast<std::int64_t>(i);
      expected[i] = dtype == "b1" ? at % 2 : dtype.find('u') != std::string::npos ? at : at - 7;
    }
    for (const char* version : {"1", "2", "3"}) {
      const std::string ending = "-" + dtype + "-" + version + ".npy";
      CAPTURE(ending);
      const std::unique_ptr<detector::row_reader> matrix = open_rows(directory / ("matrix" + ending));
      CHECK(matrix->dtype() == dtype.substr(dtype.size() - 2));
      CHECK(matrix->shape() == std::vector<std::int64_t>{5, 3});
      CHECK(matrix->read_all() == std::vector<float>(expected.begin(), expected.end()));
      const std::unique_ptr<detector::row_reader> vector = open_rows(directory / ("vector" + ending));
      CHECK(vector->shape() == std::vector<std::int64_t>{5});
      CHECK(vector->read_all() == std::vector<float>(expected.begin(), expected.begin() + 5));
      if (matrix->has_whole_numbers())
        CHECK(open_rows(directory / ("matrix" + ending))->read_all_whole() == expected);
    }
  }
  for (const char* name : {"plain.npy", "plain.npy.gz"}) {
    const std::unique_ptr<detector::row_reader> reader = open_rows(directory / name);
    CHECK(reader->shape() == std::vector<std::int64_t>{4, 2, 3});
    const std::vector<float> values = reader->read_all();
    REQUIRE(values.size() == 24);
    for (std::size_t i = 0; i < 24; ++i) CHECK(values[i] == static_cast<float>(i) / 8);
  }
  for (const char* name : {"stored.npz", "packed.npz"}) {
    CAPTURE(name);
    CHECK(open_rows(directory / (std::string(name) + ":features"))->read_all() ==
          open_rows(directory / "plain.npy")->read_all());
    CHECK(open_rows(directory / (std::string(name) + ":labels"))->read_all_whole() ==
          std::vector<std::int64_t>{0, 1, 2, 3});
  }
  struct refusal {
    const char *name, *words;
  };
  for (const refusal& each : {refusal{"complex", "dtype '<c8'"}, refusal{"text", "dtype '<U2'"},
                              refusal{"object", "dtype '|O'"}, refusal{"structured", "structured dtype"},
                              refusal{"scalar", "single value"}, refusal{"empty", "empty"}}) {
    CAPTURE(each.name);
    CHECK(contains(error_of(directory / (std::string(each.name) + ".npy")), each.words));
  }
}
