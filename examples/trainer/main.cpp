// SPDX-License-Identifier: MIT

// Trains one network with a softmax head and with an L-GM head and compares the two. --help lists the
// options.

#include <fmt/format.h>

#include <Eigen/Core>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "checkpoint.hpp"
#include "feature_plot.hpp"
#include "foreign.hpp"
#include "gnuplot.hpp"
#include "heads.hpp"
#include "idx.hpp"
#include "interruption.hpp"
#include "likelihood_plot.hpp"
#include "options.hpp"
#include "progress.hpp"
#include "report.hpp"
#include "training.hpp"
#include "workers.hpp"

namespace trainer {
namespace {

std::vector<std::string> class_names(const options& chosen, std::int64_t classes) {
  if (chosen.data == fashion_mnist_directory && classes == 10) {
    return {"0 T-shirt/top", "1 trouser", "2 pullover", "3 dress", "4 coat",
            "5 sandal",      "6 shirt",   "7 sneaker",  "8 bag",   "9 ankle boot"};
  }
  std::vector<std::string> names;
  for (std::int64_t k = 0; k < classes; ++k) names.push_back(fmt::format("class {}", k));
  return names;
}

void make_directory(const std::filesystem::path& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error || !std::filesystem::is_directory(directory, error)) {
    throw std::runtime_error(directory.string() + ": cannot be created as a directory");
  }
}

// Everything that the trainings of a run share.
struct workbench {
  const options& chosen;
  const data_set& data;
  workers team;
  input_scaling scaling;
  std::string mark;
  std::vector<std::uint8_t> noise, shuffled;

  workbench(const options& the_options, const data_set& the_data)
      : chosen(the_options),
        data(the_data),
        team(the_options.threads),
        scaling(the_data.train.images),
        mark(data_mark(the_data.train)),
        noise(noise_images(the_data.test.images, 1)),
        shuffled(shuffled_images(the_data.test.images, the_data.test.pixels(), 1)) {}

  checkpoint checkpoint_of(const head_results& head, std::uint64_t seed) const {
    return {chosen, mark, head.key, seed, steps_of_epoch(data.train.count(), chosen.batch), team.count()};
  }
};

// A run that a signal ended early; what it was told to save is saved.
class interrupted_run : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Trains a model, from where --resume has it, and saves it as --save says.
template <class Head>
void train(workbench& bench, const head_results& head, std::uint64_t seed, model<Head>& trained) {
  const options& chosen = bench.chosen;
  const std::int64_t images = bench.data.train.count();
  const checkpoint kept = bench.checkpoint_of(head, seed);
  const auto steps_done = [&] { return trained.record().steps; };
  std::int64_t saved_steps = -1;
  const auto save = [&] {
    kept.save(trained.save(), steps_done());
    saved_steps = steps_done();
  };

  if (const std::optional<saved_training> resumed = kept.resume()) {
    try {
      trained.restore(resumed->model, resumed->steps, images, chosen.batch);
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(kept.resumed_path().string() + ": " + error.what());
    }
    fmt::print("{}, seed {}: goes on after step {}{}\n", head.name, seed, steps_done(),
               chosen.epochs > resumed->epochs
                   ? fmt::format(", with {} epochs instead of {}", chosen.epochs, resumed->epochs)
                   : "");
    if (resumed->threads != bench.team.count()) {
      fmt::print("  the last bits will differ: {} threads now, {} when it was saved\n", bench.team.count(),
                 resumed->threads);
    }
    if (kept.saved_path() == kept.resumed_path()) saved_steps = steps_done();
  }

  const std::int64_t steps_an_epoch = steps_of_epoch(images, chosen.batch);
  const std::int64_t images_done = steps_done() == 0
                                       ? 0
                                       : (steps_done() - 1) / steps_an_epoch * images +
                                             samples_of_epoch(steps_done(), images, chosen.batch);
  progress shown(head.name, chosen.epochs, images, images_done);
  const training_options how{chosen.epochs, chosen.lr_epochs, chosen.batch, chosen.lr, 3 * seed + 2};
  if (!kept.saves()) {
    trained.train(bench.data.train, how, shown, [](bool) { return true; });
    return;
  }

  const interruption signal;
  trained.train(bench.data.train, how, shown, [&](bool epoch_ended) {
    if (epoch_ended || signal.happened() ||
        (chosen.save_every > 0 && steps_done() % chosen.save_every == 0)) {
      save();
    }
    return !signal.happened();
  });
  if (saved_steps != steps_done()) save();
  if (signal.happened()) {
    throw interrupted_run(
        fmt::format("stopped after step {} of {}; saved: {}; the same command with "
                    "--resume {} in place of --save goes on",
                    steps_done(), steps_an_epoch * chosen.epochs, kept.saved_path().string(), chosen.save));
  }
}

struct pictures {
  std::vector<feature_panel> features;
  std::vector<likelihood_panel> likelihood;
};

// Trains one head with one seed. Adds a panel to each picture if there are any.
template <class Head, class MakeHead>
head_result run_head(workbench& bench, const head_results& head, std::uint64_t seed, MakeHead make_head,
                     pictures* drawn) {
  const options& chosen = bench.chosen;
  const image_set& test = bench.data.test;
  const std::vector<std::int64_t> widths{test.pixels(), 512, 256, chosen.dims};
  // Three streams of random numbers a seed: network, head, order. Both heads get the same.
  model<Head> trained(widths, chosen.batch, 3 * seed, bench.team, bench.scaling,
                      [&](std::int64_t max_samples) { return make_head(max_samples, 3 * seed + 1); });

  train(bench, head, seed, trained);
  head_result result;
  result.seed = seed;
  result.record = trained.record();
  result.epoch_seconds = result.record.seconds / static_cast<double>(result.record.timed_steps) *
                         static_cast<double>(steps_of_epoch(bench.data.train.count(), chosen.batch));
  result.train = trained.evaluate(bench.data.train);
  result.test = trained.evaluate(test);

  std::vector<float> inside = trained.confidence(test.images);
  std::vector<float> noise = trained.confidence(bench.noise), shuffled = trained.confidence(bench.shuffled);
  result.noise_auroc = auroc(inside, noise);
  result.shuffled_auroc = auroc(inside, shuffled);
  if (drawn == nullptr) return result;

  const row_matrix<float> features = trained.features(test.images);
  feature_panel panel;
  std::string axis;
  if constexpr (std::is_same_v<Head, lgm_head>) {
    panel = model_panel(features, trained.head().means(), trained.head().variances());
    axis = "log density of the features, log p(x)";
  } else {
    panel = measured_panel(features, test.labels, bench.data.classes);
    axis = "log of the largest probability";
  }
  panel.title = fmt::format("{}: test accuracy {:.1f} %", head.name, 100 * result.test.accuracy());
  drawn->features.push_back(std::move(panel));
  drawn->likelihood.push_back(
      {fmt::format("{}, {} {}", head.name, chosen.dims, chosen.dims == 1 ? "feature" : "features"),
       axis,
       {{"test images", std::move(inside)},
        {fmt::format("noise, AUROC {:.3f}", result.noise_auroc), std::move(noise)},
        {fmt::format("shuffled pixels, AUROC {:.3f}", result.shuffled_auroc), std::move(shuffled)}}});
  return result;
}

// What can be wrong with the files of --save and --resume is said before the first training, not before the last.
void check_checkpoints(const workbench& bench, const std::vector<head_results>& heads) {
  const options& chosen = bench.chosen;
  bool found = false;
  for (std::int64_t i = 0; i < chosen.repeat; ++i) {
    for (const head_results& head : heads) {
      const checkpoint kept = bench.checkpoint_of(head, static_cast<std::uint64_t>(chosen.seed + i));
      kept.require_free();
      if (kept.resume()) found = true;
    }
  }
  if (!chosen.resume.empty() && !found) {
    const checkpoint first = bench.checkpoint_of(heads.front(), static_cast<std::uint64_t>(chosen.seed));
    throw std::runtime_error(first.resumed_path().string() + ": no such file, nor another one to go on from");
  }
  if (!chosen.save.empty()) make_directory(chosen.save);
}

void run(const options& chosen) {
  require_gnuplot();
  const data_set data = load_data_set(chosen.data, chosen.train_limit);
  make_directory(chosen.out);
  Eigen::setNbThreads(1);  // the network's products are shared out by its workers

  workbench bench(chosen, data);
  std::vector<head_results> heads;
  if (chosen.with_softmax()) heads.push_back({"softmax", "softmax", false, {}});
  if (chosen.with_lgm()) heads.push_back({"lgm", "L-GM", true, {}});
  lgm_settings settings;
  settings.covariance = chosen.covariance;
  settings.update_mean = chosen.update_mean;
  settings.update_variance = chosen.update_variance;
  settings.lambda = chosen.lambda;
  settings.alpha = chosen.alpha;
  settings.threads = chosen.threads;

  check_checkpoints(bench, heads);

  pictures drawn;  // of the first seed
  for (std::int64_t i = 0; i < chosen.repeat; ++i) {
    const auto seed = static_cast<std::uint64_t>(chosen.seed + i);
    for (head_results& head : heads) {
      pictures* const panels = i == 0 ? &drawn : nullptr;
      if (head.key == "lgm") {
        const auto make = [&](std::int64_t max_samples, std::uint64_t head_seed) {
          return lgm_head(data.classes, chosen.dims, max_samples, head_seed, settings);
        };
        head.runs.push_back(run_head<lgm_head>(bench, head, seed, make, panels));
      } else {
        const auto make = [&](std::int64_t max_samples, std::uint64_t head_seed) {
          return softmax_head<float>(data.classes, chosen.dims, max_samples, head_seed);
        };
        head.runs.push_back(run_head<softmax_head<float>>(bench, head, seed, make, panels));
      }
    }
  }

  fmt::print("{}{}", table_text(heads), chosen.repeat > 1 ? seeds_text(heads) : "");
  const std::filesystem::path out = chosen.out;
  write_file(out / "results.json", results_text(chosen, data, heads));
  draw_features(out, drawn.features, data.test.labels, class_names(chosen, data.classes));
  draw_likelihood(out, drawn.likelihood);
  fmt::print("\nwritten: {}, {}, {}\n", (out / "results.json").string(), (out / "features.png").string(),
             (out / "likelihood.png").string());
  if (std::fflush(stdout) != 0) throw std::runtime_error("standard output: cannot be written");
}

}  // namespace
}  // namespace trainer

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a gnuplot that stops early is an error of its own
  try {
    const std::optional<trainer::options> chosen = trainer::parse_options(argc, argv);
    if (chosen) trainer::run(*chosen);
    return 0;
  } catch (const trainer::interrupted_run& stopped) {
    fmt::print(stderr, "trainer: {}\n", stopped.what());
    return 128 + SIGINT;
  } catch (const std::exception& error) {
    fmt::print(stderr, "trainer: {}\n", error.what());
    return 1;
  }
}
