// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <cfenv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>
#include <string>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __SSE__
#include <xmmintrin.h>
#endif
#include <Eigen/Core>

#include "support/moments.hpp"
#include "support/problem.hpp"
#include "support/tolerance.hpp"

// What a call must leave alone: the heap, the settings of OpenMP and Eigen, the floating-point environment;
// and how much memory it may use.

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LGM_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define LGM_TEST_SANITIZED 1
#endif
#endif

namespace {
// Counts on any thread: the workers of a team allocate too.
std::atomic<bool> counting{false};
std::atomic<long> allocations{0};
void note_allocation() noexcept {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
}
}  // namespace

#if defined(__GLIBC__) && !defined(LGM_TEST_SANITIZED)
// Everything in the program that allocates comes through here, operator new and other libraries included.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void __libc_free(void*);

void* malloc(std::size_t bytes) noexcept {
  note_allocation();
  return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) noexcept {
  note_allocation();
  return __libc_calloc(count, bytes);
}
void* realloc(void* old, std::size_t bytes) noexcept {
  note_allocation();
  return __libc_realloc(old, bytes);
}
void* memalign(std::size_t alignment, std::size_t bytes) noexcept {
  note_allocation();
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept {
  note_allocation();
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void** out, std::size_t alignment, std::size_t bytes) noexcept {
  note_allocation();
  void* memory = __libc_memalign(alignment, bytes);
  if (memory == nullptr) return ENOMEM;
  *out = memory;
  return 0;
}
void free(void* memory) noexcept { __libc_free(memory); }
}
#else
// A sanitizer owns malloc: only operator new is counted.
void* operator new(std::size_t bytes) {
  note_allocation();
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  note_allocation();
  void* memory = nullptr;
  if (posix_memalign(&memory, static_cast<std::size_t>(alignment), bytes == 0 ? 1 : bytes) == 0)
    return memory;
  throw std::bad_alloc();
}
void* operator new[](std::size_t bytes) { return operator new(bytes); }
void* operator new[](std::size_t bytes, std::align_val_t alignment) { return operator new(bytes, alignment); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
#endif

namespace {

using lgm::status;
using namespace support;

template <class Call>
long allocations_in(Call call) {
  allocations = 0;
  counting = true;
  call();
  counting = false;
  return allocations;
}

// Every function at one problem, with all memory made beforehand: f(name, call) for each.
template <class T, class F>
void each_function(const lgm::host_context& context, const problem<T>& p, F f) {
  outputs<T> out(p), apart(p);
  guarded<T> logits(p.shape.samples, p.shape.classes);
  score_outputs<T> scores(p.shape);
  scratch memory(lgm::workspace_size<T, T>(context, p.shape));
  const lgm::workspace w = memory.get();
  const T* features = p.features.data();
  const std::int64_t* labels = p.labels.data();
  std::vector<T> velocity(p.mean.size(), T(0)), mean = p.mean;
  lgm::sgd_options<T> sgd;
  sgd.mean_rate = T(0.1);
  sgd.momentum = T(0.5);
  f("workspace_size", [&] {
    return lgm::workspace_size<T, T>(context, p.shape) == w.bytes ? status::success : status::not_supported;
  });
  f("forward_backward", [&] {
    return lgm::forward_backward(context, p.shape, p.mixture(), p.options, features, labels, nullptr,
                                 out.result(), out.gradients(), w);
  });
  f("forward", [&] {
    return lgm::forward(context, p.shape, p.mixture(), p.options, features, labels, apart.result(), w);
  });
  f("backward", [&] {
    return lgm::backward(context, p.shape, p.mixture(), p.options, features, labels, apart.row_state.data(),
                         nullptr, apart.gradients(), w);
  });
  f("logits", [&] { return lgm::logits(context, p.shape, p.mixture(), features, logits.data(), w); });
  f("logits with labels", [&] {
    return lgm::logits(context, p.shape, p.mixture(), p.options, features, labels, logits.data(), w);
  });
  f("score", [&] { return lgm::score(context, p.shape, p.mixture(), features, scores.result(), w); });
  // Everything a loss may be given, made beforehand as well.
  auto labelled = p;
  give(labelled, 7, {true, true, true, 0.1, false});
  give_grad_logits(labelled, 7);
  auto soft = p;
  give(soft, 8, {true, true, false, 0.1, true});
  const auto o = labelled.call_options(), soft_o = soft.call_options();
  auto adding = out.gradients();
  adding.accumulate = true;
  auto parts = out.result();
  parts.row_state = nullptr;
  parts.correct = nullptr;
  f("forward_backward, weighted", [&] {
    return lgm::forward_backward(context, p.shape, p.mixture(), o, features, labels, nullptr, out.result(),
                                 out.gradients(), w);
  });
  f("backward, weighted and accumulating", [&] {
    return lgm::backward(context, p.shape, p.mixture(), o, features, labels, apart.row_state.data(), nullptr,
                         adding, w);
  });
  f("finish_forward", [&] {
    return lgm::finish_forward(context, p.shape, p.mixture(), o, features, labels, apart.row_state.data(),
                               parts, w);
  });
  f("logits_backward", [&] {
    return lgm::logits_backward(context, p.shape, p.mixture(), o, features, labels,
                                labelled.grad_logits.data(), nullptr, out.gradients(), w);
  });
  f("merge_row_state",
    [&] { return lgm::merge_row_state(context, p.shape, out.row_state.data(), apart.row_state.data()); });
  f("forward_backward, soft", [&] {
    return lgm::forward_backward(context, p.shape, p.mixture(), soft_o, features, soft.soft_targets(),
                                 nullptr, out.result(), out.gradients(), w);
  });
  f("forward, soft", [&] {
    return lgm::forward(context, p.shape, p.mixture(), soft_o, features, soft.soft_targets(), apart.result(),
                        w);
  });
  f("backward, soft", [&] {
    return lgm::backward(context, p.shape, p.mixture(), soft_o, features, soft.soft_targets(),
                         apart.row_state.data(), nullptr, adding, w);
  });
  f("finish_forward, soft", [&] {
    return lgm::finish_forward(context, p.shape, p.mixture(), soft_o, features, soft.soft_targets(),
                               apart.row_state.data(), parts, w);
  });
  const auto shard = shard_of(p, p.classes() / 3, p.classes() / 3);
  outputs<T> part(shard);
  scratch shard_memory(lgm::workspace_size<T, T>(context, shard.shape));
  f("forward_backward, a shard", [&] {
    return lgm::forward_backward(context, shard.shape, shard.mixture(), p.options, features, labels, nullptr,
                                 part.result(), part.gradients(), shard_memory.get());
  });
  CHECK(shard_memory.intact());
  f("initialize_means",
    [&] { return lgm::initialize_means(context, p.shape, 3, T(1), lgm::parameters<T>{mean.data()}); });
  f("sgd_step", [&] {
    return lgm::sgd_step(context, p.shape, sgd, out.gradients(), lgm::parameters<T>{velocity.data()},
                         lgm::parameters<T>{mean.data()});
  });
  moments_memory<double> moments(p.shape), other(p.shape);
  f("accumulate_moments", [&] {
    return lgm::accumulate_moments(context, p.shape, p.options, features, labels,
                                   moments.get(moments_memory<double>::nothing), w);
  });
  f("merge_moments", [&] {
    return lgm::merge_moments(context, p.shape, moments.get(moments_memory<double>::nothing),
                              other.get(moments_memory<double>::nothing));
  });
  f("estimate", [&] {
    return lgm::estimate(context, p.shape, moments.get(), {T(0.1), T(0.5)},
                         lgm::parameters<T>{out.mean.data(), out.log_variance.data(), out.log_prior.data()});
  });
  guarded<T> map(p.shape.dims, p.shape.dims), offset(p.shape.dims), log_abs_det(1);
  const lgm::whitening<T> whitening{map.data(), offset.data(), log_abs_det.data()};
  scratch whitening_memory(lgm::whitening_workspace_size<double>(context, p.shape));
  f("estimate_whitening", [&] {
    return lgm::estimate_whitening(context, p.shape, moments.get(moments_memory<double>::nothing),
                                   {T(0.1), T(0.5)}, whitening, whitening_memory.get());
  });
  CHECK(whitening_memory.intact());
  f("whiten", [&] { return lgm::whiten(context, p.shape, whitening, features, out.feature.data(), w); });
  CHECK(memory.intact());
}

template <class T>
lgm::loss_options<T> options_of() {
  lgm::loss_options<T> options;
  options.alpha = T(0.2);
  options.lambda = T(0.1);
  return options;
}

}  // namespace

TEST_CASE("the counter counts") {
  // Through a volatile, so that no compiler takes the allocation away.
  void* volatile kept = nullptr;
  CHECK(allocations_in([&] {
          kept = ::operator new(100);
          ::operator delete(kept);
        }) > 0);
  CHECK(allocations_in([] {}) == 0);
#ifndef LGM_TEST_SANITIZED
  CHECK(allocations_in([&] {
          kept = std::malloc(100);
          std::free(kept);
        }) > 0);
  // What the library must not use as it is.
  Eigen::MatrixXf a = Eigen::MatrixXf::Ones(300, 300), b = a, c = a;
  CHECK(allocations_in([&] { c.noalias() = a * b; }) > 0);
#endif
}

TEST_CASE_TEMPLATE("no call touches the heap", T, float, double) {
  for (const auto covariance : covariances)
    for (const std::size_t tile_bytes : {std::size_t{1} << 14, std::size_t{64} << 20})
      for (const std::int64_t samples : {5, 200}) {
        CAPTURE(name_of(covariance));
        CAPTURE(samples);
        const auto p = make_problem<T>(101, make_shape(samples, 70, 40, covariance), options_of<T>());
        each_function(context_of(1, tile_bytes), p, [](const std::string& name, auto call) {
          status answer = status::not_supported;
          const long count = allocations_in([&] { answer = call(); });
          CHECK_MESSAGE(answer == status::success, name << ": " << std::string(lgm::to_string(answer)));
          CHECK_MESSAGE(count == 0, name << " allocates " << count << " times");
        });
      }
}

// A team of threads is OpenMP's to make, once; after that the same call makes nothing.
TEST_CASE_TEMPLATE("no call touches the heap with two threads, once OpenMP has its team", T, float, double) {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    const auto p = make_problem<T>(102, make_shape(300, 70, 40, covariance), options_of<T>());
    each_function(context_of(2, 1 << 16), p, [](const std::string& name, auto call) {
      status answer = call();
      const long count = allocations_in([&] { answer = call(); });
      CHECK_MESSAGE(answer == status::success, name << ": " << std::string(lgm::to_string(answer)));
      CHECK_MESSAGE(count == 0, name << " allocates " << count << " times");
    });
  }
}

TEST_CASE_TEMPLATE("calls leave OpenMP, Eigen and the floating-point environment as they were", T, float,
                   double) {
  struct settings {
    int omp_threads = 0, omp_dynamic = 0, omp_nested = 0, eigen_threads = 0, rounding = 0;
    unsigned control = 0;
    bool operator==(const settings& o) const {
      return omp_threads == o.omp_threads && omp_dynamic == o.omp_dynamic && omp_nested == o.omp_nested &&
             eigen_threads == o.eigen_threads && rounding == o.rounding && control == o.control;
    }
  };
  const auto current = [] {
    settings s;
#ifdef _OPENMP
    s.omp_threads = omp_get_max_threads();
    s.omp_dynamic = omp_get_dynamic();
    s.omp_nested = omp_get_max_active_levels();
#endif
    s.eigen_threads = Eigen::nbThreads();
    s.rounding = std::fegetround();
#ifdef __SSE__
    s.control = _mm_getcsr() & ~0x3Fu;  // without the flags that arithmetic raises
#endif
    return s;
  };
  const settings before = current();
  for (const auto covariance : covariances)
    for (const int threads : {1, 3}) {
      const auto p = make_problem<T>(103, make_shape(150, 30, 20, covariance), options_of<T>());
      each_function(context_of(threads, 1 << 14), p, [&](const std::string& name, auto call) {
        CHECK(call() == status::success);
        CHECK_MESSAGE(current() == before, name);
      });
    }
#ifdef _OPENMP
  // Other settings than the defaults stay as well.
  const int threads = omp_get_max_threads();
  omp_set_num_threads(threads + 1);
  Eigen::setNbThreads(threads + 2);
  const settings changed = current();
  const auto p = make_problem<T>(104, make_shape(150, 30, 20, lgm::covariance::diagonal), options_of<T>());
  each_function(context_of(2, 1 << 14), p, [&](const std::string& name, auto call) {
    CHECK(call() == status::success);
    CHECK_MESSAGE(current() == changed, name);
  });
  omp_set_num_threads(threads);
  Eigen::setNbThreads(0);
#endif
}

#ifdef _OPENMP
TEST_CASE("calls work inside the caller's own parallel region") {
  const auto p =
      make_problem<double>(105, make_shape(90, 12, 10, lgm::covariance::diagonal), options_of<double>());
  outputs<double> expected(p);
  const auto context = context_of(1, 1 << 14);
  REQUIRE(forward_backward(context, p, expected) == status::success);
  std::vector<outputs<double>> out;
  std::vector<scratch> memory;
  for (int n = 0; n < 4; ++n) {
    out.emplace_back(p);
    memory.emplace_back(lgm::workspace_size<double, double>(context, p.shape));
  }
  int failures = 0;
#pragma omp parallel for num_threads(4) reduction(+ : failures)
  for (int n = 0; n < 4; ++n) {
    auto& mine = out[static_cast<std::size_t>(n)];
    const status answer = lgm::forward_backward(context, p.shape, p.mixture(), p.options, p.features.data(),
                                                p.labels.data(), nullptr, mine.result(), mine.gradients(),
                                                memory[static_cast<std::size_t>(n)].get());
    if (answer != status::success) ++failures;
  }
  CHECK(failures == 0);
  for (const auto& each : out) each.check_same_bits(expected);
}
#endif

TEST_CASE("100,000 classes fit in 64 MiB") {
  for (const auto covariance : covariances)
    for (const int threads : {0, 1, 2, 4, 16, 64}) {
      CAPTURE(name_of(covariance));
      CAPTURE(threads);
      const std::size_t limit = std::size_t{64} << 20;
      CHECK(lgm::workspace_size<float, float>(context_of(threads),
                                              make_shape(1024, 100000, 512, covariance)) <= limit);
      CHECK(lgm::workspace_size<double, double>(context_of(threads),
                                                make_shape(128, 100000, 64, covariance)) <= limit);
    }
}

// The losses, scores and feature gradients of a few rows of a large problem, in double and one row at a time:
// the reference in long double would need copies of everything.
namespace {

struct large_problem {
  lgm::shape shape;
  std::vector<float> mean, log_variance, features;
  std::vector<std::int32_t> labels;
  lgm::loss_options<float> options;

  explicit large_problem(const lgm::shape& s) : shape(s), options(options_of<float>()) {
    options.reduction = lgm::reduction::none;
    const std::size_t classes = size_of(s.classes), dims = size_of(s.dims), samples = size_of(s.samples);
    // Uniform numbers of a small generator: drawing normals would take longer than the call.
    std::uint64_t state = 106;
    const auto uniform = [&state] {
      state = state * 6364136223846793005u + 1442695040888963407u;
      return static_cast<float>(state >> 40) * 0x1p-23f - 1.0f;
    };
    mean.resize(classes * dims);
    for (float& value : mean) value = 1.5f / std::sqrt(static_cast<float>(dims) / 8) * uniform();
    if (s.covariance == lgm::covariance::diagonal) log_variance.resize(classes * dims);
    if (s.covariance == lgm::covariance::spherical) log_variance.resize(classes);
    for (float& value : log_variance) value = 0.1f * uniform();
    features.resize(samples * dims);
    labels.resize(samples);
    for (std::size_t i = 0; i < samples; ++i) {
      labels[i] = static_cast<std::int32_t>(i * 977 % classes);
      for (std::size_t j = 0; j < dims; ++j)
        features[i * dims + j] = mean[size_of(labels[i]) * dims + j] + uniform();
    }
  }
  lgm::mixture<float> mixture() const {
    return {mean.data(), log_variance.empty() ? nullptr : log_variance.data(), nullptr};
  }

  struct row {
    double classification, likelihood;
    std::vector<double> feature;
  };
  // Plain pointers: the elements are many, and the compiler is not asked for speed here.
  row evaluate(std::size_t i) const {
    const std::size_t classes = size_of(shape.classes), dims = size_of(shape.dims), z = size_of(labels[i]);
    const std::size_t per_class = log_variance.size() / classes;
    const double alpha = static_cast<double>(options.alpha), lambda = static_cast<double>(options.lambda);
    std::vector<double> logit(classes), precision(dims, 1.0);
    row r{0, 0, std::vector<double>(dims, 0)};
    const float* const x = features.data() + i * dims;
    const auto variances_of = [&](std::size_t k) {
      double half_log_det = 0;
      for (std::size_t j = 0; j < dims && per_class > 0; ++j) {
        const auto value = static_cast<double>(log_variance[k * per_class + (per_class == 1 ? 0 : j)]);
        half_log_det += value / 2;
        precision[j] = std::exp(-value);
      }
      return half_log_det;
    };
    double largest = -std::numeric_limits<double>::infinity();
    for (std::size_t k = 0; k < classes; ++k) {
      const double half_log_det = variances_of(k);
      const float* const mu = mean.data() + k * dims;
      const double* const p = precision.data();
      double d = 0;
      for (std::size_t j = 0; j < dims; ++j) {
        const double difference = static_cast<double>(x[j]) - static_cast<double>(mu[j]);
        d += difference * difference * p[j] / 2;
      }
      logit[k] = -half_log_det - (k == z ? 1 + alpha : 1) * d;
      if (k == z) r.likelihood = d + half_log_det;
      largest = std::max(largest, logit[k]);
    }
    double sum = 0;
    for (const double l : logit) sum += std::exp(l - largest);
    r.classification = largest + std::log(sum) - logit[z];
    for (std::size_t k = 0; k < classes; ++k) {
      const double p = std::exp(logit[k] - largest) / sum;
      const double w = k == z ? (1 - p) * (1 + alpha) + lambda : -p;
      if (std::fabs(w) < 1e-15) continue;
      variances_of(k);
      for (std::size_t j = 0; j < dims; ++j)
        r.feature[j] +=
            w * precision[j] * (static_cast<double>(x[j]) - static_cast<double>(mean[k * dims + j]));
    }
    return r;
  }
};

void check_large(const lgm::shape& shape, std::initializer_list<std::size_t> rows) {
  CAPTURE(name_of(shape.covariance));
  const large_problem p(shape);
  const auto context = context_of(2);
  const std::size_t bytes = lgm::workspace_size<float, float>(context, shape);
  CHECK(bytes <= std::size_t{64} << 20);
  scratch memory(bytes);
  const std::size_t dims = size_of(shape.dims);
  std::vector<float> classification(p.labels.size()), likelihood(p.labels.size()), feature(p.features.size());
  std::vector<float> mean(p.mean.size()), log_variance(p.log_variance.size());
  lgm::loss_result<float> result;
  result.classification = classification.data();
  result.likelihood = likelihood.data();
  lgm::gradients<float, float> gradients;
  gradients.feature = feature.data();
  gradients.mean = mean.data();
  if (!log_variance.empty()) gradients.log_variance = log_variance.data();
  REQUIRE(lgm::forward_backward(context, shape, p.mixture(), p.options, p.features.data(), p.labels.data(),
                                nullptr, result, gradients, memory.get()) == status::success);
  CHECK(memory.intact());
  for (const std::size_t i : rows) {
    CAPTURE(i);
    const auto expected = p.evaluate(i);
    CHECK(expected.classification > 0.01);
    // Logits within the limit of 1e-4 on products, a few times over, and sums of 512 squares.
    CHECK(std::fabs(static_cast<double>(classification[i]) - expected.classification) <= 1e-3);
    CHECK(std::fabs(static_cast<double>(likelihood[i]) - expected.likelihood) <= 1e-3);
    double error = 0, scale = 0;
    for (std::size_t j = 0; j < dims; ++j) {
      error = std::max(error, std::fabs(static_cast<double>(feature[i * dims + j]) - expected.feature[j]));
      scale = std::max(scale, std::fabs(expected.feature[j]));
    }
    CHECK(error <= 1e-3 * scale);
  }
  // Every class's gradient was written, and together they balance the features' (all terms are pairs).
  bool finite = true;
  for (const float value : mean) finite = finite && std::isfinite(value);
  CHECK(finite);
  for (std::size_t j = 0; j < std::min<std::size_t>(dims, 5); ++j) {
    double from_means = 0, from_features = 0, size = 0;
    for (std::size_t k = 0; k < size_of(shape.classes); ++k) {
      from_means += static_cast<double>(mean[k * dims + j]);
      size += std::fabs(static_cast<double>(mean[k * dims + j]));
    }
    for (std::size_t i = 0; i < p.labels.size(); ++i)
      from_features += static_cast<double>(feature[i * dims + j]);
    CHECK(std::fabs(from_means + from_features) <= 1e-3 * size);
  }
}

}  // namespace

#ifdef LGM_TEST_SANITIZED
TEST_CASE("a large problem stays within its workspace") {
  check_large(make_shape(16, 100000, 16, lgm::covariance::identity), {0, 9});
  check_large(make_shape(16, 100000, 16, lgm::covariance::spherical), {3});
  check_large(make_shape(16, 100000, 16, lgm::covariance::diagonal), {15});
}
#else
TEST_CASE("a large problem stays within its workspace") {
  check_large(make_shape(1024, 100000, 512, lgm::covariance::identity), {0, 511, 1023});
  check_large(make_shape(128, 100000, 64, lgm::covariance::spherical), {0, 64, 127});
  check_large(make_shape(128, 100000, 64, lgm::covariance::diagonal), {0, 64, 127});
}
#endif
