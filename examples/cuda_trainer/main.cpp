// SPDX-License-Identifier: MIT

// Trains on images with everything on the device: the host enqueues one captured graph a step, and waits only to print.

#include <cstdint>
#include <cstdio>
#include <exception>
#include <optional>

#include "../trainer/idx.hpp"
#include "options.hpp"
#include "training.hpp"

namespace {

cuda_trainer::images scaled(const trainer::image_set& set) {
  cuda_trainer::images out;
  out.pixels.reserve(set.images.size());
  for (const std::uint8_t value : set.images) out.pixels.push_back(static_cast<float>(value) / 255.0f);
  out.labels = set.labels;
  return out;
}

void run(const cuda_trainer::options& chosen) {
  const trainer::data_set data = trainer::load_data_set(chosen.data);
  const cuda_trainer::images test = scaled(data.test);
  cuda_trainer::training training(
      {data.train.pixels(), chosen.hidden, chosen.dims, data.classes, chosen.batch, chosen.lr, chosen.lambda,
       chosen.alpha, static_cast<std::uint64_t>(chosen.seed)},
      scaled(data.train));
  const std::int64_t steps = data.train.count() / chosen.batch;
  for (std::int64_t epoch = 1; epoch <= chosen.epochs; ++epoch) {
    for (std::int64_t step = 1; step <= steps; ++step) {
      training.enqueue_step();
      if (step % chosen.log_every != 0 && step != steps) continue;
      const cuda_trainer::report now = training.read_report();
      std::printf("epoch %lld, step %lld of %lld: loss %.4f, accuracy %.2f %%, margin %.3f\n",
                  static_cast<long long>(epoch), static_cast<long long>(step), static_cast<long long>(steps),
                  now.loss, 100 * now.accuracy, now.alpha);
    }
    std::printf("epoch %lld: test accuracy %.2f %%\n", static_cast<long long>(epoch),
                100 * training.accuracy(test));
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::optional<cuda_trainer::options> chosen = cuda_trainer::parse_options(argc, argv);
    if (!chosen) return 0;
    if (!cuda_trainer::has_device()) {
      std::fprintf(stderr, "cuda_trainer: there is no CUDA device\n");
      return 2;
    }
    run(*chosen);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cuda_trainer: %s\n", error.what());
    return 1;
  }
}
