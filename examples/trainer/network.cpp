// SPDX-License-Identifier: MIT
#include "network.hpp"

#include <cmath>
#include <utility>

namespace trainer {

template <class Scalar>
network<Scalar>::network(const std::vector<std::int64_t>& widths, std::int64_t max_samples,
                         std::uint64_t seed, workers& team)
    : team_(&team) {
  std::int64_t count = 0;
  for (std::size_t i = 0; i + 1 < widths.size(); ++i) {
    layer next;
    next.inputs = widths[i];
    next.outputs = widths[i + 1];
    next.is_last = i + 2 == widths.size();
    next.weight_at = count;
    next.bias_at = next.weight_at + next.inputs * next.outputs;
    next.slope_at = next.bias_at + next.outputs;
    count = next.slope_at + (next.is_last ? 0 : 1);
    next.sum.resize(max_samples, next.outputs);
    next.gradient.resize(max_samples, next.outputs);
    if (!next.is_last) next.output.resize(max_samples, next.outputs);
    layers_.push_back(std::move(next));
  }
  parameters_.setZero(count);
  gradient_.setZero(count);

  std::mt19937_64 random(seed);
  for (const layer& each : layers_) {
    const double bound = 1 / std::sqrt(static_cast<double>(each.inputs));
    fill_uniform(parameters_.data() + each.weight_at, each.inputs * each.outputs + each.outputs, bound,
                 random);
    if (!each.is_last) parameters_[each.slope_at] = Scalar(0.25);
  }
}

template <class Scalar>
Eigen::Map<const row_matrix<Scalar>> network<Scalar>::forward(const const_matrix_view<Scalar>& input) {
  const Eigen::Index samples = input.rows();
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    layer& now = layers_[i];
    auto sum = now.sum.topRows(samples);
    if (i == 0) {
      multiply(*team_, sum, input, weight(now));
    } else {
      multiply(*team_, sum, layers_[i - 1].output.topRows(samples), weight(now));
    }
    sum.rowwise() += parameters_.segment(now.bias_at, now.outputs).transpose();
    if (!now.is_last) {
      const Scalar slope = parameters_[now.slope_at];
      now.output.topRows(samples).array() = sum.array().max(Scalar(0)) + slope * sum.array().min(Scalar(0));
    }
  }
  return {layers_.back().sum.data(), samples, layers_.back().outputs};
}

template <class Scalar>
void network<Scalar>::backward(const const_matrix_view<Scalar>& input,
                               const const_matrix_view<Scalar>& feature_gradient) {
  const Eigen::Index samples = input.rows();
  layers_.back().gradient.topRows(samples) = feature_gradient;
  for (std::size_t i = layers_.size(); i-- > 0;) {
    layer& now = layers_[i];
    auto gradient = now.gradient.topRows(samples);  // of the sum; so far, that of the output
    if (!now.is_last) {
      const auto sum = now.sum.topRows(samples).array();
      gradient_[now.slope_at] = (gradient.array() * sum.min(Scalar(0))).sum();
      pass_activation(now, samples);
    }
    Eigen::Map<matrix> weight_gradient(gradient_.data() + now.weight_at, now.inputs, now.outputs);
    gradient_.segment(now.bias_at, now.outputs) = gradient.colwise().sum().transpose();
    if (i == 0) {
      multiply(*team_, weight_gradient, input.transpose(), gradient);
    } else {
      layer& before = layers_[i - 1];
      multiply(*team_, weight_gradient, before.output.topRows(samples).transpose(), gradient);
      multiply(*team_, before.gradient.topRows(samples), gradient, weight(now).transpose());
    }
  }
}

template <class Scalar>
void network<Scalar>::input_gradient(const const_matrix_view<Scalar>& feature_gradient,
                                     matrix_view<Scalar> out) {
  const Eigen::Index samples = feature_gradient.rows();
  layers_.back().gradient.topRows(samples) = feature_gradient;
  for (std::size_t i = layers_.size(); i-- > 0;) {
    layer& now = layers_[i];
    if (!now.is_last) pass_activation(now, samples);
    const auto gradient = now.gradient.topRows(samples);
    if (i == 0) {
      multiply(*team_, out, gradient, weight(now).transpose());
    } else {
      multiply(*team_, layers_[i - 1].gradient.topRows(samples), gradient, weight(now).transpose());
    }
  }
}

template <class Scalar>
void network<Scalar>::pass_activation(layer& now, Eigen::Index samples) const {
  auto gradient = now.gradient.topRows(samples);
  const Scalar slope = parameters_[now.slope_at];
  gradient = (now.sum.topRows(samples).array() > Scalar(0)).select(gradient, slope * gradient);
}

template class network<float>;
template class network<double>;

}  // namespace trainer
