// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/config.hpp>
#include <lgm/distance.hpp>
#include <lgm/formula.hpp>
#include <lgm/group.hpp>
#include <lgm/types.hpp>
#include <type_traits>

// What is computed for one class over the samples of a tile: the gradients of its mean and variances, and
// their update. Each function is run by one group, whose lanes take the dimensions.

namespace lgm {

// Stores scale * value, and returns value. Where `out` is no pointer but an operand of reduced precision, it has an overload
// of its own, which returns the value that was stored.
template <class T, class Index, class V>
LGM_HD V store_scaled(T* out, Index j, V value, T scale) {
  store(out, j, V(scale) * value);
  return value;
}

// out = scale (mean - offset), [dims] each, the class's operand of the products; returns scale |mean -
// offset|^2.
template <class Group, class T, class Out>
LGM_HD T centre_class(const Group& group, std::int64_t dims, const class_parameters<T>& c, const T* offset,
                      T scale, Out out) {
  return scale * group.reduce(
                     dims, T(0),
                     [&](auto j) {
                       const auto t = store_scaled(out, j, load(c.mean, j) - load(offset, j), scale);
                       return t * t;
                     },
                     plus{});
}

// The sums over samples that the gradients of one class are made of; w_ik is eq:weight, scaled by the
// upstream gradient. The arrays are shared by the lanes of a group, and each lane has a struct of its own.
template <class T>
struct class_sums {
  T* difference;  // [dims], sum_i w_ik (x_i - mu_k)
  T* square;  // [dims], sum_i w_ik (x_i - mu_k)^2; null unless the covariance is diagonal and it is wanted
  T distance = 0;         // sum_i w_ik d_ik
  T variance_weight = 0;  // sum_i [lambda delta_kz - g_ik]
  T probability = 0;      // sum_i g_ik
};

// The part of sum_i w_ik (x_i - mu_k) that is no product: out [dims] = -weight (mu_k - offset). The product sum_i w_ik x'_i,
// x' = x - offset, is added to it later. weight is sum_i w_ik, from the weights as rounded.
template <class Group, class T>
LGM_HD void begin_class_sum(const Group& group, std::int64_t dims, const T* mean, const T* offset, T weight,
                            T* out) {
  group.for_each(dims, [&](auto j) {
    const auto centred = load(mean, j) - load(offset, j);
    using V = std::decay_t<decltype(centred)>;
    store(out, j, V(-weight) * centred);
  });
}

// Adds one sample of the class to its sums: the target's term. The products leave it out, because it is by far the largest, and
// the others would be lost to its rounding where it cancels. residual is -g_z. All three factors are multiplied by the sample's
// upstream gradient.
template <class Group, class Features, class T>
LGM_HD void add_target(const Group& group, std::int64_t dims, const Features& features, const T* mean,
                       T weight, T variance_weight, T residual, T distance, class_sums<T>& sums) {
  using detail::fused;
  if (sums.difference != nullptr || sums.square != nullptr) {
    group.for_each(dims, [&](auto j) {
      const auto t = load(features, j) - load(mean, j);
      using V = std::decay_t<decltype(t)>;
      if (sums.difference != nullptr)
        store(sums.difference, j, fused(V(weight), t, load(sums.difference, j)));
      if (sums.square != nullptr) store(sums.square, j, fused(V(weight) * t, t, load(sums.square, j)));
    });
  }
  sums.distance += weight * distance;
  sums.variance_weight += variance_weight;
  sums.probability -= residual;
}

// eq:grad_mean of one class from its sums. out [dims]; add: to what is there.
template <class Group, class T>
LGM_HD void write_mean_gradient(const Group& group, std::int64_t dims, const class_parameters<T>& c,
                                const class_sums<T>& sums, bool add, T* out) {
  const T spherical = c.log_variance == nullptr || c.diagonal ? T(1) : inverse_variance(*c.log_variance);
  group.for_each(dims, [&](auto j) {
    const auto sum = load(sums.difference, j);
    using V = std::decay_t<decltype(sum)>;
    V inverse(spherical);
    if (c.log_variance != nullptr && c.diagonal) inverse = inverse_variance(load(c.log_variance, j));
    V gradient = mean_gradient(sum, inverse);
    if (add) gradient = gradient + load(out, j);
    store(out, j, gradient);
  });
}

// eq:grad_log_variance of one class from its sums. out [dims] (diagonal) or [1] (spherical); add: to what is
// there.
template <class Group, class T>
LGM_HD void write_log_variance_gradient(const Group& group, std::int64_t dims, const class_parameters<T>& c,
                                        const class_sums<T>& sums, bool add, T* out) {
  if (!c.diagonal) {
    group.one_lane([&] {
      const T gradient = spherical_log_variance_gradient(sums.variance_weight, sums.distance, dims);
      *out = add ? *out + gradient : gradient;
    });
    return;
  }
  group.for_each(dims, [&](auto j) {
    const auto square = load(sums.square, j);
    using V = std::decay_t<decltype(square)>;
    V inverse(T(1));
    if (c.log_variance != nullptr) inverse = inverse_variance(load(c.log_variance, j));
    V gradient = log_variance_gradient(V(sums.variance_weight), square, inverse);
    if (add) gradient = gradient + load(out, j);
    store(out, j, gradient);
  });
}

// One array's step of stochastic gradient descent with momentum, as sgd_options describe it.
template <class T>
struct sgd_rule {
  T rate, momentum, weight_decay, gradient_scale;
  bool nesterov;
  T lower, upper;  // the parameter is clamped to these
};

// Moves n parameters: g = gradient_scale * gradient + weight_decay * p; v = momentum * v + g; and p -= rate *
// v, or with Nesterov's look-ahead p -= rate * (g + momentum * v). velocity null: no momentum.
template <class Group, class T>
LGM_HD void sgd_update(const Group& group, std::int64_t n, const sgd_rule<T>& rule, const T* gradient,
                       T* velocity, T* parameter) {
  using detail::fused;
  group.for_each(n, [&](auto i) {
    using detail::larger;
    using detail::smaller;
    const auto p = load(static_cast<const T*>(parameter), i);
    using V = std::decay_t<decltype(p)>;
    const V g = fused(V(rule.gradient_scale), load(gradient, i), V(rule.weight_decay) * p);
    V step = g;
    if (velocity != nullptr) {
      const V v = fused(V(rule.momentum), load(static_cast<const T*>(velocity), i), g);
      store(velocity, i, v);
      step = rule.nesterov ? fused(V(rule.momentum), v, g) : v;
    }
    store(parameter, i, smaller(larger(fused(V(-rule.rate), step, p), V(rule.lower)), V(rule.upper)));
  });
}

}  // namespace lgm
