// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <lgm/detail/check.hpp>
#include <lgm/detail/device/launch.hpp>
#include <lgm/detail/device/loss.hpp>
#include <lgm/detail/device/plan.hpp>
#include <lgm/detail/device/score.hpp>
#include <lgm/detail/loss_call.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/types.hpp>

// The functions of samples and classes, on any device: what is checked and decided before anything is enqueued. Kernels check
// what lies in the device's memory, which are the labels and alpha_at.

namespace lgm::detail {

// features: their format. 0 for a shape or a precision that the calls would refuse.
template <class T>
std::size_t device_loss_bytes(const shape& s, const device_limits& limits, number_format features) {
  if (first_failure(check_shape(s), check_precision<T>(limits.precision, features)) != status::success)
    return 0;
  // Enough for fewer samples as well: their tiles are no higher. But where classes are cut, they may be wider, up to the limit.
  const auto bytes = [&](bool forward_only) {
    device_plan plan = device_plan::make<T>(s, limits, features, forward_only);
    const bool cut = plan.classes < s.classes;
    plan.set_tile<T>(plan.most_tile_rows, plan.classes, s);
    return larger(device_bytes<T>(plan, s), cut ? limits.tile_bytes : std::size_t(0));
  };
  return larger(bytes(false), bytes(true));
}

template <class T>
status check_device_workspace(const device_plan& plan, const shape& s, const workspace& w) {
  if (w.data == nullptr) return status::null_pointer;
  return w.bytes < device_bytes<T>(plan, s) ? status::workspace_too_small : status::success;
}

template <class T>
status check_device_call(const device_limits& limits, const loss_call<T>& call) {
  return first_failure(check_precision<T>(limits.precision, call.features.format), check_shape(call.shape),
                       check_mean(call.shape, call.mixture.mean), check_options(call.options),
                       check_features(call.shape, call.features.data));
}
template <class T>
status check_device_targets(const loss_call<T>& call) {
  const shape& s = call.shape;
  if (call.is_labels())
    return call.labels.is_null() && s.samples > 0 ? status::null_pointer : status::success;
  return check_given_targets(call);
}

// Every loss function: call.requested tells which.
template <class Device, class T>
status device_run_loss(Device& device, const device_limits& limits, const loss_call<T>& call,
                       const workspace& w) {
  status checked = first_failure(check_state(call), check_device_call(limits, call));
  if (checked != status::success) return checked;
  const device_plan plan = device_plan::make<T>(call.shape, limits, call.features.format);
  checked = first_failure(check_device_targets(call), check_device_workspace<T>(plan, call.shape, w));
  if (checked != status::success) return checked;
  device_loss<T, Device>(device, plan, call, w).run();
  return device.result();
}

// call: labels or none.
template <class Device, class T>
status device_run_logits(Device& device, const device_limits& limits, const loss_call<T>& call, T* out,
                         const workspace& w) {
  const shape& s = call.shape;
  status checked =
      first_failure(check_device_call(limits, call), s.classes > 0 ? check_rows(s, out) : status::success);
  if (checked != status::success) return checked;
  const device_plan plan = device_plan::make<T>(s, limits, call.features.format, true);
  checked = check_device_workspace<T>(plan, s, w);
  if (checked != status::success) return checked;
  device_score<T, Device>(device, plan, call, w).logits(out);
  return device.result();
}

// call: shape, mixture and features.
template <class Device, class T>
status device_run_score(Device& device, const device_limits& limits, const loss_call<T>& call,
                        const score_result<T>& result, const workspace& w) {
  status checked = check_device_call(limits, call);
  if (checked != status::success) return checked;
  const device_plan plan = device_plan::make<T>(call.shape, limits, call.features.format, true);
  checked = check_device_workspace<T>(plan, call.shape, w);
  if (checked != status::success) return checked;
  device_score<T, Device>(device, plan, call, w).score(result);
  return device.result();
}

}  // namespace lgm::detail
