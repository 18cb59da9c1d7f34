// SPDX-License-Identifier: MIT
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <lgm/types.hpp>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/host.hpp"
#include "support/problem.hpp"
#if defined(LGM_BENCH_CUDA)
#include "support/cuda.hpp"
#endif

// What is measured, at which sizes, and how. A subject is a file of its own: a class
//
//   template <class Context, class T>
//   struct subject {
//     subject(const Context&, problem<Context, T>&);       // takes the memory that it needs besides the problem's
//     lgm::status run();                                    // once
//     std::int64_t workspace_bytes() const;                 // that it runs in
//     static cost cost_of(const lgm::shape&);
//   };
//
// and bench::add<subject>("name", {variants}), which registers it for every context, type and size under
// name/variant/type/context/samples x classes x dims/threads:n.

namespace bench {

// The kinds of context that subjects are compiled for: the host's, or for lgm_bench_cuda the device's.
template <class... Contexts>
struct kinds {};
#if defined(LGM_BENCH_CUDA)
using contexts = kinds<cuda>;
#else
using contexts = kinds<host>;
#endif

// What a subject has to do at least, in elements and operations, and which floor it is compared with.
struct cost {
  double operations;
  std::int64_t read, written;
  // Products of samples x classes x dims in the floor: 1 or 3, or 0 where memory is the limit.
  int floor_products;
};

// The parameters of a mixture, which are the sizes of their gradients too.
inline std::int64_t parameter_count(const lgm::shape& s) {
  return s.classes * s.dims + lgm::log_variance_size(s) + s.classes;
}
// Features, and their labels as about as much as a feature each.
inline std::int64_t sample_count(const lgm::shape& s) { return s.samples * (s.dims + 1); }
// `count` products with fixed variances; a diagonal covariance takes twice as many.
inline double product_operations(const lgm::shape& s, int count) {
  const double each = 2.0 * static_cast<double>(s.samples) * static_cast<double>(s.classes * s.dims);
  return each * count * (s.covariance == lgm::covariance::diagonal ? 2 : 1);
}

// Losses and all gradients.
inline cost step_cost(const lgm::shape& s) {
  return {product_operations(s, 3), sample_count(s) + parameter_count(s),
          s.samples * s.dims + parameter_count(s), 3};
}

// Bytes that a call of the library gets.
template <class Context, class T>
class call_workspace {
 public:
  call_workspace(const Context& c, const lgm::shape& s)
      : memory_(static_cast<std::int64_t>(lgm::workspace_size<T>(c.context, s))) {}
  std::int64_t bytes() const { return memory_.size(); }
  operator lgm::workspace() { return {memory_.data(), static_cast<std::size_t>(memory_.size())}; }

 private:
  typename Context::template array<char> memory_;
};

// The time that nothing could save: the products that a subject consists of, or the memory that it reads and writes.
template <class Context, class T>
class floor_of {
 public:
  floor_of(const Context& c, problem<Context, T>& p, const cost& what)
      : problem_(p), products_(what.floor_products) {
    const lgm::shape& s = p.shape;
    if (products_ == 0)
      pass_.emplace(c.context, what.read, what.written);
    else
      multiply_.emplace(c.context, s.samples, s.classes, s.dims);
  }
  void run() {
    if (products_ == 0)
      pass_->run();
    else if (products_ == 1)
      multiply_->forward(problem_.features.data(), problem_.mean.data());
    else
      multiply_->all(problem_.features.data(), problem_.mean.data(), problem_.feature_gradient.data(),
                     problem_.mean_gradient.data());
  }

 private:
  problem<Context, T>& problem_;
  int products_;
  std::optional<typename Context::template products<T>> multiply_;
  std::optional<typename Context::template memory_pass<T>> pass_;
};

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

// Whether any subject has failed so far.
inline bool& failed() {
  static bool any = false;
  return any;
}

// The seconds that a call takes.
template <class Context, class F>
class stopwatch {
 public:
  explicit stopwatch(F call) : call_(call) {}

  double take() {
    times_.push_back(Context::seconds([&] {
                       for (int n = 0; n < calls_; ++n) call_();
                     }) /
                     calls_);
    return times_.back() * calls_;
  }
  // From now on, so many calls at a time that the clock costs little.
  void settle() {
    constexpr double least = 5e-6;
    calls_ = static_cast<int>(std::clamp(least / times_.back(), 1.0, Context::most_calls));
    times_.clear();
  }
  int calls() const { return calls_; }
  std::size_t size() const { return times_.size(); }
  double middle() const { return median(times_); }

 private:
  F call_;
  int calls_ = 1;
  std::vector<double> times_;
};

// Times subject() and floor() in turns, so that what else the machine does meets both, and reports the median.
template <class Context, class Subject, class Floor>
void measure(benchmark::State& state, Subject subject, Floor floor) {
  // A few calls at least; but where one takes seconds it is a measurement of its own, the first one too, which pays
  // for memory that was never touched.
  constexpr std::size_t wanted = 3;
  constexpr double cold = 1, enough = 5;
  stopwatch<Context, Subject> mine(subject);
  stopwatch<Context, Floor> theirs(floor);
  double spent = 0;
  const auto take = [&] {
    const bool floor_first = mine.size() % 2 == 0;
    if (floor_first) spent += theirs.take();
    spent += mine.take();
    if (!floor_first) spent += theirs.take();
  };
  take();
  if (spent < cold) {
    take();
    mine.settle();
    theirs.settle();
  }
  benchmark::IterationCount iteration = 0;
  for (auto _ : state) {
    static_cast<void>(_);
    // Several calls at a time are as many iterations.
    if (iteration % mine.calls() == 0) {
      do take();
      while (mine.size() < wanted && spent < enough);
    }
    // The library divides the sum by the iterations: the last one brings the median's.
    const bool last = ++iteration == state.max_iterations;
    state.SetIterationTime(last ? mine.middle() * static_cast<double>(iteration) : 0);
  }
  state.counters["floor"] = mine.middle() / theirs.middle();
}

template <class T>
const char* type_name() {
  return std::is_same<T, float>::value ? "float" : "double";
}

// The problem of the last benchmark, which the next one often shares: no subject changes what others read.
template <class Context, class T>
problem<Context, T>& problem_at(const lgm::shape& s) {
  static std::unique_ptr<problem<Context, T>> last;
  if (last == nullptr || last->shape.samples != s.samples || last->shape.classes != s.classes ||
      last->shape.dims != s.dims || last->shape.covariance != s.covariance) {
    last.reset();
    last = std::make_unique<problem<Context, T>>(s);
  }
  return *last;
}

template <template <class, class> class Subject, class Context, class T>
void add_one(const std::string& prefix, const Context& c, const lgm::shape& s) {
  const std::string name = prefix + '/' + type_name<T>() + '/' + c.name + '/' + std::to_string(s.samples) +
                           'x' + std::to_string(s.classes) + 'x' + std::to_string(s.dims) +
                           "/threads:" + c.threads();
  const auto run = [c, s](benchmark::State& state) {
    c.enter();
    problem<Context, T>& p = problem_at<Context, T>(s);
    const cost what = Subject<Context, T>::cost_of(s);
    Subject<Context, T> subject(c, p);
    floor_of<Context, T> floor(c, p, what);
    lgm::status answer = lgm::status::success;
    measure<Context>(
        state,
        [&] {
          const lgm::status status = subject.run();
          if (answer == lgm::status::success) answer = status;
        },
        [&] { floor.run(); });
    using counter = benchmark::Counter;
    constexpr auto rate = counter::kIsIterationInvariantRate;
    state.counters["FLOP"] = counter(what.operations, rate);
    state.counters["bytes"] =
        counter(static_cast<double>(what.read + what.written) * sizeof(T), rate, counter::kIs1024);
    state.counters["workspace"] =
        counter(static_cast<double>(subject.workspace_bytes()), counter::kDefaults, counter::kIs1024);
    if (answer != lgm::status::success) {
      failed() = true;
      state.SkipWithError(lgm::to_string(answer));
    }
  };
  benchmark::RegisterBenchmark(name.c_str(), run)->UseManualTime()->Unit(benchmark::kMicrosecond);
}

// ---- which sizes ----

struct extent {
  std::int64_t samples, classes, dims;
};
constexpr extent shapes[] = {{128, 10, 2},       {128, 10, 64},      {256, 100, 384},    {1024, 1000, 512},
                             {4096, 1000, 2048}, {2048, 10000, 512}, {1024, 100000, 512}};

// What a subject is called in a name, and the covariance it has.
struct variant {
  const char* name;
  lgm::covariance covariance;
};
constexpr variant fixed{"fixed", lgm::covariance::identity},
    spherical{"spherical", lgm::covariance::spherical}, diagonal{"diagonal", lgm::covariance::diagonal};

inline lgm::shape shape_of(const extent& e, const variant& v) {
  lgm::shape s;
  s.samples = e.samples;
  s.classes = e.classes;
  s.dims = e.dims;
  s.covariance = v.covariance;
  return s;
}

template <template <class, class> class Subject, class T, class... Contexts>
void add_to(kinds<Contexts...>, const std::string& prefix, const lgm::shape& s, bool all_threads_only) {
  const auto add = [&](const auto& list) {
    for (const auto& c : list)
      if (!all_threads_only || c.threads() == list.back().threads())
        add_one<Subject, std::decay_t<decltype(c)>, T>(prefix, c, s);
  };
  (add(Contexts::all()), ...);
}

// At every shape of at most most_products in samples x classes x dims.
template <template <class, class> class Subject>
bool add(const std::string& name, std::initializer_list<variant> variants,
         std::int64_t most_products = std::numeric_limits<std::int64_t>::max()) {
  for (const extent& e : shapes)
    for (const variant& v : variants)
      if (e.samples * e.classes * e.dims <= most_products) {
        add_to<Subject, float>(contexts(), name + '/' + v.name, shape_of(e, v), false);
        add_to<Subject, double>(contexts(), name + '/' + v.name, shape_of(e, v), false);
      }
  return true;
}

// At sizes of its own, float, with all threads.
template <template <class, class> class Subject>
bool add_at(const std::string& name, const variant& v, std::initializer_list<extent> sizes) {
  for (const extent& e : sizes) add_to<Subject, float>(contexts(), name + '/' + v.name, shape_of(e, v), true);
  return true;
}

// Curves: one of samples, classes and dims grows, the others stay.
template <template <class, class> class Subject>
bool add_curves(const std::string& name, const variant& v) {
  const auto add = [&](const char* grows, const extent& e) {
    add_to<Subject, float>(contexts(), std::string("curve_") + grows + '/' + name + '/' + v.name,
                           shape_of(e, v), true);
  };
  for (std::int64_t n = 16; n <= 8192; n *= 2) add("samples", {n, 1000, 512});
  for (std::int64_t n = 16; n <= 65536; n *= 2) add("classes", {256, n, 256});
  for (std::int64_t n = 2; n <= 4096; n *= 2) add("dims", {512, 1000, n});
  return true;
}

}  // namespace bench
