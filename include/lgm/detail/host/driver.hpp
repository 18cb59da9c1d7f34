// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/detail/host/loss.hpp>
#include <lgm/detail/host/score.hpp>
#include <lgm/detail/loss_call.hpp>
#include <lgm/types.hpp>

// The ways into the host driver, and all that a program has to compile of it: a large one declares them
// `extern template` in its files and instantiates them in one (tests/support/instantiated.hpp does).

namespace lgm::detail {

// Every loss function: call.requested tells which.
template <class T, class Threads, target_kind Kind>
void run_loss(const host_plan& plan, const loss_call<T, one_kind<Kind>>& call, const workspace& w) {
  host_loss<T, Threads, Kind>(plan, call, w).run();
}

template <class T, class Threads>
void run_logits(const host_plan& plan, const loss_call<T, one_kind<target_kind::labels>>& call, T* out,
                const workspace& w) {
  host_score<T, Threads>(plan, call, w).logits(out);
}

template <class T, class Threads>
void run_score(const host_plan& plan, const loss_call<T, one_kind<target_kind::labels>>& call,
               const score_result<T>& result, const workspace& w) {
  host_score<T, Threads>(plan, call, w).score(result);
}

}  // namespace lgm::detail
