// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "adam.hpp"
#include "heads.hpp"
#include "idx.hpp"
#include "model_file.hpp"
#include "network.hpp"
#include "progress.hpp"
#include "workers.hpp"

// The training loop, the same for both heads.

namespace trainer {

// Turns rows of an image array into the network's input: shifted and scaled to mean 0 and deviation 1 over
// the training set's pixels.
class input_scaling {
 public:
  explicit input_scaling(const std::vector<std::uint8_t>& images);

  template <class Row>
  void apply(const std::uint8_t* image, Row&& row) const {
    using bytes = Eigen::Map<const Eigen::Array<std::uint8_t, 1, Eigen::Dynamic>>;
    row = ((bytes(image, row.cols()).template cast<float>() - shift_) * scale_).matrix();
  }
  // The same for pixels [samples, pixels] that need not be whole numbers.
  template <class Rows>
  void apply(const const_matrix_view<float>& pixels, Rows&& rows) const {
    rows = ((pixels.array() - shift_) * scale_).matrix();
  }

  float* shift() { return &shift_; }
  float* scale() { return &scale_; }
  float scale() const { return scale_; }

 private:
  float shift_ = 0, scale_ = 1;
};

struct training_options {
  std::int64_t epochs = 1, rate_epochs = 1, batch = 1;  // rate_epochs: of the one-cycle rate
  double lr = 0;
  std::uint64_t seed = 0;
};

// Sums of batch losses, weighted by their samples.
struct running_loss {
  batch_loss sum;
  std::int64_t samples = 0;

  void add(const batch_loss& loss, std::int64_t count) {
    const auto weight = static_cast<double>(count);
    sum.total += weight * loss.total;
    sum.classification += weight * loss.classification;
    sum.likelihood += weight * loss.likelihood;
    sum.correct += loss.correct;
    samples += count;
  }
  batch_loss mean() const {
    const double scale = 1 / static_cast<double>(std::max<std::int64_t>(samples, 1));
    return {sum.total * scale, sum.classification * scale, sum.likelihood * scale, sum.correct};
  }
  double accuracy() const {
    return static_cast<double>(sum.correct) / static_cast<double>(std::max<std::int64_t>(samples, 1));
  }
};

struct training_record {
  running_loss last_epoch;  // as trained: margin included, parameters changing
  std::int64_t steps = 0;
  std::int64_t timed_steps = 0;  // those of this process
  double seconds = 0;            // of the timed steps
  double head_seconds = 0;       // of which in the head and the update of its parameters
};

inline std::int64_t steps_of_epoch(std::int64_t images, std::int64_t batch) {
  return (images + batch - 1) / batch;
}

// How many samples of its epoch a training has seen after so many steps; at an epoch's end all of them.
inline std::int64_t samples_of_epoch(std::int64_t steps, std::int64_t images, std::int64_t batch) {
  const std::int64_t into = steps % steps_of_epoch(images, batch);
  return into == 0 && steps > 0 ? images : into * batch;
}

// Rows for one pass of inference: enough to keep the products fast, small enough for the caches.
constexpr std::int64_t inference_batch = 512;

// The network with a head on it. Buffers are allocated here, once.
template <class Head>
class model {
 public:
  // widths as network takes them; make_head(max_samples) returns the head.
  model(const std::vector<std::int64_t>& widths, std::int64_t batch, std::uint64_t seed, workers& team,
        const input_scaling& scaling, const std::function<Head(std::int64_t)>& make_head);

  const Head& head() const { return head_; }
  std::int64_t dims() const { return feature_gradient_.cols(); }

  const training_record& record() const { return record_; }

  // Trains until the epochs are done, going on after the steps that record() counts. After each step it calls
  // after_step(whether the step was its epoch's last), and ends early where that returns false.
  void train(const image_set& data, const training_options& options, progress& shown,
             const std::function<bool(bool)>& after_step);

  // The state between two steps, as model_file.hpp lists it.
  model_file save();

  // Goes back to a state after so many steps, given those of an epoch and the images. Throws
  // std::runtime_error if it is not one of this model's.
  void restore(const model_file& saved, std::int64_t steps, std::int64_t images, std::int64_t batch);

  // The loss and accuracy at inference: no margin, parameters fixed.
  running_loss evaluate(const image_set& data);

  // The features of images [count, pixels].
  row_matrix<float> features(const std::vector<std::uint8_t>& images);

  // The features of images [count, pixels] whose pixels need not be whole numbers: for those of bytes the same as
  // above.
  row_matrix<float> features_of(const const_matrix_view<float>& images);

  // The classification loss at inference of such images, and in `out` [count, pixels] each image's gradient of its own
  // loss by its pixels.
  running_loss loss_gradient(const const_matrix_view<float>& images, const std::uint8_t* labels,
                             matrix_view<float> out);

  // The head's confidence in each of the images [count, pixels].
  std::vector<float> confidence(const std::vector<std::uint8_t>& images);

 private:
  // Calls function(name, shape, values) for all that one step leaves to the next, but for record_: the one list
  // for saving and restoring.
  template <class Function>
  void for_each_tensor(const Function& function);

  void load(const image_set& data, std::int64_t from, std::int64_t to);

  template <class Function>
  void for_batches(const std::vector<std::uint8_t>& images, std::int64_t pixels, const Function& function);
  template <class Function>
  void for_batches(const const_matrix_view<float>& images, const Function& function);

  workers* team_;
  std::int64_t max_samples_;
  network<float> network_;
  Head head_;
  input_scaling scaling_;
  adam<float> network_optimiser_, head_optimiser_;
  training_record record_;
  row_matrix<float> input_, feature_gradient_;
  std::vector<std::uint8_t> labels_;
};

extern template class model<softmax_head<float>>;
extern template class model<lgm_head>;

}  // namespace trainer
