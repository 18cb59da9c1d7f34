// SPDX-License-Identifier: MIT

// Arrays of more than 2^31 elements: samples x classes, and samples x dims. What is computed for the last samples is that
// of the same samples in a call of their own. Skipped where there is no device, or one with too little memory.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <lgm/lgm.cuh>
#include <vector>

#include "support/compiled_cuda.hpp"
#include "support/cuda_array.hpp"

namespace {

int failures = 0;

void expect(bool good, const char* what) {
  if (good) return;
  ++failures;
  std::printf("%s\n", what);
}

// Device memory, as much as fits.
template <class T>
class device_array {
 public:
  explicit device_array(std::int64_t size) : size_(size) {
    good_ = cudaMalloc(&data_, static_cast<std::size_t>(size) * sizeof(T)) == cudaSuccess &&
            cudaMemset(data_, 0xFF, static_cast<std::size_t>(size) * sizeof(T)) == cudaSuccess;
  }
  ~device_array() { cudaFree(data_); }
  device_array(const device_array&) = delete;
  device_array& operator=(const device_array&) = delete;

  bool good() const { return good_; }
  T* data() { return data_; }
  std::int64_t size() const { return size_; }
  std::vector<T> copy(std::int64_t first, std::int64_t n) const {
    std::vector<T> out(static_cast<std::size_t>(n));
    if (cudaMemcpy(out.data(), data_ + first, out.size() * sizeof(T), cudaMemcpyDefault) != cudaSuccess)
      out.clear();
    return out;
  }

 private:
  T* data_ = nullptr;
  std::int64_t size_;
  bool good_ = false;
};

// Small numbers that differ, and labels.
__global__ void fill(float* out, std::int64_t n, std::uint64_t seed) {
  for (std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n;
       i += std::int64_t(gridDim.x) * blockDim.x) {
    const std::uint64_t mixed = (static_cast<std::uint64_t>(i) + seed) * 0x9E3779B97F4A7C15u;
    out[i] = static_cast<float>(mixed >> 40) * 0x1p-23f - 1;
  }
}
__global__ void fill_labels(std::int32_t* out, std::int64_t n, std::int64_t classes) {
  for (std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < n;
       i += std::int64_t(gridDim.x) * blockDim.x)
    out[i] = static_cast<std::int32_t>(i * 7919 % classes);
}

bool near(const std::vector<float>& a, const std::vector<float>& b) {
  bool good = a.size() == b.size() && !a.empty();
  for (std::size_t n = 0; good && n < a.size(); ++n)
    good = std::fabs(a[n] - b[n]) <= 1e-4f * (1 + std::fabs(b[n]));  // false for what is not a number
  return good;
}

constexpr std::int64_t last = 64;  // samples that are computed again

// all_logits: they are written whole. Whether there was memory enough.
bool check(const lgm::cuda_context& context, const lgm::shape& s, bool all_logits) {
  device_array<float> features(s.samples * s.dims), mean(s.classes * s.dims), total(s.samples),
      gradient(s.samples * s.dims), mean_gradient(s.classes * s.dims),
      logits(all_logits ? s.samples * s.classes : 1);
  device_array<float> total_again(last), gradient_again(last * s.dims), logits_again(last * s.classes);
  device_array<std::int32_t> labels(s.samples);
  device_array<char> workspace(static_cast<std::int64_t>(lgm::workspace_size<float>(context, s)));
  if (!(features.good() && mean.good() && total.good() && gradient.good() && mean_gradient.good() &&
        logits.good() && logits_again.good() && labels.good() && workspace.good()))
    return false;
  fill<<<1024, 256, 0, context.stream>>>(features.data(), features.size(), 1);
  fill<<<1024, 256, 0, context.stream>>>(mean.data(), mean.size(), 2);
  fill_labels<<<1024, 256, 0, context.stream>>>(labels.data(), s.samples, s.classes);

  lgm::shape few = s;
  few.samples = last;
  const std::int64_t first = s.samples - last;
  const lgm::mixture<float> m{mean.data()};
  const lgm::workspace w{workspace.data(), static_cast<std::size_t>(workspace.size())};
  lgm::loss_options<float> options;
  options.alpha = 0.25f;
  options.lambda = 0.125f;
  options.reduction = lgm::reduction::none;
  const auto step = [&](const lgm::shape& shape, std::int64_t begin, float* out, float* feature_gradient,
                        float* parameter_gradient) {
    lgm::loss_result<float> result;
    result.total = out;
    return lgm::forward_backward(context, shape, m, options, features.data() + begin * s.dims,
                                 labels.data() + begin, nullptr, result,
                                 lgm::gradients<float, float>{feature_gradient, parameter_gradient}, w);
  };
  expect(step(s, 0, total.data(), gradient.data(), mean_gradient.data()) == lgm::status::success,
         "forward_backward of all");
  expect(step(few, first, total_again.data(), gradient_again.data(), nullptr) == lgm::status::success,
         "forward_backward of the last");
  if (all_logits) {
    expect(lgm::logits(context, s, m, features.data(), logits.data(), w) == lgm::status::success,
           "logits of all");
    expect(lgm::logits(context, few, m, features.data() + first * s.dims, logits_again.data(), w) ==
               lgm::status::success,
           "logits of the last");
  }
  expect(cudaStreamSynchronize(context.stream) == cudaSuccess, "a kernel");
  expect(near(total.copy(first, last), total_again.copy(0, last)), "losses differ");
  expect(near(gradient.copy(first * s.dims, last * s.dims), gradient_again.copy(0, last * s.dims)),
         "feature gradients differ");
  if (all_logits)
    expect(near(logits.copy(first * s.classes, last * s.classes), logits_again.copy(0, last * s.classes)),
           "logits differ");
  // Of all samples, those beyond 2^31 too.
  bool finite = true;
  for (const float g : mean_gradient.copy(0, mean_gradient.size())) finite = finite && std::isfinite(g);
  expect(finite, "mean gradients are not finite");
  return true;
}

}  // namespace

int main() {
  if (!support::has_device()) {
    std::printf("skipped: no CUDA device\n");
    return support::skipped;
  }
  lgm::cuda_context context;
  if (cudaStreamCreate(&context.stream) != cudaSuccess ||
      cublasCreate(&context.handle) != CUBLAS_STATUS_SUCCESS) {
    std::printf("no stream, or no cuBLAS handle\n");
    return 1;
  }
  lgm::shape many_classes, many_dims;
  many_classes.covariance = many_dims.covariance = lgm::covariance::identity;
  many_classes.samples = 70000;  // 2.8e9 logits, 11 GB
  many_classes.classes = 40000;
  many_classes.dims = 2;
  many_dims.samples = 1100000;  // 2.3e9 features, 9 GB, and as many gradients
  many_dims.classes = 3;
  many_dims.dims = 2048;
  const bool enough = check(context, many_classes, true) && check(context, many_dims, false);
  cublasDestroy(context.handle);
  cudaStreamDestroy(context.stream);
  if (failures == 0 && !enough) {
    std::printf("skipped: the device has too little memory\n");
    return support::skipped;
  }
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
