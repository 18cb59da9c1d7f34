// SPDX-License-Identifier: MIT
#include "evaluate.hpp"

#include <fmt/format.h>

#include <Eigen/Core>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "../trainer/foreign.hpp"
#include "../trainer/gnuplot.hpp"
#include "../trainer/report.hpp"
#include "deployed_model.hpp"
#include "metrics.hpp"
#include "npy.hpp"
#include "outside.hpp"
#include "plots.hpp"

namespace detector {

namespace {

namespace fs = std::filesystem;
using trainer::row_matrix;

// Everything finite that a reader has, as one matrix; kept: which rows these are.
row_matrix<float> read_rows(row_reader& reader, not_finite odd_rows, std::vector<Eigen::Index>& kept) {
  const std::vector<float> values = reader.read_all();
  const std::int64_t columns = reader.columns();
  const Eigen::Map<const row_matrix<float>> all(values.data(),
                                                static_cast<std::int64_t>(values.size()) / columns, columns);
  finite_rows finite(reader.path().string(), odd_rows);
  kept = finite.among(all, 0);
  finite.finish();
  return all(kept, Eigen::all);
}

// Features of finite images that are not finite tell of a model that cannot be measured.
const row_matrix<float>& require_finite(const row_matrix<float>& features, const std::string& set) {
  for (Eigen::Index i = 0; i < features.rows(); ++i) {
    if (!features.row(i).allFinite())
      throw std::runtime_error(fmt::format("{}: the features of row {} are not finite", set, i));
  }
  return features;
}

double share_correct(const row_scores& of, const std::vector<std::int64_t>& labels) {
  std::size_t correct = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) correct += of.predicted[i] == labels[i] ? 1 : 0;
  return static_cast<double>(correct) / static_cast<double>(labels.size());
}

double calibration_error(const row_scores& of, const std::vector<std::int64_t>& labels) {
  std::vector<double> confidence;
  std::vector<bool> correct;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    confidence.push_back(std::exp(of.log_posterior[i]));
    correct.push_back(of.predicted[i] == labels[i]);
  }
  return expected_calibration_error(confidence, correct);
}

set_result measure_set(const std::string& name, const row_scores& inside, const row_scores& outside) {
  set_result result;
  result.name = name;
  for (std::size_t s = 0; s < inside.columns.size(); ++s) {
    result.scores.push_back(measure(inside.columns[s], outside.columns[s]));
  }
  return result;
}

// ---- pictures ----

struct scored_model {
  std::string name;
  std::vector<std::string> scores;
  scored_sets sets;
  std::vector<std::string> set_names;
};

const std::vector<double>* column_of(const scored_model& model, const row_scores& of,
                                     const std::string& score) {
  const auto found = std::find(model.scores.begin(), model.scores.end(), score);
  return found == model.scores.end() ? nullptr
                                     : &of.columns[static_cast<std::size_t>(found - model.scores.begin())];
}

// shown: which sets, by their index. Not every score is drawn: those left out lie close to one that is, or below.
void draw_pictures(const fs::path& out, const std::vector<scored_model>& models,
                   const std::vector<std::size_t>& shown) {
  const std::vector<std::string> drawn_scores{"msp", "energy", "log_mixture", "mahalanobis"};
  std::vector<roc_panel> curves;
  for (const std::size_t set : shown) {
    roc_panel panel;
    panel.title = "test set against " + models.front().set_names[set];
    for (const scored_model& model : models) {
      for (const std::string& score : drawn_scores) {
        const std::vector<double>* inside = column_of(model, model.sets.inside, score);
        if (inside == nullptr) continue;
        const std::string prefix = models.size() > 1 ? model.name + " " : "";
        panel.lines.push_back(
            {prefix + score, roc(*inside, *column_of(model, model.sets.outside[set], score))});
      }
    }
    curves.push_back(std::move(panel));
  }
  draw_roc(out, curves);

  std::vector<histogram_panel> histograms;
  for (const scored_model& model : models) {
    for (const std::string score : {"energy", "log_mixture", "mahalanobis"}) {
      const std::vector<double>* inside = column_of(model, model.sets.inside, score);
      if (inside == nullptr) continue;
      histogram_panel panel;
      panel.title = models.size() > 1 ? model.name + ": " + score : score;
      panel.axis = score == "energy"        ? "log of the sum of exp(logit)"
                   : score == "log_mixture" ? "log density of the features, log p(x)"
                                            : "- squared distance to the nearest class";
      panel.sets.push_back({"test set", *inside});
      for (const std::size_t set : shown) {
        panel.sets.push_back({model.set_names[set], *column_of(model, model.sets.outside[set], score)});
      }
      histograms.push_back(std::move(panel));
    }
  }
  draw_histograms(out, histograms);
}

void write_results(const fs::path& out, nlohmann::ordered_json options,
                   const std::vector<model_result>& models) {
  nlohmann::ordered_json json;
  json["options"] = std::move(options);
  json["models"] = results_json(models);
  trainer::write_file(out / "results.json", json.dump(2) + "\n");
}

void say_written(const fs::path& out) {
  fmt::print("\nwritten: {}, {}, {}\n", (out / "results.json").string(), (out / "roc.png").string(),
             (out / "histograms.png").string());
  if (std::fflush(stdout) != 0) throw std::runtime_error("standard output: cannot be written");
}

// ---- models ----

std::vector<attack> attacks_of(const attack_options& options) {
  std::vector<attack> result;
  if (options.fgsm) {
    for (const double epsilon : options.epsilons)
      result.push_back({fmt::format("fgsm-{:g}", epsilon), 0, epsilon, 0});
  }
  if (options.pgd) {
    for (const double epsilon : options.epsilons) {
      result.push_back({fmt::format("pgd-{:g}", epsilon), options.pgd_steps, epsilon, 0});
    }
  }
  return result;
}

// The heads that are asked for, with the seeds to train or, with --models, those that the directory has of them.
struct work {
  std::vector<head_kind> kinds;
  std::vector<std::uint64_t> seeds;
};

work work_of(const evaluate_options& chosen) {
  work result;
  if (chosen.training.with_softmax()) result.kinds.push_back(head_kind::softmax);
  if (chosen.training.with_lgm()) result.kinds.push_back(head_kind::lgm);
  if (chosen.models.empty()) {
    for (std::int64_t i = 0; i < chosen.training.repeat; ++i) {
      result.seeds.push_back(static_cast<std::uint64_t>(chosen.training.seed + i));
      for (const head_kind kind : result.kinds) {
        const fs::path path = model_path(chosen.training.save, kind, result.seeds.back());
        std::error_code ignored;
        if (!chosen.training.save.empty() && fs::exists(path, ignored)) {
          throw std::runtime_error(path.string() + ": exists; --models " + chosen.training.save +
                                   " loads it");
        }
      }
    }
    return result;
  }

  std::error_code error;
  std::set<std::string> files;
  for (const auto& each : fs::directory_iterator(chosen.models, error))
    files.insert(each.path().filename().string());
  if (error) throw std::runtime_error(chosen.models + ": " + error.message());
  std::set<std::uint64_t> seeds;
  std::vector<head_kind> found;
  for (const head_kind kind : result.kinds) {
    bool any = false;
    const std::string begin = std::string(key_of(kind)) + "-seed-", end = ".safetensors";
    for (const std::string& file : files) {
      if (file.size() <= begin.size() + end.size() || file.compare(0, begin.size(), begin) != 0 ||
          file.compare(file.size() - end.size(), end.size(), end) != 0) {
        continue;
      }
      const std::string number = file.substr(begin.size(), file.size() - begin.size() - end.size());
      if (number.find_first_not_of("0123456789") != std::string::npos || number.size() > 18) continue;
      seeds.insert(std::stoull(number));
      any = true;
    }
    if (any) found.push_back(kind);
  }
  if (found.empty()) {
    throw std::runtime_error(chosen.models +
                             ": has no file HEAD-seed-SEED.safetensors of a head that is asked for");
  }
  result.kinds = found;
  result.seeds.assign(seeds.begin(), seeds.end());
  // Both models of every seed, said before the first is measured.
  for (const std::uint64_t seed : result.seeds) {
    for (const head_kind kind : result.kinds) {
      const fs::path path = model_path(chosen.models, kind, seed);
      if (files.count(path.filename().string()) == 0) {
        throw std::runtime_error(path.string() + ": no such file, but there is another model of this seed");
      }
    }
  }
  return result;
}

}  // namespace

void make_directory(const fs::path& directory) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (error || !fs::is_directory(directory, error)) {
    throw std::runtime_error(directory.string() + ": cannot be created as a directory");
  }
}

std::vector<outside_set> outside_sets(const trainer::image_set& test, double blur,
                                      const std::vector<named_file>& files, not_finite odd_rows) {
  std::vector<outside_set> result;
  result.push_back({"noise", trainer::noise_images(test.images, 1), {}});
  result.push_back({"shuffled", trainer::shuffled_images(test.images, test.pixels(), 1), {}});
  result.push_back({"blur", blurred_images(test.images, test.rows, test.columns, blur), {}});
  result.push_back({"inversion", inverted_images(test.images), {}});
  for (const named_file& each : files) {
    const std::unique_ptr<row_reader> reader = open_rows(each.path);
    require_columns(*reader, test.pixels(), "the test images");
    std::vector<Eigen::Index> kept;
    result.push_back({each.name, {}, read_rows(*reader, odd_rows, kept)});
  }
  return result;
}

seed_result measure_model(trained_model& model, scorer& scores, const trainer::image_set& test,
                          const std::vector<outside_set>& sets, const std::vector<attack>& attacks,
                          scored_sets* kept) {
  const std::vector<std::int64_t> labels(test.labels.begin(), test.labels.end());
  const row_scores inside = scores(require_finite(model.features(test.images), "the test images"));
  seed_result result;
  result.accuracy = share_correct(inside, labels);
  result.calibration_error = calibration_error(inside, labels);
  result.training_seconds = model.training_seconds();
  if (!attacks.empty()) result.without_gradient = model.without_gradient(test);
  if (kept != nullptr) kept->inside = inside;
  const auto add = [&](const std::string& name, row_scores outside) {
    result.sets.push_back(measure_set(name, inside, outside));
    if (kept != nullptr) kept->outside.push_back(std::move(outside));
  };
  for (const outside_set& set : sets) {
    const row_matrix<float> features =
        set.bytes.empty() ? model.features_of(set.pixels) : model.features(set.bytes);
    add(set.name, scores(require_finite(features, set.name)));
  }
  for (const attack& each : attacks) {
    row_scores outside = scores(require_finite(model.features_of(model.attacked(each, test)), each.name));
    const double accuracy = share_correct(outside, labels);
    add(each.name, std::move(outside));
    result.sets.back().accuracy = accuracy;
  }
  return result;
}

void evaluate(const evaluate_options& chosen) {
  trainer::require_gnuplot();
  const trainer::options& training = chosen.training;
  const work todo = work_of(chosen);
  const trainer::data_set data =
      trainer::load_data_set(training.data, training.train_limit, chosen.test_limit);
  const std::vector<outside_set> sets = outside_sets(data.test, chosen.blur, chosen.outside, chosen.odd_rows);
  const std::vector<attack> attacks = attacks_of(chosen.attacks);
  const fs::path out = training.out;
  make_directory(out);
  if (!training.save.empty()) make_directory(training.save);
  Eigen::setNbThreads(1);  // the network's products are shared out by its workers
  trainer::workers team(training.threads);
  const surroundings around(data, team);

  std::vector<model_result> models;
  std::vector<scored_model> drawn;  // of the first seed
  for (const head_kind kind : todo.kinds) {
    models.push_back({key_of(kind), name_of(kind), {}, {}});
    drawn.push_back({name_of(kind), {}, {}, {}});
  }
  for (std::size_t i = 0; i < todo.seeds.size(); ++i) {
    const std::uint64_t seed = todo.seeds[i];
    for (std::size_t m = 0; m < todo.kinds.size(); ++m) {
      const std::unique_ptr<trained_model> model =
          chosen.models.empty()
              ? train_model(around, training, todo.kinds[m], seed)
              : load_trained_model(around, model_path(chosen.models, todo.kinds[m], seed), training.threads);
      const auto begin = std::chrono::steady_clock::now();
      scorer scores(model->copy_head(),
                    estimate_gaussians(*model, data.train, data.classes, training.threads), training.threads);
      seed_result result =
          measure_model(*model, scores, data.test, sets, attacks, i == 0 ? &drawn[m].sets : nullptr);
      result.seed = seed;
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      fmt::print("{}, seed {}: test accuracy {:.2f} %; measured against {} sets in {:.1f} s\n",
                 models[m].name, seed, 100 * result.accuracy, result.sets.size(), seconds);
      std::fflush(stdout);
      models[m].scores = scores.names();
      models[m].seeds.push_back(std::move(result));
    }
  }

  fmt::print("{}", table_text(models));
  nlohmann::ordered_json options = to_json(training);
  if (!chosen.models.empty()) {
    // What the models were trained with is in their files.
    options = {{"data", training.data}, {"models", chosen.models}, {"train_limit", training.train_limit}};
  }
  options["test_limit"] = chosen.test_limit;
  options["blur"] = chosen.blur;
  options["epsilons"] = chosen.attacks.epsilons;
  options["pgd_steps"] = chosen.attacks.pgd_steps;
  for (const named_file& each : chosen.outside) options["outside"][each.name] = each.path.string();
  write_results(out, std::move(options), models);

  std::vector<std::size_t> shown;
  const std::vector<set_result>& measured = models.front().seeds.front().sets;
  for (std::size_t i = 0; i < sets.size(); ++i) shown.push_back(i);
  // Of the attacks the strongest kind, at the epsilon in the middle.
  if (!attacks.empty()) {
    const std::size_t count = chosen.attacks.epsilons.size();
    shown.push_back(measured.size() - count + count / 2);
  }
  for (std::size_t m = 0; m < models.size(); ++m) {
    drawn[m].scores = models[m].scores;
    for (const set_result& set : measured) drawn[m].set_names.push_back(set.name);
  }
  draw_pictures(out, drawn, shown);
  say_written(out);
}

void evaluate_features(const features_options& chosen) {
  trainer::require_gnuplot();
  const std::vector<std::int64_t> train_labels = read_labels(chosen.train_labels);
  const std::int64_t classes = 1 + *std::max_element(train_labels.begin(), train_labels.end());

  // The training features only pass through.
  const std::unique_ptr<row_reader> train = open_rows(chosen.train);
  const std::int64_t dims = train->columns();
  const feature_gaussians gaussians =
      estimate_rows(nullptr, *train, train_labels, chosen.train_labels, classes,
                    {chosen.variance_floor, chosen.odd_rows, chosen.threads});
  scorer scores(gaussians.by_class, gaussians, chosen.threads);

  std::int64_t rows = 0;           // of the file that was scored last,
  std::vector<Eigen::Index> kept;  // and those of them that have scores
  const auto score_file = [&](const fs::path& path) {
    const std::unique_ptr<row_reader> reader = open_rows(path);
    require_columns(*reader, dims, "the training features");
    rows = reader->rows();
    return scores(read_rows(*reader, chosen.odd_rows, kept));
  };
  make_directory(chosen.out);
  scored_model drawn{"features", scores.names(), {}, {}};
  drawn.sets.inside = score_file(chosen.test);
  const row_scores& inside = drawn.sets.inside;
  seed_result result;
  result.accuracy = result.calibration_error = std::numeric_limits<double>::quiet_NaN();
  if (!chosen.test_labels.empty()) {
    const std::vector<std::int64_t> all_labels = read_labels(chosen.test_labels, classes);
    if (static_cast<std::int64_t>(all_labels.size()) != rows) {
      trainer::fail_file(chosen.test_labels, fmt::format("{} labels for {} rows", all_labels.size(), rows));
    }
    std::vector<std::int64_t> labels;
    for (const Eigen::Index each : kept) labels.push_back(all_labels[static_cast<std::size_t>(each)]);
    result.accuracy = share_correct(inside, labels);
    result.calibration_error = calibration_error(inside, labels);
  }
  std::vector<std::size_t> shown;
  for (const named_file& each : chosen.outside) {
    row_scores outside = score_file(each.path);
    result.sets.push_back(measure_set(each.name, inside, outside));
    drawn.sets.outside.push_back(std::move(outside));
    drawn.set_names.push_back(each.name);
    shown.push_back(shown.size());
  }

  const std::vector<model_result> models{{"features", "features", scores.names(), {std::move(result)}}};
  fmt::print("{} classes of {} features, {} training samples\n{}", classes, dims, train_labels.size(),
             table_text(models));
  nlohmann::ordered_json options{{"train", chosen.train.string()},
                                 {"train_labels", chosen.train_labels.string()},
                                 {"test", chosen.test.string()},
                                 {"test_labels", chosen.test_labels.string()},
                                 {"variance_floor", chosen.variance_floor}};
  for (const named_file& each : chosen.outside) options["outside"][each.name] = each.path.string();
  write_results(chosen.out, std::move(options), models);
  draw_pictures(chosen.out, {drawn}, shown);
  say_written(chosen.out);
}

}  // namespace detector
