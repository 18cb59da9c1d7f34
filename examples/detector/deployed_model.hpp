// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "finite_rows.hpp"
#include "model_file.hpp"
#include "network.hpp"
#include "npy.hpp"
#include "scores.hpp"
#include "workers.hpp"

// A model for inference, from its file: the network, where it has one, its head, what calibrate estimated of its
// training features, and the threshold. What calibrate adds to a file of the trainer (see trainer/model_file.hpp):
//
//   detector.mean, detector.log_variance     [C, D]  of each class's training features; there where the score needs them
//   detector.log_prior                       [C]     logarithm of the class's share in them
//   detector.whitening, detector.offset      [D, D], [D]; y = whitening (x - offset) has unit covariance about the class means
//   detector.log_abs_det                     [1]     of whitening
//   __metadata__: detector.score             the name of the score
//                 detector.threshold         what scores at least this is accepted; it lies between the scores of held-out rows
//                 detector.fpr               the share of held-out rows that was to fall below it
//                 detector.held_out          how many of these there were
//
// A file that has no network, whose rows are features, has head.mean, head.log_variance and head.log_prior; its
// __metadata__ says format lgm-detector, version 1.

namespace detector {

// A score's name and the value from which on a row is accepted.
struct acceptance {
  std::string score;
  double threshold = 0;

  bool accepts(double value) const { return value >= threshold; }  // what is not a number is not accepted
};

// Widths of the network in a file, from its input to its features; throws std::runtime_error unless its layers
// fit together.
std::vector<std::int64_t> read_widths(const trainer::model_file& file);

class deployed_model {
 public:
  // Throws std::runtime_error, without the path, if the file does not hold a model.
  deployed_model(const trainer::model_file& file, int threads);

  // Numbers of a row: an image's pixels, or features where there is no network.
  std::int64_t inputs() const { return inputs_; }
  bool has_network() const { return network_.has_value(); }
  std::int64_t classes() const { return scores_->classes(); }
  std::int64_t dims() const { return scores_->dims(); }

  // Features [count, dims] of rows [count, inputs()]: at most max_rows.
  static constexpr std::int64_t max_rows = 512;
  trainer::row_matrix<float> features(const trainer::const_matrix_view<float>& rows);

  scorer& scores() { return *scores_; }
  // Gives the model Gaussians of its training features, and with them the scores that need them.
  void set_gaussians(feature_gaussians gaussians);

 private:
  int threads_;
  std::unique_ptr<trainer::workers> team_;
  std::optional<trainer::network<float>> network_;
  head head_;
  std::optional<scorer> scores_;
  std::int64_t inputs_ = 0;
  float shift_ = 0, scale_ = 1;
};

// Calls function(features [count, dims], index of the first row) for all rows of a reader, a batch at a time. Throws
// if its rows are not the model's. model: null where rows are features.
template <class Function>
void for_feature_batches(deployed_model* model, row_reader& rows, const Function& function);

// The same, but for rows that are not finite: function(features, std::vector of their rows' indexes).
template <class Function>
void for_finite_batches(deployed_model* model, row_reader& rows, not_finite what, const Function& function);

// Where a model that loads this file accepts a row; throws std::runtime_error if calibrate has not been there.
acceptance read_acceptance(const trainer::model_file& file);

// Labels, one a row, of a .npy file of whole numbers or an IDX file; each in [0, classes), or in [0, 2^20) where classes
// is 0, so that a wrong file does not ask for all memory.
std::vector<std::int64_t> read_labels(const std::filesystem::path& path, std::int64_t classes = 0);

// How Gaussians are estimated.
struct estimation {
  double variance_floor = default_variance_floor;
  not_finite odd_rows = not_finite::refuse;
  int threads = 0;
};

// The Gaussians of all rows of a reader, which are the model's, or features where model is null. labels_path is for
// the message that there are not as many labels as rows. Says on stderr which features are flat.
feature_gaussians estimate_rows(deployed_model* model, row_reader& rows,
                                const std::vector<std::int64_t>& labels,
                                const std::filesystem::path& labels_path, std::int64_t classes,
                                const estimation& how);

// ---- implementation of the template ----

// What a reader's rows have to be, in words.
void require_columns(const row_reader& rows, std::int64_t expected, const std::string& of);

template <class Function>
void for_feature_batches(deployed_model* model, row_reader& rows, const Function& function) {
  if (model != nullptr) {
    require_columns(rows, model->inputs(),
                    model->has_network() ? "the model's images" : "the model's features");
  }
  trainer::row_matrix<float> batch(deployed_model::max_rows, rows.columns());
  std::int64_t done = 0;
  for (;;) {
    const std::int64_t count = rows.read(batch.rows(), batch.data());
    if (count == 0) return;
    if (model != nullptr) {
      function(model->features(batch.topRows(count)), done);
    } else {
      function(batch.topRows(count), done);
    }
    done += count;
  }
}

template <class Function>
void for_finite_batches(deployed_model* model, row_reader& rows, not_finite what, const Function& function) {
  finite_rows finite(rows.path().string(), what);
  for_feature_batches(model, rows,
                      [&](const trainer::const_matrix_view<float>& features, std::int64_t begin) {
                        std::vector<Eigen::Index> kept = finite.among(features, begin);
                        const trainer::row_matrix<float> chosen = features(kept, Eigen::all);
                        for (Eigen::Index& each : kept) each += begin;
                        function(chosen, kept);
                      });
  finite.finish();
}

}  // namespace detector
