// SPDX-License-Identifier: MIT
#pragma once

#include <lgm/host.hpp>

// The host's driver is most of what a file that calls the library compiles. Tests and benchmarks share one copy of it:
// instantiated_host.cpp, instantiated_moments.cpp.

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

namespace lgm {

// Of features of T, with moments of A.
#define LGM_TEST_HOST_MOMENTS(prefix, T, A)                                                            \
  prefix template status accumulate_moments(const host_context&, const shape&, const loss_options<T>&, \
                                            const T*, const std::int64_t*, const class_moments<A>&,    \
                                            workspace);                                                \
  prefix template status estimate(const host_context&, const shape&, const class_moments<A>&,          \
                                  const estimate_options<T>&, const parameters<T>&);
#define LGM_TEST_HOST_WHITENING(prefix, T, A)                                                           \
  prefix template status estimate_whitening(const host_context&, const shape&, const class_moments<A>&, \
                                            const whitening_options<T>&, const whitening<T>&, workspace);
#define LGM_TEST_HOST_EACH(prefix, T)                                                                 \
  prefix template status merge_moments(const host_context&, const shape&, const class_moments<T>&,    \
                                       const class_moments<T>&);                                      \
  prefix template status whiten(const host_context&, const shape&, const whitening<T>&, const T*, T*, \
                                workspace);
#define LGM_TEST_HOST_ALL_MOMENTS(prefix)         \
  LGM_TEST_HOST_MOMENTS(prefix, float, float)     \
  LGM_TEST_HOST_MOMENTS(prefix, float, double)    \
  LGM_TEST_HOST_MOMENTS(prefix, double, float)    \
  LGM_TEST_HOST_MOMENTS(prefix, double, double)   \
  LGM_TEST_HOST_WHITENING(prefix, float, float)   \
  LGM_TEST_HOST_WHITENING(prefix, float, double)  \
  LGM_TEST_HOST_WHITENING(prefix, double, double) \
  LGM_TEST_HOST_EACH(prefix, float)               \
  LGM_TEST_HOST_EACH(prefix, double)

#if !defined(LGM_TEST_INSTANTIATING)
LGM_TEST_HOST_ALL_MOMENTS(extern)
#endif

}  // namespace lgm
