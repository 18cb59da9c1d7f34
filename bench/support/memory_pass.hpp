// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <lgm/detail/packet_group.hpp>
#include <lgm/detail/parallel.hpp>
#include <lgm/host.hpp>

#include "support/array.hpp"

namespace bench {

// The floor of what computes little: memory that is read and written once, as much as a function has to.
template <class T>
class memory_pass {
 public:
  // In elements; written are at most as many as are read, and are copies of those.
  memory_pass(const lgm::host_context& context, std::int64_t read, std::int64_t written)
      : context_(context), source_(read), target_(written), sums_(tasks()) {
    std::fill(source_.data(), source_.data() + read, T(1));
  }

  std::int64_t bytes() const { return (source_.size() + target_.size()) * std::int64_t(sizeof(T)); }

  void run() {
    lgm::detail::parallel_for<lgm::detail::host_threads>(
        context_.parallel_for, source_.size() < 4 * task_size ? 1 : lgm::host::threads(context_), tasks(),
        [&](std::int64_t task, int) {
          const std::int64_t begin = task * task_size, end = std::min(source_.size(), begin + task_size);
          const std::int64_t copied = std::clamp(target_.size(), begin, end);
          const T* const from = source_.data() + begin;
          const T* const rest = source_.data() + copied;
          T* const to = target_.data() + begin;
          const lgm::detail::packet_group<T> group;
          group.for_each(copied - begin, [&](auto i) { store(to, i, load(from, i)); });
          sums_[task] = group.reduce(
              end - copied, T(0), [&](auto i) { return load(rest, i); },
              [](auto x, auto y) { return x + y; });
        });
  }

 private:
  static constexpr std::int64_t task_size = std::int64_t(1) << 15;
  std::int64_t tasks() const { return (source_.size() + task_size - 1) / task_size; }

  lgm::host_context context_;
  array<T> source_, target_, sums_;
};

}  // namespace bench
