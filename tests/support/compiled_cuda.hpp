// SPDX-License-Identifier: MIT
#pragma once

#include <lgm/cuda_context.cuh>
#include <lgm/device.hpp>
#if defined(__CUDACC__)
#include <lgm/cuda.cuh>
#endif

#include <cstddef>
#include <cstdint>

// The CUDA driver, compiled once: by nvcc in compiled_cuda_*.cu, for all programs of the tests and benchmarks. Files that
// the C++ compiler compiles reach it through the context below; files that nvcc compiles through lgm::cuda_context as well,
// and neither compiles a kernel of the library again.

namespace support {

struct compiled_cuda {
  int threads = 0;  // means nothing to a device; suites set it all the same
  std::size_t tile_bytes = std::size_t(64) << 20;
  lgm::precision precision = lgm::precision::highest;
  cudaStream_t stream = nullptr;
  cublasHandle_t handle = nullptr;  // null: one of the process, made at the first call
  // Whether a call comes back when its work is done, with a failure of its kernels as its status: for suites that read
  // results at once. Then the memory must be for both host and device.
  bool waits = true;
};

// The Device (lgm/detail/device/launch.hpp) of that context.
class compiled_cuda_device {
 public:
  compiled_cuda_device(const compiled_cuda& context, const lgm::workspace& scratch)
      : context_(context), scratch_(scratch) {}

  // Defined in compiled_cuda.cuh.
  template <int... Widths, class Kernel>
  void launch(int lanes, std::int64_t tasks, const Kernel& kernel);
  template <class T>
  void multiply(lgm::detail::number_format format, bool transpose_a, bool transpose_b, std::int64_t m,
                std::int64_t n, std::int64_t k, T alpha, const void* a, std::int64_t lda, const void* b,
                std::int64_t ldb, T beta, T* c, std::int64_t ldc);
  lgm::status result() const;

 private:
  // f(an lgm::detail::cuda_device), which is made for this one call.
  template <class F>
  void on_cuda(F f);

  const compiled_cuda context_;
  const lgm::workspace scratch_;
  lgm::status result_ = lgm::status::success;
};

}  // namespace support

namespace lgm::detail {

template <>
struct device_traits<support::compiled_cuda> {
  using device_type = support::compiled_cuda_device;
  static std::size_t scratch_bytes(const support::compiled_cuda&, const shape&);
};

// What has gradients, and all the rest: two parts, for two files to compile side by side.
#define LGM_TEST_CUDA_LOSSES(prefix, Device, T)                                                         \
  prefix template status device_run_loss<Device, T>(Device&, const device_limits&, const loss_call<T>&, \
                                                    const workspace&);

#define LGM_TEST_CUDA_OTHERS(prefix, Device, T)                                                              \
  prefix template status device_run_logits<Device, T>(Device&, const device_limits&, const loss_call<T>&,    \
                                                      T*, const workspace&);                                 \
  prefix template status device_run_score<Device, T>(Device&, const device_limits&, const loss_call<T>&,     \
                                                     const score_result<T>&, const workspace&);              \
  prefix template status device_merge_row_state<Device, T>(Device&, const shape&, const T*, T*);             \
  prefix template status device_sgd_step<Device, T>(Device&, const shape&, const sgd_options<T>&,            \
                                                    const gradients<T, T>&, const parameters<T>&,            \
                                                    const parameters<T>&);                                   \
  prefix template status device_initialize_means<Device, T>(Device&, const shape&, std::uint64_t, T,         \
                                                            const parameters<T>&);                           \
  prefix template status device_scheduled_alpha<Device, T>(Device&, const stepped_schedule<T>&,              \
                                                           const std::int64_t*, T*);                         \
  prefix template status device_accumulate_moments<Device, T, T>(                                            \
      Device&, std::size_t, const shape&, const loss_options<T>&, const number_array<T>&, const label_view&, \
      const class_moments<T>&, const workspace&);                                                            \
  prefix template status device_merge_moments<Device, T>(Device&, const shape&, const class_moments<T>&,     \
                                                         const class_moments<T>&);                           \
  prefix template status device_estimate<Device, T, T>(Device&, const shape&, const class_moments<T>&,       \
                                                       const estimate_options<T>&, const parameters<T>&);    \
  LGM_TEST_CUDA_WHITENING(prefix, Device, T, T)                                                              \
  prefix template status device_whiten<Device, T>(Device&, std::size_t, const shape&, const whitening<T>&,   \
                                                  const number_array<T>&, T*, const workspace&);

// From moments of A.
#define LGM_TEST_CUDA_WHITENING(prefix, Device, A, T)                                                   \
  prefix template status device_estimate_whitening<Device, A, T>(                                       \
      Device&, const shape&, const class_moments<A>&, const whitening_options<T>&, const whitening<T>&, \
      const workspace&);

#define LGM_TEST_CUDA_ALL(prefix, Device)                \
  LGM_TEST_CUDA_WHITENING(prefix, Device, double, float) \
  LGM_TEST_CUDA_LOSSES(prefix, Device, float)            \
  LGM_TEST_CUDA_LOSSES(prefix, Device, double)           \
  LGM_TEST_CUDA_OTHERS(prefix, Device, float)            \
  LGM_TEST_CUDA_OTHERS(prefix, Device, double)

#if !defined(LGM_TEST_INSTANTIATING)
LGM_TEST_CUDA_ALL(extern, support::compiled_cuda_device)
#if defined(__CUDACC__)
LGM_TEST_CUDA_ALL(extern, cuda_device)
#endif
#endif

}  // namespace lgm::detail
