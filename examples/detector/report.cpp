// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace detector {

namespace {

using trainer::spread;
using trainer::spread_of;

struct measure_name {
  const char* key;
  double detection::*value;
};
constexpr measure_name measures[] = {{"auroc", &detection::auroc},
                                     {"fpr_at_95_tpr", &detection::fpr_at_95_tpr},
                                     {"aupr_in", &detection::aupr_in},
                                     {"aupr_out", &detection::aupr_out},
                                     {"detection_accuracy", &detection::accuracy}};

template <class Value>
spread over_seeds(const std::vector<seed_result>& seeds, const Value& value) {
  std::vector<double> values;
  for (const seed_result& each : seeds) values.push_back(value(each));
  return spread_of(values);
}

bool is_attack(const set_result& set) { return !std::isnan(set.accuracy); }

constexpr int name_width = 24, cell_width = 13;

std::string percent(const spread& value, std::size_t seeds, const char* mark = "") {
  if (std::isnan(value.mean)) return "-";
  std::string text = fmt::format("{:.1f}", 100 * value.mean);
  if (seeds > 1) text += fmt::format(" +-{:.1f}", 100 * value.deviation);
  return text + mark;
}

// Whether the table shows them as the same number.
bool looks_equal(double a, double b) { return std::round(1000 * a) == std::round(1000 * b); }

std::string cell(const std::string& text) {
  // The mark takes a column of its own, so that numbers stand under each other.
  const bool marked = !text.empty() && text.back() == '*';
  return fmt::format("{:>{}}", text, marked ? cell_width : cell_width - 1) + (marked ? "" : " ");
}

struct best_score {
  std::size_t model = 0, score = 0;
  double value = 0;
};

// The best score of a set, of those models that `takes` does.
template <class Takes>
std::optional<best_score> best_of(const std::vector<model_result>& models, std::size_t set,
                                  double detection::*measure, bool larger_is_better, const Takes& takes) {
  std::optional<best_score> best;
  for (std::size_t m = 0; m < models.size(); ++m) {
    if (!takes(models[m])) continue;
    for (std::size_t s = 0; s < models[m].scores.size(); ++s) {
      const double value = models[m].of(set, s, measure).mean;
      if (std::isnan(value)) continue;
      if (!best || (larger_is_better ? value > best->value : value < best->value)) best = {m, s, value};
    }
  }
  return best;
}

std::string rule(std::size_t columns) { return std::string(name_width + columns * cell_width, '-') + "\n"; }

// One table of one measure.
std::string measure_table(const std::vector<model_result>& models, const std::vector<std::size_t>& sets,
                          const std::string& title, double detection::*measure, bool larger_is_better) {
  if (sets.empty()) return "";
  std::string text = fmt::format("\n{}\n{:<{}}", title, "", name_width);
  for (const std::size_t set : sets) text += cell(models.front().seeds.front().sets[set].name);
  text += "\n" + rule(sets.size());
  for (std::size_t m = 0; m < models.size(); ++m) {
    const model_result& model = models[m];
    text += models.size() > 1 ? model.name + "\n" : "";
    for (std::size_t s = 0; s < model.scores.size(); ++s) {
      text += fmt::format("  {:<{}}", model.scores[s], name_width - 2);
      for (const std::size_t set : sets) {
        const spread value = model.of(set, s, measure);
        const auto best =
            best_of(models, set, measure, larger_is_better, [](const model_result&) { return true; });
        text +=
            cell(percent(value, model.seeds.size(), best && looks_equal(value.mean, best->value) ? "*" : ""));
      }
      text += "\n";
    }
  }
  return text;
}

// A score of L-GM less the best of softmax's, set by set.
std::string comparison_text(const std::vector<model_result>& models, const std::string& own_name) {
  const auto find = [&](const char* key) {
    return std::find_if(models.begin(), models.end(), [&](const model_result& m) { return m.key == key; });
  };
  const auto lgm = find("lgm"), softmax = find("softmax");
  if (lgm == models.end() || softmax == models.end()) return "";
  const auto own = std::find(lgm->scores.begin(), lgm->scores.end(), own_name);
  const auto own_index = static_cast<std::size_t>(own - lgm->scores.begin());
  const std::size_t seeds = lgm->seeds.size();

  constexpr int half_width = 52;
  const auto half = [&](std::size_t set, double detection::*measure, bool larger_is_better) -> std::string {
    const auto best = best_of(models, set, measure, larger_is_better,
                              [](const model_result& m) { return m.key == "softmax"; });
    if (!best) return "";
    std::vector<double> values;
    for (std::size_t i = 0; i < seeds; ++i) {
      values.push_back(lgm->seeds[i].sets[set].scores[own_index].*measure -
                       softmax->seeds[i].sets[set].scores[best->score].*measure);
    }
    const spread difference = spread_of(values);
    const bool is_worse = larger_is_better ? difference.mean < 0 : difference.mean > 0;
    const bool is_clear = seeds == 1 || std::abs(difference.mean) >= 2 * difference.standard_error;
    std::string number = fmt::format("{:+.1f}", 100 * difference.mean);
    if (seeds > 1) number += fmt::format(" +-{:.1f}", 100 * difference.standard_error);
    return fmt::format("{:>{}}  {:<18}{}", number, cell_width - 1, softmax->scores[best->score],
                       !is_clear  ? "not clear"
                       : is_worse ? "loses"
                                  : "wins");
  };
  std::string text = fmt::format(
      "\nL-GM's {} less that score of the softmax model which is the best on the set, in points", own_name);
  if (seeds > 1) text += ",\nseed by seed, with the standard error of the mean";
  text += fmt::format("\n{:<{}}{:<{}}{}\n{}\n", "", name_width, "     AUROC  than", half_width,
                      "       FPR  than", std::string(name_width + 2 * half_width - 10, '-'));
  for (std::size_t set = 0; set < lgm->seeds.front().sets.size(); ++set) {
    text += fmt::format("  {:<{}}{:<{}}{}\n", lgm->seeds.front().sets[set].name, name_width - 2,
                        half(set, &detection::auroc, true), half_width,
                        half(set, &detection::fpr_at_95_tpr, false));
  }
  return text;
}

std::string accuracy_text(const std::vector<model_result>& models, const std::vector<std::size_t>& attacks) {
  std::string text = fmt::format("\n{:<{}}", "accuracy, %", name_width) + cell("test") + cell("ECE");
  for (const std::size_t set : attacks) text += cell(models.front().seeds.front().sets[set].name);
  text += "\n" + rule(2 + attacks.size());
  for (const model_result& model : models) {
    const std::size_t seeds = model.seeds.size();
    text += fmt::format("{:<{}}", model.name, name_width) + cell(percent(model.accuracy(), seeds)) +
            cell(percent(model.calibration_error(), seeds));
    for (const std::size_t set : attacks) text += cell(percent(model.accuracy_under(set), seeds));
    text += "\n";
  }
  text += "ECE: expected calibration error of the posterior, 15 bins.\n";
  if (attacks.empty()) return text;
  text +=
      "Attacks know the model they attack, so each model has adversarial images of its own; those that it "
      "still\n"
      "classifies correctly count as outside all the same.\n";
  for (const model_result& model : models) {
    const spread stuck =
        over_seeds(model.seeds, [](const seed_result& r) { return static_cast<double>(r.without_gradient); });
    if (stuck.mean == 0) continue;
    text += fmt::format(
        "{}: on average {:.0f} test images have a loss whose gradient is zero in float; no attack moves "
        "these.\n",
        model.name, stuck.mean);
  }
  return text;
}

nlohmann::ordered_json number(double value) {
  return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json(nullptr);
}

}  // namespace

trainer::spread model_result::accuracy() const {
  return over_seeds(seeds, [](const seed_result& r) { return r.accuracy; });
}
trainer::spread model_result::calibration_error() const {
  return over_seeds(seeds, [](const seed_result& r) { return r.calibration_error; });
}
trainer::spread model_result::accuracy_under(std::size_t set) const {
  return over_seeds(seeds, [&](const seed_result& r) { return r.sets[set].accuracy; });
}
trainer::spread model_result::of(std::size_t set, std::size_t score, double detection::*measure) const {
  return over_seeds(seeds, [&](const seed_result& r) { return r.sets[set].scores[score].*measure; });
}

std::string table_text(const std::vector<model_result>& models) {
  std::vector<std::size_t> foreign, attacks;
  const std::vector<set_result>& sets = models.front().seeds.front().sets;
  for (std::size_t i = 0; i < sets.size(); ++i) (is_attack(sets[i]) ? attacks : foreign).push_back(i);
  const std::size_t seeds = models.front().seeds.size();
  const std::string note =
      seeds > 1 ? fmt::format("mean and standard deviation of {} seeds, * the best of its column", seeds)
                : "* the best of its column";

  std::string text;
  for (const auto& [columns, what] :
       {std::pair(&foreign, "images of no class"), std::pair(&attacks, "adversarial images")}) {
    const std::string against = models.front().key == "features" ? "the outside sets" : what;
    text += measure_table(models, *columns, fmt::format("AUROC against {}, % ({})", against, note),
                          &detection::auroc, true);
  }
  for (const auto& [columns, what] :
       {std::pair(&foreign, "images of no class"), std::pair(&attacks, "adversarial images")}) {
    const std::string against = models.front().key == "features" ? "the outside sets" : what;
    text += measure_table(models, *columns,
                          fmt::format("share of {} that pass where 95 % of the test set do, %", against),
                          &detection::fpr_at_95_tpr, false);
  }
  for (const char* own : {"log_density", "log_mixture"}) text += comparison_text(models, own);
  if (!std::isnan(models.front().accuracy().mean)) text += accuracy_text(models, attacks);
  return text;
}

nlohmann::ordered_json to_json(const trainer::spread& value) {
  return {{"mean", number(value.mean)}, {"standard_deviation", number(value.deviation)}};
}

nlohmann::ordered_json results_json(const std::vector<model_result>& models) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const model_result& model : models) {
    nlohmann::ordered_json& out = json[model.key];
    out["accuracy"] = to_json(model.accuracy());
    out["expected_calibration_error"] = to_json(model.calibration_error());
    const std::vector<set_result>& sets = model.seeds.front().sets;
    for (std::size_t i = 0; i < sets.size(); ++i) {
      nlohmann::ordered_json& set = out["outside"][sets[i].name];
      if (is_attack(sets[i])) set["accuracy_under_attack"] = to_json(model.accuracy_under(i));
      for (std::size_t s = 0; s < model.scores.size(); ++s) {
        for (const measure_name& each : measures) {
          set["scores"][model.scores[s]][each.key] = to_json(model.of(i, s, each.value));
        }
      }
    }
    for (const seed_result& seed : model.seeds) {
      nlohmann::ordered_json run{{"seed", seed.seed},
                                 {"accuracy", number(seed.accuracy)},
                                 {"expected_calibration_error", number(seed.calibration_error)},
                                 {"training_seconds", seed.training_seconds},
                                 {"images_without_gradient", seed.without_gradient}};
      for (const set_result& each : seed.sets) {
        nlohmann::ordered_json& set = run["outside"][each.name];
        if (is_attack(each)) set["accuracy_under_attack"] = number(each.accuracy);
        for (std::size_t s = 0; s < model.scores.size(); ++s) {
          for (const measure_name& name : measures) {
            set["scores"][model.scores[s]][name.key] = number(each.scores[s].*name.value);
          }
        }
      }
      out["seeds"].push_back(std::move(run));
    }
  }
  return json;
}

}  // namespace detector
