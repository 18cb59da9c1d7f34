// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/schedule.hpp>
#include <memory>
#include <vector>

// A training that lives on a CUDA device, as the host sees it: main.cpp is compiled by the C++ compiler, training.cu by nvcc.

namespace cuda_trainer {

struct settings {
  std::int64_t pixels, hidden, dims, classes, batch;
  float lr, lambda;
  lgm::stepped_schedule<float> alpha;
  std::uint64_t seed;
};

// Images of [0, 1] and their labels, in host memory.
struct images {
  std::vector<float> pixels;  // [count, settings.pixels]
  std::vector<std::uint8_t> labels;
};

// Of the steps since the last report.
struct report {
  double loss, accuracy, alpha;  // means; the margin now
};

// Whether there is a device.
bool has_device();

class training_state;

class training {
 public:
  // Copies the images to the device, makes the parameters, and captures a step. Throws std::runtime_error, as all of them.
  training(const settings& s, const images& train);
  ~training();

  void enqueue_step();                // the host neither waits nor copies
  report read_report();               // waits
  double accuracy(const images& of);  // waits

 private:
  std::unique_ptr<training_state> state_;
};

}  // namespace cuda_trainer
