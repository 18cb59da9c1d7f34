// SPDX-License-Identifier: MIT
#include "scores.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <lgm/lgm.hpp>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace detector {

namespace {

using trainer::row_matrix;

// Rows of one call of the library: the scratch memory stays small however many rows there are.
constexpr std::int64_t score_batch = 512;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double log_two_pi = 1.8378770664093453;

void check(lgm::status status) {
  if (status != lgm::status::success) throw std::runtime_error(std::string("lgm: ") + lgm::to_string(status));
}

lgm::host_context context_of(int threads) {
  lgm::host_context context;
  context.threads = threads;
  return context;
}

lgm::shape shape_of(std::int64_t samples, std::int64_t classes, std::int64_t dims,
                    lgm::covariance covariance) {
  return {samples, classes, dims, covariance};
}

lgm::workspace workspace_of(std::vector<std::byte>& memory) { return {memory.data(), memory.size()}; }

void require_bytes(std::vector<std::byte>& memory, std::size_t bytes) {
  if (memory.size() < bytes) memory.resize(bytes);
}

lgm::whitening<float> pointers_of(feature_gaussians& gaussians) {
  return {gaussians.whitening.data(), gaussians.offset.data(), &gaussians.log_abs_det};
}

// whitened = W (rows - c).
void whiten(feature_gaussians& gaussians, const trainer::const_matrix_view<float>& rows,
            row_matrix<float>& whitened, int threads, std::vector<std::byte>& memory) {
  const lgm::host_context context = context_of(threads);
  lgm::shape shape =
      shape_of(rows.rows(), gaussians.by_class.mean.rows(), rows.cols(), lgm::covariance::identity);
  shape.feature_stride = rows.outerStride();
  shape.gradient_stride = whitened.outerStride();
  require_bytes(memory, lgm::workspace_size<float>(context, shape));
  check(lgm::whiten(context, shape, pointers_of(gaussians), rows.data(), whitened.data(),
                    workspace_of(memory)));
}

// What a float makes of a number: beyond its range an infinity.
double rounded(double value) {
  constexpr double most = std::numeric_limits<float>::max();
  return std::abs(value) > most ? std::copysign(infinity, value)
                                : static_cast<double>(static_cast<float>(value));
}

// log of the sum of exp(value), of which `top` is the largest and finite.
double log_sum(const std::vector<double>& values, double top) {
  double sum = 0;
  for (const double each : values) sum += std::exp(each - top);
  return top + std::log(sum);
}

// log p of the largest of the logits, which is at `largest`, exact even where p rounds to 1: - log(1 + sum of the others over it).
template <class Row>
double log_share(const Row& logits, Eigen::Index largest) {
  const auto top = static_cast<double>(logits[largest]);
  double others = 0;
  for (Eigen::Index k = 0; k < logits.size(); ++k) {
    if (k != largest) others += std::exp(static_cast<double>(logits[k]) - top);
  }
  return -std::log1p(others);
}

[[noreturn]] void fail_shape(const std::string& name, const std::string& expected) {
  throw std::runtime_error("tensor '" + name + "' is not " + expected);
}

// A matrix of at least one row and column.
row_matrix<float> read_matrix(const trainer::model_file& file, const std::string& name) {
  const auto found = file.tensors.find(name);
  if (found == file.tensors.end()) throw std::runtime_error("has no tensor '" + name + "'");
  const std::vector<std::int64_t> shape = found->second.shape;
  if (shape.size() != 2 || shape[0] < 1 || shape[1] < 1) fail_shape(name, "a matrix");
  file.find(name, trainer::element::f32, shape);
  row_matrix<float> result(shape[0], shape[1]);
  file.get(name, shape, result.data());
  return result;
}

// Variances and their inverses are numbers that a float holds.
void require_variances(const std::string& name, const trainer::vector<float>& log_variance) {
  if (!log_variance.array().exp().allFinite() || !(-log_variance).array().exp().allFinite())
    fail_shape(name, "the logarithm of variances that a float can hold");
}

trainer::vector<float> read_vector(const trainer::model_file& file, const std::string& name,
                                   std::int64_t size) {
  file.find(name, trainer::element::f32, {size});
  trainer::vector<float> result(size);
  file.get(name, {size}, result.data());
  return result;
}

}  // namespace

// ---- estimates ----

gaussian_estimator::gaussian_estimator(std::int64_t classes, std::int64_t dims, int threads,
                                       double variance_floor)
    : classes_(classes), dims_(dims), threads_(threads), variance_floor_(variance_floor) {
  count_.setZero(classes);
  mean_.setZero(classes * dims);
  m2_.setZero(classes * dims);
  scatter_.setZero(dims * dims);
  residual_.setZero(classes * dims);
  least_.setConstant(dims, std::numeric_limits<float>::infinity());
  largest_.setConstant(dims, -std::numeric_limits<float>::infinity());
}

void gaussian_estimator::add(const trainer::const_matrix_view<float>& features, const std::int64_t* labels) {
  const lgm::host_context context = context_of(threads_);
  const lgm::class_moments<double> moments{count_.data(), mean_.data(), m2_.data(), scatter_.data(),
                                           residual_.data()};
  for (std::int64_t begin = 0; begin < features.rows(); begin += score_batch) {
    lgm::shape shape = shape_of(std::min<std::int64_t>(score_batch, features.rows() - begin), classes_, dims_,
                                lgm::covariance::diagonal);
    shape.feature_stride = features.outerStride();
    require_bytes(memory_, lgm::workspace_size<float>(context, shape));
    check(lgm::accumulate_moments<float>(context, shape, lgm::loss_options<float>(),
                                         features.data() + begin * features.outerStride(), labels + begin,
                                         moments, workspace_of(memory_)));
  }
  if (features.rows() == 0) return;
  least_ = least_.cwiseMin(features.colwise().minCoeff().transpose());
  largest_ = largest_.cwiseMax(features.colwise().maxCoeff().transpose());
}

trainer::vector<double> gaussian_estimator::overall_variance() const {
  using wide = Eigen::Map<const row_matrix<double>>;
  const wide mean(mean_.data(), classes_, dims_), m2(m2_.data(), classes_, dims_);
  const double samples = count_.sum();
  const Eigen::RowVectorXd centre = count_.transpose() * mean / samples;
  const Eigen::RowVectorXd between = count_.transpose() * (mean.rowwise() - centre).cwiseAbs2();
  return ((m2.colwise().sum() + between) / samples).transpose();
}

feature_gaussians gaussian_estimator::finish() {
  for (std::int64_t k = 0; k < classes_; ++k) {
    if (!(count_[k] > 0)) {
      throw std::runtime_error(fmt::format("class {} has no training features, of {} classes", k, classes_));
    }
  }
  const lgm::host_context context = context_of(threads_);
  const lgm::shape shape = shape_of(0, classes_, dims_, lgm::covariance::diagonal);
  const lgm::class_moments<double> moments{count_.data(), mean_.data(), m2_.data(), scatter_.data(),
                                           residual_.data()};
  feature_gaussians result;
  gaussian_head& by_class = result.by_class;
  by_class.mean.resize(classes_, dims_);
  by_class.log_variance.resize(classes_ * dims_);
  by_class.log_prior.resize(classes_);
  const trainer::vector<double> overall = overall_variance();
  const double floor = variance_floor_ * overall.mean();
  flat_.clear();
  for (std::int64_t j = 0; j < dims_; ++j) {
    if (overall[j] < floor || least_[j] == largest_[j]) flat_.push_back(j);
  }
  lgm::estimate_options<float> options;
  options.variance_floor = static_cast<float>(floor);
  check(lgm::estimate(
      context, shape, moments, options,
      lgm::parameters<float>{by_class.mean.data(), by_class.log_variance.data(), by_class.log_prior.data()}));

  result.whitening.resize(dims_, dims_);
  result.offset.resize(dims_);
  lgm::whitening_options<float> common;
  common.variance_floor = static_cast<float>(floor);
  require_bytes(memory_, lgm::whitening_workspace_size<double>(context, shape));
  const lgm::status status =
      lgm::estimate_whitening(context, shape, moments, common, pointers_of(result), workspace_of(memory_));
  if (status == lgm::status::not_positive_definite) {
    throw std::runtime_error("the training features have no covariance: " +
                             std::string(overall.maxCoeff() > 0
                                             ? "some depend on others, and --variance-floor is too small"
                                             : "they are all the same"));
  }
  check(status);
  result.whitened_mean.resize(classes_, dims_);
  whiten(result, by_class.mean, result.whitened_mean, threads_, memory_);
  return result;
}

// ---- scores ----

void row_scores::append(const row_scores& more) {
  predicted.insert(predicted.end(), more.predicted.begin(), more.predicted.end());
  log_posterior.insert(log_posterior.end(), more.log_posterior.begin(), more.log_posterior.end());
  columns.resize(more.columns.size());
  for (std::size_t i = 0; i < columns.size(); ++i) {
    columns[i].insert(columns[i].end(), more.columns[i].begin(), more.columns[i].end());
  }
}

const std::vector<std::string>& all_score_names() {
  static const std::vector<std::string> names{"msp",
                                              "energy",
                                              "log_density",
                                              "log_mixture",
                                              "mahalanobis_predicted",
                                              "mahalanobis_nearest",
                                              "posterior",
                                              "mahalanobis",
                                              "gaussian_density"};
  return names;
}

scorer::scorer(head the_head, std::optional<feature_gaussians> gaussians, int threads)
    : head_(std::move(the_head)), gaussians_(std::move(gaussians)), threads_(threads) {
  const bool is_linear = std::holds_alternative<linear_head>(head_);
  const row_matrix<float>& matrix =
      is_linear ? std::get<linear_head>(head_).weight : std::get<gaussian_head>(head_).mean;
  classes_ = matrix.rows();
  dims_ = matrix.cols();
  if (is_linear) {
    names_ = {"msp", "energy"};
  } else {
    names_ = {"log_density", "log_mixture", "mahalanobis_predicted", "mahalanobis_nearest", "posterior"};
  }
  if (!gaussians_) return;
  names_.emplace_back("mahalanobis");
  if (is_linear) names_.emplace_back("gaussian_density");
  if (gaussians_->by_class.mean.cols() != dims_) {
    throw std::runtime_error(
        fmt::format("estimates of {} features for a head of {}", gaussians_->by_class.mean.cols(), dims_));
  }
}

std::size_t scorer::index_of(std::string_view name) const {
  const auto found = std::find(names_.begin(), names_.end(), name);
  if (found == names_.end()) {
    throw std::runtime_error(
        fmt::format("{}: not a score of this model, which has {}", name, fmt::join(names_, ", ")));
  }
  return static_cast<std::size_t>(found - names_.begin());
}

row_scores scorer::operator()(const trainer::const_matrix_view<float>& features) {
  const auto count = static_cast<std::size_t>(features.rows());
  row_scores result;
  result.predicted.resize(count);
  result.log_posterior.resize(count);
  result.columns.assign(names_.size(), std::vector<double>(count));
  logits_.resize(score_batch, classes_);
  for (std::int64_t begin = 0; begin < features.rows(); begin += score_batch) {
    const auto batch =
        features.middleRows(begin, std::min<std::int64_t>(score_batch, features.rows() - begin));
    if (const auto* const linear = std::get_if<linear_head>(&head_)) {
      score_linear(*linear, batch, begin, result);
    } else {
      score_gaussian(std::get<gaussian_head>(head_), batch, begin, result);
    }
    if (gaussians_) score_estimates(batch, begin, result);
  }
  for (std::int64_t i = 0; i < features.rows(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (features.row(i).allFinite()) {
      // What is not a number overflowed on its way to a distance that no float can hold.
      for (std::vector<double>& column : result.columns) {
        if (std::isnan(column[at])) column[at] = -infinity;
      }
      continue;
    }
    // Without this a row of NaN could look like any other: what is largest among NaN is arbitrary.
    constexpr double nan = std::numeric_limits<double>::quiet_NaN();
    result.predicted[at] = 0;
    result.log_posterior[at] = nan;
    for (std::vector<double>& column : result.columns) column[at] = nan;
  }
  return result;
}

void scorer::score_linear(const linear_head& of, const rows& features, std::int64_t begin, row_scores& out) {
  // In double, which no product of two floats is too large for.
  wide_logits_.resize(score_batch, classes_);
  auto logits = wide_logits_.topRows(features.rows());
  logits.noalias() = features.cast<double>() * of.weight.cast<double>().transpose();
  logits.rowwise() += of.bias.cast<double>().transpose();
  for (Eigen::Index i = 0; i < features.rows(); ++i) {
    const auto at = static_cast<std::size_t>(begin + i);
    Eigen::Index largest = 0;
    const double top = logits.row(i).maxCoeff(&largest);
    const double share = log_share(logits.row(i), largest);
    out.predicted[at] = largest;
    out.log_posterior[at] = share;
    out.columns[0][at] = share;
    out.columns[1][at] = top - share;
  }
}

void scorer::score_gaussian(const gaussian_head& of, const rows& features, std::int64_t begin,
                            row_scores& out) {
  const lgm::host_context context = context_of(threads_);
  const std::int64_t samples = features.rows();
  lgm::shape shape = shape_of(samples, classes_, dims_, of.covariance);
  shape.feature_stride = features.outerStride();
  lgm::mixture<float> mixture;
  mixture.mean = of.mean.data();
  if (of.covariance != lgm::covariance::identity) mixture.log_variance = of.log_variance.data();
  if (of.log_prior.size() > 0) mixture.log_prior = of.log_prior.data();
  require_bytes(memory_, lgm::workspace_size<float>(context, shape));

  trainer::vector<float> density(samples), log_mixture(samples), predicted_distance(samples),
      nearest_distance(samples);
  lgm::score_result<float> result;
  result.predicted = out.predicted.data() + begin;
  result.log_density = density.data();
  result.log_mixture = log_mixture.data();
  result.squared_mahalanobis = predicted_distance.data();
  result.nearest_squared_mahalanobis = nearest_distance.data();
  check(lgm::score(context, shape, mixture, features.data(), result, workspace_of(memory_)));
  check(lgm::logits(context, shape, mixture, features.data(), logits_.data(), workspace_of(memory_)));

  for (Eigen::Index i = 0; i < samples; ++i) {
    const auto at = static_cast<std::size_t>(begin + i);
    const std::int64_t predicted = out.predicted[at];
    const bool is_far = predicted < 0 || logits_.row(i).hasNaN() || !std::isfinite(logits_(i, predicted)) ||
                        !std::isfinite(density[i]);
    if (is_far) {
      score_far(of, features.data() + i * features.outerStride(), at, out);
      continue;
    }
    const double share = log_share(logits_.row(i), predicted);
    out.log_posterior[at] = share;
    out.columns[0][at] = static_cast<double>(density[i]);
    out.columns[1][at] = static_cast<double>(log_mixture[i]);
    out.columns[2][at] = -static_cast<double>(predicted_distance[i]);
    out.columns[3][at] = -static_cast<double>(nearest_distance[i]);
    out.columns[4][at] = share;
  }
}

// The scores of a row whose logits are beyond a float, in double. Classes are compared by the differences of their logits, in
// which the square of the row cancels: where it is large, that is all the difference there is.
void scorer::score_far(const gaussian_head& of, const float* feature, std::size_t at, row_scores& out) const {
  const auto count = static_cast<std::size_t>(classes_);
  // Logits less that of class 0, without priors at first.
  std::vector<double> distances(count), log_dets(count), priors(count), relative(count);
  const auto log_variance = [&](std::int64_t k, std::int64_t j) {
    if (of.covariance == lgm::covariance::identity) return 0.0;
    return static_cast<double>(
        of.log_variance[of.covariance == lgm::covariance::spherical ? k : k * dims_ + j]);
  };
  for (std::size_t k = 0; k < count; ++k) {
    const auto row = static_cast<std::int64_t>(k);
    priors[k] = of.log_prior.size() > 0 ? static_cast<double>(of.log_prior[row]) : 0;
    double excess = 0;  // of the distance over that to class 0
    for (std::int64_t j = 0; j < dims_; ++j) {
      const double scale = std::exp(-0.5 * log_variance(row, j));
      const double first_scale = std::exp(-0.5 * log_variance(0, j));
      const auto x = static_cast<double>(feature[j]), mean = static_cast<double>(of.mean(row, j)),
                 first_mean = static_cast<double>(of.mean(0, j));
      const double off = (x - mean) * scale, first_off = (x - first_mean) * first_scale;
      distances[k] += off * off;
      log_dets[k] += 0.5 * log_variance(row, j);
      excess += (x * (scale - first_scale) - (mean * scale - first_mean * first_scale)) * (off + first_off);
    }
    relative[k] = priors[k] - priors[0] - (log_dets[k] - log_dets[0]) - 0.5 * excess;
  }
  const auto largest =
      static_cast<std::size_t>(std::max_element(relative.begin(), relative.end()) - relative.begin());
  const double share = log_share(Eigen::Map<const Eigen::RowVectorXd>(relative.data(), classes_),
                                 static_cast<Eigen::Index>(largest));
  const double density =
      -0.5 * distances[largest] - log_dets[largest] - 0.5 * log_two_pi * static_cast<double>(dims_);
  const double all_priors = log_sum(priors, *std::max_element(priors.begin(), priors.end()));
  out.predicted[at] = static_cast<std::int64_t>(largest);
  out.log_posterior[at] = share;
  out.columns[0][at] = rounded(density);
  out.columns[1][at] = rounded(density + priors[largest] - all_priors - share);
  out.columns[2][at] = -rounded(distances[largest]);
  out.columns[3][at] = -rounded(*std::min_element(distances.begin(), distances.end()));
  out.columns[4][at] = share;
}

void scorer::score_estimates(const rows& features, std::int64_t begin, row_scores& out) {
  const bool is_linear = std::holds_alternative<linear_head>(head_);
  const std::int64_t samples = features.rows();
  whitened_.resize(samples, dims_);
  whiten(*gaussians_, features, whitened_, threads_, memory_);

  const lgm::host_context context = context_of(threads_);
  const std::int64_t classes = gaussians_->by_class.mean.rows();
  trainer::vector<float> value(samples);
  lgm::score_result<float> result;
  result.nearest_squared_mahalanobis = value.data();
  lgm::shape shape = shape_of(samples, classes, dims_, lgm::covariance::identity);
  require_bytes(memory_, lgm::workspace_size<float>(context, shape));
  lgm::mixture<float> mixture;
  mixture.mean = gaussians_->whitened_mean.data();
  check(lgm::score(context, shape, mixture, whitened_.data(), result, workspace_of(memory_)));
  std::vector<double>& mahalanobis = out.columns[is_linear ? 2 : 5];
  for (Eigen::Index i = 0; i < samples; ++i) {
    mahalanobis[static_cast<std::size_t>(begin + i)] = -static_cast<double>(value[i]);
  }
  if (!is_linear) return;

  result = {};
  result.log_mixture = value.data();
  shape.covariance = lgm::covariance::diagonal;
  shape.feature_stride = features.outerStride();
  require_bytes(memory_, lgm::workspace_size<float>(context, shape));
  const gaussian_head& by_class = gaussians_->by_class;
  mixture = {by_class.mean.data(), by_class.log_variance.data(), by_class.log_prior.data()};
  check(lgm::score(context, shape, mixture, features.data(), result, workspace_of(memory_)));
  for (Eigen::Index i = 0; i < samples; ++i) {
    out.columns[3][static_cast<std::size_t>(begin + i)] = static_cast<double>(value[i]);
  }
}

// ---- files ----

head read_head(const trainer::model_file& file) {
  if (file.tensors.count("head.weight") != 0) {
    linear_head result;
    result.weight = read_matrix(file, "head.weight");
    result.bias = read_vector(file, "head.bias", result.weight.rows());
    return result;
  }
  gaussian_head result;
  result.mean = read_matrix(file, "head.mean");
  const std::int64_t classes = result.mean.rows(), dims = result.mean.cols();
  result.covariance = lgm::covariance::identity;
  const auto variance = file.tensors.find("head.log_variance");
  if (variance != file.tensors.end()) {
    const bool is_diagonal = variance->second.shape.size() == 2;
    result.covariance = is_diagonal ? lgm::covariance::diagonal : lgm::covariance::spherical;
    const std::vector<std::int64_t> shape =
        is_diagonal ? std::vector<std::int64_t>{classes, dims} : std::vector<std::int64_t>{classes};
    result.log_variance.resize(is_diagonal ? classes * dims : classes);
    file.get(variance->first, shape, result.log_variance.data());
    require_variances(variance->first, result.log_variance);
  }
  if (file.tensors.count("head.log_prior") != 0) {
    result.log_prior = read_vector(file, "head.log_prior", classes);
  }
  return result;
}

std::optional<feature_gaussians> read_gaussians(const trainer::model_file& file, int threads) {
  if (file.tensors.count("detector.mean") == 0) return std::nullopt;
  feature_gaussians result;
  gaussian_head& by_class = result.by_class;
  by_class.mean = read_matrix(file, "detector.mean");
  const std::int64_t classes = by_class.mean.rows(), dims = by_class.mean.cols();
  by_class.log_variance.resize(classes * dims);
  file.get("detector.log_variance", {classes, dims}, by_class.log_variance.data());
  require_variances("detector.log_variance", by_class.log_variance);
  by_class.log_prior = read_vector(file, "detector.log_prior", classes);
  result.whitening = read_matrix(file, "detector.whitening");
  if (result.whitening.rows() != dims || result.whitening.cols() != dims) {
    fail_shape("detector.whitening", fmt::format("[{0}, {0}]", dims));
  }
  result.offset = read_vector(file, "detector.offset", dims);
  result.log_abs_det = read_vector(file, "detector.log_abs_det", 1)[0];
  result.whitened_mean.resize(classes, dims);
  std::vector<std::byte> memory;
  whiten(result, by_class.mean, result.whitened_mean, threads, memory);
  return result;
}

void write_gaussians(const feature_gaussians& gaussians, trainer::model_file& file) {
  const gaussian_head& by_class = gaussians.by_class;
  const std::int64_t classes = by_class.mean.rows(), dims = by_class.mean.cols();
  const auto put = [&](const std::string& name, const std::vector<std::int64_t>& shape, const float* values) {
    file.tensors.erase(name);
    file.put(name, shape, values);
  };
  put("detector.mean", {classes, dims}, by_class.mean.data());
  put("detector.log_variance", {classes, dims}, by_class.log_variance.data());
  put("detector.log_prior", {classes}, by_class.log_prior.data());
  put("detector.whitening", {dims, dims}, gaussians.whitening.data());
  put("detector.offset", {dims}, gaussians.offset.data());
  put("detector.log_abs_det", {1}, &gaussians.log_abs_det);
}

}  // namespace detector
