// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace trainer {

namespace {

double head_share(const head_result& run) { return run.record.head_seconds / run.record.seconds; }

// L-GM's test accuracy minus softmax's, seed by seed.
spread accuracy_difference(const head_results& softmax, const head_results& lgm) {
  std::vector<double> values;
  for (std::size_t i = 0; i < softmax.runs.size(); ++i) {
    values.push_back(lgm.runs[i].test.accuracy() - softmax.runs[i].test.accuracy());
  }
  return spread_of(values);
}

nlohmann::ordered_json to_json(const spread& value) {
  return {{"mean", value.mean},
          {"standard_deviation", value.deviation},
          {"standard_error", value.standard_error}};
}

nlohmann::ordered_json to_json(const batch_loss& loss, bool has_likelihood) {
  nlohmann::ordered_json json{{"total", loss.total}, {"classification", loss.classification}};
  if (has_likelihood) json["likelihood"] = loss.likelihood;
  return json;
}

}  // namespace

nlohmann::ordered_json to_json(const options& chosen) {
  return {{"data", chosen.data},
          {"head", to_string(chosen.head)},
          {"dims", chosen.dims},
          {"epochs", chosen.epochs},
          {"lr_epochs", chosen.lr_epochs},
          {"batch", chosen.batch},
          {"lr", chosen.lr},
          {"seed", chosen.seed},
          {"repeat", chosen.repeat},
          {"train_limit", chosen.train_limit},
          {"threads", chosen.threads},
          {"alpha", chosen.alpha_text},
          {"lambda", chosen.lambda},
          {"covariance", to_string(chosen.covariance)},
          {"update_mean", to_string(chosen.update_mean)},
          {"update_variance", to_string(chosen.update_variance)}};
}

std::string table_text(const std::vector<head_results>& heads) {
  struct row {
    const char* name;
    const char* format;
    bool needs_likelihood;
    std::function<double(const head_result&)> value;
  };
  const std::vector<row> rows{
      {"training accuracy", "{:.2f} %", false, [](const auto& r) { return 100 * r.train.accuracy(); }},
      {"test accuracy", "{:.2f} %", false, [](const auto& r) { return 100 * r.test.accuracy(); }},
      {"test loss", "{:.4f}", false, [](const auto& r) { return r.test.mean().total; }},
      {"  classification", "{:.4f}", false, [](const auto& r) { return r.test.mean().classification; }},
      {"  likelihood, before lambda", "{:.4f}", true, [](const auto& r) { return r.test.mean().likelihood; }},
      {"training loss, last epoch, with margin", "{:.4f}", false,
       [](const auto& r) { return r.record.last_epoch.mean().total; }},
      {"  classification", "{:.4f}", false,
       [](const auto& r) { return r.record.last_epoch.mean().classification; }},
      {"  likelihood, before lambda", "{:.4f}", true,
       [](const auto& r) { return r.record.last_epoch.mean().likelihood; }},
      {"AUROC, test images against noise", "{:.4f}", false, [](const auto& r) { return r.noise_auroc; }},
      {"AUROC, against shuffled pixels", "{:.4f}", false, [](const auto& r) { return r.shuffled_auroc; }},
      {"time an epoch", "{:.2f} s", false, [](const auto& r) { return r.epoch_seconds; }},
      {"head's share of a step", "{:.1f} %", false, [](const auto& r) { return 100 * head_share(r); }},
  };

  std::string text = fmt::format("\n{:<40}", "");
  for (const head_results& head : heads) text += fmt::format("{:>14}", head.name);
  text += "\n" + std::string(40 + 14 * heads.size(), '-') + "\n";
  for (const row& each : rows) {
    text += fmt::format("{:<40}", each.name);
    for (const head_results& head : heads) {
      const bool shown = head.has_likelihood || !each.needs_likelihood;
      const double mean = head.over_runs(each.value).mean;
      // A training that was resumed at its end has no times.
      text += fmt::format("{:>14}",
                          shown && std::isfinite(mean) ? fmt::format(fmt::runtime(each.format), mean) : "-");
    }
    text += "\n";
  }
  text += "AUROC ranks images by";
  for (std::size_t i = 0; i < heads.size(); ++i) {
    text += i == 0 ? " " : ", ";
    text += heads[i].has_likelihood ? "the density of their features (L-GM)"
                                    : "their largest probability (softmax)";
  }
  text += ".\n";
  return text;
}

std::string seeds_text(const std::vector<head_results>& heads) {
  const auto percent = [](double part) { return fmt::format("{:>14}", fmt::format("{:.2f} %", 100 * part)); };
  std::vector<spread> spreads;
  for (const head_results& head : heads) {
    spreads.push_back(head.over_runs([](const head_result& r) { return r.test.accuracy(); }));
  }
  std::string text = fmt::format("\n{:<40}", "test accuracy by seed");
  for (const head_results& head : heads) text += fmt::format("{:>14}", head.name);
  text += "\n" + std::string(40 + 14 * heads.size(), '-') + "\n";
  for (std::size_t i = 0; i < heads.front().runs.size(); ++i) {
    text += fmt::format("{:<40}", heads.front().runs[i].seed);
    for (const head_results& head : heads) text += percent(head.runs[i].test.accuracy());
    text += "\n";
  }
  text += fmt::format("{:<40}", "mean");
  for (const spread& each : spreads) text += percent(each.mean);
  text += fmt::format("\n{:<40}", "standard deviation");
  for (const spread& each : spreads) text += percent(each.deviation);
  text += fmt::format("\n{:<40}", "standard error of the mean");
  for (const spread& each : spreads) text += percent(each.standard_error);
  text += "\n";
  if (heads.size() == 2) {
    const spread difference = accuracy_difference(heads[0], heads[1]);
    text += fmt::format("{} minus {}, seed by seed: {:+.2f} points, standard error {:.2f}\n", heads[1].name,
                        heads[0].name, 100 * difference.mean, 100 * difference.standard_error);
  }
  return text;
}

std::string results_text(const options& chosen, const data_set& data,
                         const std::vector<head_results>& heads) {
  nlohmann::ordered_json json;
  json["options"] = to_json(chosen);
  json["data"] = {{"classes", data.classes},
                  {"train_images", data.train.count()},
                  {"test_images", data.test.count()},
                  {"rows", data.train.rows},
                  {"columns", data.train.columns}};
  for (const head_results& head : heads) {
    auto& out = json["heads"][head.key];
    out["test_accuracy"] = to_json(head.over_runs([](const head_result& r) { return r.test.accuracy(); }));
    for (const head_result& run : head.runs) {
      out["runs"].push_back({
          {"seed", run.seed},
          {"train_accuracy", run.train.accuracy()},
          {"test_accuracy", run.test.accuracy()},
          {"train_loss", to_json(run.train.mean(), head.has_likelihood)},
          {"test_loss", to_json(run.test.mean(), head.has_likelihood)},
          {"last_epoch_loss_with_margin", to_json(run.record.last_epoch.mean(), head.has_likelihood)},
          {"auroc_noise", run.noise_auroc},
          {"auroc_shuffled_pixels", run.shuffled_auroc},
          {"steps", run.record.steps},
          {"seconds_an_epoch", run.epoch_seconds},
          {"head_share_of_step", head_share(run)},
      });
    }
  }
  if (heads.size() == 2)
    json["lgm_minus_softmax_test_accuracy"] = to_json(accuracy_difference(heads[0], heads[1]));
  return json.dump(2) + "\n";
}

}  // namespace trainer
