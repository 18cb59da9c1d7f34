// SPDX-License-Identifier: MIT
#pragma once

#include <zip.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "input_file.hpp"
#include "model_file.hpp"

// NumPy's .npz files: ZIP archives of .npy files, which libzip unpacks.

namespace detector {

// One array of a .npz file: FILE, or FILE:NAME where the file holds several.
struct npz_array {
  std::filesystem::path file;
  std::string name;  // empty: the only one
};

inline npz_array npz_array_of(const std::filesystem::path& path) {
  const std::string text = path.string(), between = ".npz:";
  const std::size_t at = text.rfind(between);
  std::error_code ignored;
  if (at == std::string::npos || std::filesystem::exists(path, ignored)) return {path, {}};
  return {text.substr(0, at + between.size() - 1), text.substr(at + between.size())};
}

namespace detail {

// The bytes of an array's .npy file.
class npz_source final : public trainer::byte_source {
 public:
  npz_source(const std::filesystem::path& path, const npz_array& array) : path_(path) {
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(array.file, ignored)) {
      trainer::fail_file(path_, "a .npz file can only be read from disk, not from a pipe");
    }
    int code = 0;
    archive_.reset(zip_open(array.file.c_str(), ZIP_RDONLY, &code));
    if (!archive_) {
      zip_error_t error;
      zip_error_init_with_code(&error, code);
      const std::string reason = zip_error_strerror(&error);
      zip_error_fini(&error);
      trainer::fail_file(path_, "is not a ZIP archive that can be read (" + reason + ")");
    }
    const zip_int64_t index = index_of(array.name);
    file_.reset(zip_fopen_index(archive_.get(), static_cast<zip_uint64_t>(index), 0));
    if (!file_) fail(zip_strerror(archive_.get()));
  }

  std::size_t read(std::uint8_t* out, std::size_t bytes) override {
    std::size_t done = 0;
    while (done < bytes) {
      const zip_int64_t got = zip_fread(file_.get(), out + done, bytes - done);
      if (got < 0) fail(zip_file_strerror(file_.get()));
      if (got == 0) break;
      done += static_cast<std::size_t>(got);
    }
    return done;
  }

 private:
  struct discard {
    void operator()(zip_t* archive) const { zip_discard(archive); }
    void operator()(zip_file_t* file) const { zip_fclose(file); }
  };

  [[noreturn]] void fail(const std::string& reason) const {
    trainer::fail_file(path_, "corrupt ZIP data (" + reason + ")");
  }

  // The archive's file NAME.npy, or the only such file.
  zip_int64_t index_of(const std::string& name) const {
    const std::string ending = ".npy";
    std::string names;
    zip_int64_t count = 0, found = -1;
    const zip_int64_t entries = zip_get_num_entries(archive_.get(), 0);
    for (zip_int64_t i = 0; i < entries; ++i) {
      const char* const text = zip_get_name(archive_.get(), static_cast<zip_uint64_t>(i), 0);
      if (text == nullptr) continue;
      std::string entry = text;
      if (entry.size() < ending.size() ||
          entry.compare(entry.size() - ending.size(), ending.size(), ending) != 0) {
        continue;
      }
      entry.resize(entry.size() - ending.size());
      ++count;
      if (name.empty() || entry == name) found = i;
      constexpr zip_int64_t shown = 5;
      if (count <= shown) names += (count > 1 ? ", " : "") + trainer::printable(entry).substr(0, 40);
      if (count == shown + 1) names += ", ...";
    }
    if (count == 0) trainer::fail_file(path_, "is a ZIP archive without any .npy file");
    if (name.empty() && count > 1)
      trainer::fail_file(path_, "holds the arrays " + names + ": FILE:NAME names one");
    if (found < 0) trainer::fail_file(path_, "holds no array " + trainer::printable(name) + ", but " + names);
    return found;
  }

  std::filesystem::path path_;
  std::unique_ptr<zip_t, discard> archive_;
  std::unique_ptr<zip_file_t, discard> file_;  // closed before the archive
};

}  // namespace detail

}  // namespace detector
