// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/detail/host_loss.hpp>
#include <lgm/detail/host_score.hpp>
#include <lgm/types.hpp>

// The ways into the host driver, and all that a program has to compile of it: a large one declares them
// `extern template` in its files and instantiates them in one (tests/support/instantiated.hpp does).

namespace lgm::detail {

template <class T, class Threads, weight_kind Kind>
void run_loss(const host_plan& plan, const shape& s, const mixture<T>& m, const loss_options<T>& o,
              const T* features, const loss_targets<T>& targets, const T* read_state, bool report,
              const T* upstream, const loss_result<T>& result, const gradients<T, T>& gradient,
              const workspace& w) {
  host_loss<T, Threads, Kind>(plan, s, m, o, features, targets, w)
      .loss(read_state, report, upstream, result, gradient);
}

template <class T, class Threads>
void run_logits_backward(const host_plan& plan, const shape& s, const mixture<T>& m, const loss_options<T>& o,
                         const T* features, const loss_targets<T>& targets, const T* upstream,
                         const gradients<T, T>& gradient, const workspace& w) {
  host_loss<T, Threads, weight_kind::given>(plan, s, m, o, features, targets, w)
      .logits_gradients(upstream, gradient);
}

template <class T, class Threads>
void run_logits(const host_plan& plan, const shape& s, const mixture<T>& m, const loss_options<T>& o,
                const T* features, label_reader labels, T* out, const workspace& w) {
  host_score<T, Threads>(plan, s, m, features, w).logits(o, labels, out);
}

template <class T, class Threads>
void run_score(const host_plan& plan, const shape& s, const mixture<T>& m, const T* features,
               const score_result<T>& result, const workspace& w) {
  host_score<T, Threads>(plan, s, m, features, w).score(result);
}

}  // namespace lgm::detail
