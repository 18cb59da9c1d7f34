// SPDX-License-Identifier: MIT
#pragma once

#include <csignal>

namespace trainer {

// While one of these is alive, the first SIGINT or SIGTERM is only noted; another one ends the process as
// usual. A signal that the process was started to ignore stays ignored.
class interruption {
 public:
  interruption() {
    noted = 0;
    take(SIGINT, before_[0]);
    take(SIGTERM, before_[1]);
  }
  ~interruption() {
    sigaction(SIGINT, &before_[0], nullptr);
    sigaction(SIGTERM, &before_[1], nullptr);
  }
  interruption(const interruption&) = delete;
  interruption& operator=(const interruption&) = delete;

  bool happened() const { return noted != 0; }

 private:
  static void note(int) {
    noted = 1;
    std::signal(SIGINT, SIG_DFL);
    std::signal(SIGTERM, SIG_DFL);
  }
  static void take(int signal, struct sigaction& before) {
    struct sigaction action {};
    action.sa_handler = note;
    action.sa_flags = SA_RESTART;
    sigaction(signal, nullptr, &before);
    if (before.sa_handler != SIG_IGN) sigaction(signal, &action, nullptr);
  }

  static inline volatile std::sig_atomic_t noted = 0;
  struct sigaction before_[2];
};

}  // namespace trainer
