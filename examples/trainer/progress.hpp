// SPDX-License-Identifier: MIT
#pragma once

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>

namespace trainer {

// Shows how far a training is: on a terminal, one line that is drawn over a few times a second; otherwise a
// plain line an epoch.
class progress {
 public:
  // done: samples of all epochs that were done before, in another process.
  progress(std::string title, std::int64_t epochs, std::int64_t samples_an_epoch, std::int64_t done = 0,
           std::FILE* out = stdout)
      : title_(std::move(title)),
        epochs_(epochs),
        samples_(samples_an_epoch),
        done_before_(done),
        out_(out),
        terminal_(isatty(fileno(out)) != 0),
        start_(clock::now()),
        drawn_(start_) {}

  // After each step: samples done in this epoch (from 0), and the mean loss of the epoch so far.
  void step(std::int64_t epoch, std::int64_t done, double loss) {
    const auto now = clock::now();
    if (!terminal_ || now - drawn_ < std::chrono::milliseconds(100)) return;
    drawn_ = now;
    draw(epoch, done, loss);
  }

  // Between two steps: the next line that is written begins a line.
  void stop() {
    if (terminal_) fmt::print(out_, "\n");
    std::fflush(out_);
  }

  void end_of_epoch(std::int64_t epoch, double loss, double accuracy) {
    if (terminal_) {
      draw(epoch, samples_, loss);
      if (epoch + 1 == epochs_) fmt::print(out_, "\n");
    } else {
      const pace now = pace_at(epoch, samples_);
      fmt::print(out_, "{} epoch {}/{}: loss {:.4f}, training accuracy {:.2f} %, {:.0f} images/s, {} left\n",
                 title_, epoch + 1, epochs_, loss, 100 * accuracy, now.rate, clock_text(now.left));
    }
    std::fflush(out_);
  }

 private:
  using clock = std::chrono::steady_clock;
  struct pace {
    double part, rate, left;  // of the whole training; images a second; seconds
  };

  pace pace_at(std::int64_t epoch, std::int64_t done) const {
    const double seconds = std::chrono::duration<double>(clock::now() - start_).count();
    const auto all = static_cast<double>(epochs_ * samples_);
    const auto so_far = static_cast<double>(epoch * samples_ + done);
    const double rate = (so_far - static_cast<double>(done_before_)) / std::max(seconds, 1e-9);
    return {so_far / all, rate, (all - so_far) / std::max(rate, 1e-9)};
  }

  static std::string clock_text(double seconds) {
    const std::int64_t whole = std::llround(seconds);
    return fmt::format("{}:{:02}", whole / 60, whole % 60);
  }

  void draw(std::int64_t epoch, std::int64_t done, double loss) const {
    constexpr int width = 20;
    const pace now = pace_at(epoch, done);
    const int full = std::min(width, static_cast<int>(now.part * width));
    fmt::print(out_, "\r{:<8}[{:#<{}}{:.<{}}] {:3.0f} %  loss {:.4f}  {:.0f} images/s  {} left  ", title_, "",
               full, "", width - full, 100 * now.part, loss, now.rate, clock_text(now.left));
    std::fflush(out_);
  }

  std::string title_;
  std::int64_t epochs_, samples_, done_before_;
  std::FILE* out_;
  bool terminal_;
  clock::time_point start_, drawn_;
};

}  // namespace trainer
