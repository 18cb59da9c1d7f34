// SPDX-License-Identifier: MIT
#pragma once

#include <benchmark/benchmark.h>

#include <string>
#include <utility>
#include <vector>

#include "support/subject.hpp"

namespace bench {

// Runs what the command line asks for, without --benchmark_filter what default_filter names. context: what a report says of
// the machine besides. Answers the program's exit code.
inline int run(int argc, char** argv, const std::string& default_filter,
               const std::vector<std::pair<std::string, std::string>>& context) {
  // Before the caller's options, so that theirs count.
  std::string min_time = "--benchmark_min_time=0.1";
  std::vector<char*> arguments(argv, argv + argc);
  arguments.insert(arguments.begin() + 1, min_time.data());
  int count = static_cast<int>(arguments.size());
  arguments.push_back(nullptr);
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;
  for (const auto& [name, value] : context) benchmark::AddCustomContext(name, value);
  const std::string asked = benchmark::GetBenchmarkFilter();
  const std::size_t ran = benchmark::RunSpecifiedBenchmarks(asked.empty() ? default_filter : asked);
  benchmark::Shutdown();
  return ran == 0 || failed() ? 1 : 0;
}

}  // namespace bench
