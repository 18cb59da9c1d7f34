// SPDX-License-Identifier: MIT
#include "schedule_text.hpp"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>

#include "support.hpp"

// The margin's schedule from text: any bytes give a schedule that can be used and written down again, or one line that
// says why not.

namespace {

using trainer::alpha_schedule;

std::string number(float value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

const char* policy_name(lgm::schedule_policy policy) {
  switch (policy) {
    case lgm::schedule_policy::constant: return "constant";
    case lgm::schedule_policy::step_up: return "stepup";
    case lgm::schedule_policy::add_up: return "addup";
    case lgm::schedule_policy::ramp: return "ramp";
  }
  fuzz::require(false, "the policy is one of the four");
  return "";
}

// The schedule as text: name, assign, value, separate, name, ...
std::string text_of(const alpha_schedule& alpha, const std::string& assign, const std::string& separate) {
  const auto& s = alpha.schedule;
  std::string text;
  const auto field = [&](const std::string& name, const std::string& value) {
    text += (text.empty() ? "" : separate) + name + assign + value;
  };
  field("policy", policy_name(s.policy));
  field("value", number(s.value));
  field("step", std::to_string(s.step));
  field("gamma", number(s.gamma));
  field("min", number(s.min));
  field("max", number(s.max));
  field("iter", std::to_string(alpha.first_iteration));
  return text;
}

bool same_bits(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

void require_same(const alpha_schedule& a, const alpha_schedule& b) {
  const auto &s = a.schedule, &t = b.schedule;
  fuzz::require(s.policy == t.policy && s.step == t.step && a.first_iteration == b.first_iteration &&
                    same_bits(s.value, t.value) && same_bits(s.gamma, t.gamma) && same_bits(s.min, t.min) &&
                    same_bits(s.max, t.max),
                "a schedule that is written and read again is the same");
}

// A margin that the library accepts, at every iteration.
void require_usable(const alpha_schedule& alpha) {
  const auto& s = alpha.schedule;
  fuzz::require(s.step > 0 && alpha.first_iteration >= 0 && s.min >= 0 && s.min <= s.max &&
                    std::isfinite(s.max) && std::isfinite(s.gamma),
                "the fields are in their ranges");
  constexpr std::int64_t last = std::numeric_limits<std::int64_t>::max() / 2;
  for (const std::int64_t at :
       {std::int64_t{0}, std::int64_t{1}, std::int64_t{2}, std::int64_t{3}, std::int64_t{1000}, s.step - 1,
        s.step, std::int64_t{1} << 40, last - 1, last}) {
    if (at > last) continue;
    const float margin = alpha(at);
    fuzz::require(margin >= s.min && margin <= s.max, "the margin is within [min, max] at iteration " +
                                                          std::to_string(at) + ": " + number(margin));
    fuzz::require(same_bits(margin, alpha(at)), "the margin is a function of the iteration");
  }
}

template <class Parse>
void check(Parse parse, const std::string& text) {
  alpha_schedule alpha;
  try {
    alpha = parse(text);
  } catch (const std::invalid_argument& error) {
    fuzz::require_message(error.what());
    return;
  }
  require_usable(alpha);
  require_same(alpha, trainer::parse_key_values(text_of(alpha, "=", ",")));
  require_same(alpha, trainer::parse_alpha(text_of(alpha, "=", ",")));
  require_same(alpha,
               trainer::parse_margin_mul("layer { margin_mul { " + text_of(alpha, ": ", " ") + " } }"));
  require_same(alpha,
               trainer::parse_margin_mul("margin_mul:<\n" + text_of(alpha, ":", ";# a comment }\n") + ">"));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  check(trainer::parse_margin_mul, text);
  check(trainer::parse_margin_mul, "margin_mul{" + text + "}");
  check(trainer::parse_key_values, text);
  // The text could name a file of this machine only with a path; a name of the working folder is harmless.
  if (text.find('/') == std::string::npos) check(trainer::parse_alpha, text);
  return 0;
}
