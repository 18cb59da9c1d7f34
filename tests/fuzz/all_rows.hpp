// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "../../examples/detector/npy.hpp"
#include "support.hpp"

namespace fuzz {

// All rows of a reader, `batch` at a time, or at once with 0, of a file of so many bytes.
template <class T>
std::vector<T> all_rows(detector::row_reader& reader, std::int64_t batch, std::size_t bytes) {
  require(reader.rows() > 0 && reader.columns() > 0, "no dimension is empty");
  std::vector<T> all;
  // Rows may be longer than any file here: then only all that is there can be read at once.
  if (batch == 0 || reader.columns() > 1 << 16) {
    if constexpr (std::is_same_v<T, float>)
      all = reader.read_all();
    else
      all = reader.read_all_whole();
  } else {
    std::vector<T> rows(static_cast<std::size_t>(batch * reader.columns()));
    while (const std::int64_t n = reader.read(batch, rows.data()))
      all.insert(all.end(), rows.begin(), rows.begin() + n * reader.columns());
  }
  require(static_cast<std::int64_t>(all.size()) == reader.rows() * reader.columns(),
          "there are as many numbers as the shape says");
  // A byte of packed data holds at most 1032.
  require(all.size() <= 1032 * bytes, "there are no more numbers than the file holds");
  return all;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

}  // namespace fuzz
