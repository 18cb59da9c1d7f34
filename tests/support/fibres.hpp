// SPDX-License-Identifier: MIT
#pragma once

#include <ucontext.h>

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

// Functions that one thread runs in turns, each on a stack of its own: they change places where they say so and nowhere else.
// That costs some nanoseconds; threads that wake each other take a thousand times as long.

namespace support {

class fibres {
 public:
  fibres() = default;
  ~fibres();
  fibres(const fibres&) = delete;

  // work(n) for n of [0, count), `first` first. Each answers who goes on once it is through; -1: nobody, and run returns. It may
  // not throw. One run at a time.
  void run(int count, int first, const std::function<int(int)>& work);

  // Within work(from): `to` begins or goes on; returns when another lets `from` go on.
  void go_on(int from, int to);

  // Whether the address is in the stack of work(n).
  bool is_in_stack(int n, std::uintptr_t address) const {
    const auto& of = *all_[static_cast<std::size_t>(n)];
    return address - reinterpret_cast<std::uintptr_t>(of.stack) < of.size;
  }

 private:
  // A stack, and where what runs on it has stopped. The sanitizers are told of every change.
  struct fibre {
    ucontext_t context{};  // where it begins; under sanitizers, where it goes on
    std::jmp_buf place;    // where it goes on
    bool has_begun = false;
    void* stack = nullptr;
    std::size_t size = 0;
    void* fake_stack = nullptr;  // AddressSanitizer's
    void* tsan = nullptr;        // ThreadSanitizer's
    fibres* owner = nullptr;
    int number = -1;
  };

  static void enter();
  static thread_local fibre* begins_;
  void serve(fibre& own);
  void add_one();
  void change(fibre& from, fibre& to);
  void arrived(fibre& here);

  fibre caller_;                             // of run
  std::vector<std::unique_ptr<fibre>> all_;  // they outlive a run: a stack is not made anew for each
  fibre* previous_ = nullptr;                // who ran before the last change
  const std::function<int(int)>* work_ = nullptr;
};

}  // namespace support
