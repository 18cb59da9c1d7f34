// SPDX-License-Identifier: MIT
#include "training.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>

namespace trainer {

input_scaling::input_scaling(const std::vector<std::uint8_t>& images) {
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

namespace {

// Fisher and Yates, written out because std::shuffle's order differs between standard libraries.
void shuffle(std::vector<std::int64_t>& order, std::mt19937_64& random) {
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
}

}  // namespace

template <class Head>
model<Head>::model(const std::vector<std::int64_t>& widths, std::int64_t batch, std::uint64_t seed,
                   workers& team, const input_scaling& scaling,
                   const std::function<Head(std::int64_t)>& make_head)
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

template <class Head>
void model<Head>::load(const image_set& data, std::int64_t from, std::int64_t to) {
  scaling_.apply(data.images.data() + from * data.pixels(), input_.row(to));
  labels_[static_cast<std::size_t>(to)] = data.labels[static_cast<std::size_t>(from)];
}

template <class Head>
void model<Head>::train(const image_set& data, const training_options& options, progress& shown,
                        const std::function<bool(bool)>& after_step) {
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
      const auto rate =
          static_cast<float>(one_cycle_rate(options.lr, std::min(record_.steps, rate_steps - 1), rate_steps));
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

template <class Head>
template <class Function>
void model<Head>::for_each_tensor(const Function& function) {
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
  head_.for_each_moment([&](const std::string& name, const std::vector<std::int64_t>& shape, double* values) {
    function("head.moments." + name, shape, values);
  });
  const std::vector<std::int64_t> one{1};
  function("input.shift", one, scaling_.shift());
  function("input.scale", one, scaling_.scale());
}

template <class Head>
model_file model<Head>::save() {
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

template <class Head>
void model<Head>::restore(const model_file& saved, std::int64_t steps, std::int64_t images,
                          std::int64_t batch) {
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

template <class Head>
template <class Function>
void model<Head>::for_batches(const std::vector<std::uint8_t>& images, std::int64_t pixels,
                              const Function& function) {
  const std::int64_t count = static_cast<std::int64_t>(images.size()) / pixels;
  for (std::int64_t begin = 0; begin < count; begin += inference_batch) {
    const std::int64_t samples = std::min(inference_batch, count - begin);
    for (std::int64_t i = 0; i < samples; ++i) {
      scaling_.apply(images.data() + (begin + i) * pixels, input_.row(i));
    }
    function(begin, samples);
  }
}

template <class Head>
template <class Function>
void model<Head>::for_batches(const const_matrix_view<float>& images, const Function& function) {
  for (std::int64_t begin = 0; begin < images.rows(); begin += inference_batch) {
    const std::int64_t samples = std::min<std::int64_t>(inference_batch, images.rows() - begin);
    scaling_.apply(images.middleRows(begin, samples), input_.topRows(samples));
    function(begin, samples);
  }
}

template <class Head>
running_loss model<Head>::evaluate(const image_set& data) {
  running_loss result;
  for_batches(data.images, data.pixels(), [&](std::int64_t begin, std::int64_t samples) {
    const auto features = network_.forward(input_.topRows(samples));
    result.add(head_.evaluate(features, data.labels.data() + begin), samples);
  });
  return result;
}

template <class Head>
row_matrix<float> model<Head>::features(const std::vector<std::uint8_t>& images) {
  row_matrix<float> result(static_cast<std::int64_t>(images.size()) / input_.cols(), dims());
  for_batches(images, input_.cols(), [&](std::int64_t begin, std::int64_t samples) {
    result.middleRows(begin, samples) = network_.forward(input_.topRows(samples));
  });
  return result;
}

template <class Head>
row_matrix<float> model<Head>::features_of(const const_matrix_view<float>& images) {
  row_matrix<float> result(images.rows(), dims());
  for_batches(images, [&](std::int64_t begin, std::int64_t samples) {
    result.middleRows(begin, samples) = network_.forward(input_.topRows(samples));
  });
  return result;
}

template <class Head>
running_loss model<Head>::loss_gradient(const const_matrix_view<float>& images, const std::uint8_t* labels,
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

template <class Head>
std::vector<float> model<Head>::confidence(const std::vector<std::uint8_t>& images) {
  std::vector<float> result(images.size() / static_cast<std::size_t>(input_.cols()));
  for_batches(images, input_.cols(), [&](std::int64_t begin, std::int64_t samples) {
    head_.confidence(network_.forward(input_.topRows(samples)), result.data() + begin);
  });
  return result;
}

template class model<softmax_head<float>>;
template class model<lgm_head>;

}  // namespace trainer
