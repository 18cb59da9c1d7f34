// SPDX-License-Identifier: MIT
#pragma once

#include <lgm/host.hpp>

// The host's driver is most of what a file that calls the library compiles. Tests and benchmarks share one copy of it:
// instantiated_host.cpp.

namespace lgm::detail {

#define LGM_TEST_HOST_LOSS(prefix, T, kind)       \
  prefix template void run_loss<T, host_threads>( \
      const host_plan&, const loss_call<T, one_kind<target_kind::kind>>&, const workspace&);
#define LGM_TEST_HOST_DRIVER(prefix, T)                                                               \
  LGM_TEST_HOST_LOSS(prefix, T, labels)                                                               \
  LGM_TEST_HOST_LOSS(prefix, T, soft)                                                                 \
  LGM_TEST_HOST_LOSS(prefix, T, grad_logits)                                                          \
  prefix template void run_logits<T, host_threads>(                                                   \
      const host_plan&, const loss_call<T, one_kind<target_kind::labels>>&, T*, const workspace&);    \
  prefix template void run_score<T, host_threads>(const host_plan&,                                   \
                                                  const loss_call<T, one_kind<target_kind::labels>>&, \
                                                  const score_result<T>&, const workspace&);

#if !defined(LGM_TEST_INSTANTIATING)
LGM_TEST_HOST_DRIVER(extern, float)
LGM_TEST_HOST_DRIVER(extern, double)
#endif

}  // namespace lgm::detail
