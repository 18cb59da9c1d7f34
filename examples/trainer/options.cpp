// SPDX-License-Identifier: MIT
#include "options.hpp"

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

#include "command_line.hpp"
#include "schedule_text.hpp"

namespace trainer {

std::optional<options> parse_options(int argc, const char* const* argv) {
  options chosen;
  std::string head = to_string(chosen.head), covariance = to_string(chosen.covariance);
  std::string update_mean = to_string(chosen.update_mean), update_variance;
  std::optional<std::int64_t> lr_epochs;

  CLI::App app{
      "Trains the same network twice on images, with a softmax head and with a large-margin Gaussian mixture "
      "(L-GM)\n"
      "head, and compares them: a table, results.json, features.png and likelihood.png."};
  app.set_help_flag("-h,--help", "Print this help");
  app.option_defaults()->always_capture_default()->multi_option_policy(CLI::MultiOptionPolicy::Throw);

  app.add_option("--data", chosen.data, "Directory of an IDX image set (the files of MNIST, gzipped or not)");
  app.add_option("--out", chosen.out, "Directory that results and pictures are written to");
  app.add_option("--head", head, "Which heads to train")->check(CLI::IsMember({"softmax", "lgm", "both"}));
  app.add_option("--dims", chosen.dims, "Length of the features")->check(between<std::int64_t>(1, 4096));
  app.add_option("--epochs", chosen.epochs, "Passes over the training images")
      ->check(between<std::int64_t>(1, 1000000));
  app.add_option("--lr-epochs", lr_epochs,
                 "Epochs that the rate's cycle takes; then it stays low [default: --epochs]")
      ->check(between<std::int64_t>(1, 1000000));
  app.add_option("--batch", chosen.batch, "Images a step")->check(between<std::int64_t>(1, 65536));
  app.add_option("--lr", chosen.lr, "Peak of the one-cycle learning rate")->check(positive<double>());
  app.add_option("--seed", chosen.seed, "Seed of parameters and order of the images")->check(at_least(0));
  app.add_option("--repeat", chosen.repeat,
                 "Train with this many seeds from --seed on; report mean and spread")
      ->check(between<std::int64_t>(1, 1000));
  app.add_option("--train-limit", chosen.train_limit, "Use only the first N training images; 0: all")
      ->check(at_least(0));
  app.add_option("--threads", chosen.threads, "Threads of network and head; 0: all")->check(between(0, 4096));
  app.add_option(
      "--alpha", chosen.alpha_text,
      "Margin: a number; policy=constant|stepup|addup|ramp,value=,step=,gamma=,min=,max=,iter=; or a file "
      "with a margin_mul block");
  app.add_option("--lambda", chosen.lambda, "Weight of the likelihood")->check(not_negative<float>());
  app.add_option("--covariance", covariance, "Form of the classes' covariance")
      ->check(CLI::IsMember({"identity", "spherical", "diagonal"}));
  app.add_option("--update-mean", update_mean,
                 "What the means follow: their gradient, or the moments of each class's features")
      ->check(CLI::IsMember({"gradient", "moments"}));
  app.add_option("--update-variance", update_variance,
                 "What the variances follow; on is gradient [default: gradient unless identity]")
      ->check(CLI::IsMember({"gradient", "moments", "off", "on"}));
  app.add_option("--save", chosen.save,
                 "Save each training in this directory, as HEAD-seed-SEED.safetensors: at each epoch's end "
                 "and when interrupted (Ctrl-C)");
  app.add_option("--save-every", chosen.save_every, "With --save: also after every N steps; 0: no")
      ->check(at_least(0));
  app.add_option(
      "--resume", chosen.resume,
      "Go on from what this directory holds of the same options, and save there unless --save names another");

  if (!parsed(app, argc, argv)) return std::nullopt;

  const auto require = [](bool holds, const std::string& message) {
    if (!holds) throw std::runtime_error(message);
  };
  chosen.head = head == "softmax" ? head_choice::softmax
                : head == "lgm"   ? head_choice::lgm
                                  : head_choice::both;
  chosen.covariance = covariance == "identity"    ? lgm::covariance::identity
                      : covariance == "spherical" ? lgm::covariance::spherical
                                                  : lgm::covariance::diagonal;
  const bool has_variance = chosen.covariance != lgm::covariance::identity;
  if (update_variance.empty()) update_variance = has_variance ? "gradient" : "off";
  chosen.update_mean = update_mean == "moments" ? update_rule::moments : update_rule::gradient;
  chosen.update_variance = update_variance == "off"       ? update_rule::off
                           : update_variance == "moments" ? update_rule::moments
                                                          : update_rule::gradient;
  require(has_variance || chosen.update_variance == update_rule::off,
          "--update-variance: " + update_variance + " needs --covariance spherical or diagonal");
  chosen.lr_epochs = lr_epochs.value_or(chosen.epochs);
  if (chosen.save.empty()) chosen.save = chosen.resume;
  require(chosen.save_every == 0 || !chosen.save.empty(), "--save-every: needs --save or --resume");
  try {
    chosen.alpha = parse_alpha(chosen.alpha_text);
  } catch (const std::invalid_argument& error) {
    throw std::runtime_error(std::string("--alpha: ") + error.what());
  }
  return chosen;
}

}  // namespace trainer
