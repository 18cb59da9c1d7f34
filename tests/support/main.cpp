// SPDX-License-Identifier: MIT

// The one main of all tests: doctest's.

#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
