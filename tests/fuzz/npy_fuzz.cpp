// SPDX-License-Identifier: MIT
#include "../../examples/detector/npy.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <vector>

#include "all_rows.hpp"
#include "memory_file.hpp"
#include "support.hpp"

// Arrays of rows: any file gives the numbers that it holds, whatever the batches they are read in and whether it has a name or
// is standard input, or one line that says why not.

namespace {

// All rows, `batch` at a time; empty where the reader throws.
template <class T>
std::vector<T> read(const fuzz::bytes& content, std::int64_t batch, bool from_standard_input = false) {
  const fuzz::memory_file file(content);
  if (from_standard_input) file.become_standard_input();
  try {
    const std::unique_ptr<detector::row_reader> reader =
        detector::open_rows(from_standard_input ? "-" : file.path());
    return fuzz::all_rows<T>(*reader, batch, content.size());
  } catch (const std::runtime_error& error) {
    fuzz::require_message(error.what());
    return {};
  }
}

template <class T>
void check(const fuzz::bytes& content, std::int64_t batch) {
  const std::vector<T> once = read<T>(content, 0);
  fuzz::require(fuzz::same_bits(once, read<T>(content, batch)), "batches give what one read gives");
  // An archive has to be a file.
  const bool is_archive = content.size() > 1 && content[0] == 'P' && content[1] == 'K';
  if (!is_archive)
    fuzz::require(fuzz::same_bits(once, read<T>(content, batch, true)),
                  "standard input gives what a file gives");
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
