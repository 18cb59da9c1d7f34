// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/problem.hpp"
#include "support/tolerance.hpp"

// The library against PyTorch: its cross entropy where the head is linear, and its automatic differentiation of the mixture
// loss. golden/torch_cross_entropy.py made the values and says what they are.

namespace {

using nlohmann::json;
using support::growth;
using support::real;

const json& golden() {
  static const json file = [] {
    std::ifstream stream(LGM_GOLDEN_DIR "/torch_cross_entropy.json");
    return json::parse(stream);
  }();
  return file;
}

// All numbers of nested arrays in order; null is not a number.
template <class T>
void append_numbers(const json& value, std::vector<T>& out) {
  if (value.is_array()) {
    for (const json& element : value) append_numbers(element, out);
  } else {
    out.push_back(value.is_null() ? std::numeric_limits<T>::quiet_NaN()
                                  : static_cast<T>(value.get<double>()));
  }
}
template <class T>
std::vector<T> numbers(const json& value) {
  std::vector<T> out;
  append_numbers(value, out);
  return out;
}

lgm::covariance covariance_named(const std::string& name) {
  for (const lgm::covariance c : support::covariances)
    if (support::name_of(c) == name) return c;
  throw std::invalid_argument("no such covariance: " + name);
}
lgm::reduction reduction_named(const std::string& name) {
  for (const lgm::reduction r : support::reductions)
    if (support::name_of(r) == name) return r;
  throw std::invalid_argument("no such reduction: " + name);
}

// A case of the file as the library takes it.
template <class T>
struct golden_case {
  support::problem<T> p;
  std::vector<T> class_weight, sample_weight, probabilities;
  T normalizer = 0;
  bool soft = false;

  golden_case(const json& problem, const json& entry) {
    const bool linear = entry["kind"] == "linear";
    p.shape = support::make_shape(
        problem["samples"], problem["classes"], problem["dims"],
        linear ? lgm::covariance::identity : covariance_named(entry["covariance"].get<std::string>()));
    p.features = numbers<T>(problem["features"]);
    p.mean = numbers<T>(problem["mean"]);
    p.log_prior = numbers<T>(problem["bias"]);
    p.options.reduction = reduction_named(entry["reduction"].get<std::string>());
    p.options.ignore_label = entry["ignore_label"];
    p.options.label_smoothing = entry["label_smoothing"].get<T>();
    p.upstream = numbers<T>(problem["upstream"]);
    p.upstream_given = true;
    if (entry["class_weight"]) {
      class_weight = numbers<T>(problem["class_weight"]);
      p.options.class_weight = class_weight.data();
    }
    const json& targets = problem["targets"][entry["targets"].get<std::string>()];
    soft = targets[0].is_array();
    if (soft) probabilities = numbers<T>(targets);
    p.labels.assign(p.samples(), 0);
    if (!soft) p.labels = targets.get<std::vector<std::int64_t>>();
    if (linear) {
      // |x - mu_k|^2 / 2 = |x|^2 / 2 - mu_k x + |mu_k|^2 / 2; exact, as the script says.
      for (std::size_t k = 0; k < p.classes(); ++k)
        for (std::size_t j = 0; j < p.dims(); ++j) p.log_prior[k] += mean(k, j) * mean(k, j) / 2;
      return;
    }
    p.log_variance = numbers<T>(problem["log_variance"][entry["covariance"].get<std::string>()]);
    p.options.alpha = entry["alpha"];
    p.options.lambda = entry["lambda"];
    if (entry["sample_weight"]) {
      sample_weight = numbers<T>(problem["sample_weight"]);
      p.options.sample_weight = sample_weight.data();
    }
    if (!entry["normalizer"].is_null()) {
      normalizer = entry["normalizer"];
      p.options.normalizer = &normalizer;
    }
  }
  // The options point into the object.
  golden_case(const golden_case&) = delete;

  T mean(std::size_t k, std::size_t j) const { return p.mean[k * p.dims() + j]; }
  T weight_of_class(std::size_t k) const { return class_weight.empty() ? T(1) : class_weight[k]; }
  T weight_of_sample(std::size_t i) const { return sample_weight.empty() ? T(1) : sample_weight[i]; }

  // What the loss wants of class k, not smoothed; nothing of an ignored sample.
  T target(std::size_t i, std::size_t k) const {
    if (soft) return probabilities[i * p.classes() + k];
    return !p.ignored(i) && support::size_of(p.labels[i]) == k ? T(1) : T(0);
  }

  // Calls f with the targets, labels or soft.
  template <class F>
  lgm::status with_targets(F f) const {
    if (!soft) return f(p.labels.data());
    lgm::soft_targets<T> targets;
    targets.data = probabilities.data();
    return f(targets);
  }
};

// What the file says the answer is. Empty: it does not say.
struct golden_values {
  std::vector<real> total, classification, likelihood, log_evidence;
  std::vector<real> feature, mean, log_variance, log_prior;
  std::int64_t counted, correct;

  golden_values(const json& problem, const json& entry)
      : total(numbers<real>(entry["total"])), counted(entry["counted"]), correct(entry["correct"]) {
    const json& gradients = entry["gradients"];
    feature = numbers<real>(gradients["feature"]);
    if (entry["kind"] == "linear") {
      classification = total;
      log_prior = numbers<real>(gradients["bias"]);
      // dl_k/dmu_k = x - mu_k, where dl_k/dweight_k = x.
      mean = numbers<real>(gradients["weight"]);
      const std::vector<real> weight = numbers<real>(problem["mean"]);
      const std::size_t dims = weight.size() / log_prior.size();
      for (std::size_t n = 0; n < mean.size(); ++n) mean[n] -= log_prior[n / dims] * weight[n];
      return;
    }
    classification = numbers<real>(entry["classification"]);
    likelihood = numbers<real>(entry["likelihood"]);
    log_evidence = numbers<real>(entry["log_evidence"]);
    mean = numbers<real>(gradients["mean"]);
    log_prior = numbers<real>(gradients["log_prior"]);
    if (gradients.contains("log_variance")) log_variance = numbers<real>(gradients["log_variance"]);
  }
};

// How far rounding in T may move each kind of result: one number for all entries, from the largest of each size.
// tolerance.hpp explains growth and the error E of a logit; all logits may come from products here.
struct golden_bounds {
  real loss = 0, log_evidence = 0, feature = 0, mean = 0, log_variance = 0, log_prior = 0;
};

template <class T, class Case>
golden_bounds bound(const Case& c, std::int64_t counted) {
  const auto& p = c.p;
  const std::size_t samples = p.samples(), classes = p.classes(), dims = p.dims();
  const real eps = support::epsilon<T>();

  std::vector<real> centre(dims, 0);
  for (std::size_t n = 0; n < classes * dims; ++n)
    centre[n % dims] += static_cast<real>(p.mean[n]) / static_cast<real>(classes);
  const auto log_variance = [&](std::size_t k, std::size_t j) -> real {
    if (p.shape.covariance == lgm::covariance::identity) return 0;
    return p.log_variance[p.shape.covariance == lgm::covariance::spherical ? k : k * dims + j];
  };
  // The largest |x'|^2 + |mu'|^2 and |x'| + |mu'|, centred and over Lambda, and the largest |l| without margin.
  real norm = 0, pull = 0, logit = 0;
  for (std::size_t i = 0; i < samples; ++i)
    for (std::size_t k = 0; k < classes; ++k) {
      real squares = 0, distance = 0, logs = std::fabs(static_cast<real>(p.log_prior[k]));
      for (std::size_t j = 0; j < dims; ++j) {
        const real precision = std::exp(-log_variance(k, j));
        const real x = p.feature(i, j) - centre[j], mu = c.mean(k, j) - centre[j];
        squares += precision * (x * x + mu * mu);
        distance += precision * (x - mu) * (x - mu) / 2;
        pull = std::max(pull, precision * (std::fabs(x) + std::fabs(mu)));
        logs += std::fabs(log_variance(k, j)) / 2;
      }
      norm = std::max(norm, squares);
      logit = std::max(logit, logs + distance);
    }

  // Upper bounds, summed over the samples: of the coefficients in the loss, and of what gradients are multiplied by.
  real coefficient = 0, slope = 0, largest_slope = 0, target = 0, divisor = 0;
  for (std::size_t i = 0; i < samples; ++i) {
    real of_target = 0, of_smoothing = 0;
    for (std::size_t k = 0; k < classes; ++k) {
      const real t = c.target(i, k), s = c.weight_of_sample(i) * c.weight_of_class(k);
      target = std::max(target, t);
      of_target += s * t;
      if (!p.ignored(i)) of_smoothing += s * p.options.label_smoothing / static_cast<real>(classes);
    }
    const bool each = p.options.reduction == lgm::reduction::none;
    const real u = std::fabs(static_cast<real>(p.upstream[each ? i : 0]));
    coefficient += of_target + of_smoothing;
    slope += u * (of_target + of_smoothing);
    largest_slope = std::max(largest_slope, u * (of_target + of_smoothing));
    divisor += c.soft ? static_cast<real>(c.weight_of_sample(i)) : of_target;
  }
  golden_bounds b;
  if (counted == 0) return b;  // zero or not a number, exactly
  if (p.options.normalizer != nullptr) divisor = *p.options.normalizer;
  if (p.options.reduction != lgm::reduction::mean) divisor = 1;
  coefficient /= divisor, slope /= divisor, largest_slope /= divisor;
  const real margin = 1 + p.options.alpha * target, lambda = p.options.lambda, sum = growth<T>(samples);

  const real e = margin * 8 * eps * norm + 4 * eps * (1 + margin) * logit + growth<T>(dims) * logit;
  const real largest = 2 * margin * logit + std::log(static_cast<real>(classes));  // of E - l_k, and of |E|
  b.log_evidence = 2 * e + growth<T>(classes) * largest;
  b.loss = coefficient * (1 + lambda) * (2 * e + (growth<T>(classes) + sum) * largest);
  // Of one unit of slope: the errors of g and w, and the size of w, each summed over the classes.
  const real g = 4 * e + growth<T>(classes), w = margin * g, w_size = 2 * margin + lambda;
  b.log_prior = slope * (g + sum * 2);
  b.feature = largest_slope * (w + growth<T>(classes) * w_size) * pull;
  b.mean = slope * (w + sum * w_size) * pull;
  const real entries = p.shape.covariance == lgm::covariance::spherical ? static_cast<real>(dims) : 1;
  b.log_variance =
      slope * (entries * g + w * norm + growth<T>(samples * dims) * w_size * (entries + norm)) / 2;
  return b;
}

template <class T>
void check_case(const json& problem, const json& entry, const support::suite_context& context) {
  const golden_case<T> c(problem, entry);
  const golden_values expected(problem, entry);
  const golden_bounds mine = bound<T>(c, expected.counted), torchs = bound<double>(c, expected.counted);
  const auto within = [&](const std::string& name, const auto& got, const std::vector<real>& values,
                          real golden_bounds::*which) {
    support::check_within(name, got, values, std::vector<real>(values.size(), mine.*which + torchs.*which));
  };
  const auto check_losses = [&](const support::outputs<T>& got) {
    within("total", got.total, expected.total, &golden_bounds::loss);
    within("classification", got.classification, expected.classification, &golden_bounds::loss);
    if (!expected.likelihood.empty())
      within("likelihood", got.likelihood, expected.likelihood, &golden_bounds::loss);
    if (!expected.log_evidence.empty())
      within("log_evidence", got.log_evidence, expected.log_evidence, &golden_bounds::log_evidence);
    CHECK(got.counted[0] == expected.counted);
    CHECK(got.correct[0] == expected.correct);
  };
  const auto check_gradients = [&](const support::outputs<T>& got) {
    within("feature gradient", got.feature, expected.feature, &golden_bounds::feature);
    within("mean gradient", got.mean, expected.mean, &golden_bounds::mean);
    within("log_variance gradient", got.log_variance, expected.log_variance, &golden_bounds::log_variance);
    within("log_prior gradient", got.log_prior, expected.log_prior, &golden_bounds::log_prior);
  };
  const auto call = [&](auto function) {
    const lgm::status answer = support::run<T>(context, c.p.shape, [&](lgm::workspace w) {
      return c.with_targets([&](auto targets) { return function(targets, w); });
    });
    CHECK(answer == lgm::status::success);
    return answer == lgm::status::success;
  };
  const support::problem<T>& p = c.p;

  support::outputs<T> fused(p);
  if (call([&](auto targets, lgm::workspace w) {
        return lgm::forward_backward(context, p.shape, p.mixture(), p.options, p.features.data(), targets,
                                     p.upstream_data(), fused.result(), fused.gradients(), w);
      })) {
    check_losses(fused);
    check_gradients(fused);
  }
  support::outputs<T> apart(p);
  if (call([&](auto targets, lgm::workspace w) {
        return lgm::forward(context, p.shape, p.mixture(), p.options, p.features.data(), targets,
                            apart.result(), w);
      }) &&
      call([&](auto targets, lgm::workspace w) {
        return lgm::backward(context, p.shape, p.mixture(), p.options, p.features.data(), targets,
                             apart.row_state.data(), p.upstream_data(), apart.gradients(), w);
      })) {
    check_losses(apart);
    check_gradients(apart);
  }
  fused.check_intact();
  apart.check_intact();
}

// How many cases there were, so that an empty file is no success.
template <class T>
int check_all(const std::string& kind) {
  int cases = 0;
  for (const json& entry : golden()["cases"]) {
    if (entry["kind"] != kind) continue;
    json described = entry;
    for (const char* result : {"total", "classification", "likelihood", "log_evidence", "gradients"})
      described.erase(result);
    CAPTURE(described.dump());
    const json& problem = golden()["problems"][entry["problem"].get<std::size_t>()];
    check_case<T>(problem, entry, support::context_of(1));
    check_case<T>(problem, entry, support::context_of(2, 1));  // tiles of one sample and one class
    ++cases;
  }
  return cases;
}

}  // namespace

TEST_CASE_TEMPLATE("a linear head gives PyTorch's cross entropy", T, double, float) {
  CHECK(check_all<T>("linear") == 94);
}

TEST_CASE_TEMPLATE("the mixture loss gives PyTorch's automatic gradients", T, double, float) {
  CHECK(check_all<T>("mixture") == 54);
}
