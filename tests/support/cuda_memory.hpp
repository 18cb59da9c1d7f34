// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>

// Memory for suites that give the library whatever pointers they have: of the heap and of the stack.

namespace support {

// Runs f on a thread whose stack, and all of whose operator new, is memory that host and device both see at the same
// address: pages of the host that the device reads and writes in place, slowly, and coherently once a stream is waited for.
// False, and nothing is run, where there is not so much. Programs that link cuda_memory.cpp have its operator new.
bool run_in_shared_memory(std::size_t bytes, void (*f)(void*), void* argument);

}  // namespace support
