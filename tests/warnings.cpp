// SPDX-License-Identifier: MIT
// Calls every function once for each of its types. It is compiled with more warnings than the library's own files are, those that
// a program which includes the headers may have made errors, and never run.

#include <cstddef>
#include <cstdint>
#include <lgm/cblas.hpp>
#include <lgm/device.hpp>
#include <lgm/dlpack.hpp>
#include <lgm/lgm.hpp>

// As dlpack.h has it.
struct tensor {
  void* data;
  struct {
    int device_type, device_id;
  } device;
  std::int32_t ndim;
  struct {
    std::uint8_t code, bits;
    std::uint16_t lanes;
  } dtype;
  std::int64_t *shape, *strides;
  std::uint64_t byte_offset;
};

namespace {

// A device (lgm/detail/device/launch.hpp) whose products are left out.
struct device_context {
  std::size_t tile_bytes = 0;
  lgm::precision precision = lgm::precision::highest;
};
struct plain_device {
  plain_device(const device_context&, const lgm::workspace&) {}
  template <int... Widths, class Kernel>
  void launch(int, std::int64_t tasks, const Kernel& kernel) {
    for (std::int64_t task = 0; task < tasks; ++task) kernel(lgm::serial_group{}, task);
  }
  template <class T>
  void multiply(lgm::detail::number_format, bool, bool, std::int64_t, std::int64_t, std::int64_t, T,
                const void*, std::int64_t, const void*, std::int64_t, T, T*, std::int64_t) {}
  lgm::status result() const { return lgm::status::success; }
};

int cblas_sgemm(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*,
                int) {
  return 0;
}
int cblas_dgemm(int, int, int, int, int, int, double, const double*, int, const double*, int, double, double*,
                int) {
  return 0;
}

bool failed(lgm::status s) { return s != lgm::status::success; }

template <class T, class Targets, class Context>
bool call_losses(const Context& ctx, const lgm::shape& s, T* numbers, const Targets& targets,
                 lgm::workspace w) {
  const lgm::mixture<T> m{numbers, numbers, numbers};
  const lgm::loss_options<T> options;
  const lgm::loss_result<T> result{numbers, numbers, numbers, numbers};
  const lgm::gradients<T, T> gradient{numbers, numbers, numbers, numbers};
  const T* const features = numbers;
  return failed(lgm::forward(ctx, s, m, options, features, targets, result, w)) ||
         failed(lgm::backward(ctx, s, m, options, features, targets, numbers, numbers, gradient, w)) ||
         failed(lgm::forward_backward(ctx, s, m, options, features, targets, numbers, result, gradient, w)) ||
         failed(lgm::finish_forward(ctx, s, m, options, features, targets, numbers, result, w));
}

template <class T, class L, class Context>
bool call_labelled(const Context& ctx, const lgm::shape& s, T* numbers, const L* labels, lgm::workspace w) {
  const lgm::mixture<T> m{numbers, numbers, numbers};
  const lgm::loss_options<T> options;
  const lgm::gradients<T, T> gradient{numbers, numbers, numbers, numbers};
  const lgm::class_moments<float> single;
  const lgm::class_moments<double> twice;
  const T* const features = numbers;
  return call_losses(ctx, s, numbers, labels, w) ||
         failed(lgm::logits(ctx, s, m, options, features, labels, numbers, w)) ||
         failed(lgm::logits_backward(ctx, s, m, options, features, labels, numbers, numbers, gradient, w)) ||
         failed(lgm::accumulate_moments(ctx, s, options, features, labels, single, w)) ||
         failed(lgm::accumulate_moments(ctx, s, options, features, labels, twice, w));
}

template <class T, class A, class Context>
bool call_moments(const Context& ctx, const lgm::shape& s, T* numbers, lgm::workspace w) {
  const lgm::class_moments<A> moments;
  const lgm::whitening<T> map{numbers, numbers, numbers};
  return failed(lgm::merge_moments(ctx, s, moments, moments)) ||
         failed(lgm::estimate(ctx, s, moments, {}, lgm::parameters<T>{numbers, numbers, numbers})) ||
         lgm::whitening_workspace_size<A>(ctx, s) > w.bytes ||
         failed(lgm::estimate_whitening(ctx, s, moments, {}, map, w));
}

template <class T, class Context>
bool call_all(const Context& ctx, const lgm::shape& s, T* numbers, const void* labels, lgm::workspace w) {
  const lgm::mixture<T> m{numbers, numbers, numbers};
  const lgm::parameters<T> p{numbers, numbers, numbers};
  const lgm::soft_targets<T> soft{numbers};
  const lgm::gradients<T, T> gradient{numbers, numbers, numbers, numbers};
  const lgm::score_result<T> scores{nullptr, numbers, numbers, numbers, numbers, numbers};
  const T* const features = numbers;
  return lgm::workspace_size<T>(ctx, s) > w.bytes || call_losses(ctx, s, numbers, soft, w) ||
         call_labelled(ctx, s, numbers, static_cast<const std::int64_t*>(labels), w) ||
         call_labelled(ctx, s, numbers, static_cast<const std::int32_t*>(labels), w) ||
         call_labelled(ctx, s, numbers, static_cast<const std::uint8_t*>(labels), w) ||
         call_moments<T, float>(ctx, s, numbers, w) || call_moments<T, double>(ctx, s, numbers, w) ||
         failed(lgm::logits(ctx, s, m, features, numbers, w)) ||
         failed(lgm::logits_backward(ctx, s, m, {}, features, nullptr, numbers, numbers, gradient, w)) ||
         failed(lgm::score(ctx, s, m, features, scores, w)) ||
         failed(lgm::whiten(ctx, s, {numbers, numbers, numbers}, features, numbers, w)) ||
         failed(lgm::merge_row_state(ctx, s, features, numbers)) ||
         failed(lgm::initialize_means(ctx, s, 1, T(1), p)) ||
         failed(lgm::sgd_step(ctx, s, lgm::sgd_options<T>{}, gradient, p, p));
}

template <class T>
bool call_rest(const lgm::shape& s, T* numbers, const tensor& t) {
  lgm::rows<T> matrix;
  const lgm::stepped_schedule<T> schedule;
  return failed(lgm::rows_of(t, lgm::tensor_memory::host, matrix)) ||
         failed(lgm::values_of(t, lgm::tensor_memory::host, s.samples, numbers)) ||
         failed(lgm::scheduled_alpha(device_context{}, schedule, nullptr, numbers)) || schedule(1) > T(1);
}

}  // namespace

namespace lgm::detail {

template <>
struct device_traits<device_context> {
  using device_type = plain_device;
  static std::size_t scratch_bytes(const device_context&, const shape&) { return 0; }
};

}  // namespace lgm::detail

bool call_everything(const lgm::shape& s, float* floats, double* doubles, const void* labels, const tensor& t,
                     lgm::workspace w);
bool call_everything(const lgm::shape& s, float* floats, double* doubles, const void* labels, const tensor& t,
                     lgm::workspace w) {
  lgm::host_context host;
  host.gemm = lgm::cblas_gemm<cblas_sgemm, cblas_dgemm>();
  const device_context device;
  return call_all(host, s, floats, labels, w) || call_all(host, s, doubles, labels, w) ||
         call_all(device, s, floats, labels, w) || call_all(device, s, doubles, labels, w) ||
         call_rest(s, floats, t) || call_rest(s, doubles, t);
}
