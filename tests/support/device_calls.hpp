// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <lgm/detail/device_call.hpp>

#include "support/emulated_device.hpp"
#include "support/problem.hpp"

// The calls of problem.hpp on an emulated device, in a workspace of exactly the size that is asked for.

namespace support {

// A device and what its workspaces are kept within.
struct device_context {
  emulated_device device;
  std::size_t tile_bytes = std::size_t(64) << 20;
};

inline device_context device_context_of(task_groups groups, std::size_t tile_bytes = std::size_t(64) << 20,
                                        bool backwards = false) {
  device_context c;
  c.device.groups = groups;
  c.device.backwards = backwards;
  c.tile_bytes = tile_bytes;
  return c;
}

template <class T, class Call>
lgm::status run_on(const device_context& c, const lgm::shape& shape, Call call) {
  scratch memory(lgm::detail::device_loss_bytes<T>(shape, c.tile_bytes), 0);
  const lgm::status answer = call(memory.get());
  CHECK_MESSAGE(memory.intact(), "written outside the workspace");
  return answer;
}

template <class T>
lgm::detail::device_targets<T> device_targets_of(const problem<T>& p) {
  lgm::detail::device_targets<T> targets;
  targets.is_soft = p.soft;
  if (p.soft)
    targets.soft = p.soft_targets();
  else
    targets.labels = lgm::detail::label_view(p.labels.data());
  return targets;
}

template <class T>
lgm::status forward_backward(device_context& c, const problem<T>& p, const lgm::loss_result<T>& result,
                             const lgm::gradients<T, T>& gradient) {
  return run_on<T>(c, p.shape, [&](lgm::workspace w) {
    return lgm::detail::device_run_loss<emulated_device, T>(
        c.device, c.tile_bytes, p.shape, p.mixture(), p.call_options(), p.features.data(),
        device_targets_of(p), false, nullptr, true, p.upstream_data(), result, gradient, w);
  });
}
template <class T>
lgm::status forward_backward(device_context& c, const problem<T>& p, outputs<T>& out) {
  return forward_backward(c, p, out.result(), out.gradients());
}

// From the row state of all classes: gradients (report false), or losses.
template <class T>
lgm::status from_state(device_context& c, const problem<T>& p, const T* row_state, bool report,
                       const lgm::loss_result<T>& result, const lgm::gradients<T, T>& gradient) {
  return run_on<T>(c, p.shape, [&](lgm::workspace w) {
    return lgm::detail::device_run_loss<emulated_device, T>(
        c.device, c.tile_bytes, p.shape, p.mixture(), p.call_options(), p.features.data(),
        device_targets_of(p), true, row_state, report, p.upstream_data(), result, gradient, w);
  });
}

template <class T>
lgm::status logits(device_context& c, const problem<T>& p, bool margin, T* out) {
  return run_on<T>(c, p.shape, [&](lgm::workspace w) {
    const lgm::detail::label_view labels = margin ? device_targets_of(p).labels : lgm::detail::label_view();
    return lgm::detail::device_run_logits<emulated_device, T>(
        c.device, c.tile_bytes, p.shape, p.mixture(), p.call_options(), p.features.data(), labels, out, w);
  });
}

template <class T>
lgm::status logits_backward(device_context& c, const problem<T>& p, bool labelled,
                            const lgm::gradients<T, T>& gradient) {
  return run_on<T>(c, p.shape, [&](lgm::workspace w) {
    lgm::detail::device_targets<T> targets;
    if (labelled) targets.labels = lgm::detail::label_view(p.labels.data());
    targets.slope = p.grad_logits.data();
    targets.is_given = true;
    return lgm::detail::device_run_logits_backward<emulated_device, T>(
        c.device, c.tile_bytes, p.shape, p.mixture(), p.call_options(), p.features.data(), targets,
        p.upstream_data(), gradient, w);
  });
}

template <class T>
lgm::status score(device_context& c, const problem<T>& p, const lgm::score_result<T>& result) {
  return run_on<T>(c, p.shape, [&](lgm::workspace w) {
    return lgm::detail::device_run_score<emulated_device, T>(c.device, c.tile_bytes, p.shape, p.mixture(),
                                                             p.features.data(), result, w);
  });
}

}  // namespace support
