// SPDX-License-Identifier: MIT
#include "support/cuda_memory.hpp"

#include <cuda_runtime_api.h>
#include <pthread.h>

#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>

namespace {

// Blocks of powers of two, each behind a line that holds its size class; freed ones are used again.
class shared_heap {
 public:
  static constexpr std::size_t line = 64;  // what blocks are aligned to

  // Nothing is handed out before, and what was handed out stays valid: nothing takes the memory back.
  bool open(std::size_t bytes) {
    void* memory = nullptr;
    if (cudaHostAlloc(&memory, bytes, cudaHostAllocDefault) != cudaSuccess) return false;
    begin_ = next_ = static_cast<char*>(memory);
    end_ = begin_ + bytes;
    return true;
  }
  bool owns(const void* pointer) const {
    const auto address = reinterpret_cast<std::uintptr_t>(pointer);
    return begin_ != nullptr && address >= reinterpret_cast<std::uintptr_t>(begin_) &&
           address < reinterpret_cast<std::uintptr_t>(end_);
  }
  // Null where there is no more.
  void* take(std::size_t bytes) {
    if (begin_ == nullptr) return nullptr;
    const std::lock_guard<std::mutex> lock(mutex_);
    unsigned size_class = 6;
    while ((std::size_t(1) << size_class) < bytes) ++size_class;
    if (void* const block = free_[size_class]) {
      free_[size_class] = *static_cast<void**>(block);
      return block;
    }
    const std::size_t needed = line + (std::size_t(1) << size_class);
    if (static_cast<std::size_t>(end_ - next_) < needed) return nullptr;
    char* const block = next_ + line;
    *reinterpret_cast<unsigned*>(next_) = size_class;
    next_ += needed;
    return block;
  }
  void give_back(void* block) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const unsigned size_class = *reinterpret_cast<unsigned*>(static_cast<char*>(block) - line);
    *static_cast<void**>(block) = free_[size_class];
    free_[size_class] = block;
  }

 private:
  std::mutex mutex_;
  char *begin_ = nullptr, *next_ = nullptr, *end_ = nullptr;
  void* free_[64] = {};
};

shared_heap heap;

// Before the shared heap is open, and on the threads of others, memory is the host's.
thread_local bool shares = false;

void* allocate(std::size_t bytes) {
  void* block = shares ? heap.take(bytes) : std::malloc(bytes == 0 ? 1 : bytes);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}
void release(void* block) noexcept {
  if (block == nullptr) return;
  if (heap.owns(block))
    heap.give_back(block);
  else
    std::free(block);
}

struct work {
  void (*f)(void*);
  void* argument;
};
void* do_work(void* pointer) {
  const auto* const w = static_cast<work*>(pointer);
  shares = true;
  w->f(w->argument);
  shares = false;
  return nullptr;
}

}  // namespace

namespace support {

bool run_in_shared_memory(std::size_t bytes, void (*f)(void*), void* argument) {
  constexpr std::size_t stack_bytes = std::size_t(64) << 20;
  if (!heap.open(bytes)) return false;
  void* const stack = heap.take(stack_bytes);
  pthread_attr_t attributes;
  pthread_t thread;
  work w{f, argument};
  return stack != nullptr && pthread_attr_init(&attributes) == 0 &&
         pthread_attr_setstack(&attributes, stack, stack_bytes) == 0 &&
         pthread_create(&thread, &attributes, do_work, &w) == 0 && pthread_join(thread, nullptr) == 0;
}

}  // namespace support

void* operator new(std::size_t bytes) { return allocate(bytes); }
void* operator new[](std::size_t bytes) { return allocate(bytes); }
void operator delete(void* block) noexcept { release(block); }
void operator delete[](void* block) noexcept { release(block); }
void operator delete(void* block, std::size_t) noexcept { release(block); }
void operator delete[](void* block, std::size_t) noexcept { release(block); }
