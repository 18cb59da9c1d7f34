// SPDX-License-Identifier: MIT

// The row functions in a kernel of one's own: a thread a sample, no lgm.cuh and no cuBLAS. For a sample x it finds the class
// with the largest logit l_k and log sum_k exp l_k, which is log p(x) but for a constant.

#include <cstdint>
#include <cstdio>
#include <lgm/row.hpp>

constexpr std::int64_t samples = 4, classes = 3, dims = 2;
// Of both host and device. features [samples, dims], mean [classes, dims], logits [samples, classes].
__managed__ float features[samples * dims] = {0, 0, 3.9f, 0.2f, 0.1f, 4.2f, 20, 20};
__managed__ float mean[classes * dims] = {0, 0, 4, 0, 0, 4};
__managed__ float logits[samples * classes], evidence[samples];
__managed__ std::int64_t best[samples];

__global__ void classify(lgm::shape shape) {
  const std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= shape.samples) return;
  const lgm::serial_group group;  // this thread alone
  const lgm::mixture<float> mixture{mean};
  auto row = group.load_row(logits + i * classes, classes);
  group.for_each(row, [&](float& l, std::int64_t k) {
    const lgm::class_parameters<float> c(shape, mixture, k);
    const float distance = 0.5f * lgm::squared_distance(group, dims, features + i * dims, c);
    l = lgm::logit(-lgm::half_log_det(group, dims, c), distance, /*margin=*/1.0f);
  });
  const float top = group.reduce(
      row, -lgm::numeric<float>::infinity, [](float l, std::int64_t) { return l; }, lgm::maximum{});
  const lgm::row_evidence<float> e = lgm::evidence_of(group, row, top, /*first_class=*/0, /*find_best=*/true);
  best[i] = e.best;
  evidence[i] = e.others.value();
}

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::fprintf(stderr, "custom_kernel: there is no CUDA device\n");
    return 2;
  }
  lgm::shape shape{samples, classes, dims, lgm::covariance::identity};
  classify<<<1, 32>>>(shape);
  if (cudaDeviceSynchronize() != cudaSuccess) {
    std::fprintf(stderr, "custom_kernel: %s\n", cudaGetErrorString(cudaGetLastError()));
    return 1;
  }
  for (std::int64_t i = 0; i < samples; ++i)
    std::printf("(%4.1f, %4.1f): class %d, log evidence %.2f\n", features[i * dims], features[i * dims + 1],
                static_cast<int>(best[i]), evidence[i]);
  return 0;
}
