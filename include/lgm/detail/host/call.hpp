// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/detail/check.hpp>
#include <lgm/detail/host/parallel.hpp>
#include <lgm/detail/host/plan.hpp>
#include <lgm/detail/label_view.hpp>
#include <lgm/host_context.hpp>
#include <lgm/types.hpp>
#include <type_traits>

// What every host function checks and decides before it computes.

// What follows depends on how this translation unit is compiled, and so does its name.
namespace lgm::detail {
inline namespace LGM_HOST_NAMESPACE {
namespace host {

template <class T>
constexpr bool is_supported = std::is_same<T, float>::value || std::is_same<T, double>::value;

inline int threads(const host_context& ctx) {
  return ctx.threads > 0 ? ctx.threads : detail::host_threads::available();
}

template <class T>
detail::host_plan plan(const host_context& ctx, const shape& s, bool forward_only = false) {
  detail::host_plan p = detail::host_plan::make<T>(s, threads(ctx), ctx.tile_bytes, forward_only);
  p.parallel = ctx.parallel_for;
  p.gemm = ctx.gemm;
  p.batch_invariant = ctx.batch_invariant;
  return p;
}

inline status check_shape(const host_context& ctx, const shape& s) {
  return detail::first_failure(ctx.threads < 0 ? status::negative_size : status::success,
                               detail::check_shape(s));
}

template <class T>
status check_workspace(const detail::host_plan& plan, const shape& s, const workspace& w) {
  if (w.data == nullptr) return status::null_pointer;
  return w.bytes < detail::host_bytes<T>(plan, s) ? status::workspace_too_small : status::success;
}

template <class T>
status check_labels(const shape& s, const loss_options<T>& o, const detail::label_view& labels) {
  if (labels.is_null()) return s.samples > 0 ? status::null_pointer : status::success;
  for (std::int64_t i = 0; i < s.samples; ++i)
    if (detail::is_out_of_range(s, o.ignore_label, labels[i])) return status::label_out_of_range;
  return status::success;
}

}  // namespace host
}  // namespace LGM_HOST_NAMESPACE
}  // namespace lgm::detail
