// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
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
  explicit input_scaling(const std::vector<std::uint8_t>& images) {
    std::vector<double> count(256);
    for (const std::uint8_t value : images) count[value] += 1;
    double mean = 0, square = 0;
    for (std::size_t value = 0; value < count.size(); ++value) {
      const double part = count[value] / static_cast<double>(images.size()), v = static_cast<double>(value);
      mean += part * v;
      square += part * v * v;
    }
    const double deviation = std::sqrt(std::max(square - mean * mean, 1.0));  // 1: an all but constant set
    shift_ = static_cast<float>(mean);
    scale_ = static_cast<float>(1 / deviation);
  }

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
  template <class MakeHead>
  model(const std::vector<std::int64_t>& widths, std::int64_t batch, std::uint64_t seed, workers& team,
        const input_scaling& scaling, MakeHead make_head)
      : team_(&team),
        max_samples_(std::max(batch, inference_batch)),
        network_(widths, max_samples_, seed, team),
        head_(make_head(max_samples_)),
        scaling_(scaling),
        network_optimiser_(network_.parameters().size(), team),
        head_optimiser_(head_.parameters().size(), team),
        input_(max_samples_, widths.front()),
        feature_gradient_(max_samples_, widths.back()),
        labels_(static_cast<std::size_t>(max_samples_)) {}

  const Head& head() const { return head_; }
  std::int64_t dims() const { return feature_gradient_.cols(); }

  const training_record& record() const { return record_; }

  // Trains until the epochs are done, going on after the steps that record() counts. After each step it calls
  // after_step(whether the step was its epoch's last), and ends early where that returns false.
  template <class AfterStep>
  void train(const image_set& data, const training_options& options, progress& shown,
             const AfterStep& after_step) {
    using clock = std::chrono::steady_clock;
    const auto seconds_since = [](clock::time_point begin) {
      return std::chrono::duration<double>(clock::now() - begin).count();
    };
    const std::int64_t steps_an_epoch = steps_of_epoch(data.count(), options.batch);
    const std::int64_t rate_steps = steps_an_epoch * options.rate_epochs;
    std::vector<std::int64_t> order(static_cast<std::size_t>(data.count()));
    std::iota(order.begin(), order.end(), 0);
    std::mt19937_64 random(options.seed);

    for (std::int64_t epoch = 0; epoch < options.epochs; ++epoch) {
      shuffle(order, random);  // also for an epoch that is done: the next order starts from this one
      const std::int64_t done = std::max<std::int64_t>(record_.steps - epoch * steps_an_epoch, 0);
      if (done >= steps_an_epoch) continue;
      if (done == 0) record_.last_epoch = {};
      for (std::int64_t begin = done * options.batch; begin < data.count(); begin += options.batch) {
        const auto step_begin = clock::now();
        const std::int64_t samples = std::min(options.batch, data.count() - begin);
        const auto rate = static_cast<float>(
            one_cycle_rate(options.lr, std::min(record_.steps, rate_steps - 1), rate_steps));
        for (std::int64_t i = 0; i < samples; ++i) {
          load(data, order[static_cast<std::size_t>(begin + i)], i);
        }
        const auto input = input_.topRows(samples);
        const auto features = network_.forward(input);

        const auto head_begin = clock::now();
        const batch_loss loss =
            head_.train(features, labels_.data(), record_.steps, feature_gradient_.topRows(samples));
        const double head_seconds = seconds_since(head_begin);
        if (!std::isfinite(loss.total)) {
          throw std::runtime_error("the loss is not finite at step " + std::to_string(record_.steps) +
                                   "; a smaller --lr may help");
        }
        network_.backward(input, feature_gradient_.topRows(samples));

        network_optimiser_.step(rate, network_.gradient(), network_.parameters());
        const auto update_begin = clock::now();
        head_optimiser_.step(rate, head_.gradient(), head_.parameters());
        head_.constrain();
        record_.head_seconds += head_seconds + seconds_since(update_begin);

        record_.last_epoch.add(loss, samples);
        ++record_.steps;
        ++record_.timed_steps;
        record_.seconds += seconds_since(step_begin);
        shown.step(epoch, begin + samples, record_.last_epoch.mean().total);
        const bool epoch_ended = begin + samples == data.count();
        if (epoch_ended)
          shown.end_of_epoch(epoch, record_.last_epoch.mean().total, record_.last_epoch.accuracy());
        if (!after_step(epoch_ended)) {
          if (!epoch_ended) shown.stop();
          return;
        }
      }
    }
  }

  // The state between two steps, as model_file.hpp lists it.
  model_file save() {
    model_file saved;
    for_each_tensor(
        [&](const auto& name, const auto& shape, const auto* values) { saved.put(name, shape, values); });
    const batch_loss& sum = record_.last_epoch.sum;
    const double losses[] = {sum.total, sum.classification, sum.likelihood};
    const std::int64_t counts[] = {record_.last_epoch.samples, sum.correct};
    saved.put("epoch.loss_sums", {3}, losses);
    saved.put("epoch.counts", {2}, counts);
    return saved;
  }

  // Goes back to a state after so many steps, given those of an epoch and the images. Throws
  // std::runtime_error if it is not one of this model's.
  void restore(const model_file& saved, std::int64_t steps, std::int64_t images, std::int64_t batch) {
    std::size_t tensors = 2;
    for_each_tensor([&](const auto& name, const auto& shape, auto* values) {
      saved.get(name, shape, values);
      ++tensors;
    });
    double losses[3];
    std::int64_t counts[2];
    saved.get("epoch.loss_sums", {3}, losses);
    saved.get("epoch.counts", {2}, counts);
    if (saved.tensors.size() != tensors) throw std::runtime_error("has tensors that the model does not know");
    if (counts[0] != samples_of_epoch(steps, images, batch) || counts[1] < 0 || counts[1] > counts[0]) {
      throw std::runtime_error("its epoch.counts do not fit its steps");
    }
    record_ = {};
    record_.last_epoch = {{losses[0], losses[1], losses[2], counts[1]}, counts[0]};
    record_.steps = steps;
    network_optimiser_.set_steps(steps);
    head_optimiser_.set_steps(steps);
  }

  // The loss and accuracy at inference: no margin, parameters fixed.
  running_loss evaluate(const image_set& data) {
    running_loss result;
    for_batches(data.images, data.pixels(), [&](std::int64_t begin, std::int64_t samples) {
      const auto features = network_.forward(input_.topRows(samples));
      result.add(head_.evaluate(features, data.labels.data() + begin), samples);
    });
    return result;
  }

  // The features of images [count, pixels].
  row_matrix<float> features(const std::vector<std::uint8_t>& images) {
    row_matrix<float> result(static_cast<std::int64_t>(images.size()) / input_.cols(), dims());
    for_batches(images, input_.cols(), [&](std::int64_t begin, std::int64_t samples) {
      result.middleRows(begin, samples) = network_.forward(input_.topRows(samples));
    });
    return result;
  }

  // The features of images [count, pixels] whose pixels need not be whole numbers: for those of bytes the same as
  // above.
  row_matrix<float> features_of(const const_matrix_view<float>& images) {
    row_matrix<float> result(images.rows(), dims());
    for_batches(images, [&](std::int64_t begin, std::int64_t samples) {
      result.middleRows(begin, samples) = network_.forward(input_.topRows(samples));
    });
    return result;
  }

  // The classification loss at inference of such images, and in `out` [count, pixels] each image's gradient of its own
  // loss by its pixels.
  running_loss loss_gradient(const const_matrix_view<float>& images, const std::uint8_t* labels,
                             matrix_view<float> out) {
    running_loss result;
    for_batches(images, [&](std::int64_t begin, std::int64_t samples) {
      const auto features = network_.forward(input_.topRows(samples));
      auto feature_gradient = feature_gradient_.topRows(samples);
      result.add(head_.classification_gradient(features, labels + begin, feature_gradient), samples);
      auto gradient = out.middleRows(begin, samples);
      network_.input_gradient(feature_gradient, gradient);
      gradient *= std::as_const(scaling_).scale();
    });
    return result;
  }

  // The head's confidence in each of the images [count, pixels].
  std::vector<float> confidence(const std::vector<std::uint8_t>& images) {
    std::vector<float> result(images.size() / static_cast<std::size_t>(input_.cols()));
    for_batches(images, input_.cols(), [&](std::int64_t begin, std::int64_t samples) {
      head_.confidence(network_.forward(input_.topRows(samples)), result.data() + begin);
    });
    return result;
  }

 private:
  // Calls function(name, shape, values) for all that one step leaves to the next, but for record_: the one list
  // for saving and restoring.
  template <class Function>
  void for_each_tensor(const Function& function) {
    const auto parameters_of = [&](const std::string& part, auto& owner, adam<float>& optimiser) {
      owner.for_each_array(
          [&](const std::string& name, const std::vector<std::int64_t>& shape, std::int64_t begin) {
            function(part + name, shape, owner.parameters().data() + begin);
            function("adam.first." + part + name, shape, optimiser.first().data() + begin);
            function("adam.second." + part + name, shape, optimiser.second().data() + begin);
          });
    };
    parameters_of("network.", network_, network_optimiser_);
    parameters_of("head.", head_, head_optimiser_);
    head_.for_each_moment([&](const std::string& name, const std::vector<std::int64_t>& shape,
                              double* values) { function("head.moments." + name, shape, values); });
    const std::vector<std::int64_t> one{1};
    function("input.shift", one, scaling_.shift());
    function("input.scale", one, scaling_.scale());
  }

  // Fisher and Yates, written out because std::shuffle's order differs between standard libraries.
  static void shuffle(std::vector<std::int64_t>& order, std::mt19937_64& random) {
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  }

  void load(const image_set& data, std::int64_t from, std::int64_t to) {
    scaling_.apply(data.images.data() + from * data.pixels(), input_.row(to));
    labels_[static_cast<std::size_t>(to)] = data.labels[static_cast<std::size_t>(from)];
  }

  template <class Function>
  void for_batches(const std::vector<std::uint8_t>& images, std::int64_t pixels, Function function) {
    const std::int64_t count = static_cast<std::int64_t>(images.size()) / pixels;
    for (std::int64_t begin = 0; begin < count; begin += inference_batch) {
      const std::int64_t samples = std::min(inference_batch, count - begin);
      for (std::int64_t i = 0; i < samples; ++i) {
        scaling_.apply(images.data() + (begin + i) * pixels, input_.row(i));
      }
      function(begin, samples);
    }
  }
  template <class Function>
  void for_batches(const const_matrix_view<float>& images, Function function) {
    for (std::int64_t begin = 0; begin < images.rows(); begin += inference_batch) {
      const std::int64_t samples = std::min<std::int64_t>(inference_batch, images.rows() - begin);
      scaling_.apply(images.middleRows(begin, samples), input_.topRows(samples));
      function(begin, samples);
    }
  }

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

}  // namespace trainer
