// SPDX-License-Identifier: MIT

// Tells inputs that a classifier knows from those that it does not. --help lists the commands, COMMAND --help their
// options.

#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <optional>
#include <variant>

#include "apply.hpp"
#include "calibrate.hpp"
#include "evaluate.hpp"
#include "options.hpp"
#include "sweep.hpp"

namespace detector {
namespace {

struct run {
  void operator()(const evaluate_options& chosen) const { evaluate(chosen); }
  void operator()(const features_options& chosen) const { evaluate_features(chosen); }
  void operator()(const calibrate_options& chosen) const { calibrate(chosen); }
  void operator()(const apply_options& chosen) const { apply(chosen); }
  void operator()(const sweep_options& chosen) const { sweep(chosen); }
};

}  // namespace
}  // namespace detector

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a gnuplot or a reader that stops early is an error of its own
  try {
    const std::optional<detector::command> chosen = detector::parse_command(argc, argv);
    if (chosen) std::visit(detector::run(), *chosen);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "detector: {}\n", error.what());
    return 1;
  }
}
