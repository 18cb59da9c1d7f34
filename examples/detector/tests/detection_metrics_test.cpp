// SPDX-License-Identifier: MIT

// The detector's measures against scikit-learn's: golden/detection_metrics.py made the values and says what they are.
// And its outside sets.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#include "detector/metrics.hpp"
#include "detector/outside.hpp"

namespace {

using nlohmann::json;
using numbers = std::vector<double>;
using bytes = std::vector<std::uint8_t>;

const json& golden() {
  static const json file = [] {
    std::ifstream stream(LGM_GOLDEN_DIR "/detection_metrics.json");
    return json::parse(stream);
  }();
  return file;
}

// Sums in another order than scikit-learn's.
void check_close(double value, double expected) { CHECK(std::abs(value - expected) <= 1e-12); }

bool all_nan(const detector::detection& d) {
  return std::isnan(d.auroc) && std::isnan(d.fpr_at_95_tpr) && std::isnan(d.aupr_in) &&
         std::isnan(d.aupr_out) && std::isnan(d.accuracy);
}

}  // namespace

TEST_CASE("measure: what scikit-learn gives") {
  REQUIRE(golden()["cases"].size() > 40);
  for (const json& expected : golden()["cases"]) {
    const auto inside = expected["inside"].get<numbers>(), outside = expected["outside"].get<numbers>();
    CAPTURE(inside.size());
    CAPTURE(outside.size());
    const detector::detection measured = detector::measure(inside, outside);
    check_close(measured.auroc, expected["auroc"]);
    check_close(measured.fpr_at_95_tpr, expected["fpr_at_95_tpr"]);
    check_close(measured.aupr_in, expected["aupr_in"]);
    check_close(measured.aupr_out, expected["aupr_out"]);
    check_close(measured.accuracy, expected["accuracy"]);

    const detector::curve curve = detector::roc(inside, outside);
    const auto fpr = expected["fpr"].get<numbers>(), tpr = expected["tpr"].get<numbers>();
    REQUIRE(curve.fpr.size() == fpr.size());
    REQUIRE(curve.tpr.size() == tpr.size());
    for (std::size_t i = 0; i < fpr.size(); ++i) {
      check_close(curve.fpr[i], fpr[i]);
      check_close(curve.tpr[i], tpr[i]);
    }
  }
}

TEST_CASE("measure: infinite scores are scores, NaN and nothing are not") {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(detector::measure({infinity, 0}, {-infinity, -infinity, -1}).auroc == 1);
  CHECK(detector::measure({-infinity}, {-infinity}).auroc == 0.5);
  CHECK(detector::measure({-infinity}, {-infinity}).fpr_at_95_tpr == 1);
  CHECK(all_nan(detector::measure({}, {1})));
  CHECK(all_nan(detector::measure({1}, {})));
  CHECK(all_nan(detector::measure({1, nan}, {0})));
  CHECK(all_nan(detector::measure({1}, {0, nan})));
  CHECK(detector::roc({}, {1}).fpr.empty());
}

TEST_CASE("expected calibration error is that counted by hand") {
  for (const json& expected : golden()["calibrations"]) {
    check_close(
        detector::expected_calibration_error(expected["confidence"].get<numbers>(),
                                             expected["correct"].get<std::vector<bool>>(), expected["bins"]),
        expected["error"]);
  }
  CHECK(std::isnan(detector::expected_calibration_error({}, {})));
  CHECK(std::isnan(detector::expected_calibration_error({1.1}, {true})));
  CHECK(std::isnan(detector::expected_calibration_error({std::nan("")}, {true})));
  CHECK_THROWS_AS(detector::expected_calibration_error({0.5}, {}), std::invalid_argument);
}

TEST_CASE("inverted images are the others' complement") {
  CHECK(detector::inverted_images({0, 1, 100, 255}) == bytes{255, 254, 155, 0});
}

TEST_CASE("blurred images: a dot becomes the bell it should") {
  constexpr std::int64_t rows = 31, columns = 41;
  constexpr double deviation = 2;
  bytes images(3 * rows * columns);
  std::uint8_t* dot = images.data() + rows * columns;  // only the second image has one
  dot[15 * columns + 20] = 255;
  const bytes blurred = detector::blurred_images(images, rows, columns, deviation);
  REQUIRE(blurred.size() == images.size());
  const std::uint8_t* seen = blurred.data() + rows * columns;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      const auto square = static_cast<double>((i - 15) * (i - 15) + (j - 20) * (j - 20));
      const double bell = 255 / (2 * std::acos(-1.0) * deviation * deviation) * std::exp(-0.5 * square / 4);
      CHECK(std::abs(seen[i * columns + j] - bell) <= 0.6);
    }
  }
  CHECK(std::count(blurred.begin(), blurred.begin() + rows * columns, 0) == rows * columns);
  CHECK(std::count(blurred.end() - rows * columns, blurred.end(), 0) == rows * columns);
}

TEST_CASE("blurred images: brightness stays, contrast goes, also at the edges and in small images") {
  std::mt19937_64 random(3);
  struct size {
    std::int64_t rows, columns;
  };
  for (const size& each : {size{28, 28}, size{5, 4}, size{1, 1}, size{1, 9}, size{2, 3}}) {
    const std::int64_t rows = each.rows, columns = each.columns;
    CAPTURE(rows);
    CAPTURE(columns);
    const auto pixels = static_cast<std::size_t>(rows * columns);
    CHECK(detector::blurred_images(bytes(pixels, 77), rows, columns) == bytes(pixels, 77));

    bytes image(pixels);
    for (std::uint8_t& value : image) value = static_cast<std::uint8_t>(random() >> 56);
    const bytes blurred = detector::blurred_images(image, rows, columns);
    const auto mean = [&](const bytes& of) {
      return std::accumulate(of.begin(), of.end(), 0.0) / static_cast<double>(pixels);
    };
    CHECK(std::abs(mean(blurred) - mean(image)) <= 0.5);
    const auto contrast = [&](const bytes& of) {
      return *std::max_element(of.begin(), of.end()) - *std::min_element(of.begin(), of.end());
    };
    CHECK(contrast(blurred) <= contrast(image) / 2);
  }
}
