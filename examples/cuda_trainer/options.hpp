// SPDX-License-Identifier: MIT
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

#include "../trainer/command_line.hpp"
#include "../trainer/schedule_text.hpp"

// The command line.

namespace cuda_trainer {

struct options {
  std::string data = "/usr/share/datasets/fashion-mnist";
  std::int64_t dims = 32, hidden = 256, epochs = 6, batch = 128, log_every = 100, seed = 0;
  float lr = 0.05f, lambda = 0.1f;
  lgm::stepped_schedule<float> alpha;
};

// Nothing where help was asked for, which is then printed. Throws std::runtime_error with one line about what is wrong.
inline std::optional<options> parse_options(int argc, const char* const* argv) {
  using trainer::between;
  using count = std::int64_t;
  options chosen;
  std::string alpha = "policy=stepup,value=0.1,step=1000,gamma=2,max=0.3";
  CLI::App app{
      "Trains a dense network with a large-margin Gaussian mixture head, all of it on a CUDA device."};
  app.option_defaults()->always_capture_default();
  app.add_option("--data", chosen.data, "Directory of an IDX image set (the files of MNIST, gzipped or not)");
  app.add_option("--dims", chosen.dims, "Length of the features")->check(between<count>(1, 4096));
  app.add_option("--hidden", chosen.hidden, "Width of the hidden layer")->check(between<count>(1, 65536));
  app.add_option("--epochs", chosen.epochs, "Passes over the training images")
      ->check(between<count>(1, 1000000));
  app.add_option("--batch", chosen.batch, "Images a step")->check(between<count>(1, 65536));
  app.add_option("--lr", chosen.lr, "Learning rate of network and means; momentum is 0.9")
      ->check(trainer::positive<float>());
  app.add_option("--lambda", chosen.lambda, "Weight of the likelihood")
      ->check(trainer::not_negative<float>());
  app.add_option("--alpha", alpha, "Margin: a number, or policy=constant|stepup|addup|ramp,value=,step=,...");
  app.add_option("--log-every", chosen.log_every, "Steps between two lines")
      ->check(between<count>(1, 1000000));
  app.add_option("--seed", chosen.seed, "Seed of parameters and order of the images")
      ->check(trainer::at_least(0));
  if (!trainer::parsed(app, argc, argv)) return std::nullopt;
  try {
    chosen.alpha = trainer::parse_alpha(alpha).schedule;
  } catch (const std::invalid_argument& error) {
    throw std::runtime_error(std::string("--alpha: ") + error.what());
  }
  return chosen;
}

}  // namespace cuda_trainer
