// SPDX-License-Identifier: MIT
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <vector>

#include "support.hpp"

namespace fuzz {

using bytes = std::vector<std::uint8_t>;

// A file that has a name but lies in memory.
class memory_file {
 public:
  explicit memory_file(const bytes& content) : descriptor_(memfd_create("fuzz", 0)) {
    require(descriptor_ >= 0 &&
                write(descriptor_, content.data(), content.size()) == static_cast<ssize_t>(content.size()),
            "the file could be written");
  }
  memory_file(const memory_file&) = delete;
  memory_file& operator=(const memory_file&) = delete;
  ~memory_file() { close(descriptor_); }
  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }
  void become_standard_input() const {
    require(lseek(descriptor_, 0, SEEK_SET) == 0 && dup2(descriptor_, STDIN_FILENO) == STDIN_FILENO,
            "standard input could be changed");
  }

 private:
  int descriptor_;
};

}  // namespace fuzz
