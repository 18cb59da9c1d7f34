// SPDX-License-Identifier: MIT
#include "checkpoint.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <charconv>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace trainer {

namespace {

const char* const format_name = "lgm-trainer";
const char* const format_version = "1";

const std::string& text_of(const model_file& saved, const std::string& name) {
  const auto found = saved.metadata.find(name);
  if (found == saved.metadata.end()) throw std::runtime_error("__metadata__ has no '" + name + "'");
  return found->second;
}

std::int64_t count_of(const model_file& saved, const std::string& name) {
  const std::string& text = text_of(saved, name);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) {
    throw std::runtime_error("__metadata__: " + name + " is " + printable(text) + ", not a count");
  }
  return value;
}

// All of a schedule, whichever way it was written.
std::string to_text(const alpha_schedule& alpha) {
  const auto& schedule = alpha.schedule;
  const char* policy = "";
  switch (schedule.policy) {
    case lgm::schedule_policy::constant: policy = "constant"; break;
    case lgm::schedule_policy::step_up: policy = "stepup"; break;
    case lgm::schedule_policy::add_up: policy = "addup"; break;
    case lgm::schedule_policy::ramp: policy = "ramp"; break;
  }
  return fmt::format("policy={},value={},step={},gamma={},min={},max={},iter={}", policy, schedule.value,
                     schedule.step, schedule.gamma, schedule.min, schedule.max, alpha.first_iteration);
}

}  // namespace

std::string data_mark(const image_set& train) {
  uLong sum = crc32_z(0, train.images.data(), train.images.size());
  sum = crc32_z(sum, train.labels.data(), train.labels.size());
  return fmt::format("{} images of {} x {}, crc32 {:08x}", train.count(), train.rows, train.columns, sum);
}

std::vector<std::pair<std::string, std::string>> checkpoint::fixed_options() const {
  const options& chosen = *chosen_;
  std::vector<std::pair<std::string, std::string>> result{{"head", head_},
                                                          {"seed", std::to_string(seed_)},
                                                          {"data", mark_},
                                                          {"dims", std::to_string(chosen.dims)},
                                                          {"batch", std::to_string(chosen.batch)},
                                                          {"lr", fmt::format("{}", chosen.lr)}};
  if (head_ == "lgm") {
    result.emplace_back("alpha", to_text(chosen.alpha));
    result.emplace_back("lambda", fmt::format("{}", chosen.lambda));
    result.emplace_back("covariance", to_string(chosen.covariance));
    result.emplace_back("update-mean", to_string(chosen.update_mean));
    result.emplace_back("update-variance", to_string(chosen.update_variance));
  }
  return result;
}

void checkpoint::check(const model_file& saved, saved_training& result) const {
  require_format(saved, {format_name});
  for (const auto& [name, now] : fixed_options()) {
    const std::string& then = text_of(saved, name);
    if (then == now) continue;
    throw std::runtime_error(fmt::format("{}: '{}' now, {} when it was saved",
                                         name == "data" ? "--data or --train-limit" : "--" + name, now,
                                         printable(then)));
  }
  result.steps = count_of(saved, "steps");
  result.epochs = count_of(saved, "epochs");
  result.threads = count_of(saved, "threads");
  if (chosen_->epochs < result.epochs) {
    throw std::runtime_error(fmt::format("--epochs: {} now, {} when it was saved; it can only grow",
                                         chosen_->epochs, result.epochs));
  }
  // A training with more epochs than it set out with needs another cycle.
  const std::int64_t rate_epochs = count_of(saved, "lr-epochs");
  if (chosen_->epochs == result.epochs && chosen_->lr_epochs != rate_epochs) {
    throw std::runtime_error(
        fmt::format("--lr-epochs: {} now, {} when it was saved", chosen_->lr_epochs, rate_epochs));
  }
  if (result.steps > result.epochs * steps_an_epoch_) {
    throw std::runtime_error(
        fmt::format("{} steps are more than its {} epochs have", result.steps, result.epochs));
  }
}

std::optional<saved_training> checkpoint::resume() const {
  std::error_code ignored;
  if (chosen_->resume.empty() || !std::filesystem::exists(resumed_path(), ignored)) return std::nullopt;
  saved_training result;
  result.model = load_model(resumed_path());
  try {
    check(result.model, result);
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(resumed_path().string() + ": " + error.what());
  }
  return result;
}

void checkpoint::save(model_file model, std::int64_t steps) const {
  model.metadata = {{"format", format_name},
                    {"version", format_version},
                    {"steps", std::to_string(steps)},
                    {"epochs", std::to_string(chosen_->epochs)},
                    {"lr-epochs", std::to_string(chosen_->lr_epochs)},
                    {"threads", std::to_string(threads_)}};
  for (const auto& [name, text] : fixed_options()) model.metadata.emplace(name, text);
  save_model(saved_path(), model);
}

void checkpoint::require_free() const {
  std::error_code ignored;
  if (!saves() || !std::filesystem::exists(saved_path(), ignored)) return;
  if (!chosen_->resume.empty() && std::filesystem::equivalent(chosen_->save, chosen_->resume, ignored))
    return;
  throw std::runtime_error(saved_path().string() + ": exists; --resume " + chosen_->save + " continues it");
}

}  // namespace trainer
