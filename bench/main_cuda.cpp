// SPDX-License-Identifier: MIT
#include <benchmark/benchmark.h>
#include <cuda_runtime_api.h>

#include <cstdio>
#include <string>
#include <vector>

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
  // Before the caller's options, so that theirs count.
  std::string min_time = "--benchmark_min_time=0.1";
  std::vector<char*> arguments(argv, argv + argc);
  arguments.insert(arguments.begin() + 1, min_time.data());
  int count = static_cast<int>(arguments.size());
  arguments.push_back(nullptr);
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;
  benchmark::AddCustomContext("device", device.name);
  // What a training step costs and what else it could cost, unless something is asked for.
  const std::string asked = benchmark::GetBenchmarkFilter();
  const std::size_t ran = benchmark::RunSpecifiedBenchmarks(
      asked.empty() ? "^(forward_backward|products/plain|naive)/?[a-z]*/float/" : asked);
  benchmark::Shutdown();
  return ran == 0 || bench::failed() ? 1 : 0;
}
