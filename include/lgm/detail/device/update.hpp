// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <lgm/column.hpp>
#include <lgm/detail/check.hpp>
#include <lgm/detail/device/launch.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/formula.hpp>
#include <lgm/schedule.hpp>
#include <lgm/types.hpp>

// Functions whose results are independent numbers: a task computes a block of them.

namespace lgm::detail {

constexpr std::int64_t element_block = 1024;

template <class T>
struct merge_state_kernel {
  std::int64_t samples;
  const T* from;
  T* into;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t begin = task * element_block;
    group.for_each(smaller(element_block, samples - begin),
                   [&](std::int64_t i) { merge_state(from + 2 * (begin + i), into + 2 * (begin + i)); });
  }
};

template <class Device, class T>
status device_merge_row_state(Device& device, const shape& s, const T* from, T* into) {
  const status checked = first_failure(check_shape(s), check_rows(s, from), check_rows(s, into));
  if (checked != status::success) return checked;
  device.template launch<256>(256, ceil_divide(s.samples, element_block),
                              merge_state_kernel<T>{s.samples, from, into});
  return device.result();
}

// All arrays of a step in one launch: a task has a block of one of them.
template <class T>
struct sgd_kernel {
  struct array {
    std::int64_t size;
    const T* gradient;
    T *velocity, *parameter;
    T rate;
    const T* rate_at;
    T weight_decay, lower, upper;

    LGM_HD std::int64_t tasks() const { return ceil_divide(size, element_block); }
  };
  array arrays[3];
  T momentum;
  bool nesterov;
  const T* inverse_loss_scale_at;
  const bool* skip_at;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    if (skip_at != nullptr && *skip_at) return;
    int which = 0;
    while (task >= arrays[which].tasks()) task -= arrays[which++].tasks();
    const array& a = arrays[which];
    const sgd_rule<T> rule{a.rate_at != nullptr ? *a.rate_at : a.rate,
                           momentum,
                           a.weight_decay,
                           inverse_loss_scale_at != nullptr ? *inverse_loss_scale_at : T(1),
                           nesterov,
                           a.lower,
                           a.upper};
    if (rule.rate == T(0)) return;
    const std::int64_t begin = task * element_block;
    sgd_update(group, smaller(element_block, a.size - begin), rule, a.gradient + begin,
               a.velocity == nullptr ? nullptr : a.velocity + begin, a.parameter + begin);
  }
};

template <class Device, class T>
status device_sgd_step(Device& device, const shape& s, const sgd_options<T>& o,
                       const gradients<T, T>& gradient, const parameters<T>& momentum,
                       const parameters<T>& p) {
  const status checked = first_failure(check_shape(s), check_options(o));
  if (checked != status::success) return checked;
  constexpr T unbounded = numeric<T>::infinity;
  using array = typename sgd_kernel<T>::array;
  sgd_kernel<T> kernel{
      {array{s.classes * s.dims, gradient.mean, momentum.mean, p.mean, o.mean_rate, o.mean_rate_at,
             o.weight_decay, -unbounded, unbounded},
       array{log_variance_size(s), gradient.log_variance, momentum.log_variance, p.log_variance,
             o.log_variance_rate, o.log_variance_rate_at, T(0), o.min_log_variance, o.max_log_variance},
       array{s.classes, gradient.log_prior, momentum.log_prior, p.log_prior, o.log_prior_rate,
             o.log_prior_rate_at, T(0), -unbounded, unbounded}},
      o.momentum,
      o.nesterov,
      o.inverse_loss_scale_at,
      o.skip_at};
  std::int64_t tasks = 0;
  for (array& a : kernel.arrays) {
    if (a.gradient == nullptr || a.parameter == nullptr) a.size = 0;
    if (a.size > 0 && o.momentum != T(0) && a.velocity == nullptr) return status::null_pointer;
    tasks += a.tasks();
  }
  device.template launch<256>(256, tasks, kernel);
  return device.result();
}

// The same numbers as the host's: normal_at is integer arithmetic until its last step.
template <class T>
struct initialize_kernel {
  std::int64_t means, log_variances, log_priors;  // sizes, 0 where not wanted
  std::uint64_t seed, first;
  double scale;
  T log_prior;
  parameters<T> p;

  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t task) const {
    const std::int64_t begin = task * element_block;
    group.for_each(element_block, [&](std::int64_t n) {
      const std::int64_t i = begin + n;
      if (i < means)
        p.mean[i] = static_cast<T>(scale * normal_at(seed, first + static_cast<std::uint64_t>(i)));
      if (i < log_variances) p.log_variance[i] = T(0);
      if (i < log_priors) p.log_prior[i] = log_prior;
    });
  }
};

template <class Device, class T>
status device_initialize_means(Device& device, const shape& s, std::uint64_t seed, T scale,
                               const parameters<T>& p) {
  const status checked = first_failure(check_shape(s), check_mean(s, p.mean),
                                       std::isfinite(scale) ? status::success : status::invalid_option);
  if (checked != status::success) return checked;
  const initialize_kernel<T> kernel{s.classes * s.dims,
                                    p.log_variance != nullptr ? log_variance_size(s) : 0,
                                    p.log_prior != nullptr ? s.classes : 0,
                                    seed,
                                    static_cast<std::uint64_t>(s.class_begin * s.dims),
                                    static_cast<double>(scale),
                                    total_classes(s) > 0 ? -std::log(static_cast<T>(total_classes(s))) : T(0),
                                    p};
  const std::int64_t longest = larger(kernel.means, larger(kernel.log_variances, kernel.log_priors));
  device.template launch<256>(256, ceil_divide(longest, element_block), kernel);
  return device.result();
}

template <class T>
struct schedule_kernel {
  stepped_schedule<T> schedule;
  const std::int64_t* iteration_at;
  T* out;
  template <class Group>
  LGM_HD void operator()(const Group& group, std::int64_t) const {
    group.one_lane([&] { *out = schedule(*iteration_at); });
  }
};

template <class Device, class T>
status device_scheduled_alpha(Device& device, const stepped_schedule<T>& schedule,
                              const std::int64_t* iteration_at, T* out) {
  if (iteration_at == nullptr || out == nullptr) return status::null_pointer;
  if (schedule.step <= 0) return status::invalid_option;
  device.template launch<1>(1, 1, schedule_kernel<T>{schedule, iteration_at, out});
  return device.result();
}

}  // namespace lgm::detail
