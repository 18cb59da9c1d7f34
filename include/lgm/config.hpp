// SPDX-License-Identifier: MIT
#pragma once

// The library's version, and the only macros it defines.

#define LGM_VERSION_MAJOR 0
#define LGM_VERSION_MINOR 1
#define LGM_VERSION_PATCH 0

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
