// SPDX-License-Identifier: MIT
#include <gnu/libc-version.h>
#include <valgrind/callgrind.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <lgm/detail/host/gemm.hpp>
#include <lgm/detail/workspace.hpp>
#include <lgm/lgm.hpp>
#include <random>

// The cases whose instructions bench/regress counts, each in a dump of callgrind's with the case's name. Nothing
// differs from run to run: one thread, seeded inputs, and arrays at the same addresses. What else the counts depend
// on, the versions of the compiler, Eigen and the C library, goes to the standard output.

namespace {

using lgm::covariance;

void must(lgm::status answer) {
  if (answer == lgm::status::success) return;
  std::fprintf(stderr, "regress_cases: %s\n", lgm::to_string(answer));
  std::exit(1);
}

// A case finds zeros or what the one before left, the same in every run.
alignas(4096) char pool[8 << 20];

// All arrays of one case.
class memory {
 public:
  template <class T>
  T* take(std::int64_t count) {
    T* const piece = pieces_.take<T>(count);
    if (pieces_.bytes() <= sizeof pool) return piece;
    std::fprintf(stderr, "regress_cases: a case needs more memory than there is\n");
    std::exit(1);
  }
  lgm::workspace workspace(std::size_t bytes) {
    return {take<char>(static_cast<std::int64_t>(bytes)), bytes};
  }

 private:
  lgm::detail::arena pieces_{{pool, sizeof pool}};
};

// One copy of the code for both calls.
template <class F>
[[gnu::noinline]] lgm::status run(F& f) {
  return f();
}

// The second call of f is the case; the first binds the symbols of shared libraries.
template <class F>
void count(const char* name, F f) {
  must(run(f));
  CALLGRIND_TOGGLE_COLLECT;
  const lgm::status answer = run(f);
  CALLGRIND_TOGGLE_COLLECT;
  must(answer);
  CALLGRIND_DUMP_STATS_AT(name);
}

lgm::host_context one_thread() {
  lgm::host_context context;
  context.threads = 1;
  return context;
}

// Inputs of the sizes of a shape: classes that overlap a little, whatever the number of dimensions.
template <class T>
struct problem : memory {
  std::mt19937_64 random{1};
  lgm::shape shape;
  T *mean, *log_variance, *features;
  std::int64_t* labels;

  explicit problem(const lgm::shape& s)
      : shape(s),
        mean(numbers(s.classes * s.dims, 3.0 / std::sqrt(static_cast<double>(s.dims)))),
        log_variance(numbers(lgm::log_variance_size(s), 0.5)),
        features(numbers(s.samples * s.dims, std::sqrt(3.0))),
        labels(this->template take<std::int64_t>(s.samples)) {
    for (std::int64_t i = 0; i < s.samples; ++i) {
      labels[i] = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(s.classes));
      for (std::int64_t j = 0; j < s.dims; ++j) features[i * s.dims + j] += mean[labels[i] * s.dims + j];
    }
  }

  // Uniform in +- bound. The standard says what mt19937_64 gives, but not what its distributions make of it.
  T* numbers(std::int64_t count, double bound) {
    T* const data = this->template take<T>(count);
    for (std::int64_t i = 0; i < count; ++i)
      data[i] = static_cast<T>(bound * (static_cast<double>(random() >> 11) * 0x1p-52 - 1));
    return data;
  }
  T* zeros(std::int64_t count) {
    T* const data = this->template take<T>(count);
    std::fill_n(data, count, T(0));
    return data;
  }
  lgm::mixture<T> mixture() const { return {mean, log_variance}; }
  lgm::workspace scratch() { return this->workspace(lgm::workspace_size<T>(one_thread(), shape)); }
};

template <class T>
lgm::loss_options<T> margin() {
  lgm::loss_options<T> options;
  options.alpha = T(0.25);
  options.lambda = T(0.125);
  return options;
}

// The gradients of features and means; with variances those of all parameters.
template <class T>
lgm::gradients<T, T> gradients_of(problem<T>& p) {
  const lgm::shape& s = p.shape;
  lgm::gradients<T, T> g;
  g.feature = p.zeros(s.samples * s.dims);
  g.mean = p.zeros(s.classes * s.dims);
  if (s.covariance == covariance::identity) return g;
  g.log_variance = p.zeros(lgm::log_variance_size(s));
  g.log_prior = p.zeros(s.classes);
  return g;
}

// A training step's losses and gradients, for labels or soft targets.
template <class T, class Targets>
void count_step(const char* name, problem<T>& p, const Targets& targets) {
  lgm::loss_result<T> result;
  result.total = p.zeros(1);
  result.correct = p.template take<std::int64_t>(1);
  const lgm::gradients<T, T> gradients = gradients_of(p);
  const lgm::workspace scratch = p.scratch();
  count(name, [&] {
    return lgm::forward_backward(one_thread(), p.shape, p.mixture(), margin<T>(), p.features, targets,
                                 nullptr, result, gradients, scratch);
  });
}

template <class T>
void count_forward_backward(const char* name, const lgm::shape& s) {
  problem<T> p(s);
  count_step(name, p, p.labels);
}

void count_soft_targets(const char* name, const lgm::shape& s) {
  problem<float> p(s);
  float* const targets = p.zeros(s.samples * s.classes);
  for (std::int64_t i = 0; i < s.samples; ++i)
    for (std::int64_t k = 0; k < s.classes; ++k)
      targets[i * s.classes + k] = (k == p.labels[i] ? 0.75f : 0) + 0.25f / static_cast<float>(s.classes);
  count_step(name, p, lgm::soft_targets<float>{targets});
}

// Three products of the sizes of a training step, without the rest of it.
void count_products(const char* name, const lgm::shape& s) {
  using lgm::detail::gemm, lgm::detail::transposed;
  problem<float> p(s);
  const std::int64_t n = s.samples, c = s.classes, d = s.dims;
  float* const tile = p.zeros(n * c);
  const lgm::gradients<float, float> g = gradients_of(p);
  lgm::detail::arena sizes;
  lgm::detail::gemm_scratch<float> scratch;
  scratch.carve(sizes, std::max(n, c), std::max(c, d), std::max({n, c, d}));
  lgm::detail::arena pieces(p.workspace(sizes.bytes()));
  scratch.carve(pieces, std::max(n, c), std::max(c, d), std::max({n, c, d}));
  count(name, [&] {
    gemm<transposed::no, transposed::yes>(n, c, d, 1.0f, p.features, d, p.mean, d, tile, c, scratch);
    gemm<transposed::no, transposed::no>(n, d, c, 1.0f, tile, c, p.mean, d, g.feature, d, scratch);
    gemm<transposed::yes, transposed::no>(c, d, n, 1.0f, tile, c, p.features, d, g.mean, d, scratch);
    return lgm::status::success;
  });
}

void count_logits(const char* name, const lgm::shape& s) {
  problem<float> p(s);
  float* const out = p.zeros(s.samples * s.classes);
  const lgm::workspace scratch = p.scratch();
  count(name, [&] { return lgm::logits(one_thread(), p.shape, p.mixture(), p.features, out, scratch); });
}

// entropy: asked for with the other scores.
void count_score(const char* name, const lgm::shape& s, bool entropy) {
  problem<float> p(s);
  lgm::score_result<float> result;
  lgm::for_each_score(result, [&](const char*, auto*& array) {
    if constexpr (std::is_same<decltype(array), float*&>::value)
      array = p.zeros(s.samples);
    else
      array = p.take<std::int64_t>(s.samples);
  });
  if (!entropy) result.entropy = nullptr;
  const lgm::workspace scratch = p.scratch();
  count(name, [&] { return lgm::score(one_thread(), p.shape, p.mixture(), p.features, result, scratch); });
}

void count_sgd_step(const char* name, const lgm::shape& s) {
  problem<float> p(s);
  lgm::sgd_options<float> options;
  options.mean_rate = 0.125f;
  options.momentum = 0.875f;
  lgm::gradients<float, float> gradients;
  gradients.mean = p.numbers(s.classes * s.dims, 1);
  const lgm::parameters<float> velocity{p.zeros(s.classes * s.dims)};
  count(name, [&] { return lgm::sgd_step(one_thread(), p.shape, options, gradients, velocity, {p.mean}); });
}

// The second batch of an epoch: the first call's moments are there.
void count_accumulate_moments(const char* name, const lgm::shape& s) {
  problem<float> p(s);
  lgm::class_moments<float> moments;
  moments.count = p.zeros(s.classes);
  for (float** each : {&moments.mean, &moments.m2, &moments.mean_residual})
    *each = p.zeros(s.classes * s.dims);
  const lgm::workspace scratch = p.scratch();
  count(name, [&] {
    return lgm::accumulate_moments(one_thread(), p.shape, {}, p.features, p.labels, moments, scratch);
  });
}

}  // namespace

int main() {
  std::printf("compiler %s\neigen %s\nlibc %s\n", LGM_REGRESS_COMPILER, LGM_REGRESS_EIGEN,
              gnu_get_libc_version());

  constexpr auto identity = covariance::identity;
  count_products("three products 64x1000x64", {64, 1000, 64, identity});
  count_forward_backward<float>("forward_backward 128x10x64", {128, 10, 64, identity});
  count_forward_backward<float>("forward_backward 256x100x384", {256, 100, 384, identity});
  count_forward_backward<float>("forward_backward 64x1000x64", {64, 1000, 64, identity});
  count_forward_backward<float>("forward_backward 64x100x64 spherical", {64, 100, 64, covariance::spherical});
  count_forward_backward<float>("forward_backward 64x100x64 diagonal", {64, 100, 64, covariance::diagonal});
  count_forward_backward<double>("forward_backward 64x100x64 double", {64, 100, 64, identity});
  count_soft_targets("forward_backward 64x100x64 soft targets", {64, 100, 64, identity});
  count_logits("logits 64x100x64", {64, 100, 64, identity});
  count_score("score 128x100x64", {128, 100, 64, identity}, false);
  count_score("score 128x100x64 and entropy", {128, 100, 64, identity}, true);
  count_sgd_step("sgd_step 1000x64", {0, 1000, 64, identity});
  count_accumulate_moments("accumulate_moments 512x10x64", {512, 10, 64, identity});
}
