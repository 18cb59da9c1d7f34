// SPDX-License-Identifier: MIT
#include "options.hpp"

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "command_line.hpp"
#include "schedule_text.hpp"
#include "scores.hpp"

namespace detector {

namespace {

using trainer::at_least;
using trainer::between;
using trainer::not_negative;
using trainer::positive;

void require(bool holds, const std::string& message) {
  if (!holds) throw std::runtime_error(message);
}

// What the options of a training are written as, until they are understood.
struct training_texts {
  std::string head, covariance, update_mean, update_variance;
  std::optional<std::int64_t> lr_epochs;
};

void add_threads(CLI::App& app, int& threads) {
  app.add_option("--threads", threads, "Threads; 0: all")->check(between(0, 4096));
}

void add_variance_floor(CLI::App& app, double& floor) {
  app.add_option("--variance-floor", floor,
                 "Least variance of the Gaussians, as a part of what the training features have on average")
      ->check(between(0.0, 1.0));
}

void add_not_finite(CLI::App& app, std::string& text) {
  app.add_option("--not-finite", text,
                 "What to do with rows that hold NaN or an infinity: stop, or go on without them")
      ->check(CLI::IsMember({"refuse", "skip"}));
}

not_finite not_finite_of(const std::string& text) {
  return text == "skip" ? not_finite::skip : not_finite::refuse;
}

void add_data(CLI::App& app, trainer::options& chosen) {
  app.add_option("--data", chosen.data, "Directory of an IDX image set (the files of MNIST, gzipped or not)");
  app.add_option("--out", chosen.out, "Directory that results and pictures are written to");
  app.add_option("--dims", chosen.dims, "Length of the features")->check(between<std::int64_t>(1, 4096));
  app.add_option("--epochs", chosen.epochs, "Passes over the training images")
      ->check(between<std::int64_t>(1, 1000000));
  app.add_option("--batch", chosen.batch, "Images a step")->check(between<std::int64_t>(1, 65536));
  app.add_option("--lr", chosen.lr, "Peak of the one-cycle learning rate")->check(positive<double>());
  app.add_option("--seed", chosen.seed, "The first seed, of parameters and order of the images")
      ->check(at_least(0));
  app.add_option("--train-limit", chosen.train_limit, "Use only the first N training images; 0: all")
      ->check(at_least(0));
  add_threads(app, chosen.threads);
}

void add_lgm(CLI::App& app, trainer::options& chosen, training_texts& texts) {
  app.add_option("--head", texts.head, "Which heads to measure")
      ->check(CLI::IsMember({"softmax", "lgm", "both"}));
  app.add_option("--lr-epochs", texts.lr_epochs,
                 "Epochs that the rate's cycle takes; then it stays low [default: --epochs]")
      ->check(between<std::int64_t>(1, 1000000));
  app.add_option("--alpha", chosen.alpha_text, "L-GM's margin, as the trainer takes it");
  app.add_option("--lambda", chosen.lambda, "Weight of L-GM's likelihood")->check(not_negative<float>());
  app.add_option("--covariance", texts.covariance, "Form of L-GM's covariances")
      ->check(CLI::IsMember({"identity", "spherical", "diagonal"}));
  app.add_option("--update-mean", texts.update_mean,
                 "What L-GM's means follow: their gradient, or the moments of each class's features")
      ->check(CLI::IsMember({"gradient", "moments"}));
  app.add_option("--update-variance", texts.update_variance,
                 "What L-GM's variances follow [default: gradient unless identity]")
      ->check(CLI::IsMember({"gradient", "moments", "off"}));
}

void finish_training(trainer::options& chosen, const training_texts& texts) {
  using trainer::update_rule;
  chosen.head = texts.head == "softmax" ? trainer::head_choice::softmax
                : texts.head == "lgm"   ? trainer::head_choice::lgm
                                        : trainer::head_choice::both;
  chosen.covariance = texts.covariance == "diagonal"    ? lgm::covariance::diagonal
                      : texts.covariance == "spherical" ? lgm::covariance::spherical
                                                        : lgm::covariance::identity;
  const bool has_variance = chosen.covariance != lgm::covariance::identity;
  const std::string variance = !texts.update_variance.empty() ? texts.update_variance
                               : has_variance                 ? "gradient"
                                                              : "off";
  chosen.update_mean = texts.update_mean == "moments" ? update_rule::moments : update_rule::gradient;
  chosen.update_variance = variance == "off"       ? update_rule::off
                           : variance == "moments" ? update_rule::moments
                                                   : update_rule::gradient;
  require(has_variance || chosen.update_variance == update_rule::off,
          "--update-variance: " + variance + " needs --covariance spherical or diagonal");
  chosen.lr_epochs = texts.lr_epochs.value_or(chosen.epochs);
  try {
    chosen.alpha = trainer::parse_alpha(chosen.alpha_text);
  } catch (const std::invalid_argument& error) {
    throw std::runtime_error(std::string("--alpha: ") + error.what());
  }
}

// The sets that evaluate and sweep make themselves.
const std::set<std::string> made_sets{"noise", "shuffled", "blur", "inversion"};

// NAME=FILE, each name once, none of those that are taken, and fit for a file's name and a column.
std::vector<named_file> named_files(const std::vector<std::string>& texts, std::set<std::string> names) {
  std::vector<named_file> result;
  for (const std::string& text : texts) {
    const std::size_t equals = text.find('=');
    require(equals != std::string::npos && equals > 0 && equals + 1 < text.size(),
            "--outside: '" + text + "' is not NAME=FILE");
    const std::string name = text.substr(0, equals);
    const std::string allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    require(name.find_first_not_of(allowed) == std::string::npos && name.size() <= 20,
            "--outside: the name '" + name + "' may have letters, digits, - _ . and 20 of them");
    require(name.compare(0, 5, "fgsm-") != 0 && name.compare(0, 4, "pgd-") != 0,
            "--outside: the name '" + name + "' is one of an attack");
    require(names.insert(name).second, "--outside: the name '" + name + "' is taken");
    result.push_back({name, text.substr(equals + 1)});
  }
  return result;
}

const char* const outside_help =
    "NAME=FILE: more images of no class, an IDX file of the same size; may be repeated";

}  // namespace

std::optional<command> parse_command(int argc, const char* const* argv) {
  CLI::App app{
      "Tells inputs that a classifier knows from those that it does not: measures scores of softmax and "
      "L-GM\n"
      "models, finds a threshold, applies it.",
      "detector"};
  app.set_help_flag("-h,--help", "Print this help");
  app.require_subcommand(1);
  app.option_defaults()->always_capture_default()->multi_option_policy(CLI::MultiOptionPolicy::Throw);
  std::string odd_rows = "refuse";

  // What differs from the trainer's defaults: features with room for a density, and more than one seed.
  trainer::options defaults;
  defaults.out = "detector-out";
  defaults.dims = 32;

  evaluate_options evaluate;
  evaluate.training = defaults;
  evaluate.training.repeat = 5;
  training_texts evaluate_texts{"both", "identity", "gradient", "", {}};
  std::vector<std::string> evaluate_outside;
  std::string attacks = "both";
  CLI::App* const evaluate_app = app.add_subcommand(
      "evaluate", "Train (or load) both models and measure every score on every outside set");
  add_data(*evaluate_app, evaluate.training);
  evaluate_app->add_option("--repeat", evaluate.training.repeat, "So many seeds, from --seed on")
      ->check(between<std::int64_t>(1, 1000));
  add_lgm(*evaluate_app, evaluate.training, evaluate_texts);
  evaluate_app->add_option("--save", evaluate.training.save,
                           "Save the models in this directory, as the trainer does");
  evaluate_app->add_option(
      "--models", evaluate.models,
      "Load the models that this directory has from --save, the trainer's or this one's, "
      "instead of training");
  evaluate_app->add_option("--test-limit", evaluate.test_limit, "Use only the first N test images; 0: all")
      ->check(at_least(0));
  evaluate_app->add_option("--blur", evaluate.blur, "Deviation of the blur, in pixels")
      ->check(between(0.1, 100.0));
  evaluate_app->add_option("--outside", evaluate_outside, outside_help)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->expected(1);
  add_not_finite(*evaluate_app, odd_rows);
  evaluate_app->add_option("--attacks", attacks, "Which adversarial images to make")
      ->check(CLI::IsMember({"none", "fgsm", "pgd", "both"}));
  evaluate_app
      ->add_option("--epsilon", evaluate.attacks.epsilons,
                   "Most that attacks change a pixel, of 255; several separated by commas")
      ->delimiter(',')
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->check(between(0.001, 255.0));
  evaluate_app->add_option("--pgd-steps", evaluate.attacks.pgd_steps, "Steps of PGD")
      ->check(between(1, 10000));

  features_options features;
  std::vector<std::string> features_outside;
  CLI::App* const features_app = app.add_subcommand(
      "features", "The same measures from features of any framework, in .npy or .npz files [samples, dims]");
  features_app
      ->add_option("--train", features.train, "Training features, which the Gaussians are estimated from")
      ->required();
  features_app->add_option("--train-labels", features.train_labels, "Their labels, 0 and up")->required();
  features_app->add_option("--test", features.test, "Features of test samples of the same classes")
      ->required();
  features_app->add_option("--test-labels", features.test_labels,
                           "Their labels: for accuracy and calibration");
  features_app
      ->add_option("--outside", features_outside,
                   "NAME=FILE: features of samples of no class; may be repeated")
      ->required()
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->expected(1);
  features_app->add_option("--out", features.out, "Directory that results and pictures are written to");
  add_variance_floor(*features_app, features.variance_floor);
  add_not_finite(*features_app, odd_rows);
  add_threads(*features_app, features.threads);

  calibrate_options calibrate;
  CLI::App* const calibrate_app = app.add_subcommand(
      "calibrate",
      "Find the threshold that rejects a given share of held-out data, and store it with the model");
  calibrate_app->add_option("--model", calibrate.model,
                            "A model that the trainer or evaluate saved; without one, rows are features, and "
                            "Gaussians of --train are the model");
  calibrate_app
      ->add_option(
          "--data", calibrate.data,
          "Held-out data: a .npy, .npz or IDX file, or a directory, of which the test images are taken")
      ->required();
  calibrate_app->add_option(
      "--train", calibrate.train,
      "Training data, for mahalanobis and gaussian_density: as --data; of a directory the "
      "training images");
  calibrate_app->add_option("--train-labels", calibrate.train_labels, "Its labels, unless it is a directory");
  calibrate_app
      ->add_option("--score", calibrate.score,
                   "What is compared with the threshold [default: log_density of Gaussians, msp of softmax]")
      ->check(CLI::IsMember(all_score_names()));
  calibrate_app->add_option("--fpr", calibrate.fpr, "Share of the held-out data that may be rejected")
      ->check(between(0.0, 1.0));
  calibrate_app->add_option("--out", calibrate.out, "File to write the model to, with its threshold")
      ->required();
  add_variance_floor(*calibrate_app, calibrate.variance_floor);
  add_not_finite(*calibrate_app, odd_rows);
  add_threads(*calibrate_app, calibrate.threads);

  apply_options apply;
  CLI::App* const apply_app = app.add_subcommand(
      "apply", "Print class, posterior, score and verdict of each row of a file, in the memory of a batch");
  apply_app->add_option("--model", apply.model, "A model that calibrate wrote")->required();
  apply_app
      ->add_option("--input", apply.input, "A .npy, .npz or IDX file, gzipped or not; - is standard input")
      ->required();
  add_threads(*apply_app, apply.threads);

  sweep_options sweep;
  sweep.training = defaults;
  sweep.training.repeat = 2;
  training_texts sweep_texts{"both", "identity", "gradient", "", {}};
  std::vector<std::string> sweep_outside;
  CLI::App* const sweep_app = app.add_subcommand(
      "sweep",
      "Train L-GM with other lambdas, alphas, dims and variances, one changed at a time, and draw how well "
      "it detects");
  add_data(*sweep_app, sweep.training);
  sweep_app->add_option("--repeat", sweep.training.repeat, "So many seeds, from --seed on")
      ->check(between<std::int64_t>(1, 1000));
  sweep_app->add_option("--test-limit", sweep.test_limit, "Use only the first N test images; 0: all")
      ->check(at_least(0));
  sweep_app->add_option("--blur", sweep.blur, "Deviation of the blur, in pixels")->check(between(0.1, 100.0));
  sweep_app->add_option("--outside", sweep_outside, outside_help)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->expected(1);

  add_not_finite(*sweep_app, odd_rows);

  if (!trainer::parsed(app, argc, argv)) return std::nullopt;
  evaluate.odd_rows = features.odd_rows = calibrate.odd_rows = sweep.odd_rows = not_finite_of(odd_rows);

  if (evaluate_app->parsed()) {
    finish_training(evaluate.training, evaluate_texts);
    require(evaluate.models.empty() || evaluate.training.save.empty(),
            "--save: there is nothing to save with --models");
    evaluate.outside = named_files(evaluate_outside, made_sets);
    evaluate.attacks.fgsm = attacks == "fgsm" || attacks == "both";
    evaluate.attacks.pgd = attacks == "pgd" || attacks == "both";
    const std::set<double> different(evaluate.attacks.epsilons.begin(), evaluate.attacks.epsilons.end());
    require(different.size() == evaluate.attacks.epsilons.size(), "--epsilon: has one twice");
    return evaluate;
  }
  if (features_app->parsed()) {
    features.outside = named_files(features_outside, {});
    return features;
  }
  if (calibrate_app->parsed()) {
    require(!calibrate.model.empty() || !calibrate.train.empty(),
            "calibrate: needs --model, --train or both");
    require(calibrate.train_labels.empty() || !calibrate.train.empty(), "--train-labels: needs --train");
    return calibrate;
  }
  if (apply_app->parsed()) return apply;
  finish_training(sweep.training, sweep_texts);
  sweep.outside = named_files(sweep_outside, made_sets);
  return sweep;
}

}  // namespace detector
