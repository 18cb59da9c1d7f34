// SPDX-License-Identifier: MIT
#include "detector_model.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "attacks.hpp"
#include "checkpoint.hpp"
#include "deployed_model.hpp"
#include "heads.hpp"
#include "model_file.hpp"
#include "progress.hpp"
#include "training.hpp"

namespace detector {

namespace {

using trainer::row_matrix;

template <class Head>
class head_model final : public trained_model {
 public:
  template <class MakeHead>
  head_model(const surroundings& around, const std::vector<std::int64_t>& widths, std::int64_t batch,
             std::uint64_t seed, const MakeHead& make_head)
      : pixels_(widths.front()), model_(widths, batch, 3 * seed, around.team, around.scaling, make_head) {}

  trainer::model<Head>& inner() { return model_; }

  head_kind kind() const override {
    return std::is_same_v<Head, trainer::lgm_head> ? head_kind::lgm : head_kind::softmax;
  }
  std::int64_t dims() const override { return model_.dims(); }
  row_matrix<float> features(const std::vector<std::uint8_t>& images) override {
    return model_.features(images);
  }
  row_matrix<float> features_of(const trainer::const_matrix_view<float>& images) override {
    return model_.features_of(images);
  }
  row_matrix<float> attacked(const attack& how, const trainer::image_set& images) override {
    const row_matrix<float> pixels = float_pixels(images.images, pixels_);
    const auto epsilon = static_cast<float>(how.epsilon);
    if (how.steps == 0) return fgsm(model_, pixels, images.labels.data(), epsilon);
    pgd_options options;
    options.epsilon = epsilon;
    options.steps = how.steps;
    options.seed = how.seed;
    return pgd(model_, pixels, images.labels.data(), options);
  }
  std::int64_t without_gradient(const trainer::image_set& images) override {
    return count_without_gradient(model_, float_pixels(images.images, pixels_), images.labels.data());
  }
  head copy_head() override { return read_head(model_.save()); }
  double training_seconds() const override { return model_.record().seconds; }

 private:
  std::int64_t pixels_;
  trainer::model<Head> model_;
};

trainer::lgm_settings settings_of(const trainer::options& chosen) {
  trainer::lgm_settings settings;
  settings.covariance = chosen.covariance;
  settings.update_mean = chosen.update_mean;
  settings.update_variance = chosen.update_variance;
  settings.lambda = chosen.lambda;
  settings.alpha = chosen.alpha;
  settings.threads = chosen.threads;
  return settings;
}

using lgm_model = head_model<trainer::lgm_head>;
using softmax_model = head_model<trainer::softmax_head<float>>;

std::unique_ptr<lgm_model> make_lgm(const surroundings& around, const std::vector<std::int64_t>& widths,
                                    std::int64_t classes, const trainer::options& chosen,
                                    std::uint64_t seed) {
  const trainer::lgm_settings settings = settings_of(chosen);
  return std::make_unique<lgm_model>(around, widths, chosen.batch, seed, [&](std::int64_t max_samples) {
    return trainer::lgm_head(classes, widths.back(), max_samples, 3 * seed + 1, settings);
  });
}

std::unique_ptr<softmax_model> make_softmax(const surroundings& around,
                                            const std::vector<std::int64_t>& widths, std::int64_t classes,
                                            const trainer::options& chosen, std::uint64_t seed) {
  return std::make_unique<softmax_model>(around, widths, chosen.batch, seed, [&](std::int64_t max_samples) {
    return trainer::softmax_head<float>(classes, widths.back(), max_samples, 3 * seed + 1);
  });
}

template <class Model>
std::unique_ptr<trained_model> trained(std::unique_ptr<Model> model, const surroundings& around,
                                       const trainer::options& chosen, std::uint64_t seed) {
  const head_kind kind = model->kind();
  trainer::progress shown(fmt::format("{}, seed {}:", name_of(kind), seed), chosen.epochs,
                          around.data.train.count());
  model->inner().train(around.data.train,
                       {chosen.epochs, chosen.lr_epochs, chosen.batch, chosen.lr, 3 * seed + 2}, shown,
                       [](bool) { return true; });
  if (!chosen.save.empty()) {
    const trainer::checkpoint kept(chosen, around.mark, key_of(kind), seed,
                                   trainer::steps_of_epoch(around.data.train.count(), chosen.batch),
                                   around.team.count());
    kept.save(model->inner().save(), model->inner().record().steps);
  }
  return model;
}

const std::string& text_of(const trainer::model_file& file, const std::string& name) {
  const auto found = file.metadata.find(name);
  if (found == file.metadata.end()) throw std::runtime_error("__metadata__ has no '" + name + "'");
  return found->second;
}

std::int64_t count_of(const trainer::model_file& file, const std::string& name, std::int64_t least) {
  const std::string& text = text_of(file, name);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  constexpr std::int64_t most = std::int64_t{1} << 40;
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
    throw std::runtime_error("__metadata__: " + name + " is " + trainer::printable(text));
  }
  return value;
}

trainer::update_rule rule_of(const trainer::model_file& file, const std::string& name) {
  for (const trainer::update_rule each :
       {trainer::update_rule::gradient, trainer::update_rule::moments, trainer::update_rule::off}) {
    if (text_of(file, name) == trainer::to_string(each)) return each;
  }
  throw std::runtime_error("__metadata__: " + name + " is " + trainer::printable(text_of(file, name)));
}

std::unique_ptr<trained_model> restored(const surroundings& around, trainer::model_file file, int threads) {
  trainer::require_format(file, {"lgm-trainer"});
  const std::string& mark = text_of(file, "data");
  if (mark != around.mark) {
    throw std::runtime_error(fmt::format("--data or --train-limit: '{}' now, {} when it was trained",
                                         around.mark, trainer::printable(mark)));
  }
  // What calibrate adds is not the trainer's.
  for (auto each = file.tensors.begin(); each != file.tensors.end();) {
    each = each->first.compare(0, 9, "detector.") == 0 ? file.tensors.erase(each) : std::next(each);
  }
  trainer::options chosen;
  chosen.batch = count_of(file, "batch", 1);
  chosen.threads = threads;
  if (chosen.batch > 65536) throw std::runtime_error("__metadata__: batch is too large");
  const std::int64_t steps = count_of(file, "steps", 0), images = around.data.train.count();
  const head the_head = read_head(file);
  const bool is_softmax = std::holds_alternative<linear_head>(the_head);
  const row_matrix<float>& matrix =
      is_softmax ? std::get<linear_head>(the_head).weight : std::get<gaussian_head>(the_head).mean;
  if (matrix.rows() != around.data.classes) {
    throw std::runtime_error(
        fmt::format("{} classes, but the images have {}", matrix.rows(), around.data.classes));
  }
  const std::vector<std::int64_t> widths = read_widths(file);
  if (widths.back() != matrix.cols()) throw std::runtime_error("its network and its head do not fit");
  if (is_softmax) {
    auto model = make_softmax(around, widths, matrix.rows(), chosen, 0);
    model->inner().restore(file, steps, images, chosen.batch);
    return model;
  }
  chosen.covariance = std::get<gaussian_head>(the_head).covariance;
  chosen.update_mean = rule_of(file, "update-mean");
  chosen.update_variance = rule_of(file, "update-variance");
  auto model = make_lgm(around, widths, matrix.rows(), chosen, 0);
  model->inner().restore(file, steps, images, chosen.batch);
  return model;
}

}  // namespace

surroundings::surroundings(const trainer::data_set& the_data, trainer::workers& the_team)
    : data(the_data),
      team(the_team),
      scaling(the_data.train.images),
      mark(trainer::data_mark(the_data.train)) {}

std::unique_ptr<trained_model> train_model(const surroundings& around, const trainer::options& chosen,
                                           head_kind kind, std::uint64_t seed) {
  const std::vector<std::int64_t> widths{around.data.train.pixels(), 512, 256, chosen.dims};
  if (kind == head_kind::softmax) {
    return trained(make_softmax(around, widths, around.data.classes, chosen, seed), around, chosen, seed);
  }
  return trained(make_lgm(around, widths, around.data.classes, chosen, seed), around, chosen, seed);
}

std::filesystem::path model_path(const std::filesystem::path& directory, head_kind kind, std::uint64_t seed) {
  return directory / fmt::format("{}-seed-{}.safetensors", key_of(kind), seed);
}

std::unique_ptr<trained_model> load_trained_model(const surroundings& around,
                                                  const std::filesystem::path& path, int threads) {
  trainer::model_file file = trainer::load_model(path);
  try {
    return restored(around, std::move(file), threads);
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(path.string() + ": " + error.what());
  }
}

feature_gaussians estimate_gaussians(trained_model& model, const trainer::image_set& train,
                                     std::int64_t classes, int threads) {
  gaussian_estimator estimator(classes, model.dims(), threads);
  const std::vector<std::int64_t> labels(train.labels.begin(), train.labels.end());
  estimator.add(model.features(train.images), labels.data());
  return estimator.finish();
}

}  // namespace detector
