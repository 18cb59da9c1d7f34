// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "../trainer/options.hpp"
#include "finite_rows.hpp"
#include "scores.hpp"

// What the command line asks for: one struct a command.

namespace detector {

// NAME=FILE on the command line.
struct named_file {
  std::string name;
  std::filesystem::path path;
};

struct attack_options {
  std::vector<double> epsilons{4, 8, 16};  // of 255
  bool fgsm = true, pgd = true;
  int pgd_steps = 10;
};

struct evaluate_options {
  trainer::options training;  // save: a directory for the models, or empty
  std::string models;         // a directory to load them from; empty: they are trained
  std::int64_t test_limit = 0;
  double blur = 3;
  std::vector<named_file> outside;
  not_finite odd_rows = not_finite::refuse;
  attack_options attacks;
};

struct features_options {
  std::filesystem::path train, train_labels, test, test_labels;  // test_labels: may be empty
  std::vector<named_file> outside;
  std::string out = "detector-out";
  double variance_floor = default_variance_floor;
  not_finite odd_rows = not_finite::refuse;
  int threads = 0;
};

struct calibrate_options {
  std::filesystem::path model;  // empty: rows are features
  std::filesystem::path data;   // held-out
  std::filesystem::path train,
      train_labels;   // for scores that need Gaussians of the training features; may be empty
  std::string score;  // empty: the head's own
  double fpr = 0.05;
  double variance_floor = default_variance_floor;
  not_finite odd_rows = not_finite::refuse;
  std::filesystem::path out;
  int threads = 0;
};

struct apply_options {
  std::filesystem::path model, input;
  int threads = 0;
};

struct sweep_options {
  trainer::options training;
  std::int64_t test_limit = 0;
  double blur = 3;
  std::vector<named_file> outside;
  not_finite odd_rows = not_finite::refuse;
};

using command =
    std::variant<evaluate_options, features_options, calibrate_options, apply_options, sweep_options>;

// Nothing if the command line asked for help, which is then printed. Throws std::runtime_error with one line about
// what is wrong.
std::optional<command> parse_command(int argc, const char* const* argv);

}  // namespace detector
