// SPDX-License-Identifier: MIT

// The operators' schemas, and the operators on the CPU.

#include <ATen/Parallel.h>

#include <lgm/lgm.hpp>
#include <string>

#include "operators.hpp"

namespace lgm_torch {
namespace {

// ATen's threads run the library's tasks.
void run_slots(void*, int slots, void (*call)(void* state, int slot), void* state) {
  at::parallel_for(0, slots, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t slot = begin; slot < end; ++slot) call(state, static_cast<int>(slot));
  });
}

struct host_backend {
  static lgm::host_context context(const at::Device&) {
    lgm::host_context context;
    context.threads = at::get_num_threads();
    context.parallel_for.run = run_slots;
    return context;
  }
  static at::ScalarType computed_as(at::ScalarType, at::ScalarType parameters) { return parameters; }
  template <class T, class Use>
  static void with_features(const Tensor& features, Use use) {
    use(pointer<const T>(features));
  }
  template <class T>
  static lgm::status schedule(const lgm::host_context&, const lgm::stepped_schedule<T>& schedule,
                              const std::int64_t* iteration, T* out) {
    *out = schedule(*iteration);
    return lgm::status::success;
  }
  // By value, so that one that is wrong is an error.
  template <class T>
  static void set_alpha(lgm::loss_options<T>& options, const Tensor& alpha) {
    options.alpha = *alpha.const_data_ptr<T>();
  }
};

}  // namespace
}  // namespace lgm_torch

TORCH_LIBRARY(lgm, m) {
  const auto define = [&](const std::string& schema) { m.def(schema.c_str()); };
  const std::string mixture = "Tensor mean, Tensor? log_variance, Tensor? log_prior";
  const std::string loss =
      "Tensor features, Tensor target, " + mixture +
      ", Tensor alpha, Tensor? class_weight, Tensor? sample_weight, Tensor? normalizer, "
      "float lambda_, str reduction, int ignore_index, float label_smoothing, bool[4] make";
  const std::string logits =
      "Tensor features, Tensor? target, " + mixture + ", Tensor alpha, int ignore_index";
  const std::string gradients =
      "Tensor feature_gradient, Tensor mean_gradient, Tensor log_variance_gradient, Tensor "
      "log_prior_gradient";
  const std::string written = "Tensor(a!) mean, Tensor(b!)? log_variance, Tensor(c!)? log_prior";
  const std::string moments = "Tensor(a!) count, Tensor(b!) mean, Tensor(c!) m2, Tensor(d!) mean_residual";
  define("loss(" + loss + ") -> (Tensor loss, Tensor row_state, " + gradients + ")");
  define(
      "loss_backward(Tensor upstream, Tensor row_state, Tensor made_feature, Tensor made_mean, "
      "Tensor made_log_variance, Tensor made_log_prior, " +
      loss + ", bool[4] needs) -> (" + gradients + ")");
  define("logits(" + logits + ") -> Tensor");
  define("logits_backward(Tensor grad_logits, " + logits + ", bool[4] needs) -> (" + gradients + ")");
  std::string scores;
  lgm::score_result<float> each;
  lgm::for_each_score(each, [&](const char* name, auto*&) {
    scores += (scores.empty() ? "Tensor " : ", Tensor ") + std::string(name);
  });
  define("score(Tensor features, " + mixture + ") -> (" + scores + ")");
  define("initialize_(" + written + ", int seed, float scale) -> ()");
  define(
      "schedule_(Tensor(a!) out, Tensor iteration, str policy, float value, int step, float gamma, float "
      "min, "
      "float max) -> ()");
  define("accumulate_moments_(Tensor features, Tensor labels, Tensor? sample_weight, int ignore_index, " +
         moments + ") -> ()");
  define("merge_moments_(Tensor from_count, Tensor from_mean, Tensor from_m2, Tensor from_mean_residual, " +
         moments + ") -> ()");
  define(
      "estimate_(Tensor count, Tensor mean_of_class, Tensor m2, float variance_floor, float shrinkage, "
      "float decay, " +
      written + ") -> ()");
}

TORCH_LIBRARY_IMPL(lgm, CPU, m) { lgm_torch::operators<lgm_torch::host_backend>::register_in(m); }
