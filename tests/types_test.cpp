// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cstring>
#include <lgm/config.hpp>
#include <lgm/types.hpp>
#include <set>
#include <string>
#include <type_traits>

namespace {

constexpr lgm::status statuses[] = {lgm::status::success,
                                    lgm::status::not_supported,
                                    lgm::status::null_pointer,
                                    lgm::status::negative_size,
                                    lgm::status::size_too_large,
                                    lgm::status::stride_too_small,
                                    lgm::status::invalid_class_range,
                                    lgm::status::invalid_alpha,
                                    lgm::status::invalid_lambda,
                                    lgm::status::invalid_label_smoothing,
                                    lgm::status::invalid_option,
                                    lgm::status::label_out_of_range,
                                    lgm::status::workspace_too_small,
                                    lgm::status::launch_failed,
                                    lgm::status::product_failed,
                                    lgm::status::not_positive_definite,
                                    lgm::status::wrong_type,
                                    lgm::status::wrong_device,
                                    lgm::status::wrong_layout};

}  // namespace

#if LGM_VERSION < 100 || LGM_VERSION >= 1000000
#error "the version's number orders versions, and #if can use it"
#endif

TEST_CASE("the version as text, as one number and in its parts are the same") {
  const std::string parts = std::to_string(LGM_VERSION_MAJOR) + "." + std::to_string(LGM_VERSION_MINOR) +
                            "." + std::to_string(LGM_VERSION_PATCH);
  CHECK(parts == LGM_TEST_VERSION);  // what CMake's package says
  CHECK(LGM_VERSION / 10000 == LGM_VERSION_MAJOR);
  CHECK(LGM_VERSION / 100 % 100 == LGM_VERSION_MINOR);
  CHECK(LGM_VERSION % 100 == LGM_VERSION_PATCH);
}

TEST_CASE("every status has a text of its own") {
  std::set<std::string> texts;
  for (const lgm::status value : statuses) {
    const char* text = lgm::to_string(value);
    REQUIRE(text != nullptr);
    REQUIRE(std::strlen(text) > 0);
    CHECK(text[std::strlen(text) - 1] != '.');
    texts.insert(text);
  }
  CHECK(texts.size() == std::size(statuses));
  CHECK(texts.count(lgm::to_string(static_cast<lgm::status>(999))) == 0);
  CHECK(static_cast<int>(lgm::status::success) == 0);
  static_assert(lgm::to_string(lgm::status::success) != nullptr, "usable in constant expressions");
}

TEST_CASE("a default shape is empty, packed and whole") {
  const lgm::shape s;
  CHECK(s.samples == 0);
  CHECK(s.classes == 0);
  CHECK(s.dims == 0);
  CHECK(s.covariance == lgm::covariance::diagonal);
  CHECK(s.feature_stride == 0);
  CHECK(s.gradient_stride == 0);
  CHECK(s.logits_stride == 0);
  CHECK(s.class_begin == 0);
  CHECK(s.total_classes == 0);
}

TEST_CASE_TEMPLATE("default options are the plain mixture, default results ask for nothing", T, float,
                   double) {
  const lgm::loss_options<T> options;
  CHECK(options.alpha == T(0));
  CHECK(options.lambda == T(0));
  CHECK(options.alpha_at == nullptr);
  CHECK(options.reduction == lgm::reduction::mean);
  CHECK(options.ignore_label == -100);
  CHECK(options.class_weight == nullptr);
  CHECK(options.sample_weight == nullptr);
  CHECK(options.label_smoothing == T(0));
  CHECK(options.normalizer == nullptr);

  const lgm::loss_result<T> result;
  CHECK(result.total == nullptr);
  CHECK(result.classification == nullptr);
  CHECK(result.likelihood == nullptr);
  CHECK(result.row_state == nullptr);
  CHECK(result.log_evidence == nullptr);
  CHECK(result.counted == nullptr);
  CHECK(result.correct == nullptr);

  const lgm::gradients<T, T> gradients;
  CHECK(gradients.feature == nullptr);
  CHECK(gradients.mean == nullptr);
  CHECK(gradients.log_variance == nullptr);
  CHECK(gradients.log_prior == nullptr);
  CHECK_FALSE(gradients.accumulate);

  const lgm::score_result<T> scores;
  lgm::for_each_score(scores, [](const char* name, const auto* array) {
    CAPTURE(name);
    CHECK(array == nullptr);
  });

  const lgm::sgd_options<T> sgd;
  CHECK(sgd.mean_rate == T(0));
  CHECK(sgd.log_variance_rate == T(0));
  CHECK(sgd.log_prior_rate == T(0));
  CHECK(sgd.momentum == T(0));
  CHECK_FALSE(sgd.nesterov);
  CHECK(sgd.weight_decay == T(0));
  CHECK(sgd.min_log_variance < sgd.max_log_variance);
  CHECK(sgd.skip_at == nullptr);

  const lgm::workspace memory;
  CHECK(memory.data == nullptr);
  CHECK(memory.bytes == 0);
}

TEST_CASE_TEMPLATE("parameters are read as the mixture they hold", T, float, double) {
  T mean = 1, log_variance = 2, log_prior = 3;
  const lgm::parameters<T> written{&mean, &log_variance, &log_prior};
  const lgm::mixture<T> read = written;
  CHECK(read.mean == &mean);
  CHECK(read.log_variance == &log_variance);
  CHECK(read.log_prior == &log_prior);
}

TEST_CASE("the structs are plain data, as a device or another language needs them") {
  CHECK(std::is_trivially_copyable<lgm::shape>::value);
  CHECK(std::is_trivially_copyable<lgm::mixture<float>>::value);
  CHECK(std::is_trivially_copyable<lgm::parameters<float>>::value);
  CHECK(std::is_trivially_copyable<lgm::loss_options<float>>::value);
  CHECK(std::is_trivially_copyable<lgm::loss_result<float>>::value);
  CHECK(std::is_trivially_copyable<lgm::gradients<float, float>>::value);
  CHECK(std::is_trivially_copyable<lgm::score_result<float>>::value);
  CHECK(std::is_trivially_copyable<lgm::sgd_options<float>>::value);
  CHECK(std::is_trivially_copyable<lgm::workspace>::value);
  CHECK(std::is_standard_layout<lgm::shape>::value);
  CHECK(std::is_standard_layout<lgm::loss_options<float>>::value);
}
