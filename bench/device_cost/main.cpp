// SPDX-License-Identifier: MIT

// What the CUDA driver would launch for a call of forward_backward, and what that costs, found without a GPU: see
// bench/device_cost.py. Prints JSON.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <lgm/detail/cuda/product_scratch.hpp>
#include <lgm/detail/device/call.hpp>
#include <lgm/types.hpp>
#include <string>
#include <vector>

#include "device_cost/costing_device.hpp"
#include "device_cost/meter.hpp"

namespace {

using lgm::detail::number_format;

// As bench/gpu_times.py names what it measures.
struct mode {
  const char* name;
  lgm::covariance covariance;
  number_format features;
  lgm::precision precision;
};
constexpr mode modes[] = {
    {"cuda-lgm", lgm::covariance::identity, number_format::full, lgm::precision::highest},
    {"cuda-lgm-tf32", lgm::covariance::identity, number_format::full, lgm::precision::tf32},
    {"cuda-lgm-split-tf32", lgm::covariance::identity, number_format::full, lgm::precision::split_tf32},
    {"cuda-lgm-bf16", lgm::covariance::identity, number_format::bfloat16, lgm::precision::highest},
    {"cuda-lgm-bf16-fast", lgm::covariance::identity, number_format::bfloat16, lgm::precision::fast},
    {"cuda-lgm-spherical", lgm::covariance::spherical, number_format::full, lgm::precision::highest},
    {"cuda-lgm-diagonal", lgm::covariance::diagonal, number_format::full, lgm::precision::highest},
};

const char* name_of(number_format f) {
  return f == number_format::full       ? "float"
         : f == number_format::tf32     ? "tf32"
         : f == number_format::bfloat16 ? "bfloat16"
                                        : "half";
}

std::size_t size_of(std::int64_t count, std::size_t each) { return static_cast<std::size_t>(count) * each; }

// Watches the pieces of a workspace, each as far as the next.
template <class Buffers>
void watch_pieces(bench::meter& meter, const bench::device_array& memory, const Buffers& buffers) {
  // A struct of pointers and numbers: what points into the memory is a piece.
  std::uintptr_t words[sizeof(Buffers) / sizeof(std::uintptr_t)];
  std::memcpy(words, &buffers, sizeof(words));
  const auto begin = reinterpret_cast<std::uintptr_t>(memory.data()), end = begin + memory.bytes();
  std::vector<std::uintptr_t> pieces{end};
  for (const std::uintptr_t word : words)
    if (word >= begin && word < end) pieces.push_back(word);
  std::sort(pieces.begin(), pieces.end());
  pieces.erase(std::unique(pieces.begin(), pieces.end()), pieces.end());
  for (std::size_t n = 0; n + 1 < pieces.size(); ++n)
    meter.watch(reinterpret_cast<const void*>(pieces[n]), pieces[n + 1] - pieces[n]);
}

bool print_cost(std::int64_t samples, std::int64_t classes, std::int64_t dims, const mode& of,
                std::size_t tile_bytes) {
  lgm::shape s;
  s.samples = samples;
  s.classes = classes;
  s.dims = dims;
  s.covariance = of.covariance;
  const std::size_t scratch = lgm::detail::product_scratch_bytes(s);
  const lgm::detail::device_limits limits{tile_bytes > scratch ? tile_bytes - scratch : 0, of.precision};
  const auto plan = lgm::detail::device_plan::make<float>(s, limits, of.features);

  bench::meter meter;
  const bool identity = of.covariance == lgm::covariance::identity;
  const std::int64_t variances = identity                                     ? 0
                                 : of.covariance == lgm::covariance::diagonal ? classes * dims
                                                                              : classes,
                     priors = identity ? 0 : classes;
  const std::size_t feature = of.features == number_format::full ? sizeof(float) : 2;
  const bench::device_array features(size_of(samples * dims, feature)),
      feature_gradient(size_of(samples * dims, feature)), means(size_of(classes * dims, sizeof(float))),
      mean_gradient(size_of(classes * dims, sizeof(float))), log_variances(size_of(variances, sizeof(float))),
      log_variance_gradient(size_of(variances, sizeof(float))), log_priors(size_of(priors, sizeof(float))),
      log_prior_gradient(size_of(priors, sizeof(float))), labels(size_of(samples, sizeof(std::int64_t))),
      loss(sizeof(float)), workspace(lgm::detail::device_loss_bytes<float>(s, limits, of.features));
  for (const auto* each : {&features, &feature_gradient, &means, &mean_gradient, &log_variances,
                           &log_variance_gradient, &log_priors, &log_prior_gradient, &labels, &loss})
    meter.watch(each->data(), each->bytes());
  lgm::detail::arena arena({workspace.data(), workspace.bytes()});
  watch_pieces(meter, workspace, lgm::detail::device_buffers<float>(arena, plan, s));

  // Every class about as often, in no order.
  auto* const label = static_cast<std::int64_t*>(labels.data());
  for (std::int64_t i = 0; i < samples; ++i) label[i] = i * 7919 % classes;

  const auto floats = [&](const bench::device_array& memory, bool wanted = true) {
    return wanted ? static_cast<float*>(memory.data()) : nullptr;
  };
  lgm::loss_options<float> options;
  options.alpha = 0.3f;
  options.lambda = 0.1f;
  auto call = lgm::detail::call_of<lgm::detail::any_kind>(
      s, lgm::mixture<float>{floats(means), floats(log_variances, !identity), floats(log_priors, !identity)},
      options, floats(features), static_cast<const std::int64_t*>(label));
  call.features.format = of.features;
  call.result.total = floats(loss);
  call.gradient = {feature_gradient.data(), of.features, floats(mean_gradient),
                   floats(log_variance_gradient, !identity), floats(log_prior_gradient, !identity)};
  call.request(lgm::detail::loss_function::forward_backward);

  bench::costing_device device(meter);
  const lgm::status status = lgm::detail::device_run_loss<bench::costing_device, float>(
      device, limits, call, {workspace.data(), workspace.bytes()});
  if (status != lgm::status::success) {
    std::fprintf(stderr, "device_cost: %s\n", lgm::to_string(status));
    return false;
  }
  std::printf(
      R"({"shape": "%lldx%lldx%lld", "mode": "%s", "workspace": %zu, "tile_rows": %lld, "tile_classes": %lld, "kernels": [)",
      static_cast<long long>(samples), static_cast<long long>(classes), static_cast<long long>(dims), of.name,
      workspace.bytes() + scratch, static_cast<long long>(plan.rows), static_cast<long long>(plan.classes));
  const char* comma = "";
  for (const bench::kernel_cost& k : device.kernels()) {
    std::printf(
        R"(%s{"name": "%s", "launches": %lld, "lanes": %d, "tasks": %lld, "blocks": %lld, "threads": %d, )"
        R"("bytes": %.0f, "requested": %.0f, "loads": %lld, "operations": %.0f})",
        comma, k.name.c_str(), static_cast<long long>(k.launches), k.lanes, static_cast<long long>(k.tasks),
        static_cast<long long>(k.shape.blocks), k.shape.threads, k.bytes, k.requested,
        static_cast<long long>(k.loads), k.operations);
    comma = ", ";
  }
  std::printf(R"(], "products": [)");
  comma = "";
  for (const bench::product_cost& p : device.products()) {
    std::printf(R"(%s{"m": %lld, "n": %lld, "k": %lld, "format": "%s", "adds": %s, "calls": %lld})", comma,
                static_cast<long long>(p.m), static_cast<long long>(p.n), static_cast<long long>(p.k),
                name_of(p.format), p.adds ? "true" : "false", static_cast<long long>(p.calls));
    comma = ", ";
  }
  std::printf("]}\n");
  return true;
}

}  // namespace

// usage: lgm_device_cost TILE_BYTES SAMPLESxCLASSESxDIMS:MODE...
int main(int count, char** arguments) {
  if (count < 3) {
    std::fprintf(stderr, "usage: lgm_device_cost TILE_BYTES SAMPLESxCLASSESxDIMS:MODE...\n");
    return 2;
  }
  const std::size_t tile_bytes = std::strtoull(arguments[1], nullptr, 10);
  std::printf(R"({"compiler": "%s"})"
              "\n",
              LGM_DEVICE_COST_COMPILER);
  for (int n = 2; n < count; ++n) {
    long long samples = 0, classes = 0, dims = 0;
    char name[64] = "";
    const mode* found = nullptr;
    if (std::sscanf(arguments[n], "%lldx%lldx%lld:%63s", &samples, &classes, &dims, name) == 4)
      for (const mode& m : modes)
        if (name == std::string(m.name)) found = &m;
    if (found == nullptr || samples < 1 || classes < 1 || dims < 1) {
      std::fprintf(stderr, "device_cost: not SAMPLESxCLASSESxDIMS:MODE: %s\n", arguments[n]);
      return 2;
    }
    if (!print_cost(samples, classes, dims, *found, tile_bytes)) return 1;
  }
  return 0;
}
