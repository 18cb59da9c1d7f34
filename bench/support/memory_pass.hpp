// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <lgm/detail/host/packet_group.hpp>
#include <lgm/detail/host/parallel.hpp>
#include <lgm/host.hpp>

#include "support/array.hpp"

namespace bench {

// The floor of what computes little: an array that is read once, the first part of it written in place too, as much
// as a function reads and updates.
template <class T>
class memory_pass {
 public:
  // In elements; written <= read.
  memory_pass(const lgm::host_context& context, std::int64_t read, std::int64_t written)
      : context_(context), values_(read), written_(written), sums_(tasks()) {
    std::fill(values_.data(), values_.data() + read, T(1));
  }

  void run() {
    lgm::detail::parallel_for<lgm::detail::host_threads>(
        context_.parallel_for, values_.size() < 4 * task_size ? 1 : lgm::detail::host::threads(context_),
        tasks(), [&](std::int64_t task, int) {
          using vector = lgm::detail::packet<T>;
          const lgm::detail::packet_group<T> group;
          const std::int64_t begin = task * task_size, end = std::min(values_.size(), begin + task_size);
          const std::int64_t updated = std::clamp(written_, begin, end);
          T* const update = values_.data() + begin;
          const T* const rest = values_.data() + updated;
          const vector step(step_);
          group.for_each(updated - begin, [&](auto i) { store(update, i, load(update, i) + step); });
          sums_[task] = group.reduce(
              end - updated, T(0), [&](auto i) { return load(rest, i); }, lgm::plus{});
        });
  }

 private:
  static constexpr std::int64_t task_size = std::int64_t(1) << 15;
  std::int64_t tasks() const { return (values_.size() + task_size - 1) / task_size; }

  lgm::host_context context_;
  array<T> values_;
  std::int64_t written_;
  array<T> sums_;
  T step_ = 0;
};

}  // namespace bench
