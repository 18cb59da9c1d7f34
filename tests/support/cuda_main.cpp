// SPDX-License-Identifier: MIT

// The main of suites that are compiled for CUDA: doctest's, in memory that the device sees; skipped without a device.

#define DOCTEST_CONFIG_IMPLEMENT
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdio>

#include "support/cuda_memory.hpp"

namespace {

struct run {
  int argc;
  char** argv;
  int answer = 1;
};

void run_doctest(void* pointer) {
  auto& r = *static_cast<run*>(pointer);
  r.answer = doctest::Context(r.argc, r.argv).run();
}

}  // namespace

int main(int argc, char** argv) {
  constexpr int skipped = 77;  // what the test driver takes for "not run"
  constexpr std::size_t bytes = std::size_t(3) << 30;
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return skipped;
  }
  run r{argc, argv};
  if (!support::run_in_shared_memory(bytes, run_doctest, &r))
    std::printf("no memory that host and device share\n");
  return r.answer;
}
