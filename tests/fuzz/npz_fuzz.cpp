// SPDX-License-Identifier: MIT
#include <zip.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../examples/detector/npy.hpp"
#include "all_rows.hpp"
#include "memory_file.hpp"
#include "support.hpp"

// ZIP archives of arrays: an archive gives what the file in it gives by itself; any other file gives an array, or one line that
// says why not.

namespace {

using fuzz::bytes;

// Nothing where the reader throws.
std::optional<std::vector<float>> read(const bytes& content, const std::string& name = "") {
  const fuzz::memory_file file(content);
  const detector::npz_array array{file.path(), name};
  try {
    // Named by its parts: the path of a file in memory does not end in .npz.
    const std::unique_ptr<detector::row_reader> reader =
        name.empty() ? detector::open_rows(file.path())
                     : std::make_unique<detector::npy_reader>(
                           file.path(), std::make_unique<detector::detail::npz_source>(file.path(), array));
    return fuzz::all_rows<float>(*reader, 3, content.size());
  } catch (const std::runtime_error& error) {
    fuzz::require_message(error.what());
    return std::nullopt;
  }
}

bool same(const std::optional<std::vector<float>>& a, const std::optional<std::vector<float>>& b) {
  return a.has_value() == b.has_value() && (!a || fuzz::same_bits(*a, *b));
}

// An archive of the content as NAME.npy, and of a second file.
bytes archive(const bytes& content, const std::string& name, const std::string& other, zip_int32_t method) {
  zip_error_t error;
  zip_error_init(&error);
  zip_source_t* const target = zip_source_buffer_create(nullptr, 0, 0, &error);
  fuzz::require(target != nullptr, "libzip starts");
  zip_source_keep(target);
  zip_t* const zip = zip_open_from_source(target, ZIP_TRUNCATE, &error);
  fuzz::require(zip != nullptr, "libzip begins an archive");
  static const char note[] = "hello";
  const auto add = [&](const std::string& file, const void* data, std::size_t size) {
    zip_source_t* const source = zip_source_buffer(zip, data, size, 0);
    const zip_int64_t index = zip_file_add(zip, file.c_str(), source, 0);
    fuzz::require(index >= 0, "libzip takes a file");
    zip_set_file_compression(zip, static_cast<zip_uint64_t>(index), method, 0);
  };
  add(name + ".npy", content.data(), content.size());
  add(other, note, sizeof(note));
  fuzz::require(zip_close(zip) == 0, "libzip ends an archive");
  fuzz::require(zip_source_open(target) == 0, "libzip opens what it wrote");
  zip_source_seek(target, 0, SEEK_END);
  bytes out(static_cast<std::size_t>(zip_source_tell(target)));
  zip_source_seek(target, 0, SEEK_SET);
  fuzz::require(zip_source_read(target, out.data(), out.size()) == static_cast<zip_int64_t>(out.size()),
                "libzip reads what it wrote");
  zip_source_close(target);
  zip_source_free(target);
  return out;
}

}  // namespace

// Three bytes that say what is done with the rest: whether it is the archive, or what is in one, and how that one is damaged.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 3) return 0;
  const unsigned mode = data[0] & 3;
  const zip_int32_t method = (data[0] & 4) != 0 ? ZIP_CM_DEFLATE : ZIP_CM_STORE;
  const bytes content(data + 3, data + size);
  if (mode == 0) {
    read(content);
    read(content, "x");
    return 0;
  }
  bytes file = archive(content, "x", mode == 1 ? "note.txt" : "y.npy", method);
  if (mode < 3) {
    // A .npy file by itself; what is not one may still be another file that can be read.
    const bool is_npy = content.size() > 5 && content[0] == 0x93;
    const std::optional<std::vector<float>> expected = is_npy ? read(content) : std::nullopt;
    fuzz::require(same(read(file, "x"), expected), "an array of an archive is what its file holds");
    fuzz::require(same(read(file), mode == 1 ? expected : std::nullopt),
                  "the only array needs no name, and one of two has to have one");
    fuzz::require(!read(file, "z"), "there is no array of another name");
    return 0;
  }
  if ((data[0] & 8) != 0) {
    file.resize(file.size() - 1 - data[2] % file.size());
  } else {
    file[(std::size_t{data[2]} << 4 | data[1] >> 4) % file.size()] ^=
        static_cast<std::uint8_t>(1 << (data[1] & 7));
  }
  read(file, "x");
  return 0;
}
