// SPDX-License-Identifier: MIT
#pragma once

// The library's version, and the only macros it defines.

// Semantic versions: while the major version is 0, a new minor version may break the interface (CHANGELOG.md).
#define LGM_VERSION_MAJOR 0
#define LGM_VERSION_MINOR 1
#define LGM_VERSION_PATCH 0
// The version as one number, for #if: 0.1.0 is 100, 1.2.3 is 10203.
#define LGM_VERSION (LGM_VERSION_MAJOR * 10000 + LGM_VERSION_MINOR * 100 + LGM_VERSION_PATCH)

// Sizes and offsets are 64-bit numbers, in memory that holds as much.
static_assert(sizeof(void*) == 8, "lgm is for 64-bit targets");

// Marks a function that runs on the host and, where nvcc compiles it, on the device as well.
#if defined(__CUDACC__)
#define LGM_HD __host__ __device__
#else
#define LGM_HD
#endif

// Host functions are compiled differently with and without OpenMP; an inline namespace keeps the two apart
// where a program has both.
#if defined(_OPENMP)
#define LGM_HOST_NAMESPACE host_openmp
#else
#define LGM_HOST_NAMESPACE host_serial
#endif
