// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <cstddef>
#include <cstdint>
#include <lgm/host_context.hpp>
#include <lgm/types.hpp>
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
  softmax_head(std::int64_t classes, std::int64_t dims, std::int64_t max_samples, std::uint64_t seed);

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
                   matrix_view<Scalar> feature_gradient);

  batch_loss evaluate(const const_matrix_view<Scalar>& features, const std::uint8_t* labels);

  batch_loss classification_gradient(const const_matrix_view<Scalar>& features, const std::uint8_t* labels,
                                     matrix_view<Scalar> out);

  // The logarithm of the largest probability, exact even where that probability rounds to 1.
  void confidence(const const_matrix_view<Scalar>& features, float* out);

 private:
  using row_map = Eigen::Map<row_matrix<Scalar>>;

  Eigen::Map<const row_matrix<Scalar>> weight() const { return {parameters_.data(), classes_, dims_}; }

  void compute_logits(const const_matrix_view<Scalar>& features);

  // Leaves the gradient of each sample's loss by its logits in logits_: the probabilities, and for the target
  // minus the sum of the others, which is p - 1 without its loss of digits when p is close to 1.
  batch_loss loss_and_weights(const const_matrix_view<Scalar>& features, const std::uint8_t* labels);

  std::int64_t classes_, dims_;
  vector<Scalar> parameters_, gradient_;  // weight [classes, dims], then bias [classes]
  row_matrix<Scalar> logits_;
};

extern template class softmax_head<float>;
extern template class softmax_head<double>;

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
  void constrain();

  batch_loss evaluate(const const_matrix_view<float>& features, const std::uint8_t* labels);

  batch_loss classification_gradient(const const_matrix_view<float>& features, const std::uint8_t* labels,
                                     matrix_view<float> out);

  // The logarithm of the features' density under the mixture.
  void confidence(const const_matrix_view<float>& features, float* out);

  Eigen::Map<const row_matrix<float>> means() const {
    return {parameters_.data(), shape_.classes, shape_.dims};
  }

  // The variances [classes, dims], whatever the form of the covariance.
  row_matrix<float> variances() const;

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
