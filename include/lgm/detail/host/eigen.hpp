// SPDX-License-Identifier: MIT
#pragma once

// Eigen, for every header that needs it. GCC 12 takes the undefined registers inside its own AVX-512 intrinsics for
// uninitialised variables (GCC bug 105593), and says so wherever Eigen uses one, in system headers too. It keeps quiet about
// what was read under these pragmas, wherever that is compiled. Who includes Eigen first reads it without them.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <Eigen/Core>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
