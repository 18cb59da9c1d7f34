// SPDX-License-Identifier: MIT
#pragma once

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>

// What the command lines of the examples share. Every option that is a number has one of the checks below: CLI's own take NaN,
// which is neither too small nor too large.

namespace trainer {

namespace detail {

// A number of type T for which holds(value) is true; `which` says in words what that means.
template <class T, class Holds>
CLI::Validator number_check(const std::string& which, const Holds& holds) {
  const auto check = [which, holds](const std::string& text) {
    T value{};
    const bool is_number = CLI::detail::lexical_cast(text, value);
    if (is_number && std::isfinite(static_cast<double>(value)) && holds(value)) return std::string();
    return "'" + text + "' is not a number " + which;
  };
  return CLI::Validator(check, which);
}

}  // namespace detail

// A number of [least, most], both of the option's own type.
template <class T>
CLI::Validator between(T least, T most) {
  std::ostringstream which;
  which << "from " << least << " to " << most;
  return detail::number_check<T>(which.str(),
                                 [least, most](T value) { return value >= least && value <= most; });
}

// A whole number that may be used in sums.
inline CLI::Validator at_least(std::int64_t least) {
  constexpr std::int64_t most = std::int64_t{1} << 40;
  return detail::number_check<std::int64_t>(
      "from " + std::to_string(least) + " on",
      [least](std::int64_t value) { return value >= least && value <= most; });
}

template <class T>
CLI::Validator positive() {
  return detail::number_check<T>("above 0", [](T value) { return value > 0; });
}
template <class T>
CLI::Validator not_negative() {
  return detail::number_check<T>("from 0 on", [](T value) { return value >= 0; });
}

// Parses; false where that was all to do (help was asked for, and printed). Throws std::runtime_error with one line about
// what is wrong.
inline bool parsed(CLI::App& app, int argc, const char* const* argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) throw std::runtime_error(error.what());
    app.exit(error);
    return false;
  }
  return true;
}

}  // namespace trainer
