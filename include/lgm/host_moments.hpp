// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/host_call.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/host_context.hpp>
#include <lgm/types.hpp>

// Means and variances estimated from the features themselves, on the host: moments of each class, gathered over
// batches and merged across threads, shards and ranks, and the parameters that follow from them. What
// lgm/host.hpp says of all functions holds here too.

namespace lgm {

// What follows depends on how this translation unit is compiled, and so does its name.
inline namespace LGM_HOST_NAMESPACE {

// Adds a batch to the moments of its classes.
template <class T, class L, class A>
status accumulate_moments(const host_context&, const shape&, const loss_options<detail::named_t<T>>&,
                          const T*, const L*, const class_moments<A>&, workspace) {
  return status::not_supported;
}

// Adds one set of moments to another, exactly as if their batches had been one.
template <class A>
status merge_moments(const host_context&, const shape&, const class_moments<A>&, const class_moments<A>&) {
  return status::not_supported;
}

// Parameters from moments; classes never seen keep theirs.
template <class A, class T>
status estimate(const host_context&, const shape&, const class_moments<A>&, const estimate_options<T>&,
                const parameters<T>&) {
  return status::not_supported;
}

}  // namespace LGM_HOST_NAMESPACE
}  // namespace lgm
