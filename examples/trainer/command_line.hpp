// SPDX-License-Identifier: MIT
#pragma once

#include <CLI/CLI.hpp>
#include <stdexcept>

namespace trainer {

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
