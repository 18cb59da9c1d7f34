// SPDX-License-Identifier: MIT
#include "../../examples/detector/npy.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>

#include "memory_file.hpp"
#include "support.hpp"

// Arrays of rows: any file gives the numbers that it holds, whatever the batches they are read in, or one line that says why
// not.

namespace {

// All rows, `batch` at a time; empty where the reader throws.
template <class T>
std::vector<T> read(const fuzz::bytes& content, std::int64_t batch) {
  const fuzz::memory_file file(content);
  try {
    const std::unique_ptr<detector::row_reader> reader = detector::open_rows(file.path());
    fuzz::require(reader->rows() > 0 && reader->columns() > 0, "no dimension is empty");
    std::vector<T> all;
    // Rows may be longer than any file here: then only all that is there can be read at once.
    if (batch == 0 || reader->columns() > 1 << 16) {
      if constexpr (std::is_same_v<T, float>)
        all = reader->read_all();
      else
        all = reader->read_all_whole();
    } else {
      std::vector<T> rows(static_cast<std::size_t>(batch * reader->columns()));
      while (const std::int64_t n = reader->read(batch, rows.data()))
        all.insert(all.end(), rows.begin(), rows.begin() + n * reader->columns());
    }
    fuzz::require(static_cast<std::int64_t>(all.size()) == reader->rows() * reader->columns(),
                  "there are as many numbers as the shape says");
    // A byte of a gzip file holds at most 1032.
    fuzz::require(all.size() <= 1032 * content.size(), "there are no more numbers than the file holds");
    return all;
  } catch (const std::runtime_error& error) {
    fuzz::require_message(error.what());
    return {};
  }
}

template <class T>
void check(const fuzz::bytes& content, std::int64_t batch) {
  const std::vector<T> once = read<T>(content, 0), in_batches = read<T>(content, batch);
  fuzz::require(
      once.size() == in_batches.size() &&
          (once.empty() || std::memcmp(once.data(), in_batches.data(), once.size() * sizeof(T)) == 0),
      "batches give what one read gives");
}

}  // namespace

// A byte that says how it is read; the rest is the file.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  const fuzz::bytes content(data + 1, data + size);
  const std::int64_t batch = 1 + data[0] % 7;
  if (data[0] < 128)
    check<float>(content, batch);
  else
    check<std::int64_t>(content, batch);
  return 0;
}
