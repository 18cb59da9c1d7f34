// SPDX-License-Identifier: MIT
#include "sweep.hpp"

#include <fmt/format.h>

#include <Eigen/Core>
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../trainer/gnuplot.hpp"
#include "../trainer/report.hpp"
#include "../trainer/schedule_text.hpp"
#include "detector_model.hpp"
#include "evaluate.hpp"
#include "plots.hpp"
#include "report.hpp"
#include "scores.hpp"

namespace detector {

namespace {

using trainer::update_rule;

struct setting {
  std::string tick;
  trainer::options training;
};

struct line_of_settings {
  std::string key, title, axis;
  std::vector<setting> settings;
};

std::vector<line_of_settings> grid_of(const trainer::options& base) {
  std::vector<line_of_settings> result;
  const auto with = [&](const std::string& tick, const auto& change) {
    setting one{tick, base};
    change(one.training);
    return one;
  };

  line_of_settings lambda{"lambda", "weight of the likelihood", "lambda", {}};
  for (const char* text : {"0", "0.01", "0.03", "0.1", "0.3", "1"}) {
    lambda.settings.push_back(with(text, [&](trainer::options& o) { o.lambda = std::stof(text); }));
  }
  result.push_back(std::move(lambda));

  line_of_settings alpha{"alpha", "margin", "alpha", {}};
  for (const char* text : {"0", "0.1", "0.1 to 0.3", "0.3", "1"}) {
    alpha.settings.push_back(with(text, [&](trainer::options& o) {
      if (std::string(text).find("to") != std::string::npos) return;  // the base's
      o.alpha_text = text;
      o.alpha = trainer::parse_alpha(text);
    }));
  }
  result.push_back(std::move(alpha));

  line_of_settings dims{"dims", "features", "dims", {}};
  for (const std::int64_t size : {2, 8, 32, 128}) {
    dims.settings.push_back(with(std::to_string(size), [&](trainer::options& o) { o.dims = size; }));
  }
  result.push_back(std::move(dims));

  line_of_settings variance{"variance", "variances", "one a class (s) or one a class and feature (d)", {}};
  variance.settings.push_back(with("fixed", [](trainer::options&) {}));
  for (const lgm::covariance form : {lgm::covariance::spherical, lgm::covariance::diagonal}) {
    for (const update_rule rule : {update_rule::gradient, update_rule::moments}) {
      const std::string tick = std::string(rule == update_rule::gradient ? "learned" : "estimated") +
                               (form == lgm::covariance::spherical ? ", s" : ", d");
      variance.settings.push_back(with(tick, [&](trainer::options& o) {
        o.covariance = form;
        o.update_variance = rule;
        // Estimated variances are about the estimated means.
        if (rule == update_rule::moments) o.update_mean = update_rule::moments;
      }));
    }
  }
  result.push_back(std::move(variance));
  return result;
}

// Trains and measures each model once, whichever lines it lies on.
class measurer {
 public:
  measurer(const surroundings& around, const std::vector<outside_set>& sets, std::int64_t repeat)
      : around_(&around), sets_(&sets), repeat_(repeat) {}

  const model_result& operator()(head_kind kind, const trainer::options& training) {
    const std::string key =
        fmt::format("{} {} {}", key_of(kind), training.dims,
                    kind == head_kind::softmax
                        ? std::string()
                        : fmt::format("{} {} {} {} {}", training.lambda, training.alpha_text,
                                      trainer::to_string(training.covariance),
                                      to_string(training.update_mean), to_string(training.update_variance)));
    const auto found = done_.find(key);
    if (found != done_.end()) return found->second;

    model_result result{key_of(kind), name_of(kind), {}, {}};
    for (std::int64_t i = 0; i < repeat_; ++i) {
      const auto seed = static_cast<std::uint64_t>(training.seed + i);
      const std::unique_ptr<trained_model> model = train_model(*around_, training, kind, seed);
      scorer scores(model->copy_head(),
                    estimate_gaussians(*model, around_->data.train, around_->data.classes, training.threads),
                    training.threads);
      result.seeds.push_back(measure_model(*model, scores, around_->data.test, *sets_, {}, nullptr));
      result.seeds.back().seed = seed;
      result.scores = scores.names();
    }
    return done_.emplace(key, std::move(result)).first->second;
  }

 private:
  const surroundings* around_;
  const std::vector<outside_set>* sets_;
  std::int64_t repeat_;
  std::map<std::string, model_result> done_;
};

// Over the seeds, of a score's AUROC, its mean over the sets.
trainer::spread mean_auroc(const model_result& of, const std::string& score) {
  const auto found = std::find(of.scores.begin(), of.scores.end(), score);
  const auto index = static_cast<std::size_t>(found - of.scores.begin());
  std::vector<double> values;
  for (const seed_result& seed : of.seeds) {
    double sum = 0;
    for (const set_result& set : seed.sets) sum += set.scores[index].auroc;
    values.push_back(sum / static_cast<double>(seed.sets.size()));
  }
  return trainer::spread_of(values);
}

sweep_line line_with(const std::string& name) { return {name, {}, {}}; }

void add(sweep_line& line, const trainer::spread& value) {
  line.values.push_back(value.mean);
  line.deviations.push_back(value.deviation);
}

nlohmann::ordered_json to_json_of(const model_result& model) {
  nlohmann::ordered_json json{{"accuracy", to_json(model.accuracy())}};
  for (const std::string& score : model.scores) json["mean_auroc"][score] = to_json(mean_auroc(model, score));
  const std::vector<set_result>& sets = model.seeds.front().sets;
  for (std::size_t i = 0; i < sets.size(); ++i) {
    for (std::size_t s = 0; s < model.scores.size(); ++s) {
      json["auroc"][sets[i].name][model.scores[s]] = to_json(model.of(i, s, &detection::auroc));
    }
  }
  return json;
}

}  // namespace

void sweep(const sweep_options& chosen) {
  trainer::require_gnuplot();
  const trainer::options& base = chosen.training;
  const trainer::data_set data = trainer::load_data_set(base.data, base.train_limit, chosen.test_limit);
  const std::vector<outside_set> sets = outside_sets(data.test, chosen.blur, chosen.outside, chosen.odd_rows);
  const std::filesystem::path out = base.out;
  make_directory(out);
  Eigen::setNbThreads(1);  // the network's products are shared out by its workers
  trainer::workers team(base.threads);
  const surroundings around(data, team);
  measurer measured(around, sets, base.repeat);

  const std::vector<std::string> shown{"log_density", "log_mixture"};
  const model_result& softmax = measured(head_kind::softmax, base);
  const std::string baseline = *std::max_element(
      softmax.scores.begin(), softmax.scores.end(), [&](const std::string& a, const std::string& b) {
        return mean_auroc(softmax, a).mean < mean_auroc(softmax, b).mean;
      });

  nlohmann::ordered_json json;
  json["options"] = to_json(base);
  json["options"]["test_limit"] = chosen.test_limit;
  json["options"]["blur"] = chosen.blur;
  for (const outside_set& set : sets) json["outside"].push_back(set.name);
  json["softmax"] = to_json_of(softmax);
  std::vector<sweep_panel> panels;
  std::string table = fmt::format("\n{:<40}{:>12}", "mean AUROC over the sets, %", "accuracy");
  for (const std::string& score : shown) table += fmt::format("{:>20}", score);
  table +=
      fmt::format("\n{}\n{:<40}{:>12.2f}  {} {:.1f}, msp {:.1f}\n", std::string(52 + 20 * shown.size(), '-'),
                  "softmax", 100 * softmax.accuracy().mean, baseline,
                  100 * mean_auroc(softmax, baseline).mean, 100 * mean_auroc(softmax, "msp").mean);

  for (const line_of_settings& along : grid_of(base)) {
    sweep_panel panel;
    panel.title = along.title;
    panel.axis = along.axis;
    for (const std::string& score : shown) panel.lines.push_back(line_with("L-GM " + score));
    sweep_line softmax_line = line_with("softmax " + baseline);
    for (const setting& each : along.settings) {
      panel.ticks.push_back(each.tick);
      const model_result& model = measured(head_kind::lgm, each.training);
      nlohmann::ordered_json entry{{along.key, each.tick}, {"lgm", to_json_of(model)}};
      table += fmt::format("{:<40}{:>12.2f}", along.key + " " + each.tick, 100 * model.accuracy().mean);
      for (std::size_t s = 0; s < shown.size(); ++s) {
        const trainer::spread value = mean_auroc(model, shown[s]);
        add(panel.lines[s], value);
        table +=
            fmt::format("{:>20}", fmt::format("{:.1f} +-{:.1f}", 100 * value.mean, 100 * value.deviation));
      }
      table += "\n";
      if (along.key == "dims") {
        const model_result& other = measured(head_kind::softmax, each.training);
        add(softmax_line, mean_auroc(other, baseline));
        entry["softmax"] = to_json_of(other);
      }
      json["lines"][along.key].push_back(std::move(entry));
    }
    if (along.key == "dims") {
      panel.lines.push_back(std::move(softmax_line));
    } else {
      const trainer::spread value = mean_auroc(softmax, baseline);
      panel.baseline = value.mean;
      panel.baseline_deviation = value.deviation;
      panel.baseline_name = "softmax " + baseline;
    }
    panels.push_back(std::move(panel));
  }

  fmt::print("{}", table);
  trainer::write_file(out / "sweep.json", json.dump(2) + "\n");
  draw_sweep(out, fmt::format("AUROC, mean over {} outside sets", sets.size()), panels);
  fmt::print("\nwritten: {}, {}\n", (out / "sweep.json").string(), (out / "sweep.png").string());
  if (std::fflush(stdout) != 0) throw std::runtime_error("standard output: cannot be written");
}

}  // namespace detector
