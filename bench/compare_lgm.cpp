// SPDX-License-Identifier: MIT

// The library behind a few C functions, for compare.py to load: each runs one subject a number of times and says how
// long each time took. One build serves every BLAS: its functions come in as pointers at run time.

#include <Eigen/Core>
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <lgm/cblas.hpp>
#include <lgm/lgm.hpp>
#include <string>
#include <vector>

namespace {

using clock_type = std::chrono::steady_clock;

// ---- the BLAS of this process ----

template <class T>
using cblas_gemm_function = void (*)(int order, int transpose_a, int transpose_b, int m, int n, int k,
                                     T alpha, const T* a, int lda, const T* b, int ldb, T beta, T* c,
                                     int ldc);

template <class T>
cblas_gemm_function<T> blas = nullptr;

template <class T>
void call_blas(int order, int transpose_a, int transpose_b, int m, int n, int k, T alpha, const T* a, int lda,
               const T* b, int ldb, T beta, T* c, int ldc) {
  blas<T>(order, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

}  // namespace

extern "C" {

// All arrays are the caller's; what a subject does not need may be null.
struct lgm_compare_problem {
  std::int64_t samples, classes, dims;
  std::int32_t covariance;  // as lgm::covariance
  std::int32_t threads;
  float alpha, lambda;
  const float *features, *mean, *log_variance, *log_prior;
  const std::int64_t* labels;
  float *loss, *feature_gradient, *mean_gradient, *log_variance_gradient, *log_prior_gradient;
  float* logits;  // [samples, classes], of the products alone
};

}  // extern "C"

namespace {

namespace detail = lgm::detail;
using detail::transposed;

class bench {
 public:
  explicit bench(const lgm_compare_problem& problem) : p_(problem) {
    context_.threads = p_.threads;
    if (blas<float> != nullptr) context_.gemm = lgm::cblas_gemm<call_blas<float>, call_blas<double>>();
    shape_.samples = p_.samples;
    shape_.classes = p_.classes;
    shape_.dims = p_.dims;
    shape_.covariance = static_cast<lgm::covariance>(p_.covariance);
    options_.alpha = p_.alpha;
    options_.lambda = p_.lambda;
  }

  std::size_t workspace_bytes() const { return lgm::workspace_size<float>(context_, shape_); }

  // Null: done; else what went wrong.
  const char* run(const std::string& subject, int times, double* seconds) {
    if (subject == "forward_backward") return repeat(times, seconds, &bench::forward_backward);
    if (subject == "filtered") return repeat(times, seconds, &bench::filtered);
    if (subject == "score") return repeat(times, seconds, &bench::score);
    if (subject == "moments") return repeat(times, seconds, &bench::moments);
    if (subject == "memory") return repeat(times, seconds, &bench::memory);
    if (subject == "products") return repeat(times, seconds, &bench::products);
    if (subject == "product") return repeat(times, seconds, &bench::logits_product);
    return "there is no such subject";
  }

 private:
  using status = lgm::status;

  const char* repeat(int times, double* seconds, status (bench::*subject)()) {
    for (int n = 0; n < times; ++n) {
      const auto begin = clock_type::now();
      const status answer = (this->*subject)();
      seconds[n] = std::chrono::duration<double>(clock_type::now() - begin).count();
      if (answer != status::success) return lgm::to_string(answer);
    }
    return nullptr;
  }

  lgm::workspace scratch() {
    if (workspace_.empty()) workspace_.resize(workspace_bytes());
    return {workspace_.data(), workspace_.size()};
  }

  // ---- what the library computes ----

  status forward_backward() {
    lgm::loss_result<float> result;
    result.total = p_.loss;
    const lgm::gradients<float, float> gradients{p_.feature_gradient, p_.mean_gradient,
                                                 p_.log_variance_gradient, p_.log_prior_gradient};
    return lgm::forward_backward(context_, shape_, {p_.mean, p_.log_variance, p_.log_prior}, options_,
                                 p_.features, p_.labels, nullptr, result, gradients, scratch());
  }

  // Without the classes whose probabilities are small beside their share, all of them together below 2^-14.
  status filtered() {
    options_.gradient_filter = 0x1p-14f / static_cast<float>(shape_.classes);
    const status answer = forward_backward();
    options_.gradient_filter = 0;
    return answer;
  }

  status score() {
    const auto n = static_cast<std::size_t>(p_.samples);
    predicted_.resize(n);
    scores_.resize(5 * n);
    float* const out = scores_.data();
    return lgm::score(context_, shape_, {p_.mean, p_.log_variance, p_.log_prior}, p_.features,
                      {predicted_.data(), out, out + n, out + 2 * n, out + 3 * n, out + 4 * n}, scratch());
  }

  // Running means and sums of squares, as a trainer would keep them.
  status moments() {
    make_moments();
    return lgm::accumulate_moments(context_, shape_, options_, p_.features, p_.labels,
                                   lgm::class_moments<float>{count_.data(), moment_mean_.data(), m2_.data()},
                                   scratch());
  }

  // ---- what they are held against ----

  // The bytes that accumulate_moments has to move and next to no arithmetic: features are read, the moments of the
  // classes that occur are read and written.
  status memory() {
    make_moments();
    const std::int64_t dims = p_.dims, parts = 4 * std::int64_t(p_.threads);
    const int threads = p_.samples * dims < (std::int64_t(1) << 16) ? 1 : p_.threads;
    std::vector<float> sums(static_cast<std::size_t>(parts));
    const auto occurring = static_cast<std::int64_t>(occurring_.size());
    detail::parallel_for<detail::host_threads>({}, threads, parts, [&](std::int64_t part, int) {
      const std::int64_t first = p_.samples * part / parts, last = p_.samples * (part + 1) / parts;
      const Eigen::Map<const Eigen::ArrayXf> read(p_.features + first * dims, (last - first) * dims);
      sums[static_cast<std::size_t>(part)] = read.size() > 0 ? read.sum() : 0;
      for (std::int64_t n = occurring * part / parts; n < occurring * (part + 1) / parts; ++n) {
        const std::int64_t at = occurring_[static_cast<std::size_t>(n)] * dims;
        Eigen::Map<Eigen::ArrayXf>(moment_mean_.data() + at, dims) += 1;
        Eigen::Map<Eigen::ArrayXf>(m2_.data() + at, dims) += 1;
      }
    });
    sink_ = sums[0];
    return status::success;
  }

  // The three products of a linear head, whole, into matrices that are there already.
  status products() {
    const status answer = logits_product();
    multiply<transposed::no, transposed::no>(p_.samples, p_.dims, p_.classes, p_.logits, p_.mean,
                                             p_.feature_gradient);
    multiply<transposed::yes, transposed::no>(p_.classes, p_.dims, p_.samples, p_.logits, p_.features,
                                              p_.mean_gradient);
    return answer;
  }

  status logits_product() {
    multiply<transposed::no, transposed::yes>(p_.samples, p_.classes, p_.dims, p_.features, p_.mean,
                                              p_.logits);
    return status::success;
  }

  // c [m, n] = op(a) op(b), all packed, by the BLAS or else by the kernel that the library's own products run on. That
  // one is cut along the longer side only, into few pieces: less is packed twice than in any finer cut.
  template <transposed A, transposed B>
  void multiply(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, const float* b, float* c) {
    constexpr bool is_a = A == transposed::yes, is_b = B == transposed::yes;
    const std::int64_t lda = is_a ? m : k, ldb = is_b ? k : n;
    if (detail::external_gemm(context_.gemm, is_a, is_b, m, n, k, 1.0F, a, lda, b, ldb, 0.0F, c, n)) return;
    const std::int64_t side = std::max(m, n);
    const int threads = m * n * k < 2 * detail::host_plan::grain ? 1 : p_.threads;
    const std::int64_t wanted = threads == 1 ? 1 : 4 * std::int64_t(threads);
    const std::int64_t piece = (std::max<std::int64_t>(side / wanted, 1) + 15) / 16 * 16;
    packing_.resize(static_cast<std::size_t>(threads));
    detail::parallel_for<detail::host_threads>(
        {}, threads, (side + piece - 1) / piece, [&](std::int64_t task, int slot) {
          const std::int64_t begin = task * piece, size = std::min(piece, side - begin);
          if (m >= n)
            multiply_piece<A, B>(size, n, k, a + begin * (is_a ? 1 : lda), lda, b, ldb, c + begin * n, n,
                                 slot);
          else
            multiply_piece<A, B>(m, size, k, a, lda, b + begin * (is_b ? ldb : 1), ldb, c + begin, n, slot);
        });
  }

  template <transposed A, transposed B>
  void multiply_piece(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t lda,
                      const float* b, std::int64_t ldb, float* c, std::int64_t ldc, int slot) {
    std::vector<char>& memory = packing_[static_cast<std::size_t>(slot)];
    detail::gemm_scratch<float> scratch;
    detail::arena size;
    scratch.carve(size, m, n, k);
    if (memory.size() < size.bytes()) memory.resize(size.bytes());
    detail::arena pieces({memory.data(), memory.size()});
    scratch.carve(pieces, m, n, k);
    for (std::int64_t i = 0; i < m; ++i) std::fill(c + i * ldc, c + i * ldc + n, 0.0F);
    detail::gemm<A, B>(m, n, k, 1.0F, a, lda, b, ldb, c, ldc, scratch);
  }

  void make_moments() {
    if (!count_.empty()) return;
    const auto classes = static_cast<std::size_t>(p_.classes), dims = static_cast<std::size_t>(p_.dims);
    count_.resize(classes);
    moment_mean_.resize(classes * dims);
    m2_.resize(classes * dims);
    occurring_.assign(p_.labels, p_.labels + p_.samples);
    std::sort(occurring_.begin(), occurring_.end());
    occurring_.erase(std::unique(occurring_.begin(), occurring_.end()), occurring_.end());
  }

  const lgm_compare_problem p_;
  lgm::host_context context_;
  lgm::shape shape_;
  lgm::loss_options<float> options_;
  std::vector<char> workspace_;
  std::vector<std::vector<char>> packing_;
  std::vector<std::int64_t> predicted_, occurring_;
  std::vector<float> scores_, count_, moment_mean_, m2_;
  volatile float sink_ = 0;
};

}  // namespace

extern "C" {

// The products of every problem opened from here on: cblas_sgemm and cblas_dgemm of a library with 32-bit integers,
// or null for the library's own.
void lgm_compare_use_blas(cblas_gemm_function<float> sgemm, cblas_gemm_function<double> dgemm) {
  blas<float> = sgemm;
  blas<double> = dgemm;
}

// The caller keeps the problem's arrays until lgm_compare_close.
void* lgm_compare_open(const lgm_compare_problem* problem) { return new bench(*problem); }
void lgm_compare_close(void* handle) { delete static_cast<bench*>(handle); }

// Runs the pieces of a product of OpenBLAS on OpenMP's threads, which the library's own loops have awake already: what
// openblas_set_threads_callback_function takes. The pieces wait for each other, so each has a thread of its own.
void lgm_compare_run_pieces(int, void (*run)(int, void*, int), int count, std::size_t size, void* pieces,
                            int argument) {
  detail::host_threads::run(count, [&](int thread) {
    run(thread, static_cast<char*>(pieces) + static_cast<std::size_t>(thread) * size, argument);
  });
}

std::int64_t lgm_compare_workspace_bytes(void* handle) {
  return static_cast<std::int64_t>(static_cast<bench*>(handle)->workspace_bytes());
}

// Runs a subject `times` times. seconds: [times]. Null, or static text that says what went wrong.
const char* lgm_compare_run(void* handle, const char* subject, int times, double* seconds) {
  try {
    return static_cast<bench*>(handle)->run(subject, times, seconds);
  } catch (const std::exception&) {
    return "out of memory";
  }
}

// What was compiled: static text.
const char* lgm_compare_build() {
  static const std::string text = [] {
#if defined(__clang__)
    const std::string compiler = "clang++ " __clang_version__;
#else
    const std::string compiler = "g++ " __VERSION__;
#endif
    const auto number = [](int n) { return std::to_string(n); };
    return "lgm " + number(LGM_VERSION_MAJOR) + "." + number(LGM_VERSION_MINOR) + "." +
           number(LGM_VERSION_PATCH) + ", Eigen " + number(EIGEN_WORLD_VERSION) + "." +
           number(EIGEN_MAJOR_VERSION) + "." + number(EIGEN_MINOR_VERSION) + ", " + compiler + ", " +
           Eigen::SimdInstructionSetsInUse();
  }();
  return text.c_str();
}

}  // extern "C"
