// SPDX-License-Identifier: MIT

// The detector's scores, against plain loops in double, and what it keeps in files.

#include <doctest/doctest.h>

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "detector/calibrate.hpp"
#include "detector/deployed_model.hpp"
#include "detector/finite_rows.hpp"
#include "detector/scores.hpp"
#include "support/files.hpp"

namespace {

using lgm_test::contains;
using lgm_test::error_of;
using trainer::row_matrix;
using matrix = Eigen::MatrixXd;

row_matrix<float> random_matrix(std::int64_t rows, std::int64_t columns, float scale, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  row_matrix<float> result(rows, columns);
  trainer::fill_uniform(result.data(), result.size(), static_cast<double>(scale), random);
  return result;
}

trainer::vector<float> random_vector(std::int64_t size, float scale, std::uint64_t seed) {
  return random_matrix(size, 1, scale, seed).col(0);
}

double log_sum(const std::vector<double>& values) {
  const double top = *std::max_element(values.begin(), values.end());
  double sum = 0;
  for (const double each : values) sum += std::exp(each - top);
  return top + std::log(sum);
}

// Rows of three classes whose features depend on one another, and their labels.
struct samples {
  row_matrix<float> features;
  std::vector<std::int64_t> labels;
};
samples correlated_samples(std::int64_t count, std::int64_t dims, std::uint64_t seed) {
  constexpr std::int64_t classes = 3;
  samples result;
  const row_matrix<float> mean = random_matrix(classes, dims, 3, 77), mix = random_matrix(dims, dims, 1, 78);
  result.features = random_matrix(count, dims, 1, seed) * mix;
  for (std::int64_t i = 0; i < count; ++i) {
    result.labels.push_back(i % 7 % classes);  // not equally often
    result.features.row(i) += mean.row(result.labels.back());
  }
  return result;
}

detector::feature_gaussians estimate(const samples& from) {
  detector::gaussian_estimator estimator(3, from.features.cols(), 1);
  // In two parts, as from batches.
  const std::int64_t half = from.features.rows() / 3;
  estimator.add(from.features.topRows(half), from.labels.data());
  estimator.add(from.features.bottomRows(from.features.rows() - half), from.labels.data() + half);
  return estimator.finish();
}

// Means, variances, shares and the common covariance, in two passes.
struct plain_gaussians {
  matrix mean, variance, covariance;
  std::vector<double> share;
  double overall = 0;  // variance over all classes, on average over the features
};
plain_gaussians plain_estimate(const samples& from) {
  const std::int64_t dims = from.features.cols();
  const matrix x = from.features.cast<double>();
  plain_gaussians result{matrix::Zero(3, dims), matrix::Zero(3, dims), matrix::Zero(dims, dims), {}, 0};
  result.overall = (x.rowwise() - x.colwise().mean()).cwiseAbs2().mean();
  std::vector<double> count(3);
  for (std::size_t i = 0; i < from.labels.size(); ++i) {
    count[static_cast<std::size_t>(from.labels[i])] += 1;
    result.mean.row(from.labels[i]) += x.row(static_cast<std::int64_t>(i));
  }
  const auto all = static_cast<double>(x.rows());
  for (std::int64_t k = 0; k < 3; ++k) {
    result.mean.row(k) /= count[static_cast<std::size_t>(k)];
    result.share.push_back(count[static_cast<std::size_t>(k)] / all);
  }
  for (std::int64_t i = 0; i < x.rows(); ++i) {
    const std::int64_t k = from.labels[static_cast<std::size_t>(i)];
    const Eigen::RowVectorXd off = x.row(i) - result.mean.row(k);
    result.variance.row(k) += off.cwiseAbs2() / count[static_cast<std::size_t>(k)];
    result.covariance += off.transpose() * off / all;
  }
  return result;
}

constexpr double log_two_pi = 1.8378770664093453;

double log_normal(const Eigen::RowVectorXd& off, const Eigen::RowVectorXd& variance) {
  return -0.5 * (off.cwiseAbs2().cwiseQuotient(variance).sum() + variance.array().log().sum() +
                 static_cast<double>(off.size()) * log_two_pi);
}

void check_close(double value, double expected, double tolerance = 1e-4) {
  CHECK(std::abs(value - expected) <= tolerance * std::max(1.0, std::abs(expected)));
}

// A network 4-5-6 with a head on it, as a file of the trainer has it.
trainer::model_file small_file(const std::string& head) {
  trainer::model_file file;
  file.metadata = {{"format", "lgm-trainer"}, {"version", "1"}};
  const auto put = [&](const std::string& name, const std::vector<std::int64_t>& shape, std::uint64_t seed) {
    std::int64_t size = 1;
    for (const std::int64_t each : shape) size *= each;
    file.put(name, shape, random_vector(size, 1, seed).data());
  };
  const float shift = 100, scale = 0.01f, slope = 0.25f;
  file.put("input.shift", {1}, &shift);
  file.put("input.scale", {1}, &scale);
  put("network.0.weight", {4, 5}, 1);
  put("network.0.bias", {5}, 2);
  file.put("network.0.slope", {1}, &slope);
  put("network.1.weight", {5, 6}, 3);
  put("network.1.bias", {6}, 4);
  if (head == "softmax") {
    put("head.weight", {3, 6}, 5);
    put("head.bias", {3}, 6);
  } else {
    put("head.mean", {3, 6}, 5);
  }
  return file;
}

}  // namespace

TEST_CASE("scores of a softmax head are those computed by hand") {
  constexpr std::int64_t count = 1100, classes = 7, dims = 5;
  detector::linear_head head{random_matrix(classes, dims, 2, 1), random_vector(classes, 1, 2)};
  row_matrix<float> features = random_matrix(count, dims, 2, 3);
  features.topRows(100) *= 6;  // probabilities that round to 1
  detector::scorer scores(head, std::nullopt, 1);
  REQUIRE(scores.names() == std::vector<std::string>{"msp", "energy"});
  const detector::row_scores got = scores(features);
  REQUIRE(got.predicted.size() == count);
  double least = 1;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<std::size_t>(i);
    std::vector<double> logits;
    for (std::int64_t k = 0; k < classes; ++k) {
      logits.push_back(features.row(i).cast<double>().dot(head.weight.row(k).cast<double>()) +
                       static_cast<double>(head.bias[k]));
    }
    const auto top = std::max_element(logits.begin(), logits.end());
    CHECK(got.predicted[at] == top - logits.begin());
    std::vector<double> others = logits;
    others.erase(others.begin() + (top - logits.begin()));
    const double msp = -std::log1p(std::exp(log_sum(others) - *top));
    // Near 0 the digits of msp itself count, not those of 1 + msp.
    CHECK(std::abs(got.columns[0][at] - msp) <= 1e-3 * std::abs(msp));
    CHECK(got.log_posterior[at] == got.columns[0][at]);
    check_close(got.columns[1][at], log_sum(logits));
    least = std::min(least, -msp);
  }
  CHECK(least < 1e-8);  // or the test above tests nothing
  CHECK(least > 0);
}

TEST_CASE("scores of a Gaussian head are those computed by hand") {
  constexpr std::int64_t count = 600, classes = 4, dims = 6;
  for (const lgm::covariance form :
       {lgm::covariance::identity, lgm::covariance::spherical, lgm::covariance::diagonal}) {
    for (const bool has_prior : {false, true}) {
      detector::gaussian_head head;
      head.covariance = form;
      head.mean = random_matrix(classes, dims, 2, 1);
      if (form == lgm::covariance::spherical) head.log_variance = random_vector(classes, 1, 2);
      if (form == lgm::covariance::diagonal) head.log_variance = random_vector(classes * dims, 1, 2);
      std::vector<double> log_prior(classes, -std::log(4.0));
      if (has_prior) {
        const std::vector<double> share{0.1, 0.2, 0.3, 0.4};
        head.log_prior.resize(classes);
        for (std::size_t k = 0; k < share.size(); ++k) {
          log_prior[k] = std::log(share[k]);
          head.log_prior[static_cast<Eigen::Index>(k)] = static_cast<float>(log_prior[k]);
        }
      }
      const row_matrix<float> features = random_matrix(count, dims, 3, 3);
      detector::scorer scores(head, std::nullopt, 1);
      const detector::row_scores got = scores(features);
      const auto column = [&](const char* name) { return got.columns[scores.index_of(name)]; };
      for (std::int64_t i = 0; i < count; ++i) {
        const auto at = static_cast<std::size_t>(i);
        std::vector<double> density, joint, distance;
        for (std::int64_t k = 0; k < classes; ++k) {
          Eigen::RowVectorXd variance = Eigen::RowVectorXd::Ones(dims);
          for (std::int64_t j = 0; j < dims; ++j) {
            if (form == lgm::covariance::spherical)
              variance[j] = std::exp(static_cast<double>(head.log_variance[k]));
            if (form == lgm::covariance::diagonal)
              variance[j] = std::exp(static_cast<double>(head.log_variance[k * dims + j]));
          }
          const Eigen::RowVectorXd off = (features.row(i) - head.mean.row(k)).cast<double>();
          density.push_back(log_normal(off, variance));
          joint.push_back(density.back() + log_prior[static_cast<std::size_t>(k)]);
          distance.push_back(off.cwiseAbs2().cwiseQuotient(variance).sum());
        }
        const auto top =
            static_cast<std::size_t>(std::max_element(joint.begin(), joint.end()) - joint.begin());
        CHECK(got.predicted[at] == static_cast<std::int64_t>(top));
        check_close(column("log_density")[at], density[top]);
        check_close(column("log_mixture")[at], log_sum(joint));
        check_close(column("mahalanobis_predicted")[at], -distance[top]);
        check_close(column("mahalanobis_nearest")[at], -*std::min_element(distance.begin(), distance.end()));
        std::vector<double> others = joint;
        others.erase(others.begin() + static_cast<std::ptrdiff_t>(top));
        const double posterior = -std::log1p(std::exp(log_sum(others) - joint[top]));
        CHECK(std::abs(column("posterior")[at] - posterior) <= 1e-3 * std::abs(posterior));
        CHECK(got.log_posterior[at] == column("posterior")[at]);
      }
    }
  }
}

TEST_CASE("scores of Gaussians estimated from training features are those computed by hand") {
  constexpr std::int64_t dims = 9;
  const samples train = correlated_samples(2000, dims, 5);
  const plain_gaussians plain = plain_estimate(train);
  const detector::feature_gaussians gaussians = estimate(train);
  const row_matrix<float> features = random_matrix(700, dims, 5, 6);

  const detector::linear_head head{random_matrix(3, dims, 1, 1), random_vector(3, 1, 2)};
  detector::scorer on_softmax(head, gaussians, 1);
  CHECK(on_softmax.names() == std::vector<std::string>{"msp", "energy", "mahalanobis", "gaussian_density"});
  detector::scorer on_gaussians(gaussians.by_class, gaussians, 1);
  CHECK(on_gaussians.names().back() == "mahalanobis");
  const detector::row_scores got = on_softmax(features), other = on_gaussians(features);

  const double floor = detector::default_variance_floor * plain.overall;
  REQUIRE(plain.variance.minCoeff() > floor);
  const Eigen::LLT<matrix> factor(plain.covariance + floor * matrix::Identity(dims, dims));
  for (std::int64_t i = 0; i < features.rows(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    double nearest = std::numeric_limits<double>::infinity();
    std::vector<double> joint;
    for (std::int64_t k = 0; k < 3; ++k) {
      const Eigen::RowVectorXd off = features.row(i).cast<double>() - plain.mean.row(k);
      nearest = std::min(nearest, off.dot(factor.solve(off.transpose())));
      joint.push_back(log_normal(off, plain.variance.row(k)) +
                      std::log(plain.share[static_cast<std::size_t>(k)]));
    }
    check_close(got.columns[2][at], -nearest, 1e-3);
    check_close(got.columns[3][at], log_sum(joint), 1e-3);
    CHECK(other.columns.back()[at] == got.columns[2][at]);
    CHECK(other.columns[on_gaussians.index_of("log_mixture")][at] == got.columns[3][at]);
  }
}

TEST_CASE("training features that Gaussians cannot be estimated from") {
  samples train = correlated_samples(300, 4, 5);
  for (std::int64_t& label : train.labels) label = std::min<std::int64_t>(label, 1);
  CHECK(contains(error_of([&] { estimate(train); }), "class 2 has no training features"));
  train = correlated_samples(300, 4, 5);
  train.features.setOnes();
  CHECK(contains(error_of([&] { estimate(train); }), "no covariance"));
  CHECK(contains(error_of([&] { estimate(train); }), "they are all the same"));
}

TEST_CASE("variances have a floor, and features that are constant are named") {
  samples train = correlated_samples(300, 5, 5);
  train.features.col(2).setConstant(0.1f);
  train.features.col(4) = 3 + 1e-6f * train.features.col(4).array();  // all but constant
  const double overall = plain_estimate(train).overall;
  for (const double floor : {1e-6, 1e-3}) {
    CAPTURE(floor);
    detector::gaussian_estimator estimator(3, 5, 1, floor);
    estimator.add(train.features, train.labels.data());
    const detector::feature_gaussians gaussians = estimator.finish();
    CHECK(estimator.flat_features() == std::vector<std::int64_t>{2, 4});
    double least = 1;
    for (std::int64_t k = 0; k < 3; ++k) {
      for (const std::int64_t j : {2, 4})
        check_close(std::exp(static_cast<double>(gaussians.by_class.log_variance[k * 5 + j])),
                    floor * overall, 1e-6);
      for (const std::int64_t j : {0, 1, 3})
        least = std::min(least, static_cast<double>(gaussians.by_class.log_variance[k * 5 + j]));
    }
    CHECK(least > std::log(floor * overall));
    detector::scorer scores(detector::linear_head{random_matrix(3, 5, 1, 1), random_vector(3, 1, 2)},
                            gaussians, 1);
    // A row that differs where the training rows do not is unlikely, by as much as the floor says.
    row_matrix<float> rows = train.features.topRows(2);
    rows.row(1) = rows.row(0);
    rows(1, 2) += 0.05f;
    const detector::row_scores got = scores(rows);
    const double expected = -0.5 * 0.05 * 0.05 / (floor * overall);
    const std::size_t density = scores.index_of("gaussian_density"),
                      distance = scores.index_of("mahalanobis");
    check_close(got.columns[density][1] - got.columns[density][0], expected, 1e-3);
    check_close(got.columns[distance][1] - got.columns[distance][0], 2 * expected, 1e-3);
  }
  // Not a feature that is constant within each class only.
  train = correlated_samples(300, 5, 5);
  for (std::int64_t i = 0; i < 300; ++i)
    train.features(i, 1) = static_cast<float>(train.labels[static_cast<std::size_t>(i)]);
  detector::gaussian_estimator estimator(3, 5, 1);
  estimator.add(train.features, train.labels.data());
  detector::scorer scores(estimator.finish().by_class, std::nullopt, 1);
  CHECK(estimator.flat_features().empty());
  for (const std::vector<double>& column : scores(train.features).columns)
    CHECK(std::all_of(column.begin(), column.end(), [](double v) { return std::isfinite(v); }));
  // Without a floor a constant feature leaves no covariance.
  train.features.col(1).setConstant(2);
  detector::gaussian_estimator none(3, 5, 1, 0);
  none.add(train.features, train.labels.data());
  CHECK(contains(error_of([&] { none.finish(); }), "--variance-floor is too small"));
}

TEST_CASE("finite rows that are beyond a float's squares: no density, the nearest class, never NaN") {
  constexpr std::int64_t dims = 4, classes = 3;
  const float infinity = std::numeric_limits<float>::infinity();
  row_matrix<float> mean(classes, dims);
  mean << 1, 0, 0, 0, 0, 1, 0, 0, -1, -1, 0, 0;
  row_matrix<float> rows(8, dims);
  rows << 1e20f, 0, 0, 0, 0, 1e25f, 0, 0, -2e30f, -1e30f, 0, 0, 3e38f, 1e38f, 0, 0,  //
      -3e38f, -3e38f, 3e38f, 3e38f, 1e19f, 5e18f, 0, 0, 3e38f, 3e38f, 3e38f, 3e38f, 0.5f, 0, 0, 0;
  const std::vector<std::int64_t> nearest{0, 1, 2, 0, 2, 0, -1, 0};  // -1: two are equally near
  for (const lgm::covariance form :
       {lgm::covariance::identity, lgm::covariance::spherical, lgm::covariance::diagonal}) {
    CAPTURE(static_cast<int>(form));
    detector::gaussian_head head;
    head.covariance = form;
    head.mean = mean;
    if (form == lgm::covariance::spherical)
      head.log_variance = trainer::vector<float>::Constant(classes, 0.3f);
    if (form == lgm::covariance::diagonal)
      head.log_variance = trainer::vector<float>::Constant(classes * dims, -0.3f);
    detector::scorer scores(head, std::nullopt, 1);
    const detector::row_scores got = scores(rows);
    for (std::size_t i = 0; i < 8; ++i) {
      CAPTURE(i);
      if (nearest[i] >= 0) CHECK(got.predicted[i] == nearest[i]);
      CHECK((got.predicted[i] >= 0 && got.predicted[i] < classes));
      CHECK(got.log_posterior[i] <= 0);
      CHECK(got.log_posterior[i] >= -std::log(3.0) - 1e-6);
      CHECK(got.columns[4][i] == got.log_posterior[i]);
      for (const std::size_t column : {0u, 1u, 2u, 3u}) {
        CAPTURE(column);
        CHECK(!std::isnan(got.columns[column][i]));
        CHECK((got.columns[column][i] == -static_cast<double>(infinity)) == (i != 5 && i != 7));
      }
    }
  }
  // Gaussians of features and a softmax head.
  const samples train = correlated_samples(600, dims, 5);
  detector::scorer softmax(
      detector::linear_head{random_matrix(classes, dims, 1e4f, 1), random_vector(classes, 1, 2)},
      estimate(train), 1);
  const detector::row_scores got = softmax(rows);
  for (std::size_t i = 0; i < 7; ++i) {
    CAPTURE(i);
    for (const std::vector<double>& column : got.columns) CHECK(!std::isnan(column[i]));
    CHECK(std::isfinite(got.columns[0][i]));
    CHECK(std::isfinite(got.columns[1][i]));
    if (i != 5) CHECK(got.columns[3][i] == -static_cast<double>(infinity));
    const Eigen::RowVectorXd logits = rows.row(static_cast<Eigen::Index>(i)).cast<double>() *
                                      random_matrix(classes, dims, 1e4f, 1).cast<double>().transpose();
    Eigen::Index largest = 0;
    logits.maxCoeff(&largest);
    CHECK(got.predicted[i] == largest);
  }
}

TEST_CASE("rows that are not finite have no score, and change no other's") {
  const samples train = correlated_samples(600, 5, 5);
  const detector::feature_gaussians gaussians = estimate(train);
  row_matrix<float> features = train.features;
  detector::scorer softmax(detector::linear_head{random_matrix(3, 5, 1, 1), random_vector(3, 1, 2)},
                           gaussians, 1),
      mixture(gaussians.by_class, gaussians, 1);
  for (detector::scorer* scores : {&softmax, &mixture}) {
    features = train.features;
    const detector::row_scores clean = (*scores)(features);
    features(1, 2) = std::numeric_limits<float>::quiet_NaN();
    features(530, 0) = std::numeric_limits<float>::infinity();
    const detector::row_scores got = (*scores)(features);
    for (std::size_t s = 0; s < got.columns.size(); ++s) {
      for (std::size_t i = 0; i < got.predicted.size(); ++i) {
        const bool is_bad = i == 1 || i == 530;
        CHECK((is_bad ? std::isnan(got.columns[s][i]) : got.columns[s][i] == clean.columns[s][i]));
      }
    }
    CHECK(std::isnan(got.log_posterior[1]));
    CHECK((got.predicted[1] >= 0 && got.predicted[1] < 3));
    CHECK(!detector::acceptance{"msp", -std::numeric_limits<double>::infinity()}.accepts(got.columns[0][1]));
  }
}

TEST_CASE("the same rows get the same scores every time") {
  const samples train = correlated_samples(600, 32, 5);
  const detector::feature_gaussians gaussians = estimate(train);
  // Batches much taller than they are wide, and more than one thread, which must not meet in scratch memory.
  detector::scorer scores(gaussians.by_class, gaussians, 3);
  const detector::row_scores first = scores(train.features);
  bool is_same = true;
  for (int round = 0; round < 300; ++round)
    is_same = is_same && scores(train.features).columns == first.columns;
  CHECK(is_same);
}

TEST_CASE("a score that a model does not have is named with those that it has") {
  const detector::scorer scores(detector::linear_head{random_matrix(3, 5, 1, 1), random_vector(3, 1, 2)},
                                std::nullopt, 1);
  CHECK(scores.index_of("energy") == 1);
  CHECK(error_of([&] { static_cast<void>(scores.index_of("log_mixture")); }) ==
        "log_mixture: not a score of this model, which has msp, energy");
}

TEST_CASE("threshold: between two scores, the largest that no more than the share is below") {
  using detector::threshold_of;
  const double infinity = std::numeric_limits<double>::infinity();
  std::vector<double> scores;
  for (int i = 0; i < 100; ++i) scores.push_back(static_cast<double>((i * 37) % 100));
  CHECK(threshold_of(scores, 0) == -0.5);
  CHECK(threshold_of(scores, 0.05) == 4.5);
  CHECK(threshold_of(scores, 0.07) == 6.5);
  CHECK(threshold_of(scores, 0.29) == 28.5);
  CHECK(threshold_of(scores, 0.999) == 98.5);
  CHECK(threshold_of(scores, 1) == 98.5);
  CHECK(threshold_of({4}, 0.5) < 4);
  CHECK(threshold_of({4}, 0.5) > 3.99);
  // Ties stay together, on the side that keeps to the share.
  CHECK(threshold_of({1, 2, 2, 2, 3}, 0.4) == 1.5);
  CHECK(threshold_of({2, 2, 2, 3}, 0.6) == 1.5);
  // Two doubles without one between them are a tie, too.
  const double next = std::nextafter(2.0, 3.0);
  CHECK(threshold_of({1, 2, next}, 0.7) == 1.5);
  // What is as unlikely as can be is below all other scores, and below it there is nothing.
  CHECK(threshold_of({-infinity, 1}, 0) == -infinity);
  CHECK(threshold_of({-infinity, -infinity, 1, 2}, 0.5) == 0.5);
  CHECK(threshold_of({-infinity, -infinity, 1, 2}, 0.4) == -infinity);
  CHECK(threshold_of({-infinity, 1, 2}, 0.7) == 1.5);
  CHECK(contains(error_of([] { threshold_of({}, 0.1); }), "no held-out data"));
  CHECK(contains(error_of([] { threshold_of({1, std::nan("")}, 0.1); }), "not a number"));
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    std::vector<double> values(1 + random() % 50);
    for (double& each : values) each = static_cast<double>(random() % 10);
    const double share = static_cast<double>(random() % 1001) / 1000, threshold = threshold_of(values, share);
    const auto below = [&](double t) {
      return static_cast<double>(
          std::count_if(values.begin(), values.end(), [&](double v) { return v < t; }));
    };
    CHECK(below(threshold) <= share * static_cast<double>(values.size()) + 1e-9);
    // The next score above it is the largest, or one too many to reject.
    double next = infinity;
    for (const double v : values) next = v > threshold ? std::min(next, v) : next;
    const bool is_largest = next == *std::max_element(values.begin(), values.end());
    CHECK((is_largest || below(next + 0.5) > share * static_cast<double>(values.size()) + 1e-9));
    // Scores that are computed a little otherwise fall on the same side.
    for (const double v : values) CHECK(std::abs(v - threshold) > 1e-7);
  }
}

TEST_CASE("rows that are not finite are named, and refused or skipped") {
  row_matrix<float> rows = random_matrix(6, 3, 1, 1);
  using detector::not_finite;
  detector::finite_rows good("a.npy", not_finite::refuse);
  CHECK(good.among(rows, 0).size() == 6);
  good.finish();
  rows(4, 1) = std::numeric_limits<float>::quiet_NaN();
  rows(2, 0) = -std::numeric_limits<float>::infinity();
  detector::finite_rows refused("a.npy", not_finite::refuse), skipped("a.npy", not_finite::skip);
  CHECK(error_of([&] { refused.among(rows, 512); }) ==
        "a.npy: row 514 is not finite; --not-finite skip leaves such rows out");
  CHECK(skipped.among(rows, 512) == std::vector<Eigen::Index>{0, 1, 3, 5});
  detector::finite_rows none("a.npy", not_finite::skip);
  CHECK(none.among(rows.middleRows(2, 1), 0).empty());
  CHECK(error_of([&] { none.finish(); }) == "a.npy: no row is finite");
  CHECK(detector::list_of({1, 2, 3}) == "1, 2, 3");
  std::vector<std::int64_t> many(30, 7);
  CHECK(contains(detector::list_of(many), "7, 7 and 10 more"));
}

TEST_CASE("a model from its file computes network and head") {
  for (const std::string head : {"softmax", "lgm"}) {
    const trainer::model_file file = small_file(head);
    detector::deployed_model model(file, 1);
    CHECK(model.has_network());
    CHECK(model.inputs() == 4);
    CHECK(model.classes() == 3);
    CHECK(model.dims() == 6);
    const row_matrix<float> images = (random_matrix(50, 4, 127, 9).array() + 128).matrix();
    const row_matrix<float> features = model.features(images);
    const auto tensor = [&](const std::string& name, std::int64_t rows, std::int64_t columns,
                            bool is_vector) {
      row_matrix<float> values(rows, columns);
      file.get(name,
               is_vector ? std::vector<std::int64_t>{columns} : std::vector<std::int64_t>{rows, columns},
               values.data());
      return matrix(values.cast<double>());
    };
    matrix hidden =
        ((images.cast<double>().array() - 100) * 0.01).matrix() * tensor("network.0.weight", 4, 5, false);
    hidden.rowwise() += Eigen::RowVectorXd(tensor("network.0.bias", 1, 5, true).row(0));
    hidden = hidden.cwiseMax(0) + 0.25 * hidden.cwiseMin(0);
    matrix expected = hidden * tensor("network.1.weight", 5, 6, false);
    expected.rowwise() += Eigen::RowVectorXd(tensor("network.1.bias", 1, 6, true).row(0));
    CHECK((features.cast<double>() - expected).cwiseAbs().maxCoeff() < 1e-5);
    CHECK(model.scores().names().front() == (head == "softmax" ? "msp" : "log_density"));
  }
}

TEST_CASE("Gaussians and threshold come back from a file with the same scores") {
  const samples train = correlated_samples(400, 6, 5);
  const detector::feature_gaussians gaussians = estimate(train);
  trainer::model_file file = small_file("softmax");
  detector::write_gaussians(gaussians, file);
  detector::write_gaussians(gaussians, file);  // replaces what is there
  file.metadata["detector.score"] = "mahalanobis";
  file.metadata["detector.threshold"] = "-12.345678901234567";
  const trainer::model_file read = trainer::read_model(trainer::model_bytes(file));
  detector::deployed_model model(read, 1);
  detector::scorer direct(detector::read_head(file), gaussians, 1);
  CHECK(model.scores()(train.features).columns == direct(train.features).columns);
  const detector::acceptance accepted = detector::read_acceptance(read);
  CHECK(accepted.score == "mahalanobis");
  CHECK(accepted.threshold == -12.345678901234567);
  CHECK(accepted.accepts(-12.3));
  CHECK(accepted.accepts(accepted.threshold));
  CHECK(!accepted.accepts(-12.4));
}

TEST_CASE("files that hold no model say what is missing") {
  using detector::deployed_model;
  const auto error_without = [](const std::string& name) {
    trainer::model_file file = small_file("softmax");
    file.tensors.erase(name);
    return error_of([&] { const deployed_model model(file, 1); });
  };
  CHECK(contains(error_without("head.bias"), "head.bias"));
  for (const char* field : {"format", "version"}) {
    trainer::model_file file = small_file("lgm");
    file.metadata[field] = "2";
    CHECK(contains(error_of([&] { const deployed_model model(file, 1); }),
                   std::string("has ") + field + " '2'"));
    file.metadata.erase(field);
    CHECK(
        contains(error_of([&] { const deployed_model model(file, 1); }), std::string("no '") + field + "'"));
  }
  for (const float log_variance : {-100.0f, 100.0f, 1e30f, -1e30f}) {
    trainer::model_file file = small_file("lgm");
    const std::vector<float> values{0, log_variance, 0};
    file.put("head.log_variance", {3}, values.data());
    CHECK(contains(error_of([&] { const deployed_model model(file, 1); }),
                   "'head.log_variance' is not the logarithm of variances that a float can hold"));
  }
  CHECK(contains(error_without("head.weight"), "head.mean"));
  CHECK(contains(error_without("input.shift"), "input.shift"));
  CHECK(contains(error_without("network.0.slope"), "network.0.slope"));
  CHECK(contains(error_without("network.1.weight"), "do not fit"));
  trainer::model_file file = small_file("lgm");
  const std::vector<float> zeros(100);
  file.put("head.log_variance", {4}, zeros.data());
  CHECK(contains(error_of([&] { const deployed_model model(file, 1); }), "head.log_variance"));
  file = small_file("lgm");
  detector::write_gaussians(estimate(correlated_samples(100, 5, 5)), file);
  CHECK(contains(error_of([&] { const deployed_model model(file, 1); }), "5 features for a head of 6"));
  file = small_file("lgm");
  file.tensors.erase("head.mean");
  file.put("head.mean", {0, 6}, zeros.data());
  CHECK(contains(error_of([&] { const deployed_model model(file, 1); }), "head.mean"));
  CHECK(contains(error_of([&] { detector::read_acceptance(small_file("lgm")); }), "no threshold"));
  file = small_file("lgm");
  file.metadata = {{"detector.score", "posterior"}, {"detector.threshold", "often"}};
  CHECK(contains(error_of([&] { detector::read_acceptance(file); }), "'often'"));
}
