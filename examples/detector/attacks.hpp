// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "network.hpp"

// Images changed, each pixel by at most epsilon, so that a classifier takes them for another class, with full
// knowledge of the classifier: the classification loss is ascended along its gradient. Pixels are floats of the range
// of a byte and stay within it; they are not rounded. A Model is anything with
//
//   loss_gradient(pixels, labels, out)   out: each sample's gradient of its classification loss by its pixels
//
// such as trainer::model.

namespace detector {

using trainer::const_matrix_view;
using trainer::row_matrix;

constexpr float largest_pixel = 255;

// Images [count, pixels] of bytes as floats.
inline row_matrix<float> float_pixels(const std::vector<std::uint8_t>& images, std::int64_t pixels) {
  using bytes = Eigen::Matrix<std::uint8_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const auto count = static_cast<std::int64_t>(images.size()) / pixels;
  return Eigen::Map<const bytes>(images.data(), count, pixels).cast<float>();
}

namespace detail {

// Moves every pixel by `step` along the sign of its gradient, then back to within epsilon of the original and
// to the pixels' range. Where the gradient is zero a pixel stays.
inline void ascend(const row_matrix<float>& gradient, float step, const const_matrix_view<float>& original,
                   float epsilon, row_matrix<float>& moved) {
  moved.array() += step * gradient.array().sign();
  moved = moved.cwiseMin((original.array() + epsilon).min(largest_pixel).matrix())
              .cwiseMax((original.array() - epsilon).max(0.0f).matrix());
}

}  // namespace detail

// The fast gradient sign method: one step of epsilon.
template <class Model>
row_matrix<float> fgsm(Model& model, const const_matrix_view<float>& pixels, const std::uint8_t* labels,
                       float epsilon) {
  row_matrix<float> gradient(pixels.rows(), pixels.cols());
  model.loss_gradient(pixels, labels, gradient);
  row_matrix<float> moved = pixels;
  detail::ascend(gradient, epsilon, pixels, epsilon, moved);
  return moved;
}

struct pgd_options {
  float epsilon = 8;
  int steps = 10;
  float step = 0;            // 0: 2.5 epsilon / steps, which reaches any point of the ball from any other
  bool random_start = true;  // uniform in the ball; false: the original
  std::uint64_t seed = 0;    // of the random start
};

// Projected gradient descent (here: ascent) in the ball of epsilon around each image, in the largest norm.
template <class Model>
row_matrix<float> pgd(Model& model, const const_matrix_view<float>& pixels, const std::uint8_t* labels,
                      const pgd_options& options) {
  const float step =
      options.step > 0 ? options.step : 2.5f * options.epsilon / static_cast<float>(options.steps);
  row_matrix<float> moved = pixels;
  row_matrix<float> gradient(pixels.rows(), pixels.cols());
  if (options.random_start) {
    std::mt19937_64 random(options.seed);
    trainer::fill_uniform(gradient.data(), gradient.size(), static_cast<double>(options.epsilon), random);
    moved += gradient;
    moved = moved.cwiseMin(largest_pixel).cwiseMax(0.0f).eval();
  }
  for (int i = 0; i < options.steps; ++i) {
    model.loss_gradient(moved, labels, gradient);
    detail::ascend(gradient, step, pixels, options.epsilon, moved);
  }
  return moved;
}

// How many of the images have a gradient of nothing but zeros, as happens where a loss is too small for a float. An
// attack cannot move those, which says nothing for the classifier.
template <class Model>
std::int64_t count_without_gradient(Model& model, const const_matrix_view<float>& pixels,
                                    const std::uint8_t* labels) {
  row_matrix<float> gradient(pixels.rows(), pixels.cols());
  model.loss_gradient(pixels, labels, gradient);
  return (gradient.array() == 0.0f).rowwise().all().count();
}

}  // namespace detector
