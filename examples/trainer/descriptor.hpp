// SPDX-License-Identifier: MIT
#pragma once

#include <unistd.h>

#include <utility>

namespace trainer {

// Closes a file descriptor in any case.
class descriptor {
 public:
  explicit descriptor(int number) : number_(number) {}
  ~descriptor() {
    if (number_ >= 0) close(number_);
  }
  descriptor(descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  descriptor& operator=(descriptor&&) = delete;
  descriptor(const descriptor&) = delete;
  descriptor& operator=(const descriptor&) = delete;

  int number() const { return number_; }
  bool close_now() { return close(std::exchange(number_, -1)) == 0; }

 private:
  int number_;
};

}  // namespace trainer
