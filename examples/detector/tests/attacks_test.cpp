// SPDX-License-Identifier: MIT

// Gradients by the pixels, and the attacks that ascend them.

#include <doctest/doctest.h>

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "detector/attacks.hpp"
#include "heads.hpp"
#include "network.hpp"
#include "training.hpp"
#include "workers.hpp"

namespace {

using trainer::row_matrix;
using bytes = std::vector<std::uint8_t>;

constexpr std::int64_t rows = 4, columns = 5, pixels = rows * columns, classes = 3, dims = 4;
// More than one pass of inference.
constexpr std::int64_t images = trainer::inference_batch + 90;

// Images of three classes, each with its own bright row, and noise.
trainer::image_set make_images(std::uint64_t seed) {
  trainer::image_set set;
  set.rows = rows;
  set.columns = columns;
  std::mt19937_64 random(seed);
  for (std::int64_t i = 0; i < images; ++i) {
    const auto label = static_cast<std::int64_t>(random() % classes);
    set.labels.push_back(static_cast<std::uint8_t>(label));
    for (std::int64_t j = 0; j < pixels; ++j)
      set.images.push_back(static_cast<std::uint8_t>((j / columns == label ? 128 : 0) + random() % 128));
  }
  return set;
}

trainer::softmax_head<float> make_softmax(std::int64_t max_samples) {
  return {classes, dims, max_samples, 1};
}

trainer::lgm_head make_lgm(std::int64_t max_samples) {
  trainer::lgm_settings settings;
  settings.covariance = lgm::covariance::diagonal;
  settings.update_variance = trainer::update_rule::gradient;
  settings.lambda = 0.1f;  // neither this nor the margin is part of the gradients here
  settings.alpha = trainer::parse_alpha("0.3");
  settings.threads = 1;
  return {classes, dims, max_samples, 1, settings};
}

// A model after a short training.
template <class Head, class MakeHead>
trainer::model<Head> trained(trainer::workers& team, const trainer::image_set& set,
                             const MakeHead& make_head) {
  trainer::model<Head> model({pixels, 16, dims}, 32, 1, team, trainer::input_scaling(set.images), make_head);
  trainer::training_options options;
  options.batch = 32;
  options.lr = 0.01;
  trainer::progress shown("", 1, images, 0);
  model.train(set, options, shown, [](bool) { return true; });
  return model;
}

// The loss of each image, from its features with a head of its own: what loss_gradient must be the gradient of.
template <class Model, class Check>
void check_model(Model& model, const trainer::image_set& set, const Check& loss_of_features) {
  const row_matrix<float> originals = detector::float_pixels(set.images, pixels);
  REQUIRE(originals.rows() == images);
  CHECK(originals(1, 2) == static_cast<float>(set.images[pixels + 2]));
  CHECK(model.features_of(originals) == model.features(set.images));

  row_matrix<float> gradient(images, pixels);
  const trainer::running_loss loss = model.loss_gradient(originals, set.labels.data(), gradient);
  const trainer::running_loss evaluated = model.evaluate(set);
  CHECK(loss.samples == images);
  CHECK(loss.sum.correct == evaluated.sum.correct);
  CHECK(loss.mean().classification == doctest::Approx(evaluated.mean().classification).epsilon(1e-5));
  CHECK(loss.mean().total == loss.mean().classification);

  // Each image's own loss, pixel by pixel: the images before and after it in the batch have no part in it.
  for (const std::int64_t at : {std::int64_t{0}, std::int64_t{7}, trainer::inference_batch + 3}) {
    CAPTURE(at);
    const float largest = gradient.row(at).cwiseAbs().maxCoeff();
    for (std::int64_t j = 0; j < pixels; ++j) {
      const float step = 2;
      const auto loss_at = [&](float moved) {
        row_matrix<float> image = originals.row(at);
        image(0, j) += moved;
        return loss_of_features(model.features_of(image), set.labels[static_cast<std::size_t>(at)]);
      };
      const double slope = (loss_at(step) - loss_at(-step)) / (2 * static_cast<double>(step));
      CHECK(std::abs(slope - static_cast<double>(gradient(at, j))) <=
            0.03 * static_cast<double>(largest) + 1e-6);
    }
  }
  CHECK(detector::count_without_gradient(model, originals, set.labels.data()) == 0);

  const auto loss_of = [&](const row_matrix<float>& of) {
    row_matrix<float> ignored(of.rows(), of.cols());
    return model.loss_gradient(of, set.labels.data(), ignored);
  };
  for (const float epsilon : {4.0f, 16.0f}) {
    CAPTURE(epsilon);
    detector::pgd_options options;
    options.epsilon = epsilon;
    options.seed = 5;
    const row_matrix<float> once = detector::fgsm(model, originals, set.labels.data(), epsilon);
    const row_matrix<float> moved = detector::pgd(model, originals, set.labels.data(), options);
    for (const row_matrix<float>* each : {&once, &moved}) {
      CHECK((*each - originals).cwiseAbs().maxCoeff() <= epsilon);
      CHECK((*each - originals).cwiseAbs().maxCoeff() > 0.9f * epsilon);
      CHECK(each->minCoeff() >= 0);
      CHECK(each->maxCoeff() <= 255);
    }
    CHECK(loss_of(once).mean().total > loss.mean().total);
    CHECK(loss_of(moved).mean().total > 0.99 * loss_of(once).mean().total);
    CHECK(loss_of(moved).sum.correct <= loss.sum.correct);
    CHECK(detector::pgd(model, originals, set.labels.data(), options) == moved);
  }
}

// One pixel an image whose loss is steepness * pixel.
struct line_model {
  std::vector<float> steepness;
  int calls = 0;

  void loss_gradient(const trainer::const_matrix_view<float>& at, const std::uint8_t*,
                     trainer::matrix_view<float> out) {
    ++calls;
    for (Eigen::Index i = 0; i < at.rows(); ++i)
      out.row(i).setConstant(steepness[static_cast<std::size_t>(i)]);
  }
};

}  // namespace

TEST_CASE("network: the gradient of the input is central differences") {
  trainer::workers team(2);
  trainer::network<double> network({130, 70, 5, 3}, 6, 4, team);  // 130, 70: wide enough to be shared out
  std::mt19937_64 random(9);
  row_matrix<double> input(4, 130), weight(4, 3), gradient(4, 130);
  trainer::fill_uniform(input.data(), input.size(), 2, random);
  trainer::fill_uniform(weight.data(), weight.size(), 1, random);
  const auto loss = [&] { return (network.forward(input).array() * weight.array()).sum(); };

  loss();
  network.backward(input, weight);
  const trainer::vector<double> parameter_gradient = network.gradient();
  network.input_gradient(weight, gradient);
  CHECK(network.gradient() == parameter_gradient);
  double worst = 0;
  for (Eigen::Index i = 0; i < gradient.size(); ++i) {
    double& value = input.data()[i];
    const double kept = value, step = 1e-6;
    value = kept + step;
    const double above = loss();
    value = kept - step;
    const double below = loss();
    value = kept;
    worst = std::max(worst, std::abs((above - below) / (2 * step) - gradient.data()[i]));
  }
  CHECK(gradient.cwiseAbs().minCoeff() > 0);
  CHECK(worst < 1e-8);
}

TEST_CASE("softmax head: each sample's gradient is that of its own loss") {
  trainer::softmax_head<double> head(4, 3, 5, 1);
  std::mt19937_64 random(2);
  row_matrix<double> features(5, 3), gradient(5, 3), mean_gradient(5, 3);
  trainer::fill_uniform(features.data(), features.size(), 3, random);
  const bytes labels{0, 3, 2, 2, 1};
  const double loss = head.train(features, labels.data(), 0, mean_gradient).total;
  const trainer::vector<double> kept = head.gradient();
  const trainer::batch_loss again = head.classification_gradient(features, labels.data(), gradient);
  CHECK(again.total == loss);
  CHECK(again.classification == loss);
  CHECK((gradient - 5 * mean_gradient).cwiseAbs().maxCoeff() < 1e-14);
  CHECK(head.gradient() == kept);
}

TEST_CASE("attacks: a trained softmax model loses to them") {
  trainer::workers team(1);
  const trainer::image_set set = make_images(1);
  auto model = trained<trainer::softmax_head<float>>(team, set, make_softmax);
  const row_matrix<double> weight =
      Eigen::Map<const row_matrix<float>>(model.head().parameters().data(), classes, dims).cast<double>();
  const trainer::vector<double> bias = model.head().parameters().tail(classes).cast<double>();
  check_model(model, set, [&](const row_matrix<float>& features, std::uint8_t label) {
    const Eigen::ArrayXd logits = (weight * features.row(0).transpose().cast<double>() + bias).array();
    return std::log((logits - logits.maxCoeff()).exp().sum()) + logits.maxCoeff() - logits[label];
  });
}

TEST_CASE("attacks: a trained L-GM model loses to them by its classification loss without margin") {
  trainer::workers team(1);
  const trainer::image_set set = make_images(2);
  auto model = trained<trainer::lgm_head>(team, set, make_lgm);
  const row_matrix<double> means = model.head().means().cast<double>();
  const row_matrix<double> variances = model.head().variances().cast<double>();
  check_model(model, set, [&](const row_matrix<float>& features, std::uint8_t label) {
    const Eigen::RowVectorXd x = features.row(0).cast<double>();
    const Eigen::ArrayXd logits =
        -0.5 * (((means.rowwise() - x).array().square() / variances.array()).rowwise().sum() +
                variances.array().log().rowwise().sum());
    return std::log((logits - logits.maxCoeff()).exp().sum()) + logits.maxCoeff() - logits[label];
  });
}

TEST_CASE("attacks: steps are those counted by hand") {
  row_matrix<float> originals(5, 1);
  originals << 100, 100, 100, 3, 250;
  const bytes labels(5);
  line_model model{{0.001f, -1000, 0, -1, 1}};
  row_matrix<float> expected(5, 1);
  expected << 108, 92, 100, 0, 255;
  CHECK(detector::fgsm(model, originals, labels.data(), 8) == expected);
  CHECK(model.calls == 1);

  detector::pgd_options options;
  options.epsilon = 8;
  options.steps = 3;
  options.step = 2;
  options.random_start = false;
  model.calls = 0;
  expected << 106, 94, 100, 0, 255;
  CHECK(detector::pgd(model, originals, labels.data(), options) == expected);
  CHECK(model.calls == 3);
  options.steps = 10;
  expected << 108, 92, 100, 0, 255;
  CHECK(detector::pgd(model, originals, labels.data(), options) == expected);
  CHECK(detector::count_without_gradient(model, originals, labels.data()) == 1);

  // Where there is no gradient the start remains: somewhere in the ball, by the seed.
  options.random_start = true;
  const float start = detector::pgd(model, originals, labels.data(), options)(2, 0);
  CHECK(start != 100);
  CHECK(std::abs(start - 100) <= 8);
  options.seed = 1;
  CHECK(detector::pgd(model, originals, labels.data(), options)(2, 0) != start);
}
