// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <lgm/lgm.hpp>
#include <vector>

// One small training step and its scores, in a context of the including file's making. Files that include this are
// compiled with different settings, so nothing here has a name that the linker could merge.

namespace two_units {

// What a file computes, for comparison with what the others do.
template <class T>
struct results {
  lgm::status loss_status = lgm::status::not_supported, score_status = lgm::status::not_supported,
              step_status = lgm::status::not_supported;
  long hook_calls = 0;
  // Of the workspace: with as many threads as the file takes by default, with one and with three.
  std::size_t default_bytes = 0, one_thread_bytes = 0, three_thread_bytes = 0;
  T total = 0;
  std::vector<T> features, mean, log_variance, posterior, moved;
  std::vector<std::int64_t> predicted;
};

// Every file but main defines one of these for each type, under its own name.
template <class T>
using unit = results<T> (*)(lgm::covariance);

// What the files share of their contexts: with the same number of threads the work is cut the same way.
[[maybe_unused]] static lgm::host_context three_threads() {
  lgm::host_context context;
  context.threads = 3;
  return context;
}

template <class T>
[[maybe_unused]] static results<T> compute(const lgm::host_context& context, lgm::covariance covariance) {
  lgm::shape shape;
  shape.samples = 150;
  shape.classes = 90;
  shape.dims = 24;
  shape.covariance = covariance;
  const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
  const auto normals = [&](std::uint64_t seed, std::int64_t count, double scale) {
    std::vector<T> values(size(count));
    for (std::size_t n = 0; n < values.size(); ++n)
      values[n] = static_cast<T>(scale * lgm::normal_at(seed, n));
    return values;
  };
  std::vector<T> mean = normals(1, shape.classes * shape.dims, 1);
  std::vector<T> log_variance = normals(2, lgm::log_variance_size(shape), 0.25);
  const std::vector<T> features = normals(3, shape.samples * shape.dims, 1);
  std::vector<std::int32_t> labels(size(shape.samples));
  for (std::size_t i = 0; i < labels.size(); ++i)
    labels[i] = static_cast<std::int32_t>(i * 7 % size(shape.classes));

  results<T> r;
  lgm::host_context sized = context;
  sized.threads = 0;
  r.default_bytes = lgm::workspace_size<T>(sized, shape);
  sized.threads = 1;
  r.one_thread_bytes = lgm::workspace_size<T>(sized, shape);
  sized.threads = 3;
  r.three_thread_bytes = lgm::workspace_size<T>(sized, shape);
  r.features.resize(features.size());
  r.mean.resize(mean.size());
  r.log_variance.resize(log_variance.size());
  r.posterior.resize(labels.size());
  r.predicted.resize(labels.size());

  std::vector<unsigned char> memory(lgm::workspace_size<T>(context, shape));
  const lgm::workspace workspace{memory.data(), memory.size()};
  const lgm::parameters<T> parameters{mean.data(), log_variance.data()};
  lgm::loss_options<T> options;
  options.alpha = T(0.25);
  options.lambda = T(0.125);
  lgm::loss_result<T> result;
  result.total = &r.total;
  const lgm::gradients<T, T> gradients{
      r.features.data(), r.mean.data(),
      covariance == lgm::covariance::identity ? nullptr : r.log_variance.data()};
  r.loss_status = lgm::forward_backward(context, shape, parameters, options, features.data(), labels.data(),
                                        nullptr, result, gradients, workspace);
  lgm::score_result<T> scores;
  scores.predicted = r.predicted.data();
  scores.posterior = r.posterior.data();
  r.score_status = lgm::score(context, shape, parameters, features.data(), scores, workspace);
  lgm::sgd_options<T> sgd;
  sgd.mean_rate = T(0.125);
  r.step_status = lgm::sgd_step(context, shape, sgd, gradients, {}, parameters);
  r.moved = mean;
  return r;
}

results<float> serial_float(lgm::covariance);
results<double> serial_double(lgm::covariance);
results<float> openmp_float(lgm::covariance);
results<double> openmp_double(lgm::covariance);
results<float> pool_float(lgm::covariance);
results<double> pool_double(lgm::covariance);
results<float> gemm_float(lgm::covariance);
results<double> gemm_double(lgm::covariance);

}  // namespace two_units
