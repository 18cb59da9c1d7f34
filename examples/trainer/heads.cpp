// SPDX-License-Identifier: MIT
#include "heads.hpp"

#include <lgm/host.hpp>

// All that calls the library: its templates are most of what a trainer compiles.

namespace trainer {

template class softmax_head<float>;

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
