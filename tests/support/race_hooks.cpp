// SPDX-License-Identifier: MIT
#include <cstddef>
#include <cstdint>

#include "support/cuda_fibres.hpp"

// What the compiler calls in a file that it compiles with -fsanitize=thread, in place of ThreadSanitizer's own: loads and
// stores are shown to the block of threads that runs, with the place in the code. This file is compiled without.

namespace {

void touch(const void* at, std::size_t bytes, bool store, const void* where) {
  support::cuda_fibres::touch(reinterpret_cast<std::uintptr_t>(at), bytes, store,
                              reinterpret_cast<std::uintptr_t>(where));
}

}  // namespace

// NOLINTBEGIN(bugprone-reserved-identifier): the compiler's names.
extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_read(void**) {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_read_range(void* at, std::size_t bytes) { touch(at, bytes, false, __builtin_return_address(0)); }
void __tsan_write_range(void* at, std::size_t bytes) { touch(at, bytes, true, __builtin_return_address(0)); }

#define LGM_OF_SIZE(bytes)                                                                              \
  void __tsan_read##bytes(void* at) { touch(at, bytes, false, __builtin_return_address(0)); }           \
  void __tsan_write##bytes(void* at) { touch(at, bytes, true, __builtin_return_address(0)); }           \
  void __tsan_unaligned_read##bytes(void* at) { touch(at, bytes, false, __builtin_return_address(0)); } \
  void __tsan_unaligned_write##bytes(void* at) { touch(at, bytes, true, __builtin_return_address(0)); }
LGM_OF_SIZE(1)
LGM_OF_SIZE(2)
LGM_OF_SIZE(4)
LGM_OF_SIZE(8)
LGM_OF_SIZE(16)
#undef LGM_OF_SIZE
}
// NOLINTEND(bugprone-reserved-identifier)
