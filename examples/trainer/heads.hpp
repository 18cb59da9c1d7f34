// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <lgm/host_context.hpp>
#include <lgm/types.hpp>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "network.hpp"
#include "options.hpp"
#include "schedule_text.hpp"

// The two heads that are compared. Both turn features [samples, dims] and labels into a loss and its
// gradients; both keep their parameters in one vector for the optimiser. A head's members:
//
//   train(features, labels, iteration, feature_gradient)   loss of a batch; fills gradient() and
//   feature_gradient constrain()                                            after a step of the optimiser
//   evaluate(features, labels)                             loss of a batch as at inference
//   classification_gradient(features, labels, out)         the same without likelihood; out: each sample's gradient of its own
//                                                          loss, not divided by the samples; gradient() stays as it is
//   confidence(features, out)                              per sample: how much it looks like the training
//   data
//   for_each_array(function)                               function(name, shape, begin) for each array in parameters()
//   for_each_moment(function)                              function(name, shape, values) for what else it keeps

namespace trainer {

// Means over a batch; the likelihood is not multiplied by lambda.
struct batch_loss {
  double total = 0, classification = 0, likelihood = 0;
  std::int64_t correct = 0;
};

// A linear layer with a bias, softmax and cross entropy.
template <class Scalar>
class softmax_head {
 public:
  softmax_head(std::int64_t classes, std::int64_t dims, std::int64_t max_samples, std::uint64_t seed)
      : classes_(classes), dims_(dims) {
    const std::int64_t count = classes * dims + classes;
    parameters_.resize(count);
    gradient_.setZero(count);
    logits_.resize(max_samples, classes);
    std::mt19937_64 random(seed);
    fill_uniform(parameters_.data(), count, 1 / std::sqrt(static_cast<double>(dims)), random);
  }

  vector<Scalar>& parameters() { return parameters_; }
  const vector<Scalar>& parameters() const { return parameters_; }
  const vector<Scalar>& gradient() const { return gradient_; }
  void constrain() {}

  template <class Function>
  void for_each_array(const Function& function) const {
    using sizes = std::vector<std::int64_t>;
    function("weight", sizes{classes_, dims_}, std::int64_t{0});
    function("bias", sizes{classes_}, classes_ * dims_);
  }
  template <class Function>
  void for_each_moment(const Function&) {}

  batch_loss train(const const_matrix_view<Scalar>& features, const std::uint8_t* labels, std::int64_t,
                   matrix_view<Scalar> feature_gradient) {
    const batch_loss loss = loss_and_weights(features, labels);
    auto weights = logits_.topRows(features.rows());
    weights /= static_cast<Scalar>(features.rows());
    row_map weight_gradient(gradient_.data(), classes_, dims_);
    weight_gradient.noalias() = weights.transpose() * features;
    gradient_.tail(classes_) = weights.colwise().sum().transpose();
    feature_gradient.noalias() = weights * weight();
    return loss;
  }

  batch_loss evaluate(const const_matrix_view<Scalar>& features, const std::uint8_t* labels) {
    return loss_and_weights(features, labels);
  }

  batch_loss classification_gradient(const const_matrix_view<Scalar>& features, const std::uint8_t* labels,
                                     matrix_view<Scalar> out) {
    const batch_loss loss = loss_and_weights(features, labels);
    out.noalias() = logits_.topRows(features.rows()) * weight();
    return loss;
  }

  // The logarithm of the largest probability, exact even where that probability rounds to 1.
  void confidence(const const_matrix_view<Scalar>& features, float* out) {
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

 private:
  using row_map = Eigen::Map<row_matrix<Scalar>>;

  Eigen::Map<const row_matrix<Scalar>> weight() const { return {parameters_.data(), classes_, dims_}; }

  void compute_logits(const const_matrix_view<Scalar>& features) {
    auto logits = logits_.topRows(features.rows());
    logits.noalias() = features * weight().transpose();
    logits.rowwise() += parameters_.tail(classes_).transpose();
  }

  // Leaves the gradient of each sample's loss by its logits in logits_: the probabilities, and for the target
  // minus the sum of the others, which is p - 1 without its loss of digits when p is close to 1.
  batch_loss loss_and_weights(const const_matrix_view<Scalar>& features, const std::uint8_t* labels) {
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

  std::int64_t classes_, dims_;
  vector<Scalar> parameters_, gradient_;  // weight [classes, dims], then bias [classes]
  row_matrix<Scalar> logits_;
};

extern template class softmax_head<float>;

struct lgm_settings {
  lgm::covariance covariance = lgm::covariance::identity;
  update_rule update_mean = update_rule::gradient, update_variance = update_rule::off;
  float lambda = 0;
  alpha_schedule alpha;
  float mean_scale = 1;  // the means start as normal numbers of this deviation
  // For parameters that follow moments: the part of the moments' counts that is kept from one step to the next,
  // samples that each class is taken to have had when training starts, and the least variance: features may shrink as long as their
  // variances shrink with them, and without a bound they do, until nothing tells the classes apart.
  double kept_moments = 0.97, first_count = 10;
  float variance_floor = 0.1f;
  int threads = 0;
};

inline void check(lgm::status status) {
  if (status != lgm::status::success) throw std::runtime_error(std::string("lgm: ") + lgm::to_string(status));
}

// The L-GM head: every formula is the library's.
class lgm_head {
 public:
  lgm_head(std::int64_t classes, std::int64_t dims, std::int64_t max_samples, std::uint64_t seed,
           const lgm_settings& settings);

  vector<float>& parameters() { return parameters_; }
  const vector<float>& parameters() const { return parameters_; }
  const vector<float>& gradient() const { return gradient_; }

  template <class Function>
  void for_each_array(const Function& function) const {
    using sizes = std::vector<std::int64_t>;
    function("mean", sizes{shape_.classes, shape_.dims}, std::int64_t{0});
    if (settings_.covariance == lgm::covariance::spherical) {
      function("log_variance", sizes{shape_.classes}, mean_count_);
    } else if (settings_.covariance == lgm::covariance::diagonal) {
      function("log_variance", sizes{shape_.classes, shape_.dims}, mean_count_);
    }
  }
  template <class Function>
  void for_each_moment(const Function& function) {
    if (!follows_moments()) return;
    using sizes = std::vector<std::int64_t>;
    function("count", sizes{shape_.classes}, count_.data());
    function("mean", sizes{shape_.classes, shape_.dims}, mean_.data());
    function("m2", sizes{shape_.classes, shape_.dims}, m2_.data());
  }

  batch_loss train(const const_matrix_view<float>& features, const std::uint8_t* labels,
                   std::int64_t iteration, matrix_view<float> feature_gradient);

  // Keeps standard deviations between 1/150 and 150, so that no step can push a variance out of float's
  // range.
  void constrain() {
    constexpr float bound = 10;
    auto log_variance = parameters_.tail(variance_count_).array();
    log_variance = log_variance.max(-bound).min(bound);
  }

  batch_loss evaluate(const const_matrix_view<float>& features, const std::uint8_t* labels);

  batch_loss classification_gradient(const const_matrix_view<float>& features, const std::uint8_t* labels,
                                     matrix_view<float> out);

  // The logarithm of the features' density under the mixture.
  void confidence(const const_matrix_view<float>& features, float* out);

  Eigen::Map<const row_matrix<float>> means() const {
    return {parameters_.data(), shape_.classes, shape_.dims};
  }

  // The variances [classes, dims], whatever the form of the covariance.
  row_matrix<float> variances() const {
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

 private:
  bool follows_moments() const {
    return settings_.update_mean == update_rule::moments || settings_.update_variance == update_rule::moments;
  }

  void follow_moments(const const_matrix_view<float>& features, const std::uint8_t* labels);

  float* log_variance_of(vector<float>& all) {
    return variance_count_ > 0 ? all.data() + mean_count_ : nullptr;
  }

  lgm::shape shape_of(const const_matrix_view<float>& features, std::int64_t gradient_stride = 0) const {
    lgm::shape shape = shape_;
    shape.samples = features.rows();
    shape.feature_stride = features.outerStride();
    shape.gradient_stride = gradient_stride;
    return shape;
  }
  lgm::mixture<float> mixture() const {
    lgm::mixture<float> result;
    result.mean = parameters_.data();
    if (variance_count_ > 0) result.log_variance = parameters_.data() + mean_count_;
    return result;
  }
  lgm::workspace workspace() { return {memory_.data(), memory_.size()}; }

  lgm_settings settings_;
  lgm::host_context context_;
  lgm::shape shape_;
  std::int64_t mean_count_, variance_count_ = 0;
  vector<float> parameters_, gradient_;  // mean [classes, dims], then log_variance as the covariance has it
  vector<double> count_, mean_, m2_;     // moments of the classes' features; empty if nothing follows them
  std::vector<std::byte> memory_;
};

}  // namespace trainer
