// SPDX-License-Identifier: MIT
#include "idx.hpp"

#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "memory_file.hpp"
#include "support.hpp"

// Image sets: any file, gzipped or not, gives the array that it holds, or one line that says why not.

namespace {

using fuzz::bytes;
using fuzz::memory_file;

// What the reader makes of a file; nothing where it throws.
std::optional<trainer::idx_array> read(const bytes& content, int dimensions) {
  const memory_file file(content);
  try {
    trainer::idx_array array = trainer::read_idx(file.path(), dimensions);
    std::int64_t total = 1;
    for (const std::int64_t size : array.sizes) {
      fuzz::require(size > 0, "no dimension is empty");
      total *= size;
    }
    fuzz::require(array.sizes.size() == static_cast<std::size_t>(dimensions),
                  "the dimensions are those asked for");
    fuzz::require(array.values.size() == static_cast<std::size_t>(total),
                  "there are as many values as the sizes say");
    // A byte of a gzip file holds at most 1032.
    fuzz::require(array.values.size() <= 1032 * content.size(),
                  "there are no more values than the file holds");
    return array;
  } catch (const std::runtime_error& error) {
    fuzz::require_message(error.what());
    return std::nullopt;
  }
}

// What bytes that are not gzipped hold: the layout's definition, once more.
std::optional<trainer::idx_array> expected(const bytes& content, int dimensions) {
  const auto header = 4 + 4 * static_cast<std::size_t>(dimensions);
  if (content.size() < header) return std::nullopt;
  if (content[0] != 0 || content[1] != 0 || content[2] != 8 || content[3] != dimensions) return std::nullopt;
  trainer::idx_array array;
  unsigned __int128 total = 1;
  for (std::size_t at = 4; at < header; at += 4) {
    array.sizes.push_back(std::int64_t{content[at]} << 24 | content[at + 1] << 16 | content[at + 2] << 8 |
                          content[at + 3]);
    total *= static_cast<unsigned __int128>(array.sizes.back());
  }
  if (total == 0 || total != content.size() - header) return std::nullopt;
  array.values.assign(content.begin() + static_cast<std::ptrdiff_t>(header), content.end());
  return array;
}

bytes written(const trainer::idx_array& array) {
  bytes content{0, 0, 8, static_cast<std::uint8_t>(array.sizes.size())};
  for (const std::int64_t size : array.sizes)
    for (int shift = 24; shift >= 0; shift -= 8) content.push_back(static_cast<std::uint8_t>(size >> shift));
  content.insert(content.end(), array.values.begin(), array.values.end());
  return content;
}

bytes gzipped(const bytes& content, int level) {
  z_stream stream{};
  fuzz::require(deflateInit2(&stream, level, Z_DEFLATED, 15 + 16, 1, Z_DEFAULT_STRATEGY) == Z_OK,
                "zlib starts");
  bytes out(deflateBound(&stream, content.size()));
  stream.next_in = const_cast<std::uint8_t*>(content.data());
  stream.avail_in = static_cast<unsigned>(content.size());
  stream.next_out = out.data();
  stream.avail_out = static_cast<unsigned>(out.size());
  fuzz::require(deflate(&stream, Z_FINISH) == Z_STREAM_END, "zlib ends");
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

bool same(const std::optional<trainer::idx_array>& a, const std::optional<trainer::idx_array>& b) {
  return a.has_value() == b.has_value() && (!a || (a->sizes == b->sizes && a->values == b->values));
}

bytes joined(bytes a, const bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace

// Three bytes that say what is done with the rest: whether it is the file, or what a gzip file holds, and how that one is
// damaged.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 3) return 0;
  const int dimensions = data[0] & 1 ? 1 : 3;
  const int level = data[0] >> 1 & 1 ? 9 : 0;
  const unsigned mode = data[0] >> 2 & 7, damage = data[1];
  const std::size_t place = std::size_t{data[1]} << 8 | data[2];
  const bytes content(data + 3, data + size);

  const bool is_gzip = content.size() > 1 && content[0] == 0x1f && content[1] == 0x8b;
  const auto holds = is_gzip ? std::nullopt : expected(content, dimensions);
  if (mode < 3) {
    const auto array = read(content, dimensions);
    if (!is_gzip) fuzz::require(same(array, holds), "a plain file gives what it holds");
    if (array && array->values.size() < 1 << 16) {
      fuzz::require(same(read(written(*array), dimensions), array),
                    "an array that is written and read is the same");
      fuzz::require(same(read(gzipped(written(*array), level), dimensions), array), "and so it is gzipped");
    }
    return 0;
  }
  if (is_gzip) return 0;
  bytes file = gzipped(content, level);
  if (mode == 3) {
    fuzz::require(same(read(file, dimensions), holds), "a gzip file gives what it holds");
  } else if (mode == 4) {
    const auto middle = content.begin() + static_cast<std::ptrdiff_t>(place % (content.size() + 1));
    file = joined(gzipped({content.begin(), middle}, level), gzipped({middle, content.end()}, level));
    fuzz::require(same(read(file, dimensions), holds), "a gzip file of two parts gives what they hold");
  } else if (mode == 5) {
    file.resize(file.size() - 1 - place % file.size());
    fuzz::require(!read(file, dimensions), "a gzip file that is cut off is an error");
  } else if (mode == 6) {
    file.push_back(static_cast<std::uint8_t>(damage));
    fuzz::require(!read(file, dimensions), "a byte after gzip data is an error");
  } else {
    file[data[2] % file.size()] ^= static_cast<std::uint8_t>(damage);
    const auto array = read(file, dimensions);
    if (array) fuzz::require(same(array, holds), "a damaged gzip file is an error, or gives what it held");
  }
  return 0;
}
