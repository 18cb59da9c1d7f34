// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "input_file.hpp"

// Reading image sets in the IDX layout (MNIST, Fashion-MNIST and their relatives), gzipped or plain.

namespace trainer {

// One IDX file of unsigned bytes: the sizes of its dimensions, slowest first, and its values.
struct idx_array {
  std::vector<std::int64_t> sizes;
  std::vector<std::uint8_t> values;
};

struct image_set {
  std::int64_t rows = 0, columns = 0;
  std::vector<std::uint8_t> images;  // [count, rows * columns]
  std::vector<std::uint8_t> labels;  // [count]

  std::int64_t count() const { return static_cast<std::int64_t>(labels.size()); }
  std::int64_t pixels() const { return rows * columns; }
};

struct data_set {
  image_set train, test;
  std::int64_t classes = 0;  // one more than the largest training label
};

// Reads one IDX file with `dimensions` dimensions. Memory grows with the bytes that the file really holds, whatever its
// header claims, and no further than 2 GiB of them, since a gzip file may hold a thousand times its size. Throws
// std::runtime_error.
inline idx_array read_idx(const std::filesystem::path& path, int dimensions) {
  input_file file(path);

  constexpr std::uint8_t unsigned_byte = 0x08;
  std::array<std::uint8_t, 4> magic{};
  if (file.read(magic.data(), magic.size()) < magic.size())
    fail_file(path, "truncated: the header is incomplete");
  const std::array<std::uint8_t, 4> expected_magic{0, 0, unsigned_byte,
                                                   static_cast<std::uint8_t>(dimensions)};
  if (magic != expected_magic) {
    fail_file(path, "wrong magic number: not an IDX file of unsigned bytes with " +
                        std::to_string(dimensions) + (dimensions == 1 ? " dimension" : " dimensions"));
  }

  constexpr std::size_t max_values = std::size_t{1} << 31;
  idx_array array;
  std::size_t total = 1;
  for (int i = 0; i < dimensions; ++i) {
    std::array<std::uint8_t, 4> bytes{};
    if (file.read(bytes.data(), bytes.size()) < bytes.size())
      fail_file(path, "truncated: the header is incomplete");
    std::uint32_t size = 0;
    for (const std::uint8_t byte : bytes) size = size << 8 | byte;
    if (size == 0) fail_file(path, "one of its dimensions is empty");
    if (total > max_values / size) fail_file(path, "its dimensions are too large");
    total *= size;
    array.sizes.push_back(size);
  }

  constexpr std::size_t first_chunk = 1u << 16;
  while (array.values.size() < total) {
    const std::size_t begin = array.values.size();
    const std::size_t end = begin + std::min(total - begin, std::max(first_chunk, begin));
    array.values.resize(end);
    const std::size_t got = file.read(array.values.data() + begin, end - begin);
    if (got < end - begin) {
      fail_file(path,
                "truncated: " + std::to_string(begin + got) + " of " + std::to_string(total) + " values");
    }
  }
  // Reading on to the end also makes zlib compare the checksum.
  std::uint8_t beyond = 0;
  if (file.read(&beyond, 1) != 0)
    fail_file(path, "trailing bytes after its " + std::to_string(total) + " values");
  return array;
}

// The file of a set as it is distributed: with a dash or a dot before "idx", gzipped or not.
inline std::filesystem::path find_idx(const std::filesystem::path& directory, const std::string& part,
                                      const std::string& kind) {
  for (const char* separator : {"-", "."}) {
    for (const char* ending : {"", ".gz"}) {
      std::filesystem::path path = directory / (part + separator + kind + ending);
      std::error_code ignored;
      if (std::filesystem::exists(path, ignored)) return path;
    }
  }
  fail_file(directory / (part + "-" + kind), "no such file, nor with .gz");
}

// Reads PART-images-idx3-ubyte and PART-labels-idx1-ubyte of a directory; PART is "train" or "t10k".
inline image_set load_image_set(const std::filesystem::path& directory, const std::string& part) {
  const std::filesystem::path images_path = find_idx(directory, part + "-images", "idx3-ubyte");
  const std::filesystem::path labels_path = find_idx(directory, part + "-labels", "idx1-ubyte");
  idx_array images = read_idx(images_path, 3);
  idx_array labels = read_idx(labels_path, 1);
  if (images.sizes[0] != labels.sizes[0]) {
    fail_file(labels_path, std::to_string(labels.sizes[0]) + " labels for the " +
                               std::to_string(images.sizes[0]) + " images of " +
                               images_path.filename().string());
  }
  return {images.sizes[1], images.sizes[2], std::move(images.values), std::move(labels.values)};
}

// Reads the training and the test set of a directory, and of each set only so many images, where that is not 0. Throws if the
// training images are all of one class.
inline data_set load_data_set(const std::filesystem::path& directory, std::int64_t train_limit = 0,
                              std::int64_t test_limit = 0) {
  data_set data;
  data.train = load_image_set(directory, "train");
  data.test = load_image_set(directory, "t10k");
  if (data.test.rows != data.train.rows || data.test.columns != data.train.columns) {
    fail_file(find_idx(directory, "t10k-images", "idx3-ubyte"),
              "its images are not of the size of the training images");
  }
  const auto cut = [](image_set& set, std::int64_t limit) {
    if (limit <= 0 || limit >= set.count()) return;
    set.images.resize(static_cast<std::size_t>(limit * set.pixels()));
    set.labels.resize(static_cast<std::size_t>(limit));
  };
  std::vector<std::uint8_t>& labels = data.train.labels;
  data.classes = 1 + *std::max_element(labels.begin(), labels.end());
  cut(data.train, train_limit);
  if (std::all_of(labels.begin(), labels.end(), [&](std::uint8_t each) { return each == labels.front(); })) {
    fail_file(find_idx(directory, "train-labels", "idx1-ubyte"),
              "all " + std::to_string(labels.size()) + " labels that are used are " +
                  std::to_string(labels.front()) + ": a classifier needs two classes");
  }
  const std::int64_t largest = *std::max_element(data.test.labels.begin(), data.test.labels.end());
  if (largest >= data.classes) {
    fail_file(find_idx(directory, "t10k-labels", "idx1-ubyte"),
              "label " + std::to_string(largest) + ", but the training labels have only " +
                  std::to_string(data.classes) + " classes");
  }
  cut(data.test, test_limit);
  return data;
}

}  // namespace trainer
