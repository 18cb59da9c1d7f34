// SPDX-License-Identifier: MIT
#pragma once

#include <lgm/host.hpp>

// The host's driver is most of what a file that calls the library compiles. Tests and benchmarks share one copy of it:
// instantiated_host.cpp.

namespace lgm::detail {

#define LGM_TEST_HOST_LOSS(prefix, T, kind)                                                            \
  prefix template void run_loss<T, host_threads, weight_kind::kind>(                                   \
      const host_plan&, const shape&, const mixture<T>&, const loss_options<T>&, const T*,             \
      const loss_targets<T>&, const T*, bool, const T*, const loss_result<T>&, const gradients<T, T>&, \
      const workspace&);
#define LGM_TEST_HOST_DRIVER(prefix, T)                                                                \
  LGM_TEST_HOST_LOSS(prefix, T, labels)                                                                \
  LGM_TEST_HOST_LOSS(prefix, T, soft)                                                                  \
  prefix template void run_logits_backward<T, host_threads>(                                           \
      const host_plan&, const shape&, const mixture<T>&, const loss_options<T>&, const T*,             \
      const loss_targets<T>&, const T*, const gradients<T, T>&, const workspace&);                     \
  prefix template void run_logits<T, host_threads>(const host_plan&, const shape&, const mixture<T>&,  \
                                                   const loss_options<T>&, const T*, label_reader, T*, \
                                                   const workspace&);                                  \
  prefix template void run_score<T, host_threads>(const host_plan&, const shape&, const mixture<T>&,   \
                                                  const T*, const score_result<T>&, const workspace&);

#if !defined(LGM_TEST_INSTANTIATING)
LGM_TEST_HOST_DRIVER(extern, float)
LGM_TEST_HOST_DRIVER(extern, double)
#endif

}  // namespace lgm::detail
