// SPDX-License-Identifier: MIT

// The trainer's readers, parsers, metrics, network and optimiser.

#include <doctest/doctest.h>
#include <zlib.h>

#include <Eigen/Core>
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "adam.hpp"
#include "foreign.hpp"
#include "heads.hpp"
#include "idx.hpp"
#include "metrics.hpp"
#include "network.hpp"
#include "options.hpp"
#include "schedule_text.hpp"
#include "support/files.hpp"
#include "workers.hpp"

namespace {

namespace fs = std::filesystem;
using lgm_test::contains;
using lgm_test::temporary_directory;
using bytes = std::vector<std::uint8_t>;

void write_plain(const fs::path& path, const bytes& content) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(content.data()), static_cast<std::streamsize>(content.size()));
  REQUIRE(file.good());
}

void write_gz(const fs::path& path, const bytes& content) {
  const gzFile file = gzopen(path.c_str(), "wb");
  REQUIRE(file != nullptr);
  REQUIRE(gzwrite(file, content.data(), static_cast<unsigned>(content.size())) ==
          static_cast<int>(content.size()));
  REQUIRE(gzclose(file) == Z_OK);
}

bytes read_all(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The bytes of an IDX file whose values count up.
bytes idx_bytes(const std::vector<std::uint32_t>& sizes, std::size_t values) {
  bytes out{0, 0, 8, static_cast<std::uint8_t>(sizes.size())};
  for (const std::uint32_t size : sizes) {
    for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<std::uint8_t>(size >> shift));
  }
  for (std::size_t i = 0; i < values; ++i) out.push_back(static_cast<std::uint8_t>(i));
  return out;
}

bytes label_bytes(const bytes& labels) {
  bytes out = idx_bytes({static_cast<std::uint32_t>(labels.size())}, 0);
  out.insert(out.end(), labels.begin(), labels.end());
  return out;
}

// What the call throws; it must name the file and fit on one line.
template <class Function>
std::string error_of(const std::string& name, Function function) {
  try {
    function();
  } catch (const std::runtime_error& error) {
    const std::string text = error.what();
    CHECK_MESSAGE(text.find(name) != std::string::npos, text);
    CHECK_MESSAGE(text.find('\n') == std::string::npos, text);
    return text;
  }
  return "nothing was thrown";
}

std::string idx_error(const fs::path& path, int dimensions) {
  return error_of(path.filename().string(), [&] { trainer::read_idx(path, dimensions); });
}

// A small good set: 4 training and 2 test images of 2 x 3 pixels, 3 classes.
void write_set(const temporary_directory& directory) {
  write_gz(directory / "train-images-idx3-ubyte.gz", idx_bytes({4, 2, 3}, 24));
  write_plain(directory / "train-labels-idx1-ubyte", label_bytes({0, 1, 2, 1}));
  write_plain(directory / "t10k-images.idx3-ubyte", idx_bytes({2, 2, 3}, 12));
  write_gz(directory / "t10k-labels.idx1-ubyte.gz", label_bytes({2, 0}));
}

}  // namespace

TEST_CASE("idx: plain and gzipped files give the same") {
  const temporary_directory directory;
  // More values than one chunk of reading.
  const bytes content = idx_bytes({3, 1000, 1000}, 3000000);
  write_plain(directory / "plain", content);
  write_gz(directory / "gzipped", content);
  for (const char* name : {"plain", "gzipped"}) {
    const trainer::idx_array array = trainer::read_idx(directory / name, 3);
    CHECK(array.sizes == std::vector<std::int64_t>{3, 1000, 1000});
    CHECK(array.values == bytes(content.begin() + 16, content.end()));
  }
}

TEST_CASE("idx: broken files are named with the reason") {
  const temporary_directory directory;
  const fs::path path = directory / "file";

  CHECK(contains(idx_error(path, 1), "No such file"));
  CHECK(contains(idx_error(directory.path(), 1), "directory"));

  write_plain(path, {});
  CHECK(contains(idx_error(path, 1), "is empty"));
  write_plain(path, {0, 0, 8, 1, 0, 0});
  CHECK(contains(idx_error(path, 1), "header is incomplete"));

  write_plain(path, idx_bytes({2, 3}, 6));
  CHECK(contains(idx_error(path, 1), "wrong magic"));
  bytes floats = idx_bytes({3}, 3);
  floats[2] = 0x0d;
  write_plain(path, floats);
  CHECK(contains(idx_error(path, 1), "wrong magic"));

  write_plain(path, idx_bytes({4}, 3));
  CHECK(contains(idx_error(path, 1), "truncated: 3 of 4 values"));
  write_plain(path, idx_bytes({4}, 5));
  CHECK(contains(idx_error(path, 1), "trailing bytes"));
  write_plain(path, idx_bytes({0}, 0));
  CHECK(contains(idx_error(path, 1), "empty"));

  // Headers that claim far more than there is, more than is read, and more than any number can hold.
  write_plain(path, idx_bytes({1, 0x80000000u, 1}, 10));
  CHECK(contains(idx_error(path, 3), "truncated: 10 of 2147483648 values"));
  write_plain(path, idx_bytes({1, 0x80000001u, 1}, 10));
  CHECK(contains(idx_error(path, 3), "too large"));
  write_plain(path, idx_bytes({0xffffu, 2, 0x8001u}, 10));
  CHECK(contains(idx_error(path, 3), "too large"));
  write_plain(path, idx_bytes({0xffffffffu, 0xffffffffu, 0xffffffffu}, 10));
  CHECK(contains(idx_error(path, 3), "too large"));
}

TEST_CASE("idx: broken gzip files are named with the reason") {
  const temporary_directory directory;
  const fs::path path = directory / "file.gz";
  write_gz(path, idx_bytes({5000}, 5000));
  const bytes good = read_all(path);
  REQUIRE(good.size() > 40);

  for (const std::size_t length : {good.size() - 1, good.size() - 8, good.size() / 2, std::size_t{20}}) {
    CAPTURE(length);
    write_plain(path, bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length)));
    CHECK(contains(idx_error(path, 1), "truncated"));
  }
  bytes wrong_checksum = good;
  wrong_checksum[good.size() - 8] ^= 1;
  write_plain(path, wrong_checksum);
  CHECK(contains(idx_error(path, 1), "corrupt gzip data"));
  bytes wrong_length = good;
  wrong_length[good.size() - 1] ^= 1;
  write_plain(path, wrong_length);
  CHECK(contains(idx_error(path, 1), "corrupt gzip data"));
  bytes more = good;
  more.push_back(0);
  write_plain(path, more);
  CHECK(contains(idx_error(path, 1), "trailing bytes after its gzip data"));
  bytes wrong_block = good;
  wrong_block[10] = 0xff;  // no such block type
  write_plain(path, wrong_block);
  CHECK(contains(idx_error(path, 1), "corrupt gzip data"));
}

TEST_CASE("idx: any byte changed or cut off is an error or a good array, never more") {
  const temporary_directory directory;
  const fs::path path = directory / "file";
  for (const bool gzipped : {false, true}) {
    (gzipped ? write_gz : write_plain)(path, idx_bytes({2, 3, 4}, 24));
    const bytes good = read_all(path);
    for (std::size_t at = 0; at < good.size(); ++at) {
      for (const int flip : {0x01, 0x80, 0xff}) {
        bytes changed = good;
        changed[at] = static_cast<std::uint8_t>(changed[at] ^ flip);
        write_plain(path, changed);
        try {
          const trainer::idx_array array = trainer::read_idx(path, 3);
          CHECK(array.sizes.size() == 3);
          CHECK(array.values.size() ==
                static_cast<std::size_t>(array.sizes[0] * array.sizes[1] * array.sizes[2]));
        } catch (const std::runtime_error&) {
        }
      }
      write_plain(path, bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(at)));
      CHECK_THROWS_AS(trainer::read_idx(path, 3), std::runtime_error);
    }
  }
}

TEST_CASE("data set: files are found by their usual names, gzipped or not") {
  const temporary_directory directory;
  write_set(directory);
  const trainer::data_set data = trainer::load_data_set(directory.path());
  CHECK(data.classes == 3);
  CHECK(data.train.count() == 4);
  CHECK(data.train.rows == 2);
  CHECK(data.train.columns == 3);
  CHECK(data.train.images.size() == 24);
  CHECK(data.train.labels == bytes{0, 1, 2, 1});
  CHECK(data.test.labels == bytes{2, 0});
}

TEST_CASE("data set: files that do not fit together") {
  const temporary_directory directory;
  const auto error = [&](const std::string& name) {
    return error_of(name, [&] { trainer::load_data_set(directory.path()); });
  };
  CHECK(contains(error("train-images-idx3-ubyte"), "no such file"));

  write_set(directory);
  write_plain(directory / "train-labels-idx1-ubyte", label_bytes({0, 1, 2}));
  CHECK(contains(error("train-labels-idx1-ubyte"), "3 labels for the 4 images"));

  write_set(directory);
  write_gz(directory / "t10k-labels.idx1-ubyte.gz", label_bytes({3, 0}));
  CHECK(contains(error("t10k-labels.idx1-ubyte.gz"), "label 3"));

  write_set(directory);
  write_plain(directory / "t10k-images.idx3-ubyte", idx_bytes({2, 3, 2}, 12));
  CHECK(contains(error("t10k-images.idx3-ubyte"), "size of the training images"));

  write_set(directory);
  fs::remove(directory / "t10k-images.idx3-ubyte");
  CHECK(contains(error("t10k-images"), "no such file"));
}

TEST_CASE("data set: a part of it must have more than one class") {
  const temporary_directory directory;
  write_set(directory);
  const trainer::data_set part = trainer::load_data_set(directory.path(), 2, 1);
  CHECK(part.classes == 3);  // of all training images
  CHECK(part.train.labels == bytes{0, 1});
  CHECK(part.train.images.size() == 12);
  CHECK(part.test.labels == bytes{2});
  CHECK(trainer::load_data_set(directory.path(), 9, 9).train.count() == 4);
  const auto error = [&](std::int64_t limit) {
    return error_of("train-labels", [&] { trainer::load_data_set(directory.path(), limit); });
  };
  CHECK(contains(error(1), "all 1 labels that are used are 0: a classifier needs two classes"));
  write_gz(directory / "t10k-labels.idx1-ubyte.gz", label_bytes({2, 2}));
  write_plain(directory / "train-labels-idx1-ubyte", label_bytes({2, 2, 2, 2}));
  CHECK(contains(error(0), "all 4 labels that are used are 2"));
}

TEST_CASE("schedule text: numbers and key=value are read") {
  CHECK(trainer::parse_alpha("0.25")(0) == 0.25f);
  CHECK(trainer::parse_alpha("3")(1000000) == 3);

  const auto step_up = trainer::parse_alpha("policy=stepup,value=0.1,step=5000,gamma=2,max=0.3");
  CHECK(step_up(0) == doctest::Approx(0.1));
  CHECK(step_up(4999) == doctest::Approx(0.1));
  CHECK(step_up(5000) == doctest::Approx(0.2));
  CHECK(step_up(10000) == doctest::Approx(0.3));

  const auto add_up = trainer::parse_alpha("policy=addup,value=0.1,step=10,gamma=0.2,iter=25");
  CHECK(add_up(0) == doctest::Approx(0.5));
  CHECK(add_up(5) == doctest::Approx(0.7));
  CHECK(add_up(1000) == doctest::Approx(1));

  const auto ramp = trainer::parse_alpha("policy=ramp,max=0.5,step=100");
  CHECK(ramp(50) == doctest::Approx(0.25));
  CHECK(ramp(100) == doctest::Approx(0.5));

  CHECK(trainer::parse_alpha("policy=constant,value=0.2")(77) == doctest::Approx(0.2));
}

TEST_CASE("schedule text: what is wrong is said") {
  const auto error = [](const std::string& text) -> std::string {
    try {
      trainer::parse_alpha(text);
    } catch (const std::invalid_argument& wrong) {
      const std::string message = wrong.what();
      CHECK_MESSAGE(message.find('\n') == std::string::npos, message);
      return message;
    }
    return "nothing was thrown";
  };
  CHECK(contains(error("policy=stepup,step=0"), "step: must be positive"));
  CHECK(contains(error("policy=stepup,step=-5"), "step: must be positive"));
  CHECK(contains(error("policy=stepup,step=1.5"), "step: '1.5' is not a whole number"));
  CHECK(contains(error("policy=stepup,step=99999999999999999999"), "step"));
  CHECK(contains(error("policy=sideways"), "policy: 'sideways'"));
  CHECK(contains(error("value=abc"), "value: 'abc' is not a number"));
  CHECK(contains(error("value=0.1x"), "value: '0.1x' is not a number"));
  CHECK(contains(error("value="), "value: '' is not a number"));
  CHECK(contains(error("value=nan"), "is not a number"));
  CHECK(contains(error("value=1e300,max=1e300"), "too large"));
  CHECK(contains(error("gama=2"), "'gama'"));
  CHECK(contains(error("value=0.1,value=0.2"), "value: given twice"));
  CHECK(contains(error("value=0.1,"), "key=value"));
  CHECK(contains(error("value=2"), "above max"));
  CHECK(contains(error("value=0.1,min=0.2"), "below min"));
  CHECK(contains(error("min=-1"), "min: must not be negative"));
  CHECK(contains(error("min=0.5,max=0.4,value=0.5"), "max"));
  CHECK(contains(error("iter=-1"), "iter"));
  CHECK(contains(error("-0.1"), "negative"));
  CHECK(contains(error("no-such-file.prototxt"), "neither a number"));
  CHECK(contains(error("policy=a\nb"), "policy: 'a?b'"));
  CHECK(contains(error("value=" + std::string(1000, 'x')), std::string(60, 'x') + "...' is not"));
  CHECK(contains(error(""), "neither a number"));
}

TEST_CASE("margin_mul block: the authors' text is found anywhere in a file") {
  const std::string text =
      "name: \"net # not a comment, margin_mul { }\"  # margin_mul { value: 9 }\n"
      "layer {\n  class_distance_param {\n    num_output: 100\n    margin_mul {\n      policy: STEPUP\n      "
      "value: 0.1\n"
      "      step: 5000 # a comment\n      gamma: 2\n      max: 0.3 \n    }\n    metric: L2\n  }\n}\n";
  const auto alpha = trainer::parse_margin_mul(text);
  CHECK(alpha.schedule.policy == lgm::schedule_policy::step_up);
  CHECK(alpha.schedule.step == 5000);
  CHECK(alpha(5000) == doctest::Approx(0.2));
  CHECK(alpha(50000) == doctest::Approx(0.3));

  const temporary_directory directory;
  const fs::path path = directory / "net.prototxt";
  write_plain(path, bytes(text.begin(), text.end()));
  CHECK(trainer::parse_alpha(path.string())(5000) == doctest::Approx(0.2));
}

TEST_CASE("margin_mul block: defaults and spellings are known, the rest is refused") {
  const auto defaults = trainer::parse_margin_mul("margin_mul{}");
  CHECK(defaults.schedule.policy == lgm::schedule_policy::constant);
  CHECK(defaults.schedule.value == 0);
  CHECK(defaults.schedule.min == 0);
  CHECK(defaults.schedule.max == 1);
  CHECK(defaults.schedule.gamma == 1);
  CHECK(defaults.schedule.step == 1000);
  CHECK(defaults.first_iteration == 0);

  const auto dense =
      trainer::parse_margin_mul("margin_mul:<policy:ADDUP,value:.5;min:0.25 iter:7\tstep:\n3>");
  CHECK(dense.schedule.policy == lgm::schedule_policy::add_up);
  CHECK(dense.schedule.value == 0.5f);
  CHECK(dense.schedule.min == 0.25f);
  CHECK(dense.first_iteration == 7);
  CHECK(dense.schedule.step == 3);

  for (const char* wrong :
       {"", "layer { }", "margin_mul", "margin_mul {", "margin_mul { value: 1", "margin_mul { value 1 }",
        "margin_mul { value: }", "margin_mul { value: one }", "margin_mul { policy: 2 }",
        "margin_mul { step: 0 }", "margin_mul { speed: 1 }", "margin_mul { value: 0.1 value: 0.2 }",
        "margin_mul { } margin_mul { }", "margin_mul { value: \"0.1\" }", "margin_mul { value: 0.1 >",
        "margin_mul value: 0.1", "'margin_mul { }'"}) {
    CAPTURE(wrong);
    CHECK_THROWS_AS(trainer::parse_margin_mul(wrong), std::invalid_argument);
  }
}

TEST_CASE("auroc: values are those counted by hand") {
  CHECK(trainer::auroc({3, 4}, {1, 2}) == 1);
  CHECK(trainer::auroc({1, 2}, {3, 4}) == 0);
  CHECK(trainer::auroc({1, 1}, {1, 1, 1}) == 0.5);
  // 2 > 1; 2 = 2, a half; 3 > 1; 3 > 2: 3.5 of 4.
  CHECK(trainer::auroc({2, 3}, {1, 2}) == 0.875);
  // 0 loses to both; 5 beats 1, ties with 5; 7 beats both: 3.5 of 6.
  CHECK(trainer::auroc({0, 5, 7}, {1, 5}) == doctest::Approx(3.5 / 6));
  constexpr float infinity = std::numeric_limits<float>::infinity();
  CHECK(trainer::auroc({1, 2}, {-infinity, -infinity}) == 1);
  CHECK(std::isnan(trainer::auroc({}, {1})));
  CHECK(std::isnan(trainer::auroc({std::nanf("")}, {1})));
}

TEST_CASE("spread and quantile are those counted by hand") {
  const trainer::spread spread = trainer::spread_of({1, 2, 3, 4});
  CHECK(spread.mean == doctest::Approx(2.5));
  CHECK(spread.deviation == doctest::Approx(std::sqrt(5.0 / 3)));
  CHECK(spread.standard_error == doctest::Approx(std::sqrt(5.0 / 3) / 2));
  CHECK(trainer::spread_of({7}).mean == 7);
  CHECK(trainer::spread_of({7}).deviation == 0);
  CHECK(trainer::quantile({5, 1, 4, 2, 3}, 0.5) == 3);
  CHECK(trainer::quantile({5, 1, 4, 2, 3}, 1) == 5);
  CHECK(trainer::quantile({-std::numeric_limits<double>::infinity(), 2}, 0) == 2);
}

TEST_CASE("shuffled images keep each image's pixels") {
  const bytes images{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  const bytes shuffled = trainer::shuffled_images(images, 6, 1);
  CHECK(shuffled != images);
  for (const std::ptrdiff_t begin : {0, 6}) {
    bytes one(shuffled.begin() + begin, shuffled.begin() + begin + 6);
    std::sort(one.begin(), one.end());
    CHECK(one == bytes(images.begin() + begin, images.begin() + begin + 6));
  }
  for (std::size_t i = 0; i < 6; ++i) CHECK(shuffled[i] + 6 == shuffled[i + 6]);
}

TEST_CASE("workers: every item once, whatever the count of threads") {
  for (const int threads : {1, 2, 3, 7}) {
    trainer::workers team(threads);
    CHECK(team.count() == threads);
    for (const std::int64_t items : {0, 1, 2, 5, 64, 1000}) {
      for (int round = 0; round < 50; ++round) {
        std::vector<std::atomic<int>> seen(static_cast<std::size_t>(items));
        team.for_slices(items, 2, [&](std::int64_t begin, std::int64_t length) {
          for (std::int64_t i = begin; i < begin + length; ++i) ++seen[static_cast<std::size_t>(i)];
        });
        REQUIRE(std::all_of(seen.begin(), seen.end(), [](const auto& times) { return times == 1; }));
      }
    }
  }
}

TEST_CASE("network: gradients are central differences") {
  trainer::workers team(2);
  const std::vector<std::int64_t> widths{7, 130, 5, 3};  // 130: wide enough to be shared out
  trainer::network<double> network(widths, 6, 4, team);
  std::mt19937_64 random(9);
  trainer::row_matrix<double> input(4, 7), weight(4, 3);  // the loss is the features' sum, weighted
  trainer::fill_uniform(input.data(), input.size(), 2, random);
  trainer::fill_uniform(weight.data(), weight.size(), 1, random);
  const auto loss = [&] { return (network.forward(input).array() * weight.array()).sum(); };

  loss();
  network.backward(input, weight);
  const trainer::vector<double> gradient = network.gradient();
  CHECK(gradient.size() == 7 * 130 + 130 + 1 + 130 * 5 + 5 + 1 + 5 * 3 + 3);
  double worst = 0;
  for (Eigen::Index i = 0; i < gradient.size(); ++i) {
    double& parameter = network.parameters()[i];
    const double kept = parameter, step = 1e-6;
    parameter = kept + step;
    const double above = loss();
    parameter = kept - step;
    const double below = loss();
    parameter = kept;
    worst = std::max(worst, std::abs((above - below) / (2 * step) - gradient[i]));
  }
  CHECK(worst < 1e-7);
}

TEST_CASE("network: a seed gives the same bits, another gives others") {
  trainer::workers team(2);
  trainer::network<float> a({5, 8, 2}, 1, 3, team), b({5, 8, 2}, 1, 3, team), c({5, 8, 2}, 1, 4, team);
  CHECK(a.parameters() == b.parameters());
  CHECK(a.parameters() != c.parameters());
}

TEST_CASE("softmax head: gradients are central differences") {
  trainer::softmax_head<double> head(4, 3, 5, 1);
  std::mt19937_64 random(2);
  trainer::row_matrix<double> features(5, 3), feature_gradient(5, 3), ignored(5, 3);
  trainer::fill_uniform(features.data(), features.size(), 3, random);
  const bytes labels{0, 3, 2, 2, 1};
  head.train(features, labels.data(), 0, feature_gradient);
  const trainer::vector<double> gradient = head.gradient();

  const auto difference = [&](double& value) {
    const double kept = value, step = 1e-6;
    value = kept + step;
    const double above = head.evaluate(features, labels.data()).total;
    value = kept - step;
    const double below = head.evaluate(features, labels.data()).total;
    value = kept;
    return (above - below) / (2 * step);
  };
  for (Eigen::Index i = 0; i < gradient.size(); ++i) {
    CHECK(difference(head.parameters()[i]) == doctest::Approx(gradient[i]).epsilon(1e-6));
  }
  for (Eigen::Index i = 0; i < features.size(); ++i) {
    CHECK(difference(features.data()[i]) == doctest::Approx(feature_gradient.data()[i]).epsilon(1e-6));
  }
}

TEST_CASE("softmax head: small and large losses keep their digits") {
  trainer::softmax_head<float> head(2, 1, 1, 1);
  head.parameters() << 0, 1, 0, 0;  // logits 0 and x
  trainer::row_matrix<float> feature(1, 1), gradient(1, 1);
  const std::uint8_t second = 1;
  feature << 30;
  CHECK(head.train(feature, &second, 0, gradient).total == doctest::Approx(std::exp(-30.0)).epsilon(1e-5));
  CHECK(gradient(0, 0) == doctest::Approx(-std::exp(-30.0)).epsilon(1e-5));
  float confidence = 0;
  head.confidence(feature, &confidence);
  CHECK(confidence == doctest::Approx(-std::exp(-30.0)).epsilon(1e-5));
  feature << -500;
  CHECK(head.train(feature, &second, 0, gradient).total == doctest::Approx(500));
}

TEST_CASE("L-GM head: gradients are central differences") {
  trainer::lgm_settings settings;
  settings.covariance = lgm::covariance::diagonal;
  settings.update_variance = trainer::update_rule::gradient;
  settings.lambda = 0.3f;
  settings.alpha = trainer::parse_alpha("0");  // evaluate() has no margin
  settings.threads = 1;
  trainer::lgm_head head(3, 2, 4, 1, settings);
  std::mt19937_64 random(2);
  trainer::row_matrix<float> features(4, 2), feature_gradient(4, 2);
  trainer::fill_uniform(features.data(), features.size(), 2, random);
  trainer::fill_uniform(head.parameters().data() + 6, 6, 0.5, random);
  const bytes labels{0, 2, 1, 2};
  head.train(features, labels.data(), 0, feature_gradient);
  const trainer::vector<float> gradient = head.gradient();
  for (Eigen::Index i = 0; i < gradient.size(); ++i) {
    float& value = head.parameters()[i];
    const float kept = value, step = 0.01f;
    value = kept + step;
    const double above = head.evaluate(features, labels.data()).total;
    value = kept - step;
    const double below = head.evaluate(features, labels.data()).total;
    value = kept;
    CHECK(std::abs((above - below) / (2 * static_cast<double>(step)) - static_cast<double>(gradient[i])) <
          1e-3);
  }
  head.parameters().tail(6).setConstant(100);
  head.constrain();
  CHECK(head.parameters().tail(6).maxCoeff() == 10);
}

TEST_CASE("L-GM head: parameters that follow the moments of the features") {
  using trainer::update_rule;
  trainer::row_matrix<float> features(3, 1), feature_gradient(3, 1);
  features << 2, 4, -3;
  const bytes labels{0, 0, 2};  // none of class 1
  for (const update_rule mean_rule : {update_rule::gradient, update_rule::moments}) {
    for (const update_rule variance_rule : {update_rule::off, update_rule::gradient, update_rule::moments}) {
      CAPTURE(trainer::to_string(mean_rule));
      CAPTURE(trainer::to_string(variance_rule));
      trainer::lgm_settings settings;
      settings.covariance = lgm::covariance::diagonal;
      settings.update_mean = mean_rule;
      settings.update_variance = variance_rule;
      settings.alpha = trainer::parse_alpha("0");
      settings.threads = 1;
      settings.kept_moments = 0.5;
      settings.first_count = 4;
      trainer::lgm_head head(3, 1, 3, 1, settings);
      const trainer::vector<float> before = head.parameters();  // 3 means, 3 log variances of 0
      head.train(features, labels.data(), 0, feature_gradient);

      // Class 0: 4 samples at its first mean with variance 1, of which 2 are kept, and 2 and 4. Class 2: those and -3.
      const double first[] = {before[0], before[1], before[2]};
      const double mean[] = {(2 * first[0] + 6) / 4, first[1], (2 * first[2] - 3) / 3};
      const auto square = [](double x) { return x * x; };
      const double variance[] = {
          (2 + 2 * square(first[0] - mean[0]) + square(2 - mean[0]) + square(4 - mean[0])) / 4, 1,
          (2 + 2 * square(first[2] - mean[2]) + square(-3 - mean[2])) / 3};
      for (int k = 0; k < 3; ++k) {
        CAPTURE(k);
        const bool mean_follows = mean_rule == update_rule::moments;
        const bool variance_follows = variance_rule == update_rule::moments;
        CHECK(head.parameters()[k] == doctest::Approx(mean_follows ? mean[k] : first[k]).epsilon(1e-6));
        const double log_variance = variance_follows ? std::log(variance[k]) : 0;
        CHECK(head.parameters()[3 + k] == doctest::Approx(log_variance).epsilon(1e-6));
        // What does not follow its gradient has none, so that Adam leaves it.
        CHECK((head.gradient()[k] != 0) == !mean_follows);
        CHECK((head.gradient()[3 + k] != 0) == (variance_rule == update_rule::gradient));
      }
    }
  }
}

TEST_CASE("L-GM head: variances that follow moments stay above their floor") {
  trainer::lgm_settings settings;
  settings.covariance = lgm::covariance::spherical;
  settings.update_variance = trainer::update_rule::moments;
  settings.alpha = trainer::parse_alpha("0");
  settings.threads = 1;
  trainer::lgm_head head(2, 3, 4, 1, settings);
  const trainer::row_matrix<float> features = trainer::row_matrix<float>::Constant(4, 3, 7.0f);
  trainer::row_matrix<float> feature_gradient(4, 3);
  const bytes labels{0, 0, 0, 1};
  for (int step = 0; step < 2000; ++step) head.train(features, labels.data(), 0, feature_gradient);
  for (int k = 0; k < 2; ++k) {
    CHECK(head.parameters()[6 + k] == doctest::Approx(std::log(settings.variance_floor)));
  }
}

TEST_CASE("adam: two steps are those made by hand") {
  trainer::workers team(1);
  trainer::adam<double> optimiser(2, team);
  trainer::vector<double> parameters(2), gradient(2);
  parameters << 1, -2;
  gradient << 0.5, -3;
  // The first step is the rate, whatever the gradient's size.
  optimiser.step(0.1, gradient, parameters);
  CHECK(parameters[0] == doctest::Approx(1 - 0.1 * 0.5 / (0.5 + 1e-8)).epsilon(1e-12));
  CHECK(parameters[1] == doctest::Approx(-2 + 0.1 * 3 / (3 + 1e-8)).epsilon(1e-12));

  const double before = parameters[0];
  gradient << 1, 0;
  optimiser.step(0.1, gradient, parameters);
  const double first = (0.9 * 0.1 * 0.5 + 0.1 * 1) / (1 - 0.81);
  const double second = (0.999 * 0.001 * 0.25 + 0.001 * 1) / (1 - 0.998001);
  CHECK(parameters[0] == doctest::Approx(before - 0.1 * first / (std::sqrt(second) + 1e-8)).epsilon(1e-9));
}

TEST_CASE("one-cycle rate: it goes up, peaks and goes down") {
  CHECK(trainer::one_cycle_rate(0.003, 0, 101) == doctest::Approx(0.003 / 25));
  CHECK(trainer::one_cycle_rate(0.003, 30, 101) == doctest::Approx(0.003));
  CHECK(trainer::one_cycle_rate(0.003, 100, 101) == doctest::Approx(0.003 / 25 / 1e4));
  CHECK(trainer::one_cycle_rate(0.003, 15, 101) < 0.003);
  CHECK(trainer::one_cycle_rate(0.003, 0, 1) > 0);
}

TEST_CASE("options: what follows from what is left out") {
  const auto parsed = [](std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "trainer");
    return trainer::parse_options(static_cast<int>(arguments.size()), arguments.data()).value();
  };
  const auto error = [&](const std::vector<const char*>& arguments) {
    return lgm_test::error_of([&] { parsed(arguments); });
  };
  using trainer::update_rule;
  CHECK(parsed({}).update_mean == update_rule::gradient);
  CHECK(parsed({}).update_variance == update_rule::off);
  CHECK(parsed({"--update-mean", "moments"}).update_mean == update_rule::moments);
  CHECK(parsed({"--covariance", "diagonal"}).update_variance == update_rule::gradient);
  CHECK(parsed({"--covariance", "diagonal", "--update-variance", "on"}).update_variance ==
        update_rule::gradient);
  CHECK(parsed({"--covariance", "diagonal", "--update-variance", "off"}).update_variance == update_rule::off);
  CHECK(parsed({"--covariance", "spherical", "--update-variance", "moments"}).update_variance ==
        update_rule::moments);
  CHECK(contains(error({"--update-variance", "moments"}), "--update-variance: moments needs"));
  CHECK(contains(error({"--update-variance", "gradient"}), "--update-variance: gradient needs"));
  CHECK(contains(error({"--update-mean", "off"}), "--update-mean"));

  CHECK(parsed({}).lr_epochs == 6);
  CHECK(parsed({"--epochs", "9"}).lr_epochs == 9);
  CHECK(parsed({"--epochs", "9", "--lr-epochs", "20"}).lr_epochs == 20);
  CHECK(contains(error({"--lr-epochs", "0"}), "--lr-epochs"));

  CHECK(parsed({"--save", "a"}).save == "a");
  CHECK(parsed({"--save", "a"}).resume.empty());
  CHECK(parsed({"--resume", "a"}).save == "a");
  CHECK(parsed({"--resume", "a", "--save", "b"}).save == "b");
  CHECK(parsed({"--resume", "a", "--save-every", "5"}).save_every == 5);
  CHECK(contains(error({"--save-every", "5"}), "--save-every: needs"));
  CHECK(contains(error({"--save", "a", "--save-every", "-1"}), "--save-every"));
}
