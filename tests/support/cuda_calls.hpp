// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/types.hpp>

// The calls that are compared, for both contexts: nvcc does not compile the host's driver, whose numbers are vectors.

// Inputs and outputs of the calls, packed arrays in the context's memory. F: features and their gradients.
template <class T, class F = T>
struct call_arrays {
  F* features;
  T *mean, *log_variance, *log_prior;
  std::int64_t* labels;
  T *moved, *row_state, *merged, *total;
  F* feature;
  T *mean_gradient, *log_variance_gradient, *log_prior_gradient, *logits, *log_mixture, *mahalanobis;
};

// Every function that both contexts have. The first status that is not success.
template <class T, class F, class Context>
lgm::status run_calls(const Context& ctx, const lgm::shape& s, const call_arrays<T, F>& a,
                      const lgm::workspace& w) {
  lgm::loss_options<T> options;
  options.alpha = T(0.25);
  options.lambda = T(0.125);
  options.reduction = lgm::reduction::none;
  const lgm::mixture<T> m{a.mean, a.log_variance, a.log_prior};
  lgm::loss_result<T> result;
  result.total = a.total;
  result.row_state = a.row_state;
  const lgm::gradients<F, T> gradient{a.feature, a.mean_gradient, a.log_variance_gradient,
                                      a.log_prior_gradient};
  lgm::score_result<T> scores;
  scores.log_mixture = a.log_mixture;
  scores.squared_mahalanobis = a.mahalanobis;
  lgm::status status =
      lgm::forward_backward(ctx, s, m, options, a.features, a.labels, nullptr, result, gradient, w);
  if (status == lgm::status::success)
    status = lgm::logits(ctx, s, m, options, a.features, a.labels, a.logits, w);
  if (status == lgm::status::success) status = lgm::score(ctx, s, m, a.features, scores, w);
  // A step from means of our own.
  lgm::parameters<T> p;
  p.mean = a.moved;
  lgm::sgd_options<T> step;
  step.mean_rate = T(0.5);
  if (status == lgm::status::success) status = lgm::initialize_means(ctx, s, 5, T(0.25), p);
  if (status == lgm::status::success) status = lgm::sgd_step(ctx, s, step, gradient, lgm::parameters<T>{}, p);
  // Two states of the same classes, as if they were others.
  result = {};
  result.row_state = a.merged;
  if (status == lgm::status::success)
    status = lgm::forward(ctx, s, m, options, a.features, a.labels, result, w);
  if (status == lgm::status::success) status = lgm::merge_row_state(ctx, s, a.row_state, a.merged);
  return status;
}

// In cuda_host.cpp.
lgm::status run_on_host(const lgm::shape& s, const call_arrays<double>& a);
