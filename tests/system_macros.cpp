// SPDX-License-Identifier: MIT
// Compiles where names of the library would be macros of a system's headers, which a program may have read before. The
// standard library's and Eigen's headers come first: not all of them would stand min and max.

#include <algorithm>
#include <array>
#include <atomic>
#include <climits>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <numeric>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__CUDACC__)
#include <cublasLt.h>
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cub/cub.cuh>
#else
#include <Eigen/Core>
#if defined(_OPENMP)
#include <omp.h>
#endif
#endif

// <windows.h>
#define near
#define far
#define small char
#define hyper __int64
#define interface struct
#define pascal __stdcall
#define cdecl __cdecl
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define ERROR 0
#define NO_ERROR 0
#define IN
#define OUT
#define OPTIONAL
#define DELETE 0x10000
#define CONST const
#define VOID void
#define BOOL int
#define TRUE 1
#define FALSE 0
#define STRICT 1
#define IGNORE 0
#define DIFFERENCE 11
#define DOMAIN 1
#define OVERFLOW 3
#define UNDERFLOW 4
#define GetObject GetObjectA

// <complex.h>, <ctype.h>, <sys/sysmacros.h>, <termios.h>, <curses.h>, and those of the compiler
#define I _Complex_I
#define _C 0x20
#define _L 0x02
#define _N 0x04
#define _U 0x01
#define major(dev) gnu_dev_major(dev)
#define minor(dev) gnu_dev_minor(dev)
#define B0 0
#define B50 1
#define clear() wclear(stdscr)
#define move(y, x) wmove(stdscr, y, x)
#define unix 1
#define linux 1

// <AssertMacros.h>, <X11/Xlib.h>, Qt
#define check(assertion) (assertion)
#define verify(assertion) (assertion)
#define require(assertion, label) \
  if (!(assertion)) goto label
#define Status int
#define Bool int
#define True 1
#define False 0
#define None 0L
#define Success 0
#define Always 2
#define Complex 0
#define signals public
#define slots
#define emit
#define foreach(variable, container) for (variable : container)

#if defined(__CUDACC__)
#include <lgm/lgm.cuh>
#else
#include <lgm/cblas.hpp>
#include <lgm/device.hpp>
#include <lgm/dlpack.hpp>
#include <lgm/lgm.hpp>
#endif
