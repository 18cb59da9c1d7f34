// SPDX-License-Identifier: MIT
#include "options.hpp"

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

#include "schedule_text.hpp"

namespace trainer {

std::optional<options> parse_options(int argc, const char* const* argv) {
  options chosen;
  std::string head = to_string(chosen.head), covariance = to_string(chosen.covariance), update_variance;

  CLI::App app{
      "Trains the same network twice on images, with a softmax head and with a large-margin Gaussian mixture "
      "(L-GM)\n"
      "head, and compares them: a table, results.json, features.png and likelihood.png."};
  app.set_help_flag("-h,--help", "Print this help");
  app.option_defaults()->always_capture_default()->multi_option_policy(CLI::MultiOptionPolicy::Throw);
  const auto at_least = [](std::int64_t least) { return CLI::Range(least, std::int64_t{1} << 40); };

  app.add_option("--data", chosen.data, "Directory of an IDX image set (the files of MNIST, gzipped or not)");
  app.add_option("--out", chosen.out, "Directory that results and pictures are written to");
  app.add_option("--head", head, "Which heads to train")->check(CLI::IsMember({"softmax", "lgm", "both"}));
  app.add_option("--dims", chosen.dims, "Length of the features")->check(CLI::Range(1, 4096));
  app.add_option("--epochs", chosen.epochs, "Passes over the training images")->check(CLI::Range(1, 1000000));
  app.add_option("--batch", chosen.batch, "Images a step")->check(CLI::Range(1, 65536));
  app.add_option("--lr", chosen.lr, "Peak of the one-cycle learning rate");
  app.add_option("--seed", chosen.seed, "Seed of parameters and order of the images")->check(at_least(0));
  app.add_option("--repeat", chosen.repeat,
                 "Train with this many seeds from --seed on; report mean and spread")
      ->check(CLI::Range(1, 1000));
  app.add_option("--train-limit", chosen.train_limit, "Use only the first N training images; 0: all")
      ->check(at_least(0));
  app.add_option("--threads", chosen.threads, "Threads of network and head; 0: all")
      ->check(CLI::Range(0, 4096));
  app.add_option(
      "--alpha", chosen.alpha_text,
      "Margin: a number; policy=constant|stepup|addup|ramp,value=,step=,gamma=,min=,max=,iter=; or a file "
      "with a margin_mul block");
  app.add_option("--lambda", chosen.lambda, "Weight of the likelihood");
  app.add_option("--covariance", covariance, "Form of the classes' covariance")
      ->check(CLI::IsMember({"identity", "spherical", "diagonal"}));
  app.add_option("--update-variance", update_variance, "Learn the variances [default: on unless identity]")
      ->check(CLI::IsMember({"on", "off"}));

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {
      app.exit(error);
      return std::nullopt;
    }
    throw std::runtime_error(error.what());
  }

  const auto require = [](bool holds, const std::string& message) {
    if (!holds) throw std::runtime_error(message);
  };
  require(std::isfinite(chosen.lr) && chosen.lr > 0, "--lr: must be positive");
  require(std::isfinite(chosen.lambda) && chosen.lambda >= 0, "--lambda: must not be negative");
  chosen.head = head == "softmax" ? head_choice::softmax
                : head == "lgm"   ? head_choice::lgm
                                  : head_choice::both;
  chosen.covariance = covariance == "identity"    ? lgm::covariance::identity
                      : covariance == "spherical" ? lgm::covariance::spherical
                                                  : lgm::covariance::diagonal;
  const bool has_variance = chosen.covariance != lgm::covariance::identity;
  chosen.update_variance = update_variance.empty() ? has_variance : update_variance == "on";
  require(has_variance || !chosen.update_variance,
          "--update-variance: on needs --covariance spherical or diagonal");
  try {
    chosen.alpha = parse_alpha(chosen.alpha_text);
  } catch (const std::invalid_argument& error) {
    throw std::runtime_error(std::string("--alpha: ") + error.what());
  }
  return chosen;
}

}  // namespace trainer
