// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

// Images that belong to no class, for testing whether a head notices.

namespace trainer {

// As many images, every pixel uniform over its 256 values.
inline std::vector<std::uint8_t> noise_images(const std::vector<std::uint8_t>& images, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::uint8_t> result(images.size());
  for (std::uint8_t& value : result) value = static_cast<std::uint8_t>(random() >> 56);
  return result;
}

// The same images with their pixels moved, all by the same random permutation: brightness and contrast of
// each image stay as they are, what it shows is lost.
inline std::vector<std::uint8_t> shuffled_images(const std::vector<std::uint8_t>& images, std::int64_t pixels,
                                                 std::uint64_t seed) {
  const auto length = static_cast<std::size_t>(pixels);
  std::vector<std::size_t> from(length);
  std::iota(from.begin(), from.end(), std::size_t{0});
  std::mt19937_64 random(seed);
  for (std::size_t i = length; i > 1; --i) std::swap(from[i - 1], from[random() % i]);

  std::vector<std::uint8_t> result(images.size());
  for (std::size_t begin = 0; begin + length <= images.size(); begin += length) {
    for (std::size_t j = 0; j < length; ++j) result[begin + j] = images[begin + from[j]];
  }
  return result;
}

}  // namespace trainer
