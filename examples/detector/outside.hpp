// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

// More images that belong to no class, made from those that do; trainer/foreign.hpp has noise and shuffled pixels.

namespace detector {

// Every pixel's distance to white: same shapes, opposite brightness.
inline std::vector<std::uint8_t> inverted_images(const std::vector<std::uint8_t>& images) {
  std::vector<std::uint8_t> result(images.size());
  std::transform(images.begin(), images.end(), result.begin(),
                 [](std::uint8_t value) { return static_cast<std::uint8_t>(255 - value); });
  return result;
}

// Images [count, rows, columns] behind a Gaussian blur of so many pixels of deviation: brightness and rough outline
// of each image stay, what it shows is lost. Beyond its edges an image goes on as its mirror image.
inline std::vector<std::uint8_t> blurred_images(const std::vector<std::uint8_t>& images, std::int64_t rows,
                                                std::int64_t columns, double deviation = 3) {
  const auto reach = static_cast<std::int64_t>(std::ceil(3 * deviation));
  std::vector<double> weight(static_cast<std::size_t>(reach + 1));  // by distance
  double total = 0;
  for (std::int64_t i = 0; i <= reach; ++i) {
    const double distance = static_cast<double>(i) / deviation;
    weight[static_cast<std::size_t>(i)] = std::exp(-0.5 * distance * distance);
    total += (i == 0 ? 1 : 2) * weight[static_cast<std::size_t>(i)];
  }
  for (double& each : weight) each /= total;

  // One pass along a line of `length` values, `stride` apart.
  std::vector<double> line;
  const auto blur_line = [&](double* values, std::int64_t length, std::int64_t stride) {
    line.resize(static_cast<std::size_t>(length));
    for (std::int64_t i = 0; i < length; ++i) line[static_cast<std::size_t>(i)] = values[i * stride];
    const auto mirrored = [&](std::int64_t at) {
      at %= 2 * length;
      if (at < 0) at += 2 * length;
      return line[static_cast<std::size_t>(at < length ? at : 2 * length - 1 - at)];
    };
    for (std::int64_t i = 0; i < length; ++i) {
      double sum = weight[0] * mirrored(i);
      for (std::int64_t d = 1; d <= reach; ++d)
        sum += weight[static_cast<std::size_t>(d)] * (mirrored(i - d) + mirrored(i + d));
      values[i * stride] = sum;
    }
  };

  const auto pixels = static_cast<std::size_t>(rows * columns);
  std::vector<std::uint8_t> result(images.size());
  std::vector<double> image(pixels);
  for (std::size_t begin = 0; pixels > 0 && begin + pixels <= images.size(); begin += pixels) {
    std::copy_n(images.begin() + static_cast<std::ptrdiff_t>(begin), pixels, image.begin());
    for (std::int64_t row = 0; row < rows; ++row) blur_line(image.data() + row * columns, columns, 1);
    for (std::int64_t column = 0; column < columns; ++column) blur_line(image.data() + column, rows, columns);
    for (std::size_t i = 0; i < pixels; ++i)
      result[begin + i] = static_cast<std::uint8_t>(std::lround(std::clamp(image[i], 0.0, 255.0)));
  }
  return result;
}

}  // namespace detector
