// SPDX-License-Identifier: MIT
#include "output_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

#include "descriptor.hpp"

namespace trainer {

namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& path) {
  throw std::runtime_error(path.string() + ": " + std::strerror(errno));
}

bool write_all(int file, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

// The name at the end of a path's symbolic links, where there may be no file yet.
fs::path behind_links(fs::path path) {
  constexpr int most = 40;  // as the system follows
  std::error_code error;
  for (int i = 0; i < most && fs::is_symlink(fs::symlink_status(path, error)); ++i) {
    const fs::path target = fs::read_symlink(path, error);
    if (error) break;
    path = path.parent_path() / target;  // or target, where that is absolute
  }
  return path;
}

bool same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

void replace(const fs::path& path, const struct stat* old, std::string_view bytes) {
  const fs::path temporary = path.string() + ".part";
  unlink(temporary.c_str());  // what a process that was killed left behind
  descriptor file(open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (file.number() < 0) fail(path);
  try {
    // The content is on disk before the name is, so that not even a loss of power leaves a name without it.
    if (!write_all(file.number(), bytes) ||
        (old != nullptr && fchmod(file.number(), old->st_mode & 07777) != 0) || fsync(file.number()) != 0 ||
        !file.close_now() || std::rename(temporary.c_str(), path.c_str()) != 0) {
      fail(path);
    }
  } catch (...) {
    unlink(temporary.c_str());
    throw;
  }
  const fs::path folder = path.has_parent_path() ? path.parent_path() : ".";
  const descriptor directory(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.number() < 0 || fsync(directory.number()) != 0) fail(folder);
}

}  // namespace

void write_file(const fs::path& path, std::string_view bytes) {
  struct stat old {};
  const bool exists = stat(path.c_str(), &old) == 0;
  if (!exists && errno != ENOENT) fail(path);
  const fs::path target = behind_links(path);
  struct stat found {};
  // A name such as /dev/stdout can lead to a file that has no name any more.
  const bool is_named = !exists || (stat(target.c_str(), &found) == 0 && same_file(old, found));
  if (is_named && (!exists || S_ISREG(old.st_mode))) {
    replace(target, exists ? &old : nullptr, bytes);
    return;
  }
  descriptor file(open(path.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC));
  if (file.number() < 0 || !write_all(file.number(), bytes) || !file.close_now()) fail(path);
}

}  // namespace trainer
