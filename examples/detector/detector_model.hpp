// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "../trainer/options.hpp"
#include "idx.hpp"
#include "network.hpp"
#include "scores.hpp"
#include "training.hpp"
#include "workers.hpp"

// The trainer's models, of either head, behind one interface: trained here, or read from the files that the trainer's
// --save writes.

namespace detector {

enum class head_kind { softmax, lgm };

inline const char* key_of(head_kind kind) { return kind == head_kind::softmax ? "softmax" : "lgm"; }
inline const char* name_of(head_kind kind) { return kind == head_kind::softmax ? "softmax" : "L-GM"; }

// What the models of a run share.
struct surroundings {
  const trainer::data_set& data;
  trainer::workers& team;
  trainer::input_scaling scaling;
  std::string mark;  // trainer::data_mark of the training set

  surroundings(const trainer::data_set& the_data, trainer::workers& the_team);
};

// Changed images of one kind and strength, made with full knowledge of the model.
struct attack {
  std::string name;    // of the set: "pgd-8"
  int steps = 0;       // of PGD; 0: FGSM
  double epsilon = 0;  // most that a pixel changes, of the 255 that it can
  std::uint64_t seed = 0;
};

class trained_model {
 public:
  virtual ~trained_model() = default;

  virtual head_kind kind() const = 0;
  virtual std::int64_t dims() const = 0;
  // Features [count, dims] of images [count, pixels].
  virtual trainer::row_matrix<float> features(const std::vector<std::uint8_t>& images) = 0;
  virtual trainer::row_matrix<float> features_of(const trainer::const_matrix_view<float>& images) = 0;
  // The images as the attack changes them, [count, pixels].
  virtual trainer::row_matrix<float> attacked(const attack& how, const trainer::image_set& images) = 0;
  // How many of the images no attack can move, for their loss has a gradient of zero in float.
  virtual std::int64_t without_gradient(const trainer::image_set& images) = 0;
  virtual head copy_head() = 0;
  virtual double training_seconds() const = 0;  // 0: it was not trained here
};

// Trains a model as the trainer does with these options. Saves it in the directory chosen.save, if there is one, at the end.
std::unique_ptr<trained_model> train_model(const surroundings& around, const trainer::options& chosen,
                                           head_kind kind, std::uint64_t seed);

// Where the trainer's --save puts a model in a directory.
std::filesystem::path model_path(const std::filesystem::path& directory, head_kind kind, std::uint64_t seed);

// Reads a model from such a file; what it needs to know of the training is in there. Throws std::runtime_error if it was
// trained on other images.
std::unique_ptr<trained_model> load_trained_model(const surroundings& around,
                                                  const std::filesystem::path& path, int threads);

// The Gaussians of a model's features of the training images.
feature_gaussians estimate_gaussians(trained_model& model, const trainer::image_set& train,
                                     std::int64_t classes, int threads);

}  // namespace detector
