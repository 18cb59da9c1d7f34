// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <lgm/detail/check.hpp>
#include <lgm/detail/device.hpp>
#include <lgm/detail/device_loss.hpp>
#include <lgm/detail/device_plan.hpp>
#include <lgm/detail/device_score.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/types.hpp>

// The functions that look at samples and classes, on any device: what host.hpp checks and decides before it computes, but
// for what lies in the device's memory (labels, and what is behind alpha_at), which the kernels judge.

namespace lgm::detail {

// features: their format. 0 for a shape or a precision that the calls would refuse.
template <class T>
std::size_t device_loss_bytes(const shape& s, const device_limits& limits, number_format features) {
  if (first_failure(check_shape(s), check_precision<T>(limits.precision, features)) != status::success)
    return 0;
  const device_plan plan = device_plan::make<T>(s, limits, features);
  const std::size_t bytes =
      larger(device_bytes<T>(plan, s), device_bytes<T>(device_plan::make<T>(s, limits, features, true), s));
  // A problem in one tile takes less with fewer samples; one in several may take up to the limit with any number.
  const bool one_tile = plan.rows == s.samples && plan.classes == s.classes;
  return one_tile ? bytes : larger(bytes, limits.tile_bytes);
}

template <class T>
status check_device_workspace(const device_plan& plan, const shape& s, const workspace& w) {
  if (w.data == nullptr) return status::null_pointer;
  return w.bytes < device_bytes<T>(plan, s) ? status::workspace_too_small : status::success;
}

template <class T>
status check_device_targets(const shape& s, const device_targets<T>& targets) {
  if (targets.is_soft()) return check_soft_targets(s, targets.soft);
  return targets.labels.is_null() && s.samples > 0 ? status::null_pointer : status::success;
}

template <class T>
status check_device_call(const device_limits& limits, const shape& s, const mixture<T>& m,
                         const loss_options<T>& o, const number_array<T>& features) {
  return first_failure(check_precision<T>(limits.precision, features.format), check_shape(s),
                       check_mean(s, m.mean), check_options(o), check_features(s, features.data));
}

// forward (gradient null throughout), backward (report false, with read_state) and forward_backward; finish_forward
// (report, with read_state).
template <class Device, class T>
status device_run_loss(Device& device, const device_limits& limits, const shape& s, const mixture<T>& m,
                       const loss_options<T>& o, const number_array<T>& features,
                       const device_targets<T>& targets, bool has_state, const T* read_state, bool report,
                       const T* upstream, const loss_result<T>& result, const device_gradients<T>& gradient,
                       const workspace& w) {
  if (has_state && read_state == nullptr && s.samples > 0) return status::null_pointer;
  if (has_state && report && (result.correct != nullptr || result.row_state != nullptr))
    return status::invalid_option;
  status checked = check_device_call(limits, s, m, o, features);
  if (checked != status::success) return checked;
  const device_plan plan = device_plan::make<T>(s, limits, features.format);
  checked = first_failure(check_device_workspace<T>(plan, s, w), check_device_targets(s, targets));
  if (checked != status::success) return checked;
  device_loss<T, Device>(device, plan, s, m, o, features, targets, w)
      .loss(read_state, report, upstream, result, gradient);
  return device.result();
}

// labels may be null.
template <class Device, class T>
status device_run_logits(Device& device, const device_limits& limits, const shape& s, const mixture<T>& m,
                         const loss_options<T>& o, const number_array<T>& features, const label_view& labels,
                         T* out, const workspace& w) {
  status checked = first_failure(check_device_call(limits, s, m, o, features),
                                 s.classes > 0 ? check_rows(s, out) : status::success);
  if (checked != status::success) return checked;
  const device_plan plan = device_plan::make<T>(s, limits, features.format, true);
  checked = check_device_workspace<T>(plan, s, w);
  if (checked != status::success) return checked;
  device_score<T, Device>(device, plan, s, m, features, w).logits(o, labels, out);
  return device.result();
}

// targets: with a slope, and labels or none.
template <class Device, class T>
status device_run_logits_backward(Device& device, const device_limits& limits, const shape& s,
                                  const mixture<T>& m, const loss_options<T>& o,
                                  const number_array<T>& features, const device_targets<T>& targets,
                                  const T* upstream, const device_gradients<T>& gradient,
                                  const workspace& w) {
  status checked = check_device_call(limits, s, m, o, features);
  if (checked != status::success) return checked;
  const device_plan plan = device_plan::make<T>(s, limits, features.format);
  checked = first_failure(s.classes > 0 ? check_rows(s, targets.slope) : status::success,
                          check_device_workspace<T>(plan, s, w));
  if (checked != status::success) return checked;
  device_loss<T, Device>(device, plan, s, m, o, features, targets, w).logits_gradients(upstream, gradient);
  return device.result();
}

template <class Device, class T>
status device_run_score(Device& device, const device_limits& limits, const shape& s, const mixture<T>& m,
                        const number_array<T>& features, const score_result<T>& result, const workspace& w) {
  status checked = check_device_call(limits, s, m, loss_options<T>{}, features);
  if (checked != status::success) return checked;
  const device_plan plan = device_plan::make<T>(s, limits, features.format, true);
  checked = check_device_workspace<T>(plan, s, w);
  if (checked != status::success) return checked;
  device_score<T, Device>(device, plan, s, m, features, w).score(result);
  return device.result();
}

}  // namespace lgm::detail
