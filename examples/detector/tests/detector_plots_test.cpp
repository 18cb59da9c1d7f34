// SPDX-License-Identifier: MIT

// The detector's pictures: that gnuplot draws them, and the data beside them.

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "detector/plots.hpp"
#include "support/files.hpp"

namespace {

namespace fs = std::filesystem;
using lgm_test::contains;
using lgm_test::temporary_directory;
using numbers = std::vector<double>;

// A directory for pictures: a temporary one, or LGM_TEST_PICTURES, to look at them.
struct pictures {
  temporary_directory temporary;
  fs::path path = temporary.path();

  pictures() {
    if (const char* kept = std::getenv("LGM_TEST_PICTURES")) path = kept;
  }
};

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The numbers of a data file, line by line; lines without any are left out.
std::vector<numbers> lines_of(const fs::path& path) {
  std::vector<numbers> result;
  std::istringstream lines(read_file(path));
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    result.emplace_back();
    std::istringstream words(line);
    for (std::string word; words >> word;) result.back().push_back(std::strtod(word.c_str(), nullptr));
  }
  return result;
}

numbers normal(std::size_t count, double mean, double deviation, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  numbers result;
  for (std::size_t i = 0; i < count; ++i) {
    double sum = -6;
    for (int j = 0; j < 12; ++j) sum += static_cast<double>(random() >> 11) * 0x1p-53;
    result.push_back(mean + deviation * sum);
  }
  return result;
}

// Width and height in the header of a PNG file.
std::vector<int> png_size(const fs::path& path) {
  const std::string content = read_file(path);
  REQUIRE(content.size() > 1000);
  CHECK(content.compare(1, 3, "PNG") == 0);
  std::vector<int> result;
  for (const std::size_t at : {16u, 20u}) {
    int value = 0;
    for (std::size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(content[at + i]);
    result.push_back(value);
  }
  return result;
}

const std::vector<std::string> scores{"softmax: log of the largest probability",
                                      "softmax: energy",
                                      "softmax: mahalanobis",
                                      "softmax: gaussian density",
                                      "L-GM: log density",
                                      "L-GM: log mixture",
                                      "L-GM: mahalanobis, predicted",
                                      "L-GM: mahalanobis, nearest",
                                      "L-GM: posterior",
                                      "L-GM: mahalanobis",
                                      "an eleventh, in the first colour again"};

bool has_gnuplot() {
  if (std::system("gnuplot --version >/dev/null 2>&1") == 0) return true;
  MESSAGE("skipped: no gnuplot to draw with");
  return false;
}

}  // namespace

TEST_CASE("plots: ROC curves have their values in the script") {
  if (!has_gnuplot()) return;
  const pictures out;
  std::vector<detector::roc_panel> panels;
  const numbers inside = normal(3000, 0, 1, 1);
  for (const char* title : {"noise", "shuffled pixels", "it's \"quoted\"", "inversion", "digits"}) {
    detector::roc_panel panel;
    panel.title = title;
    for (std::size_t s = 0; s < scores.size(); ++s) {
      const numbers outside = normal(2000, -0.3 * static_cast<double>(s), 1, 2 + s);
      panel.lines.push_back({fmt::format("{}, {:.3f}", scores[s], detector::measure(inside, outside).auroc),
                             detector::roc(inside, outside)});
    }
    panels.push_back(panel);
  }
  panels.back().lines.back().points = {};  // nothing to draw
  detector::draw_roc(out.path, panels);
  png_size(out.path / "roc.png");

  // Far fewer points than the 5000 thresholds, from corner to corner, and in order.
  const std::vector<numbers> points = lines_of(out.path / "roc-1.txt");
  CHECK(points.size() < 1100 * scores.size());
  CHECK(points.front() == numbers{0, 0});
  CHECK(points.back() == numbers{1, 1});
  std::size_t begins = 0;
  for (std::size_t i = 1; i < points.size(); ++i) {
    const bool is_begin = points[i] == numbers{0, 0};
    begins += is_begin ? 1 : 0;
    CHECK((is_begin || (points[i][0] >= points[i - 1][0] && points[i][1] >= points[i - 1][1])));
  }
  CHECK(begins == scores.size() - 1);
}

TEST_CASE("plots: histograms have their values in the script") {
  if (!has_gnuplot()) return;
  const pictures out;
  std::vector<detector::histogram_panel> panels;
  for (std::size_t s = 0; s < 4; ++s) {
    detector::histogram_panel panel{scores[s], "score", {}};
    panel.sets.push_back({"test images", normal(4000, 0, 1, 1)});
    const char* names[] = {"noise",  "shuffled pixels", "blur",      "inversion",
                           "digits", "FGSM, 8/255",     "PGD, 8/255"};
    double mean = -1;
    for (const char* name : names) panel.sets.push_back({name, normal(1000, mean -= 0.7, 1, s)});
    panels.push_back(panel);
  }
  constexpr double infinity = std::numeric_limits<double>::infinity();
  panels[1].sets[1].scores.assign(500, -infinity);
  panels[1].sets[2].scores.assign(500, 1e6);
  panels[2].sets.resize(2);
  panels[2].sets[0].scores.assign(10, 3);
  panels[2].sets[1].scores.assign(10, 3);  // all the same
  panels[3].sets[1].scores = {std::nan(""), -infinity, 0, 1e300};
  panels[3].sets[2].scores.clear();
  detector::draw_histograms(out.path, panels);
  png_size(out.path / "histograms.png");

  for (std::size_t p = 0; p < panels.size(); ++p) {
    CAPTURE(p);
    const std::vector<numbers> bins = lines_of(out.path / fmt::format("histograms-{}.txt", p + 1));
    REQUIRE(bins.size() == 81);
    for (std::size_t s = 0; s < panels[p].sets.size(); ++s) {
      double sum = 0;
      for (const numbers& bin : bins) sum += bin[s + 1];
      CHECK(sum == doctest::Approx(panels[p].sets[s].scores.empty() ? 0 : 100).epsilon(1e-4));
    }
  }
  // Outliers do not decide the axis: the first set, 7 wide, fills a good part of it.
  const std::vector<numbers> bins = lines_of(out.path / "histograms-2.txt");
  CHECK(bins.back()[0] - bins.front()[0] < 70);
  CHECK(bins.front()[2] == doctest::Approx(100));
  CHECK(bins[79][3] == doctest::Approx(100));
  const std::string script = read_file(out.path / "histograms.gnuplot");
  CHECK(contains(script, "score; the end bins hold all beyond"));
  CHECK(contains(script, "score; the first bin holds all below"));
}

TEST_CASE("plots: a sweep has its values in the script") {
  if (!has_gnuplot()) return;
  const pictures out;
  std::vector<detector::sweep_panel> panels;
  for (const int dims : {2, 8, 32}) {
    detector::sweep_panel panel;
    panel.title = fmt::format("{} features", dims);
    panel.axis = "weight of the likelihood, lambda";
    panel.ticks = {"0", "0.01", "0.1", "1"};
    for (const char* name :
         {"alpha 0, variance fixed", "alpha 0, learned", "alpha 0.3, variance fixed", "alpha 0.3, learned"}) {
      const auto shift = 0.02 * static_cast<double>(panel.lines.size());
      panel.lines.push_back(
          {name, {0.7 + shift, 0.8 + shift, 0.9, std::nan("")}, {0.02, 0.01, 0.03, std::nan("")}});
    }
    panel.baseline = 0.85;
    panel.baseline_deviation = 0.01;
    panel.baseline_name = "softmax, largest probability";
    panels.push_back(panel);
  }
  panels[1].lines[0].deviations.clear();
  panels[1].baseline_name.clear();
  panels[2].lines.clear();
  detector::draw_sweep(out.path, "AUROC, mean over the sets", panels);
  png_size(out.path / "sweep.png");

  const std::vector<numbers> points = lines_of(out.path / "sweep-1.txt");
  REQUIRE(points.size() == 16);
  CHECK(points[0][1] == doctest::Approx(0.7));
  CHECK(points[0][2] == doctest::Approx(0.02));
  CHECK(std::isnan(points[3][1]));
  CHECK(std::abs(points[3][0] - 3) < 0.1);
  CHECK(lines_of(out.path / "sweep-2.txt")[0][2] == 0);
  CHECK(contains(read_file(out.path / "sweep.gnuplot"), "set yrange [0.6675:0.9425]"));
}
