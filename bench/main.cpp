// SPDX-License-Identifier: MIT
#include <string>
#include <utility>
#include <vector>

#include "support/run.hpp"
#include "support/subject.hpp"

int main(int argc, char** argv) {
  std::vector<std::pair<std::string, std::string>> context = {
      {"SIMD lanes of float", std::to_string(lgm::detail::packet<float>::size)}};
#if defined(LGM_BENCH_CBLAS)
  context.emplace_back("host-blas", LGM_BENCH_CBLAS);
#endif
  // What a training step costs and what else it could cost, in float and on all threads.
  const std::string threads = bench::host::all().back().threads();
  return bench::run(argc, argv,
                    "^(forward_backward|products|softmax|naive)/[a-z]+/float/.*/threads:" + threads + '/',
                    context);
}
