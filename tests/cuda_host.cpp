// SPDX-License-Identifier: MIT
#include <lgm/lgm.hpp>
#include <vector>

#include "support/cuda_calls.hpp"

// The host's side of cuda_test.

lgm::status run_on_host(const lgm::shape& s, const call_arrays<double>& a) {
  const lgm::host_context context;
  std::vector<char> memory(lgm::workspace_size<double>(context, s));
  return run_calls(context, s, a, {memory.data(), memory.size()});
}
