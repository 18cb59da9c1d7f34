// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <lgm/types.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "model_file.hpp"
#include "network.hpp"

// How much an input looks like what a classifier was trained on. All scores are higher for what looks more like it:
//
//   softmax head   msp                    log of the largest probability, exact near 1
//                  energy                 log sum_k exp(logit_k)
//   Gaussian head  log_density            log N(x; mu_k, Lambda_k) of the predicted class, eq:log_density
//                  log_mixture            log p(x), eq:log_mixture
//                  mahalanobis_predicted  minus (x - mu_k)^T Lambda_k^-1 (x - mu_k), of the predicted class
//                  mahalanobis_nearest    minus the smallest of these
//                  posterior              log p(k | x) of the predicted class, exact near 1
//   on either      mahalanobis            minus the squared distance to the nearest class mean under the covariance of
//                                         the training features about their class's mean, one matrix for all classes
//                                         (Lee et al., NeurIPS 2018)
//   softmax head   gaussian_density       log p(x) of Gaussians with variances of their own, estimated from the training
//                                         features after training
//
// What is a density or a distance of Gaussians is computed by the library.

namespace detector {

// logits = weight x + bias; weight [classes, dims].
struct linear_head {
  trainer::row_matrix<float> weight;
  trainer::vector<float> bias;
};

// mean [classes, dims]; log_variance as the covariance has it; log_prior [classes], or empty: all the same.
struct gaussian_head {
  lgm::covariance covariance = lgm::covariance::diagonal;
  trainer::row_matrix<float> mean;
  trainer::vector<float> log_variance, log_prior;
};

using head = std::variant<linear_head, gaussian_head>;

// What training features say of their classes.
struct feature_gaussians {
  gaussian_head by_class;                    // diagonal: means, variances and shares of the classes
  trainer::row_matrix<float> whitening;      // [dims, dims], of the covariance about the class means
  trainer::vector<float> offset;             // [dims]
  float log_abs_det = 0;                     // of whitening
  trainer::row_matrix<float> whitened_mean;  // [classes, dims]
};

// The least variance of a Gaussian, as a part of the variance that the training features have over all classes and on average
// over the features. Without one a feature that is constant in a class has no variance there, and the first row that differs has
// no density to speak of; this one leaves the first digits of all other scores as they are.
constexpr double default_variance_floor = 1e-6;

// Gathers training features batch by batch.
class gaussian_estimator {
 public:
  gaussian_estimator(std::int64_t classes, std::int64_t dims, int threads,
                     double variance_floor = default_variance_floor);

  // features [samples, dims], finite; labels in [0, classes).
  void add(const trainer::const_matrix_view<float>& features, const std::int64_t* labels);

  // Throws std::runtime_error if a class had no sample, or if no feature varies.
  feature_gaussians finish();

  // The features that are constant, or vary less over all classes than the variance floor. To be asked after finish().
  const std::vector<std::int64_t>& flat_features() const { return flat_; }

 private:
  // The variance of each feature over all classes.
  trainer::vector<double> overall_variance() const;

  std::int64_t classes_, dims_;
  int threads_;
  double variance_floor_;
  trainer::vector<double> count_, mean_, m2_, scatter_, residual_;
  trainer::vector<float> least_, largest_;
  std::vector<std::int64_t> flat_;
  std::vector<std::byte> memory_;
};

// What a scorer says of rows, in their order.
struct row_scores {
  std::vector<std::int64_t> predicted;
  std::vector<double> log_posterior;         // of the predicted class
  std::vector<std::vector<double>> columns;  // in the order of scorer::names()

  void append(const row_scores& more);
};

class scorer {
 public:
  // Without gaussians, what needs them is not among the names. threads: 0: all.
  scorer(head the_head, std::optional<feature_gaussians> gaussians, int threads);

  std::int64_t classes() const { return classes_; }
  std::int64_t dims() const { return dims_; }
  const std::optional<feature_gaussians>& gaussians() const { return gaussians_; }

  const std::vector<std::string>& names() const { return names_; }
  // Where a score is among the names; throws std::runtime_error that lists them if it is not.
  std::size_t index_of(std::string_view name) const;

  // features [samples, dims], any number of rows. A row that is not finite gets scores that are not a number; no other row does:
  // where the square of a distance is beyond a float, density and score are minus infinity and the nearest class is known.
  row_scores operator()(const trainer::const_matrix_view<float>& features);

 private:
  using rows = trainer::const_matrix_view<float>;
  void score_linear(const linear_head& of, const rows& features, std::int64_t begin, row_scores& out);
  void score_gaussian(const gaussian_head& of, const rows& features, std::int64_t begin, row_scores& out);
  void score_far(const gaussian_head& of, const float* feature, std::size_t at, row_scores& out) const;
  void score_estimates(const rows& features, std::int64_t begin, row_scores& out);

  head head_;
  std::optional<feature_gaussians> gaussians_;
  int threads_;
  std::int64_t classes_ = 0, dims_ = 0;
  std::vector<std::string> names_;
  std::vector<std::byte> memory_;
  trainer::row_matrix<float> logits_, whitened_;
  trainer::row_matrix<double> wide_logits_;
};

// All names that any scorer has.
const std::vector<std::string>& all_score_names();

// The head that a model file holds: head.weight and head.bias, or head.mean and head.log_variance (none: identity).
// Throws std::runtime_error if it holds neither, or not in shapes that fit.
head read_head(const trainer::model_file& file);

// The gaussians of a file that calibrate wrote, as detector.*; nothing if it has none.
std::optional<feature_gaussians> read_gaussians(const trainer::model_file& file, int threads);
void write_gaussians(const feature_gaussians& gaussians, trainer::model_file& file);

}  // namespace detector
