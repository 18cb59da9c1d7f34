// SPDX-License-Identifier: MIT
#include <cuda_runtime_api.h>

#include <cstdio>

#include "support/run.hpp"
#include "support/subject.hpp"

// lgm_bench_cuda: the benchmarks for a CUDA device. Without one: one line, and 77, which the test driver takes for skipped.

int main(int argc, char** argv) {
  constexpr int skipped = 77;
  int devices = 0;
  cudaDeviceProp device;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0 ||
      cudaGetDeviceProperties(&device, 0) != cudaSuccess) {
    std::printf("skipped: no CUDA device\n");
    return skipped;
  }
  // What a training step costs and what else it could cost.
  return bench::run(argc, argv, "^(forward_backward|products/plain|naive)/?[a-z]*/float/",
                    {{"device", device.name}});
}
