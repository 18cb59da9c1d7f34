// SPDX-License-Identifier: MIT

// What a stream does with the CUDA driver's calls: a training step captured in a graph and replayed, and two streams at
// once. Both give the bits of the same calls one after the other. Skipped where there is no device.

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <lgm/lgm.cuh>

#include "support/compiled_cuda.hpp"
#include "support/cuda_array.hpp"

namespace {

using support::cuda_array;

int failures = 0;

void expect(bool good, const char* what, const lgm::shape& s) {
  if (good) return;
  ++failures;
  std::printf("%s: %d samples, %d classes, %d dims\n", what, static_cast<int>(s.samples),
              static_cast<int>(s.classes), static_cast<int>(s.dims));
}

__global__ void count(std::int64_t* iteration) { ++*iteration; }

// A training of the head alone: everything that its steps change is on the device.
class training {
 public:
  training(const lgm::cuda_context& context, const lgm::shape& s, std::uint64_t seed)
      : context_(context),
        shape_(s),
        features_(s.samples * s.dims),
        mean_(s.classes * s.dims),
        mean_gradient_(s.classes * s.dims),
        velocity_(s.classes * s.dims),
        feature_gradient_(s.samples * s.dims),
        loss_(1),
        alpha_(1),
        labels_(s.samples),
        iteration_(1),
        workspace_(static_cast<std::int64_t>(lgm::workspace_size<float>(context, s))) {
    for (std::int64_t n = 0; n < features_.size(); ++n)
      features_[n] = static_cast<float>(lgm::normal_at(seed, static_cast<std::uint64_t>(n)));
    for (std::int64_t n = 0; n < mean_.size(); ++n) {
      mean_[n] = static_cast<float>(lgm::normal_at(seed + 1, static_cast<std::uint64_t>(n)));
      velocity_[n] = 0;
    }
    for (std::int64_t i = 0; i < s.samples; ++i) labels_[i] = static_cast<std::int32_t>(i * 7 % s.classes);
    iteration_[0] = 0;
  }

  // Enqueues a step whose margin grows with the iteration; the first status that is not success.
  lgm::status step() {
    lgm::stepped_schedule<float> schedule;
    schedule.policy = lgm::schedule_policy::add_up;
    schedule.step = 2;
    schedule.gamma = 0.25f;
    lgm::status status = lgm::scheduled_alpha(context_, schedule, iteration_.data(), alpha_.data());
    lgm::loss_options<float> options;
    options.alpha_at = alpha_.data();
    options.lambda = 0.125f;
    lgm::loss_result<float> result;
    result.total = loss_.data();
    const lgm::parameters<float> p{mean_.data()};
    const lgm::gradients<float, float> gradients{feature_gradient_.data(), mean_gradient_.data()};
    if (status == lgm::status::success)
      status = lgm::forward_backward(context_, shape_, p, options, features_.data(), labels_.data(), nullptr,
                                     result, gradients,
                                     {workspace_.data(), static_cast<std::size_t>(workspace_.size())});
    lgm::sgd_options<float> sgd;
    sgd.mean_rate = 0.5f;
    sgd.momentum = 0.5f;
    if (status == lgm::status::success)
      status = lgm::sgd_step(context_, shape_, sgd, gradients, lgm::parameters<float>{velocity_.data()}, p);
    count<<<1, 1, 0, context_.stream>>>(iteration_.data());
    return status;
  }

  // After the work of both is done.
  void expect_same(training& other, const char* what) {
    expect(mean_.same_bits(other.mean_) && velocity_.same_bits(other.velocity_) &&
               feature_gradient_.same_bits(other.feature_gradient_) && loss_.same_bits(other.loss_) &&
               alpha_.same_bits(other.alpha_),
           what, shape_);
    expect(loss_.written() && feature_gradient_.written() && mean_gradient_.written(), "what is not written",
           shape_);
    expect(mean_.intact() && mean_gradient_.intact() && feature_gradient_.intact() && workspace_.intact(),
           "behind an array", shape_);
  }
  float alpha() { return alpha_[0]; }

 private:
  lgm::cuda_context context_;
  lgm::shape shape_;
  cuda_array<float> features_, mean_, mean_gradient_, velocity_, feature_gradient_, loss_, alpha_;
  cuda_array<std::int32_t> labels_;
  cuda_array<std::int64_t> iteration_;
  cuda_array<unsigned char> workspace_;
};

void expect_done(const lgm::cuda_context& context, const lgm::shape& s) {
  expect(cudaStreamSynchronize(context.stream) == cudaSuccess, "a kernel", s);
}

constexpr int steps = 6;

void check_graph(const lgm::cuda_context& context, const lgm::shape& s) {
  training plain(context, s, 1), replayed(context, s, 1);
  for (int n = 0; n < steps; ++n) expect(plain.step() == lgm::status::success, "a step", s);
  // The first as it is; then one captured step, replayed.
  expect(replayed.step() == lgm::status::success, "a step", s);
  expect_done(context, s);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t instance = nullptr;
  expect(cudaStreamBeginCapture(context.stream, cudaStreamCaptureModeGlobal) == cudaSuccess, "capture", s);
  expect(replayed.step() == lgm::status::success, "a captured step", s);
  expect(cudaStreamEndCapture(context.stream, &graph) == cudaSuccess, "the end of capture", s);
  expect(cudaGraphInstantiate(&instance, graph, 0) == cudaSuccess, "a graph", s);
  for (int n = 1; n < steps; ++n)
    expect(cudaGraphLaunch(instance, context.stream) == cudaSuccess, "a replay", s);
  expect_done(context, s);
  replayed.expect_same(plain, "a replayed graph");
  expect(replayed.alpha() == 0.5f, "the margin of the last replay", s);  // iteration 5, steps of 2
  cudaGraphExecDestroy(instance);
  cudaGraphDestroy(graph);
}

void check_streams(const lgm::cuda_context& one, const lgm::cuda_context& other, const lgm::shape& s) {
  training first(one, s, 1), second(other, s, 2), first_alone(one, s, 1), second_alone(one, s, 2);
  for (int n = 0; n < steps; ++n)
    expect(first.step() == lgm::status::success && second.step() == lgm::status::success, "a step", s);
  expect_done(one, s);
  expect_done(other, s);
  for (training* const t : {&first_alone, &second_alone})
    for (int n = 0; n < steps; ++n) expect(t->step() == lgm::status::success, "a step", s);
  expect_done(one, s);
  first.expect_same(first_alone, "the first of two streams");
  second.expect_same(second_alone, "the second of two streams");
}

}  // namespace

int main() {
  if (!support::has_device()) {
    std::printf("skipped: no CUDA device\n");
    return support::skipped;
  }
  // One handle for both streams: its state is not looked at.
  lgm::cuda_context one, other;
  bool made = cublasCreate(&one.handle) == CUBLAS_STATUS_SUCCESS;
  other.handle = one.handle;
  for (lgm::cuda_context* const context : {&one, &other})
    made = made && cudaStreamCreateWithFlags(&context->stream, cudaStreamNonBlocking) == cudaSuccess;
  if (!made) {
    std::printf("no stream, or no cuBLAS handle\n");
    return 1;
  }
  // Of few launches, of one tile, and of several.
  const std::int64_t sizes[][3] = {{128, 10, 2}, {256, 100, 384}, {500, 1000, 129}};
  for (const auto& size : sizes)
    for (const auto covariance : {lgm::covariance::identity, lgm::covariance::diagonal}) {
      lgm::shape s;
      s.samples = size[0];
      s.classes = size[1];
      s.dims = size[2];
      s.covariance = covariance;
      one.tile_bytes = other.tile_bytes = s.classes == 1000 ? std::size_t(1) << 20 : std::size_t(256) << 20;
      check_graph(one, s);
      check_streams(one, other, s);
    }
  std::printf("%d failures\n", failures);
  cublasDestroy(one.handle);
  cudaStreamDestroy(one.stream);
  cudaStreamDestroy(other.stream);
  return failures == 0 ? 0 : 1;
}
