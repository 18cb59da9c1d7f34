// SPDX-License-Identifier: MIT
#include "training.hpp"

#include <thrust/device_vector.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <lgm/lgm.cuh>
#include <stdexcept>

#include "must.hpp"
#include "network.cuh"
#include "shuffle.hpp"

// One step is captured as a graph and replayed. What changes from step to step lives on the device: the iteration, from
// which images and margin follow, and the sums that a report divides.

namespace cuda_trainer {

namespace {

// Stream and handle, with cuBLAS's workspace: a captured call may not allocate.
class queue {
 public:
  queue() : scratch_(std::size_t(32) << 20) {
    must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    must(cublasCreate(&handle));
    must(cublasSetStream(handle, stream));
    must(cublasSetWorkspace(handle, thrust::raw_pointer_cast(scratch_.data()), scratch_.size()));
  }
  ~queue() {
    cublasDestroy(handle);
    cudaStreamDestroy(stream);
  }
  queue(const queue&) = delete;
  queue& operator=(const queue&) = delete;

  cudaStream_t stream = nullptr;
  cublasHandle_t handle = nullptr;

 private:
  thrust::device_vector<char> scratch_;
};

template <class T>
T* pointer(thrust::device_vector<T>& v) {
  return thrust::raw_pointer_cast(v.data());
}

std::size_t length(std::int64_t n) { return static_cast<std::size_t>(n); }

// What a step leaves for the report.
struct sums {
  double loss;
  std::int64_t correct, steps;
};

}  // namespace

class training_state {
 public:
  training_state(const settings& s, const images& train)
      : s_(s),
        context_{queue_.stream, queue_.handle},
        shape_{s.batch, s.classes, s.dims, lgm::covariance::identity},
        network_(s.pixels, s.hidden, s.dims, s.batch, s.seed),
        pixels_(train.pixels.begin(), train.pixels.end()),
        labels_(train.labels.begin(), train.labels.end()),
        x_(length(s.batch * s.pixels)),
        features_(length(s.batch * s.dims)),
        feature_gradient_(features_.size()),
        mean_(length(s.classes * s.dims)),
        mean_gradient_(mean_.size()),
        mean_velocity_(mean_.size()),
        loss_(1),
        alpha_(1),
        z_(length(s.batch)),
        iteration_(1),
        correct_(1),
        sums_(1, sums{}),
        workspace_(lgm::workspace_size<float>(context_, shape_)) {
    if (labels_.size() < z_.size()) throw std::runtime_error("--batch: there are fewer images");
    must(lgm::initialize_means(context_, shape_, s.seed + 2, 1.0f, lgm::parameters<float>{pointer(mean_)}));
    must(cudaDeviceSynchronize());
    // The first step as it is, which loads all kernels; all others as a graph.
    step();
    must(cudaStreamBeginCapture(queue_.stream, cudaStreamCaptureModeThreadLocal));
    step();
    cudaGraph_t graph = nullptr;
    must(cudaStreamEndCapture(queue_.stream, &graph));
    const cudaError_t made = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    must(made);
    first_ = true;
  }
  ~training_state() {
    cudaStreamSynchronize(queue_.stream);
    if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
  }
  training_state(const training_state&) = delete;
  training_state& operator=(const training_state&) = delete;

  void enqueue_step() {
    if (!first_) must(cudaGraphLaunch(graph_, queue_.stream));
    first_ = false;  // the constructor has done it
  }

  report read_report() {
    sums s{};
    float alpha = 0;
    must(cudaMemcpyAsync(&s, pointer(sums_), sizeof s, cudaMemcpyDefault, queue_.stream));
    must(cudaMemcpyAsync(&alpha, pointer(alpha_), sizeof alpha, cudaMemcpyDefault, queue_.stream));
    must(cudaMemsetAsync(pointer(sums_), 0, sizeof s, queue_.stream));
    must(cudaStreamSynchronize(queue_.stream));
    const auto steps = static_cast<double>(s.steps);
    return {s.loss / steps, static_cast<double>(s.correct) / (steps * static_cast<double>(s_.batch)),
            static_cast<double>(alpha)};
  }

  // In batches, without a margin.
  double accuracy(const images& of) {
    const auto count = static_cast<std::int64_t>(of.labels.size());
    std::int64_t all = 0;
    for (std::int64_t first = 0; first < count; first += s_.batch) {
      lgm::shape shape = shape_;
      shape.samples = std::min(s_.batch, count - first);
      must(cudaMemcpyAsync(pointer(x_), of.pixels.data() + first * s_.pixels,
                           length(shape.samples * s_.pixels) * sizeof(float), cudaMemcpyDefault,
                           queue_.stream));
      must(cudaMemcpyAsync(pointer(z_), of.labels.data() + first, length(shape.samples), cudaMemcpyDefault,
                           queue_.stream));
      network_.forward(queue_.handle, queue_.stream, shape.samples, pointer(x_), pointer(features_));
      lgm::loss_result<float> result;
      result.correct = pointer(correct_);
      must(lgm::forward(context_, shape, lgm::mixture<float>{pointer(mean_)}, lgm::loss_options<float>{},
                        pointer(features_), pointer(z_), result, workspace()));
      std::int64_t correct = 0;
      must(cudaMemcpyAsync(&correct, pointer(correct_), sizeof correct, cudaMemcpyDefault, queue_.stream));
      must(cudaStreamSynchronize(queue_.stream));
      all += correct;
    }
    return static_cast<double>(all) / static_cast<double>(count);
  }

  // The parts of a step that are kernels; public, as nvcc wants functions that have some.

  // Batch number `iteration` of an order that is another in each epoch.
  void gather_batch() {
    const std::int64_t batch = s_.batch, pixels = s_.pixels, seed = static_cast<std::int64_t>(s_.seed);
    const auto count = static_cast<std::int64_t>(labels_.size()), batches = count / batch;
    const float* const all = pointer(pixels_);
    const std::uint8_t* const all_labels = pointer(labels_);
    const std::int64_t* const iteration = pointer(iteration_);
    float* const x = pointer(x_);
    std::uint8_t* const z = pointer(z_);
    for_each_index(queue_.stream, batch * pixels, [=] __device__(std::int64_t n) {
      const std::int64_t i = n / pixels, epoch = *iteration / batches;
      const std::int64_t from = shuffled(*iteration % batches * batch + i, count,
                                         static_cast<std::uint64_t>(seed * 1000003 + epoch));
      x[n] = all[from * pixels + n % pixels];
      if (n % pixels == 0) z[i] = all_labels[from];
    });
  }

  // Adds to what is reported, and counts the step.
  void finish() {
    sums* const s = pointer(sums_);
    const float* const loss = pointer(loss_);
    const std::int64_t* const correct = pointer(correct_);
    std::int64_t* const iteration = pointer(iteration_);
    for_each_index(queue_.stream, 1, [=] __device__(std::int64_t) {
      s->loss += static_cast<double>(*loss);
      s->correct += *correct;
      ++s->steps;
      ++*iteration;
    });
  }

 private:
  lgm::workspace workspace() { return {pointer(workspace_), workspace_.size()}; }

  // Enqueues a whole training step; nothing in it is the host's but sizes and addresses.
  void step() {
    gather_batch();
    network_.forward(queue_.handle, queue_.stream, s_.batch, pointer(x_), pointer(features_));

    // The head: the margin of this iteration, losses and gradients, and its means' step.
    must(lgm::scheduled_alpha(context_, s_.alpha, pointer(iteration_), pointer(alpha_)));
    lgm::loss_options<float> options;
    options.alpha_at = pointer(alpha_);
    options.lambda = s_.lambda;
    lgm::loss_result<float> result;
    result.total = pointer(loss_);
    result.correct = pointer(correct_);
    const lgm::parameters<float> parameters{pointer(mean_)}, velocity{pointer(mean_velocity_)};
    const lgm::gradients<float, float> gradients{pointer(feature_gradient_), pointer(mean_gradient_)};
    must(lgm::forward_backward(context_, shape_, parameters, options, pointer(features_), pointer(z_),
                               nullptr, result, gradients, workspace()));
    lgm::sgd_options<float> sgd;
    sgd.mean_rate = s_.lr;
    sgd.momentum = momentum;
    must(lgm::sgd_step(context_, shape_, sgd, gradients, velocity, parameters));

    network_.backward(queue_.handle, queue_.stream, s_.batch, pointer(x_), pointer(feature_gradient_));
    network_.step(queue_.stream, s_.lr, momentum);
    finish();
  }

  static constexpr float momentum = 0.9f;

  settings s_;
  queue queue_;
  lgm::cuda_context context_;
  lgm::shape shape_;
  network network_;
  thrust::device_vector<float> pixels_;  // [images, pixels]
  thrust::device_vector<std::uint8_t> labels_;
  thrust::device_vector<float> x_, features_, feature_gradient_, mean_, mean_gradient_, mean_velocity_, loss_,
      alpha_;
  thrust::device_vector<std::uint8_t> z_;
  thrust::device_vector<std::int64_t> iteration_, correct_;
  thrust::device_vector<sums> sums_;
  thrust::device_vector<char> workspace_;
  cudaGraphExec_t graph_ = nullptr;
  bool first_ = false;
};

bool has_device() {
  int devices = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
}

training::training(const settings& s, const images& train) : state_(new training_state(s, train)) {}
training::~training() = default;
void training::enqueue_step() { state_->enqueue_step(); }
report training::read_report() { return state_->read_report(); }
double training::accuracy(const images& of) { return state_->accuracy(of); }

}  // namespace cuda_trainer
