// SPDX-License-Identifier: MIT
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "support/subject.hpp"

namespace {

// Without --benchmark_filter: what a training step costs and what else it could cost, in float and on all threads.
std::string default_filter() {
  return "^(forward_backward|products|softmax|naive)/[a-z]+/float/.*/threads:" +
         bench::host::all().back().threads() + '/';
}

}  // namespace

int main(int argc, char** argv) {
  // Before the caller's options, so that theirs count.
  std::string min_time = "--benchmark_min_time=0.1";
  std::vector<char*> arguments(argv, argv + argc);
  arguments.insert(arguments.begin() + 1, min_time.data());
  int count = static_cast<int>(arguments.size());
  arguments.push_back(nullptr);
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;

#if defined(LGM_BENCH_CBLAS)
  benchmark::AddCustomContext("host-blas", LGM_BENCH_CBLAS);
#endif
  benchmark::AddCustomContext("SIMD lanes of float", std::to_string(lgm::detail::packet<float>::size));
  const std::string asked = benchmark::GetBenchmarkFilter();
  const std::size_t ran = benchmark::RunSpecifiedBenchmarks(asked.empty() ? default_filter() : asked);
  benchmark::Shutdown();
  return ran == 0 || bench::failed() ? 1 : 0;
}
