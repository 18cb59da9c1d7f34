// SPDX-License-Identifier: MIT
#include "heads.hpp"

#include <cmath>
#include <lgm/host.hpp>
#include <random>

// All that calls the library: its templates are most of what a trainer compiles.

namespace trainer {

template <class Scalar>
softmax_head<Scalar>::softmax_head(std::int64_t classes, std::int64_t dims, std::int64_t max_samples,
                                   std::uint64_t seed)
    : classes_(classes), dims_(dims) {
  const std::int64_t count = classes * dims + classes;
  parameters_.resize(count);
  gradient_.setZero(count);
  logits_.resize(max_samples, classes);
  std::mt19937_64 random(seed);
  fill_uniform(parameters_.data(), count, 1 / std::sqrt(static_cast<double>(dims)), random);
}

template <class Scalar>
batch_loss softmax_head<Scalar>::train(const const_matrix_view<Scalar>& features, const std::uint8_t* labels,
                                       std::int64_t, matrix_view<Scalar> feature_gradient) {
  const batch_loss loss = loss_and_weights(features, labels);
  auto weights = logits_.topRows(features.rows());
  weights /= static_cast<Scalar>(features.rows());
  row_map weight_gradient(gradient_.data(), classes_, dims_);
  weight_gradient.noalias() = weights.transpose() * features;
  gradient_.tail(classes_) = weights.colwise().sum().transpose();
  feature_gradient.noalias() = weights * weight();
  return loss;
}

template <class Scalar>
batch_loss softmax_head<Scalar>::evaluate(const const_matrix_view<Scalar>& features,
                                          const std::uint8_t* labels) {
  return loss_and_weights(features, labels);
}

template <class Scalar>
batch_loss softmax_head<Scalar>::classification_gradient(const const_matrix_view<Scalar>& features,
                                                         const std::uint8_t* labels,
                                                         matrix_view<Scalar> out) {
  const batch_loss loss = loss_and_weights(features, labels);
  out.noalias() = logits_.topRows(features.rows()) * weight();
  return loss;
}

template <class Scalar>
void softmax_head<Scalar>::confidence(const const_matrix_view<Scalar>& features, float* out) {
  compute_logits(features);
  for (Eigen::Index i = 0; i < features.rows(); ++i) {
    Eigen::Index largest = 0;
    const Scalar top = logits_.row(i).maxCoeff(&largest);
    Scalar others = 0;
    for (Eigen::Index k = 0; k < classes_; ++k) {
      if (k != largest) others += std::exp(logits_(i, k) - top);
    }
    out[i] = static_cast<float>(-std::log1p(others));
  }
}

template <class Scalar>
void softmax_head<Scalar>::compute_logits(const const_matrix_view<Scalar>& features) {
  auto logits = logits_.topRows(features.rows());
  logits.noalias() = features * weight().transpose();
  logits.rowwise() += parameters_.tail(classes_).transpose();
}

template <class Scalar>
batch_loss softmax_head<Scalar>::loss_and_weights(const const_matrix_view<Scalar>& features,
                                                  const std::uint8_t* labels) {
  compute_logits(features);
  const Eigen::Index samples = features.rows();
  batch_loss loss;
  for (Eigen::Index i = 0; i < samples; ++i) {
    auto row = logits_.row(i).array();
    const Eigen::Index label = labels[i];
    const Scalar target = row[label];
    Eigen::Index largest = 0;
    const Scalar top = row.maxCoeff(&largest);
    row = (row - top).exp();
    const Scalar target_part = row[label];
    row[label] = 0;
    const Scalar others = row.sum();
    row /= target_part + others;
    row[label] = -others / (target_part + others);
    // log(1 + e^R) while the target leads, as small losses need.
    const Scalar value =
        largest == label ? std::log1p(others) : top - target + std::log(target_part + others);
    loss.total += static_cast<double>(value);
    loss.correct += largest == label ? 1 : 0;
  }
  loss.total /= static_cast<double>(samples);
  loss.classification = loss.total;
  return loss;
}

template class softmax_head<float>;
template class softmax_head<double>;

namespace {

// Where a call of the library puts its losses.
struct loss_values {
  float total = 0, classification = 0, likelihood = 0;
  std::int64_t correct = 0;

  lgm::loss_result<float> result() {
    lgm::loss_result<float> pointers;
    pointers.total = &total;
    pointers.classification = &classification;
    pointers.likelihood = &likelihood;
    pointers.correct = &correct;
    return pointers;
  }
  batch_loss loss() const { return {total, classification, likelihood, correct}; }
};

}  // namespace

lgm_head::lgm_head(std::int64_t classes, std::int64_t dims, std::int64_t max_samples, std::uint64_t seed,
                   const lgm_settings& settings)
    : settings_(settings), mean_count_(classes * dims) {
  context_.threads = settings.threads;
  shape_.classes = classes;
  shape_.dims = dims;
  shape_.samples = max_samples;
  shape_.covariance = settings.covariance;
  variance_count_ = lgm::log_variance_size(shape_);
  parameters_.setZero(mean_count_ + variance_count_);
  gradient_.setZero(mean_count_ + variance_count_);
  memory_.resize(lgm::workspace_size<float>(context_, shape_));
  check(lgm::initialize_means<float>(context_, shape_, seed, settings.mean_scale,
                                     {parameters_.data(), log_variance_of(parameters_)}));
  if (!follows_moments()) return;
  // As if each class had been seen with the means and unit variances that it starts with.
  count_.setConstant(classes, settings.first_count);
  mean_ = parameters_.head(mean_count_).cast<double>();
  m2_.setConstant(mean_count_, settings.first_count);
}

batch_loss lgm_head::train(const const_matrix_view<float>& features, const std::uint8_t* labels,
                           std::int64_t iteration, matrix_view<float> feature_gradient) {
  lgm::loss_options<float> options;
  options.alpha = settings_.alpha(iteration);
  options.lambda = settings_.lambda;
  lgm::gradients<float, float> gradients;
  gradients.feature = feature_gradient.data();
  // What is not asked for stays zero, and Adam leaves its parameters as they are.
  if (settings_.update_mean == update_rule::gradient) gradients.mean = gradient_.data();
  if (settings_.update_variance == update_rule::gradient) gradients.log_variance = log_variance_of(gradient_);
  loss_values values;
  check(lgm::forward_backward(context_, shape_of(features, feature_gradient.outerStride()), mixture(),
                              options, features.data(), labels, nullptr, values.result(), gradients,
                              workspace()));
  if (follows_moments()) follow_moments(features, labels);
  return values.loss();
}

void lgm_head::constrain() {
  constexpr float bound = 10;
  auto log_variance = parameters_.tail(variance_count_).array();
  log_variance = log_variance.max(-bound).min(bound);
}

batch_loss lgm_head::evaluate(const const_matrix_view<float>& features, const std::uint8_t* labels) {
  lgm::loss_options<float> options;  // no margin
  options.lambda = settings_.lambda;
  loss_values values;
  check(lgm::forward(context_, shape_of(features), mixture(), options, features.data(), labels,
                     values.result(), workspace()));
  return values.loss();
}

batch_loss lgm_head::classification_gradient(const const_matrix_view<float>& features,
                                             const std::uint8_t* labels, matrix_view<float> out) {
  lgm::loss_options<float> options;  // no margin, no likelihood
  options.reduction = lgm::reduction::sum;
  lgm::gradients<float, float> gradients;
  gradients.feature = out.data();
  loss_values values;
  check(lgm::forward_backward(context_, shape_of(features, out.outerStride()), mixture(), options,
                              features.data(), labels, nullptr, values.result(), gradients, workspace()));
  const double loss = static_cast<double>(values.classification) / static_cast<double>(features.rows());
  return {loss, loss, 0, values.correct};
}

void lgm_head::confidence(const const_matrix_view<float>& features, float* out) {
  lgm::score_result<float> result;
  result.log_mixture = out;
  check(lgm::score(context_, shape_of(features), mixture(), features.data(), result, workspace()));
}

row_matrix<float> lgm_head::variances() const {
  row_matrix<float> result = row_matrix<float>::Ones(shape_.classes, shape_.dims);
  const float* log_variance = parameters_.data() + mean_count_;
  for (std::int64_t k = 0; k < shape_.classes; ++k) {
    for (std::int64_t j = 0; j < shape_.dims; ++j) {
      if (settings_.covariance == lgm::covariance::spherical) result(k, j) = std::exp(log_variance[k]);
      if (settings_.covariance == lgm::covariance::diagonal) {
        result(k, j) = std::exp(log_variance[k * shape_.dims + j]);
      }
    }
  }
  return result;
}

// Sets parameters to the moments of their class's features. The features drift while the network learns, so the
// moments forget: every step their counts shrink, and with them m2, before the batch is added. The newest samples
// weigh most, a class weighs by how many of its samples came, and one that did not come stays where it is. (A
// running average of each batch's own estimates, as estimate's decay gives, would take a class that came once for
// one without variance.)
void lgm_head::follow_moments(const const_matrix_view<float>& features, const std::uint8_t* labels) {
  count_ *= settings_.kept_moments;
  m2_ *= settings_.kept_moments;
  const lgm::class_moments<double> moments{count_.data(), mean_.data(), m2_.data()};
  check(lgm::accumulate_moments<float>(context_, shape_of(features), lgm::loss_options<float>(),
                                       features.data(), labels, moments, workspace()));
  lgm::estimate_options<float> options;
  options.variance_floor = settings_.variance_floor;
  lgm::parameters<float> followers;
  if (settings_.update_mean == update_rule::moments) followers.mean = parameters_.data();
  if (settings_.update_variance == update_rule::moments)
    followers.log_variance = log_variance_of(parameters_);
  check(lgm::estimate(context_, shape_, moments, options, followers));
}

}  // namespace trainer
