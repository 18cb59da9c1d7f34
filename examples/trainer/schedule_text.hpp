// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <lgm/schedule.hpp>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

// The margin's schedule from text: a number, "policy=stepup,value=0.1,step=5000,gamma=2,max=0.3", or a file
// with the block "margin_mul { policy: STEPUP value: 0.1 ... }" of a Caffe network description.

namespace trainer {

struct alpha_schedule {
  lgm::stepped_schedule<float> schedule;
  std::int64_t first_iteration = 0;  // iterations already done before this run

  float operator()(std::int64_t iteration) const { return schedule(first_iteration + iteration); }
};

namespace detail {

using field_list = std::vector<std::pair<std::string, std::string>>;

[[noreturn]] inline void fail_schedule(const std::string& reason) { throw std::invalid_argument(reason); }

// A part of the text for a message, which stays short and in one line whatever the text holds.
inline std::string in_quotes(const std::string& text) {
  constexpr std::size_t most = 60;
  std::string part = text.substr(0, most);
  for (char& c : part) {
    if (std::iscntrl(static_cast<unsigned char>(c))) c = '?';
  }
  return "'" + part + (text.size() > most ? "...'" : "'");
}

inline bool parse_number(std::string_view text, double& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() && std::isfinite(out);
}

inline double number_field(const std::string& key, const std::string& text) {
  double value = 0;
  if (!parse_number(text, value)) fail_schedule(key + ": " + in_quotes(text) + " is not a number");
  if (std::abs(value) > static_cast<double>(std::numeric_limits<float>::max())) {
    fail_schedule(key + ": " + in_quotes(text) + " is too large");
  }
  return value;
}

inline std::int64_t integer_field(const std::string& key, const std::string& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    fail_schedule(key + ": " + in_quotes(text) + " is not a whole number");
  }
  // Leaves room for adding the iterations of a run.
  if (value > std::numeric_limits<std::int64_t>::max() / 2)
    fail_schedule(key + ": " + in_quotes(text) + " is too large");
  return value;
}

inline std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// The policies' names and, where the Caffe message has them, numbers.
inline lgm::schedule_policy policy_field(const std::string& text) {
  const std::string name = lower_case(text);
  if (name == "constant" || name == "0") return lgm::schedule_policy::constant;
  if (name == "stepup" || name == "1") return lgm::schedule_policy::step_up;
  if (name == "addup" || name == "3") return lgm::schedule_policy::add_up;
  if (name == "ramp") return lgm::schedule_policy::ramp;
  fail_schedule("policy: " + in_quotes(text) + " is none of constant, stepup, addup, ramp");
}

inline alpha_schedule schedule_of_fields(const field_list& fields) {
  alpha_schedule alpha;
  auto& schedule = alpha.schedule;
  for (std::size_t i = 0; i < fields.size(); ++i) {
    const auto& [key, text] = fields[i];
    for (std::size_t j = 0; j < i; ++j) {
      if (fields[j].first == key) fail_schedule(key + ": given twice");
    }
    if (key == "policy") {
      schedule.policy = policy_field(text);
    } else if (key == "value") {
      schedule.value = static_cast<float>(number_field(key, text));
    } else if (key == "gamma") {
      schedule.gamma = static_cast<float>(number_field(key, text));
    } else if (key == "min") {
      schedule.min = static_cast<float>(number_field(key, text));
    } else if (key == "max") {
      schedule.max = static_cast<float>(number_field(key, text));
    } else if (key == "step") {
      schedule.step = integer_field(key, text);
      if (schedule.step <= 0) fail_schedule("step: must be positive, not " + in_quotes(text));
    } else if (key == "iter") {
      alpha.first_iteration = integer_field(key, text);
      if (alpha.first_iteration < 0) fail_schedule("iter: must not be negative, not " + in_quotes(text));
    } else {
      fail_schedule(in_quotes(key) + " is none of policy, value, step, gamma, min, max, iter");
    }
  }
  if (schedule.min < 0) fail_schedule("min: must not be negative");
  if (schedule.max < schedule.min) fail_schedule("max: must not be below min");
  if (schedule.value < schedule.min) fail_schedule("value: must not be below min (its default is 0)");
  if (schedule.value > schedule.max) fail_schedule("value: must not be above max (its default is 1)");
  return alpha;
}

// The words and signs of a description in protobuf's text format; comments and separators are left out, and a
// quoted string, which no schedule holds, is one word that starts with its quote.
inline std::vector<std::string> text_format_tokens(const std::string& text) {
  const std::string signs = "{}<>:[]";
  std::vector<std::string> tokens;
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (std::isspace(static_cast<unsigned char>(c)) || c == ',' || c == ';') {
      ++i;
    } else if (c == '#') {
      while (i < text.size() && text[i] != '\n') ++i;
    } else if (signs.find(c) != std::string::npos) {
      tokens.emplace_back(1, c);
      ++i;
    } else if (c == '"' || c == '\'') {
      const std::size_t begin = i++;
      while (i < text.size() && text[i] != c) i += text[i] == '\\' ? 2 : 1;
      i = std::min(i + 1, text.size());
      tokens.push_back(text.substr(begin, i - begin));
    } else {
      const std::size_t begin = i;
      const std::string ends = signs + ",;#\"'";
      while (i < text.size() && !std::isspace(static_cast<unsigned char>(text[i])) &&
             ends.find(text[i]) == std::string::npos) {
        ++i;
      }
      tokens.push_back(text.substr(begin, i - begin));
    }
  }
  return tokens;
}

}  // namespace detail

// Reads the one margin_mul block of a Caffe network description, with the defaults of its message. Throws
// std::invalid_argument.
inline alpha_schedule parse_margin_mul(const std::string& text) {
  using detail::fail_schedule;
  using detail::in_quotes;
  const std::vector<std::string> tokens = detail::text_format_tokens(text);
  const auto begins = std::count(tokens.begin(), tokens.end(), "margin_mul");
  if (begins == 0) fail_schedule("holds no margin_mul block");
  if (begins > 1) fail_schedule("holds more than one margin_mul block");

  auto at = std::next(std::find(tokens.begin(), tokens.end(), "margin_mul"));
  const auto next = [&]() -> const std::string& {
    if (at == tokens.end()) fail_schedule("the margin_mul block does not end");
    return *at++;
  };
  std::string open = next();
  if (open == ":") open = next();
  if (open != "{" && open != "<") fail_schedule("margin_mul: '{' expected, not " + in_quotes(open));
  const std::string close = open == "{" ? "}" : ">";

  detail::field_list fields;
  for (std::string key = next(); key != close; key = next()) {
    const std::string& colon = next();
    if (colon != ":")
      fail_schedule("margin_mul: ':' expected after " + in_quotes(key) + ", not " + in_quotes(colon));
    fields.emplace_back(key, next());
  }
  return detail::schedule_of_fields(fields);
}

// Reads "key=value,key=value". Throws std::invalid_argument.
inline alpha_schedule parse_key_values(const std::string& text) {
  detail::field_list fields;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string field = text.substr(begin, end - begin);
    const std::size_t equals = field.find('=');
    if (equals == std::string::npos)
      detail::fail_schedule(detail::in_quotes(field) + " is not of the form key=value");
    fields.emplace_back(field.substr(0, equals), field.substr(equals + 1));
    begin = end + 1;
  }
  return detail::schedule_of_fields(fields);
}

// Reads what --alpha takes: a number, key=value fields, or the path of a file. Throws std::invalid_argument.
inline alpha_schedule parse_alpha(const std::string& text) {
  double number = 0;
  if (detail::parse_number(text, number)) {
    if (number < 0) detail::fail_schedule(detail::in_quotes(text) + " is negative");
    alpha_schedule alpha;
    alpha.schedule.value = static_cast<float>(detail::number_field("value", text));
    alpha.schedule.max = alpha.schedule.value;
    return alpha;
  }
  std::error_code ignored;
  if (std::filesystem::is_regular_file(text, ignored)) {
    std::ifstream file(text, std::ios::binary);
    const std::string content{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (!file) detail::fail_schedule(text + ": cannot be read");
    try {
      return parse_margin_mul(content);
    } catch (const std::invalid_argument& error) {
      detail::fail_schedule(text + ": " + error.what());
    }
  }
  if (text.find('=') == std::string::npos) {
    detail::fail_schedule(detail::in_quotes(text) + " is neither a number, nor key=value fields, nor a file");
  }
  return parse_key_values(text);
}

}  // namespace trainer
