// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "idx.hpp"
#include "model_file.hpp"
#include "options.hpp"

// Which files --save and --resume mean, and whether what one holds can go on under the options of this run.

namespace trainer {

// A short text that differs between training sets.
std::string data_mark(const image_set& train);

// What saved a training, and how far it was.
struct saved_training {
  model_file model;
  std::int64_t steps = 0, epochs = 0, threads = 0;  // steps done; the others as they were when it was saved
};

// The file of one training: DIR/HEAD-seed-SEED.safetensors.
class checkpoint {
 public:
  // head: "softmax" or "lgm"; mark: data_mark; steps_an_epoch: of the optimiser; threads: those of the network.
  // chosen is kept as a reference.
  checkpoint(const options& chosen, std::string mark, std::string head, std::uint64_t seed,
             std::int64_t steps_an_epoch, std::int64_t threads)
      : chosen_(&chosen),
        mark_(std::move(mark)),
        head_(std::move(head)),
        seed_(seed),
        steps_an_epoch_(steps_an_epoch),
        threads_(threads) {}

  bool saves() const { return !chosen_->save.empty(); }
  std::filesystem::path saved_path() const { return path_in(chosen_->save); }
  std::filesystem::path resumed_path() const { return path_in(chosen_->resume); }

  // What --resume has of this training; nothing if it has no such file. Throws std::runtime_error if the file
  // is broken, or comes from a training that this one does not continue.
  std::optional<saved_training> resume() const;

  void save(model_file model, std::int64_t steps) const;

  // Throws if a file would be lost that --save did not write and --resume did not read.
  void require_free() const;

 private:
  std::filesystem::path path_in(const std::filesystem::path& directory) const {
    return directory / (head_ + "-seed-" + std::to_string(seed_) + ".safetensors");
  }
  void check(const model_file& saved, saved_training& result) const;

  // The options that must be the same to go on, each with its name on the command line.
  std::vector<std::pair<std::string, std::string>> fixed_options() const;

  const options* chosen_;
  std::string mark_, head_;
  std::uint64_t seed_;
  std::int64_t steps_an_epoch_, threads_;
};

}  // namespace trainer
