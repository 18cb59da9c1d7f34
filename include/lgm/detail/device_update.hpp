// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/detail/check.hpp>
#include <lgm/detail/device.hpp>
#include <lgm/formula.hpp>
#include <lgm/types.hpp>

// Functions on a device whose numbers each depend on a few others: a task has a block of them.

namespace lgm::detail {

constexpr std::int64_t element_block = 1024;

template <class T>
struct merge_state_kernel {
  std::int64_t size;
  const T* from;
  T* into;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t begin = task * element_block;
    group.for_each(smaller(element_block, size - begin), [&](std::int64_t i) {
      into[begin + i] = merged_log_sum(into[begin + i], from[begin + i]);
    });
  }
};

template <class Device, class T>
status device_merge_row_state(Device& device, const shape& s, const T* from, T* into) {
  const status checked = first_failure(check(s), check_rows(s, from), check_rows(s, into));
  if (checked != status::success) return checked;
  const std::int64_t size = 2 * s.samples;
  device.template launch<256>(256, ceil_divide(size, element_block), merge_state_kernel<T>{size, from, into});
  return device.result();
}

}  // namespace lgm::detail
