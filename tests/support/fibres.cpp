// SPDX-License-Identifier: MIT
#include "support/fibres.hpp"

#include <sys/mman.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <new>
#include <utility>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__
#endif
#if __has_feature(thread_sanitizer) && !defined(__SANITIZE_THREAD__)
#define __SANITIZE_THREAD__
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

namespace support {

namespace {

// Pages that nobody touches take no memory. The lowest is never touched: a stack that is too small ends the program.
constexpr std::size_t stack_bytes = std::size_t(1) << 20, guard_bytes = std::size_t(1) << 12;

}  // namespace

fibres::~fibres() {
  for (const auto& each : all_) {
#ifdef __SANITIZE_THREAD__
    __tsan_destroy_fiber(each->tsan);
#endif
    munmap(static_cast<char*>(each->stack) - guard_bytes, stack_bytes + guard_bytes);
  }
}

void fibres::add_one() {
  auto added = std::make_unique<fibre>();
  void* const pages = mmap(nullptr, stack_bytes + guard_bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED || mprotect(pages, guard_bytes, PROT_NONE) != 0) throw std::bad_alloc();
  added->stack = static_cast<char*>(pages) + guard_bytes;
  added->size = stack_bytes;
  added->owner = this;
  added->number = static_cast<int>(all_.size());
#ifdef __SANITIZE_THREAD__
  added->tsan = __tsan_create_fiber(0);
#endif
  getcontext(&added->context);
  added->context.uc_stack.ss_sp = added->stack;
  added->context.uc_stack.ss_size = added->size;
  added->context.uc_link = nullptr;
  makecontext(&added->context, &fibres::enter, 0);
  // AddressSanitizer would forget all it knows of the stack, at each change.
  added->context.uc_stack = {};
  all_.push_back(std::move(added));
}

// makecontext passes no pointer.
thread_local fibres::fibre* fibres::begins_ = nullptr;
void fibres::enter() { begins_->owner->serve(*begins_); }

void fibres::serve(fibre& own) {
  arrived(own);
  for (;;) {
    const int next = (*work_)(own.number);
    change(own, next < 0 ? caller_ : *all_[static_cast<std::size_t>(next)]);
  }
}

void fibres::run(int count, int first, const std::function<int(int)>& work) {
  if (count <= 0) return;
  while (static_cast<int>(all_.size()) < count) add_one();
#ifdef __SANITIZE_THREAD__
  caller_.tsan = __tsan_get_current_fiber();
#endif
  caller_.has_begun = true;
  work_ = &work;
  change(caller_, *all_[static_cast<std::size_t>(first)]);
}

void fibres::go_on(int from, int to) {
  if (from != to) change(*all_[static_cast<std::size_t>(from)], *all_[static_cast<std::size_t>(to)]);
}

void fibres::change(fibre& from, fibre& to) {
  previous_ = &from;
  begins_ = &to;
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.size);
#endif
#ifdef __SANITIZE_THREAD__
  __tsan_switch_to_fiber(to.tsan, 0);
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  swapcontext(&from.context, &to.context);
#else
  // swapcontext would ask the system for the signal mask each time. longjmp alone goes where a stack has been left.
  if (_setjmp(from.place) == 0) {
    if (to.has_begun) _longjmp(to.place, 1);
    to.has_begun = true;
    setcontext(&to.context);
  }
#endif
  arrived(from);
}

// What a fibre does first when it begins or goes on.
void fibres::arrived([[maybe_unused]] fibre& here) {
#ifdef __SANITIZE_ADDRESS__
  // Of the caller's stack, only AddressSanitizer knows where it is.
  const void* bottom = nullptr;
  std::size_t size = 0;
  __sanitizer_finish_switch_fiber(here.fake_stack, &bottom, &size);
  if (previous_ == &caller_) {
    caller_.stack = const_cast<void*>(bottom);
    caller_.size = size;
  }
#endif
}

}  // namespace support
