// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "support/problem.hpp"
#include "support/tolerance.hpp"

// What a function answers to bad input, and that it then writes nothing; what it answers to empty input.

namespace {

using lgm::status;
using namespace support;

enum function : unsigned {
  forward_call = 1,
  backward_call = 2,
  fused_call = 4,
  margin_logits_call = 8,
  plain_logits_call = 16,
  score_call = 32,
  finish_call = 64,
  soft_forward_call = 128,
  soft_backward_call = 256,
  soft_fused_call = 512,
  soft_finish_call = 1024,
  slopes_call = 2048,  // logits_backward
  all_calls = 4095,
  labelled_calls = forward_call | backward_call | fused_call | finish_call,
  soft_calls = soft_forward_call | soft_backward_call | soft_fused_call | soft_finish_call,
  gradient_calls = backward_call | fused_call | soft_backward_call | soft_fused_call | slopes_call,
  loss_calls = labelled_calls | soft_calls | slopes_call,
  option_calls = loss_calls | margin_logits_call,
  ranged_calls = labelled_calls | margin_logits_call | slopes_call,  // whose labels must lie in the range
  state_calls = backward_call | finish_call | soft_backward_call | soft_finish_call,
  finish_calls = finish_call | soft_finish_call,
};

std::vector<unsigned> functions_of(unsigned mask) {
  std::vector<unsigned> all;
  for (unsigned f = 1; f <= all_calls; f *= 2)
    if (mask & f) all.push_back(f);
  return all;
}

std::string name_of_function(unsigned f) {
  switch (f) {
    case forward_call: return "forward";
    case backward_call: return "backward";
    case fused_call: return "forward_backward";
    case margin_logits_call: return "logits with labels";
    case plain_logits_call: return "logits";
    case finish_call: return "finish_forward";
    case soft_forward_call: return "forward, soft";
    case soft_backward_call: return "backward, soft";
    case soft_fused_call: return "forward_backward, soft";
    case soft_finish_call: return "finish_forward, soft";
    case slopes_call: return "logits_backward";
    default: return "score";
  }
}

// The arguments of every function, all valid, for a test to spoil one.
template <class T>
struct arguments {
  problem<T> p;
  outputs<T> out;
  guarded<T> logits_out;
  score_outputs<T> score_out;
  std::vector<T> row_states, soft, slopes;
  scratch memory;

  lgm::host_context context;
  lgm::shape shape;
  lgm::mixture<T> mixture;
  lgm::loss_options<T> options;
  const T* features;
  const std::int64_t* labels;
  const T* row_state;
  const T* upstream = nullptr;
  const T* grad_logits;
  lgm::soft_targets<T> targets;
  lgm::loss_result<T> result, parts;  // parts: of finish_forward
  lgm::gradients<T, T> gradients;
  T* logits;
  lgm::score_result<T> scores;
  lgm::workspace workspace;

  explicit arguments(lgm::covariance covariance)
      : p(make_problem<T>(81, make_shape(6, 4, 3, covariance), {}, {1, 1, 1, 0, 0})),
        out(p),
        logits_out(6, 4),
        score_out(p.shape),
        row_states(12, T(-1)),
        soft(24, T(0.25)),
        slopes(24, T(0.5)),
        memory(lgm::workspace_size<T, T>(context_of(1), p.shape)),
        context(context_of(1)),
        shape(p.shape),
        mixture(p.mixture()),
        options(p.options),
        features(p.features.data()),
        labels(p.labels.data()),
        row_state(row_states.data()),
        grad_logits(slopes.data()),
        targets{soft.data()},
        result(out.result()),
        parts(out.result()),
        gradients(out.gradients()),
        logits(logits_out.data()),
        scores(score_out.result()),
        workspace(memory.get()) {
    // What finish_forward can tell.
    parts.row_state = nullptr;
    parts.correct = nullptr;
  }

  template <class L>
  status call_with(unsigned f, const L* own_labels) {
    switch (f) {
      case forward_call:
        return lgm::forward(context, shape, mixture, options, features, own_labels, result, workspace);
      case backward_call:
        return lgm::backward(context, shape, mixture, options, features, own_labels, row_state, upstream,
                             gradients, workspace);
      case fused_call:
        return lgm::forward_backward(context, shape, mixture, options, features, own_labels, upstream, result,
                                     gradients, workspace);
      case margin_logits_call:
        return lgm::logits(context, shape, mixture, options, features, own_labels, logits, workspace);
      case plain_logits_call: return lgm::logits(context, shape, mixture, features, logits, workspace);
      case finish_call:
        return lgm::finish_forward(context, shape, mixture, options, features, own_labels, row_state, parts,
                                   workspace);
      case soft_forward_call:
        return lgm::forward(context, shape, mixture, options, features, targets, result, workspace);
      case soft_backward_call:
        return lgm::backward(context, shape, mixture, options, features, targets, row_state, upstream,
                             gradients, workspace);
      case soft_fused_call:
        return lgm::forward_backward(context, shape, mixture, options, features, targets, upstream, result,
                                     gradients, workspace);
      case soft_finish_call:
        return lgm::finish_forward(context, shape, mixture, options, features, targets, row_state, parts,
                                   workspace);
      case slopes_call:
        return lgm::logits_backward(context, shape, mixture, options, features, own_labels, grad_logits,
                                    upstream, gradients, workspace);
      default: return lgm::score(context, shape, mixture, features, scores, workspace);
    }
  }
  status call(unsigned f) { return call_with(f, labels); }
  bool untouched() const {
    return out.untouched() && logits_out.untouched() && score_out.untouched() && memory.intact();
  }
};

template <class T>
struct row {
  std::string name;
  unsigned functions;
  status expected;
  std::function<void(arguments<T>&)> spoil;
};

template <class T>
std::vector<row<T>> table() {
  using A = arguments<T>;
  const T nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
  std::vector<row<T>> rows;
  const auto add = [&](const std::string& name, unsigned f, status expected, std::function<void(A&)> spoil) {
    rows.push_back({name, f, expected, std::move(spoil)});
  };
  add("features null", all_calls, status::null_pointer, [](A& a) { a.features = nullptr; });
  add("mean null", all_calls, status::null_pointer, [](A& a) { a.mixture.mean = nullptr; });
  add("labels null", labelled_calls, status::null_pointer, [](A& a) { a.labels = nullptr; });
  add("row_state null", state_calls, status::null_pointer, [](A& a) { a.row_state = nullptr; });
  add("grad_logits null", slopes_call, status::null_pointer, [](A& a) { a.grad_logits = nullptr; });
  add("targets null", soft_calls, status::null_pointer, [](A& a) { a.targets.data = nullptr; });
  add("workspace null", all_calls, status::null_pointer, [](A& a) { a.workspace.data = nullptr; });
  add("workspace a byte short", all_calls, status::workspace_too_small, [](A& a) { --a.workspace.bytes; });
  add("workspace empty", all_calls, status::workspace_too_small, [](A& a) { a.workspace.bytes = 0; });

  add("samples negative", all_calls, status::negative_size, [](A& a) { a.shape.samples = -1; });
  add("classes negative", all_calls, status::negative_size, [](A& a) { a.shape.classes = -1; });
  add("dims negative", all_calls, status::negative_size, [](A& a) { a.shape.dims = -1; });
  add("total_classes negative", all_calls, status::negative_size, [](A& a) { a.shape.total_classes = -1; });
  add("dims most negative", all_calls, status::negative_size,
      [](A& a) { a.shape.dims = std::numeric_limits<std::int64_t>::min(); });
  add("threads negative", all_calls, status::negative_size, [](A& a) { a.context.threads = -1; });
  add("sizes too large", all_calls, status::size_too_large,
      [](A& a) { a.shape.samples = a.shape.classes = a.shape.dims = std::int64_t{1} << 40; });
  add("largest sizes", all_calls, status::size_too_large, [](A& a) {
    a.shape.samples = a.shape.classes = a.shape.dims = std::numeric_limits<std::int64_t>::max();
  });

  add("the whole mixture too large", all_calls, status::size_too_large,
      [](A& a) { a.shape.total_classes = std::numeric_limits<std::int64_t>::max() / 16; });

  const std::int64_t far = std::numeric_limits<std::int64_t>::max() / 16;
  add("feature_stride too large", all_calls, status::size_too_large,
      [=](A& a) { a.shape.feature_stride = far; });
  add("gradient_stride too large", gradient_calls, status::size_too_large,
      [=](A& a) { a.shape.gradient_stride = far; });
  add("logits_stride too large", margin_logits_call | plain_logits_call | slopes_call, status::size_too_large,
      [=](A& a) { a.shape.logits_stride = far; });

  add("feature_stride small", all_calls, status::stride_too_small, [](A& a) { a.shape.feature_stride = 2; });
  add("feature_stride negative", all_calls, status::stride_too_small,
      [](A& a) { a.shape.feature_stride = -3; });
  add("gradient_stride small", gradient_calls, status::stride_too_small,
      [](A& a) { a.shape.gradient_stride = 2; });
  add("gradient_stride negative", gradient_calls, status::stride_too_small,
      [](A& a) { a.shape.gradient_stride = -3; });
  add("logits_stride small", margin_logits_call | plain_logits_call, status::stride_too_small,
      [](A& a) { a.shape.logits_stride = 3; });
  add("logits_stride negative", margin_logits_call | plain_logits_call, status::stride_too_small,
      [](A& a) { a.shape.logits_stride = -4; });

  add("logits_stride small", slopes_call, status::stride_too_small, [](A& a) { a.shape.logits_stride = 3; });
  add("target stride small", soft_calls, status::stride_too_small, [](A& a) { a.targets.stride = 3; });
  add("target stride negative", soft_calls, status::stride_too_small, [](A& a) { a.targets.stride = -4; });
  add("target stride too large", soft_calls, status::size_too_large,
      [](A& a) { a.targets.stride = std::numeric_limits<std::int64_t>::max() / 2; });

  add("class range past the end", all_calls, status::invalid_class_range, [](A& a) {
    a.shape.class_begin = 7;
    a.shape.total_classes = 10;
  });
  add("class range that begins past the end", all_calls, status::invalid_class_range, [](A& a) {
    a.shape.class_begin = 11;
    a.shape.total_classes = 10;
  });
  add("class range before the start", all_calls, status::invalid_class_range, [](A& a) {
    a.shape.class_begin = -1;
    a.shape.total_classes = 10;
  });
  add("fewer classes in all than here", all_calls, status::invalid_class_range,
      [](A& a) { a.shape.total_classes = 3; });

  for (const T value : {T(-0.5), -infinity, infinity, nan}) {
    add("alpha bad", option_calls, status::invalid_alpha, [=](A& a) { a.options.alpha = value; });
    add("lambda bad", loss_calls, status::invalid_lambda, [=](A& a) { a.options.lambda = value; });
  }
  for (const T value : {T(-0.5), T(1), infinity, nan})
    add("gradient_filter bad", loss_calls, status::invalid_option,
        [=](A& a) { a.options.gradient_filter = value; });
  for (const T value :
       {T(-0.5), T(1.5), -std::numeric_limits<T>::min(), std::nextafter(T(1), T(2)), infinity, nan})
    add("label_smoothing bad", loss_calls, status::invalid_label_smoothing,
        [=](A& a) { a.options.label_smoothing = value; });
  add("covariance unknown", all_calls, status::invalid_option,
      [](A& a) { a.shape.covariance = static_cast<lgm::covariance>(7); });
  add("reduction unknown", loss_calls, status::invalid_option,
      [](A& a) { a.options.reduction = static_cast<lgm::reduction>(7); });

  for (const std::int64_t value :
       {std::int64_t{-1}, std::int64_t{4}, std::int64_t{-99}, std::int64_t{1} << 40,
        std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()})
    for (const std::size_t at : {std::size_t{0}, std::size_t{5}})
      add("label out of range", ranged_calls, status::label_out_of_range,
          [=](A& a) { a.p.labels[at] = value; });
  // On a shard labels count the whole mixture.
  add("label beyond the whole mixture", ranged_calls, status::label_out_of_range, [](A& a) {
    a.shape.class_begin = 2;
    a.shape.total_classes = 10;
    a.p.labels[3] = 10;
  });
  add("row_state from finish_forward", finish_calls, status::invalid_option,
      [](A& a) { a.parts.row_state = a.out.row_state.data(); });
  add("correct from finish_forward", finish_calls, status::invalid_option,
      [](A& a) { a.parts.correct = a.out.correct.data(); });
  return rows;
}

}  // namespace

TEST_CASE_TEMPLATE("valid arguments succeed", T, float, double) {
  for (const auto covariance : covariances)
    for (const unsigned f : functions_of(all_calls)) {
      arguments<T> a(covariance);
      CAPTURE(name_of_function(f));
      CHECK(a.call(f) == status::success);
      CHECK_FALSE(a.untouched());
    }
}

TEST_CASE_TEMPLATE("bad arguments have a status of their own and nothing is written", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto& entry : table<T>())
      for (const unsigned f : functions_of(entry.functions)) {
        arguments<T> a(covariance);
        entry.spoil(a);
        const status answer = a.call(f);
        CHECK_MESSAGE(answer == entry.expected, name_of_function(f)
                                                    << ", " << name_of(covariance) << ", " << entry.name
                                                    << ": " << std::string(lgm::to_string(answer)));
        CHECK_MESSAGE(a.untouched(), name_of_function(f)
                                         << ", " << name_of(covariance) << ", " << entry.name);
      }
}

TEST_CASE("bad arguments do not upset workspace_size") {
  for (const auto& entry : table<float>()) {
    arguments<float> a(lgm::covariance::diagonal);
    entry.spoil(a);
    // Whatever it answers, it answers: no trap, no exception. The call itself names what is wrong.
    const volatile std::size_t bytes = lgm::workspace_size<float, float>(a.context, a.shape);
    (void)bytes;
  }
}

TEST_CASE_TEMPLATE("labels out of range are refused in every type", L, std::int32_t, std::int64_t,
                   std::uint8_t, signed char, unsigned, long long, std::size_t) {
  for (const unsigned f : functions_of(ranged_calls)) {
    CAPTURE(name_of_function(f));
    arguments<float> a(lgm::covariance::diagonal);
    std::vector<L> labels{0, 1, 2, 3, 0, 4};
    CHECK(a.call_with(f, labels.data()) == status::label_out_of_range);
    CHECK(a.untouched());
    labels[5] = static_cast<L>(-1);  // 255 as a uint8_t
    CHECK(a.call_with(f, labels.data()) == status::label_out_of_range);
    CHECK(a.untouched());
    a.options.ignore_label = static_cast<std::int64_t>(labels[5]);
    CHECK(a.call_with(f, labels.data()) == status::success);
  }
}

TEST_CASE("an out-of-range label is found in any tile, by any thread") {
  const auto p = make_problem<float>(82, make_shape(300, 40, 8, lgm::covariance::identity));
  for (const std::size_t at : {std::size_t{0}, std::size_t{150}, std::size_t{299}})
    for (const int threads : {1, 3}) {
      auto bad = p;
      bad.labels[at] = 40;
      outputs<float> out(bad);
      CHECK(forward_backward(context_of(threads, 1 << 12), bad, out) == status::label_out_of_range);
      CHECK(out.untouched());
      CHECK(forward(context_of(threads, 1 << 12), bad, out.result()) == status::label_out_of_range);
      CHECK(out.untouched());
    }
}

TEST_CASE_TEMPLATE("a pointer that is not needed may be null", T, float, double) {
  arguments<T> a(lgm::covariance::diagonal);
  a.mixture.log_variance = a.mixture.log_prior = nullptr;
  a.result = {};
  a.parts = {};
  a.gradients = {};
  a.scores = {};
  for (const unsigned f : functions_of(all_calls & ~(margin_logits_call | plain_logits_call)))
    CHECK(a.call(f) == status::success);
  CHECK(a.untouched());
  a.labels = nullptr;
  CHECK(a.call(margin_logits_call) == status::success);
  CHECK(a.call(slopes_call) == status::success);
}

TEST_CASE_TEMPLATE("every function takes a shard of the classes", T, float, double) {
  for (const auto covariance : covariances)
    for (const std::int64_t begin : {0, 2, 6}) {
      arguments<T> a(covariance);
      a.shape.class_begin = begin;
      a.shape.total_classes = 10;
      // Labels here, before and after, to the ends of the whole.
      a.p.labels = {0, 9, begin, begin + 3, 5, a.options.ignore_label};
      for (const unsigned f : functions_of(all_calls)) {
        CAPTURE(name_of_function(f));
        CHECK(a.call(f) == status::success);
      }
    }
}

TEST_CASE_TEMPLATE("merge_row_state refuses bad arguments", T, float, double) {
  const std::vector<T> from(12, T(-1));
  const auto call = [&](const lgm::host_context& context, const lgm::shape& shape, const T* source, T* into) {
    return lgm::merge_row_state(context, shape, source, into);
  };
  guarded<T> into(6, 2);
  const lgm::shape good = make_shape(6, 4, 3, lgm::covariance::diagonal);
  const auto check = [&](status expected, const lgm::host_context& context, const lgm::shape& shape,
                         bool from_given = true, bool into_given = true) {
    const status answer =
        call(context, shape, from_given ? from.data() : nullptr, into_given ? into.data() : nullptr);
    CHECK_MESSAGE(answer == expected, std::string(lgm::to_string(answer)));
    CHECK(into.untouched());
  };
  check(status::null_pointer, context_of(1), good, false, true);
  check(status::null_pointer, context_of(1), good, true, false);
  check(status::negative_size, context_of(-1), good);
  auto bad = good;
  bad.samples = -6;
  check(status::negative_size, context_of(1), bad);
  bad = good;
  bad.class_begin = 7;
  bad.total_classes = 10;
  check(status::invalid_class_range, context_of(1), bad);
  bad = good;
  bad.samples = std::numeric_limits<std::int64_t>::max();
  check(status::size_too_large, context_of(1), bad);
  bad = good;
  bad.samples = 0;
  check(status::success, context_of(1), bad, false, false);
}

TEST_CASE_TEMPLATE("a label to ignore may be any number, also on a shard", T, float, double) {
  for (const std::int64_t ignored :
       {std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()})
    for (const unsigned f : functions_of(ranged_calls)) {
      CAPTURE(name_of_function(f));
      arguments<T> a(lgm::covariance::spherical);
      a.shape.class_begin = 8;
      a.shape.total_classes = 12;
      a.options.ignore_label = ignored;
      std::fill(a.p.labels.begin(), a.p.labels.end(), ignored);
      CHECK(a.call(f) == status::success);
    }
}

TEST_CASE_TEMPLATE("rows without elements have no memory, whatever their stride", T, float, double) {
  for (const unsigned f : functions_of(all_calls)) {
    CAPTURE(name_of_function(f));
    arguments<T> a(lgm::covariance::diagonal);
    a.shape.dims = 0;
    a.shape.feature_stride = 5;
    a.features = nullptr;
    CHECK(a.call(f) == status::success);
  }
  arguments<T> a(lgm::covariance::diagonal);
  a.shape.classes = 0;
  a.shape.logits_stride = 5;
  a.targets = {nullptr, 5};
  a.grad_logits = a.logits = nullptr;
  for (const unsigned f : functions_of(soft_calls | plain_logits_call)) CHECK(a.call(f) == status::success);
  a.options.ignore_label = 0;
  std::fill(a.p.labels.begin(), a.p.labels.end(), 0);
  CHECK(a.call(slopes_call) == status::success);
}

TEST_CASE_TEMPLATE("a stride equal to the row is packed", T, float, double) {
  arguments<T> a(lgm::covariance::diagonal), b(lgm::covariance::diagonal);
  b.shape.feature_stride = b.shape.gradient_stride = 3;
  b.shape.logits_stride = 4;
  b.targets.stride = 4;
  for (const unsigned f : functions_of(all_calls)) {
    CHECK(a.call(f) == status::success);
    CHECK(b.call(f) == status::success);
  }
  a.out.check_same_bits(b.out);
  CHECK(a.logits_out.same_bits(b.logits_out));
  a.score_out.check_same_bits(b.score_out);
}

TEST_CASE_TEMPLATE("a bad value behind alpha_at: losses are NaN, gradients zero", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions)
      for (const T value : {T(-1), std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity()}) {
        CAPTURE(name_of(covariance));
        CAPTURE(name_of(reduction));
        CAPTURE(static_cast<double>(value));
        lgm::loss_options<T> options;
        options.lambda = T(0.1);
        options.reduction = reduction;
        auto p = make_problem<T>(83, make_shape(14, 5, 6, covariance), options);
        p.options.alpha_at = &value;
        outputs<T> fused(p), apart(p);
        REQUIRE(forward_backward(context_of(1), p, fused) == status::success);
        REQUIRE(forward(context_of(1), p, apart.result()) == status::success);
        REQUIRE(backward(context_of(1), p, apart.row_state.data(), apart.gradients()) == status::success);
        for (const auto* out : {&fused, &apart}) {
          out->check_intact();
          for (std::size_t i = 0; i < out->total.size(); ++i) {
            if (reduction == lgm::reduction::none && p.ignored(i)) continue;
            CHECK(std::isnan(out->total[i]));
            CHECK(std::isnan(out->classification[i]));
          }
          CHECK(out->feature.all_zero());
          CHECK(out->mean.all_zero());
          CHECK(out->log_variance.all_zero());
          CHECK(out->log_prior.all_zero());
        }
      }
}

TEST_CASE("what alpha_at overrides may be anything") {
  const double alpha = 0.25;
  auto p = make_problem<double>(83, make_shape(14, 5, 6, lgm::covariance::diagonal));
  p.options.alpha = alpha;
  outputs<double> expected(p), out(p);
  REQUIRE(forward_backward(context_of(1), p, expected) == status::success);
  p.options.alpha = -1;
  p.options.alpha_at = &alpha;
  REQUIRE(forward_backward(context_of(1), p, out) == status::success);
  out.check_same_bits(expected);
}

TEST_CASE_TEMPLATE("no samples, or all ignored: zero under sum, NaN under mean, gradients zero", T, float,
                   double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions)
      for (const std::int64_t samples : {0, 1, 9})
        for (const int threads : {1, 2}) {
          CAPTURE(name_of(covariance));
          CAPTURE(name_of(reduction));
          CAPTURE(samples);
          lgm::loss_options<T> options;
          options.alpha = T(0.2);
          options.lambda = T(0.1);
          options.reduction = reduction;
          auto p = make_problem<T>(84, make_shape(samples, 4, 5, covariance), options, {1, 1, 1, 1, 0});
          outputs<T> fused(p), apart(p);
          const auto context = context_of(threads);
          REQUIRE(forward_backward(context, p, fused) == status::success);
          REQUIRE(forward(context, p, apart.result()) == status::success);
          REQUIRE(backward(context, p, apart.row_state.data(), apart.gradients()) == status::success);
          for (const auto* out : {&fused, &apart}) {
            out->check_intact();
            CHECK(out->counted[0] == 0);
            CHECK(out->correct[0] == 0);
            if (reduction == lgm::reduction::mean) {
              CHECK(std::isnan(out->total[0]));
              CHECK(std::isnan(out->classification[0]));
              CHECK(std::isnan(out->likelihood[0]));
            } else {
              CHECK(out->total.all_zero());
              CHECK(out->classification.all_zero());
              CHECK(out->likelihood.all_zero());
            }
            CHECK(out->log_evidence.all_zero());
            CHECK(out->feature.all_zero());
            CHECK(out->mean.all_zero());
            CHECK(out->log_variance.all_zero());
            CHECK(out->log_prior.all_zero());
          }
        }
}

TEST_CASE_TEMPLATE("no samples need no arrays of samples", T, float, double) {
  for (const unsigned f : functions_of(all_calls)) {
    CAPTURE(name_of_function(f));
    arguments<T> a(lgm::covariance::diagonal);
    a.shape.samples = 0;
    a.features = nullptr;
    a.labels = nullptr;
    a.row_state = nullptr;
    a.targets.data = nullptr;
    a.grad_logits = nullptr;
    a.result.row_state = a.result.log_evidence = a.parts.log_evidence = nullptr;
    a.gradients.feature = nullptr;
    a.options.reduction = lgm::reduction::sum;
    CHECK(a.call(f) == status::success);
    CHECK(a.logits_out.untouched());
    CHECK(a.score_out.untouched());
    if (f & gradient_calls) {
      CHECK(a.out.mean.all_zero());
      CHECK(a.out.log_variance.all_zero());
      CHECK(a.out.log_prior.all_zero());
    }
    if (f & loss_calls & ~(backward_call | soft_backward_call | slopes_call)) {
      CHECK(a.out.total[0] == T(0));
      CHECK(a.out.counted[0] == 0);
    }
  }
}

TEST_CASE_TEMPLATE("no samples clear what is asked for and leave the rest", T, float, double) {
  for (const unsigned f : functions_of(gradient_calls)) {
    CAPTURE(name_of_function(f));
    for (const int left_out : {0, 1, 2}) {
      CAPTURE(left_out);
      arguments<T> a(lgm::covariance::diagonal);
      a.shape.samples = 0;
      if (left_out == 0) a.gradients.mean = nullptr;
      if (left_out == 1) a.gradients.log_variance = nullptr;
      if (left_out == 2) a.gradients.log_prior = nullptr;
      REQUIRE(a.call(f) == status::success);
      int array = 0;
      for (const auto* gradient : {&a.out.mean, &a.out.log_variance, &a.out.log_prior}) {
        if (array++ == left_out)
          CHECK(gradient->untouched());
        else
          CHECK(gradient->all_zero());
      }
    }
  }
}

TEST_CASE_TEMPLATE("calls without classes or dimensions succeed", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions) {
      CAPTURE(name_of(covariance));
      lgm::loss_options<T> options;
      options.alpha = T(0.2);
      options.lambda = T(0.1);
      options.reduction = reduction;
      // Without classes every label must be the ignored one.
      auto none = make_problem<T>(85, make_shape(5, 0, 3, covariance), options);
      outputs<T> out(none);
      REQUIRE(forward_backward(context_of(1), none, out) == status::success);
      out.check_intact();
      CHECK(out.feature.all_zero());
      CHECK(out.counted[0] == 0);
      none.labels[2] = 0;
      outputs<T> refused(none);
      CHECK(forward_backward(context_of(1), none, refused) == status::label_out_of_range);
      CHECK(refused.untouched());
      // Without dimensions only the priors speak.
      const auto flat = make_problem<T>(86, make_shape(5, 3, 0, covariance), options);
      outputs<T> priors(flat);
      REQUIRE(forward_backward(context_of(1), flat, priors) == status::success);
      priors.check_intact();
      check_all(flat, priors);
    }
}

TEST_CASE_TEMPLATE("updates refuse bad arguments", T, float, double) {
  const lgm::shape good = make_shape(0, 3, 2, lgm::covariance::diagonal);
  const T nan = std::numeric_limits<T>::quiet_NaN(), infinity = std::numeric_limits<T>::infinity();
  std::vector<T> slope(6, T(1));
  struct step_arguments {
    lgm::host_context context = context_of(1);
    lgm::shape shape;
    lgm::sgd_options<T> options;
    lgm::gradients<T, T> gradients;
    lgm::parameters<T> momentum, parameters;
  };
  struct entry {
    std::string name;
    status expected;
    std::function<void(step_arguments&)> spoil;
  };
  std::vector<entry> entries{
      {"classes negative", status::negative_size, [](step_arguments& a) { a.shape.classes = -1; }},
      {"dims negative", status::negative_size, [](step_arguments& a) { a.shape.dims = -1; }},
      {"threads negative", status::negative_size, [](step_arguments& a) { a.context.threads = -2; }},
      {"sizes too large", status::size_too_large,
       [](step_arguments& a) { a.shape.classes = a.shape.dims = std::int64_t{1} << 40; }},
      {"momentum one", status::invalid_option, [](step_arguments& a) { a.options.momentum = T(1); }},
      {"bounds crossed", status::invalid_option,
       [](step_arguments& a) {
         a.options.min_log_variance = T(1);
         a.options.max_log_variance = T(-1);
       }},
      {"bound NaN", status::invalid_option, [=](step_arguments& a) { a.options.min_log_variance = nan; }},
      {"momentum buffer null", status::null_pointer, [](step_arguments& a) { a.momentum.mean = nullptr; }},
      {"covariance unknown", status::invalid_option,
       [](step_arguments& a) { a.shape.covariance = static_cast<lgm::covariance>(9); }},
      {"class range bad", status::invalid_class_range,
       [](step_arguments& a) {
         a.shape.class_begin = 2;
         a.shape.total_classes = 4;
       }},
  };
  for (const T value : {T(-1), nan, infinity}) {
    entries.push_back(
        {"mean_rate", status::invalid_option, [=](step_arguments& a) { a.options.mean_rate = value; }});
    entries.push_back({"log_variance_rate", status::invalid_option,
                       [=](step_arguments& a) { a.options.log_variance_rate = value; }});
    entries.push_back({"log_prior_rate", status::invalid_option,
                       [=](step_arguments& a) { a.options.log_prior_rate = value; }});
    entries.push_back(
        {"momentum", status::invalid_option, [=](step_arguments& a) { a.options.momentum = value; }});
    entries.push_back(
        {"weight_decay", status::invalid_option, [=](step_arguments& a) { a.options.weight_decay = value; }});
  }
  for (const auto& e : entries) {
    guarded<T> mean(3, 2), log_variance(3, 2), log_prior(3), v_mean(3, 2), v_log_variance(3, 2),
        v_log_prior(3);
    step_arguments a;
    a.shape = good;
    a.options.mean_rate = a.options.log_variance_rate = a.options.log_prior_rate = T(0.1);
    a.options.momentum = T(0.5);
    a.gradients.mean = a.gradients.log_variance = a.gradients.log_prior = slope.data();
    a.momentum = {v_mean.data(), v_log_variance.data(), v_log_prior.data()};
    a.parameters = {mean.data(), log_variance.data(), log_prior.data()};
    e.spoil(a);
    const status answer = lgm::sgd_step(a.context, a.shape, a.options, a.gradients, a.momentum, a.parameters);
    CHECK_MESSAGE(answer == e.expected, e.name << ": " << std::string(lgm::to_string(answer)));
    CHECK_MESSAGE((mean.untouched() && log_variance.untouched() && log_prior.untouched() &&
                   v_mean.untouched() && v_log_variance.untouched() && v_log_prior.untouched()),
                  e.name);
  }

  guarded<T> mean(3, 2);
  lgm::shape bad = good;
  bad.classes = -1;
  CHECK(lgm::initialize_means(context_of(1), bad, 1, T(1), lgm::parameters<T>{mean.data()}) ==
        status::negative_size);
  bad = good;
  bad.dims = -1;
  CHECK(lgm::initialize_means(context_of(1), bad, 1, T(1), lgm::parameters<T>{mean.data()}) ==
        status::negative_size);
  bad.dims = bad.classes = std::int64_t{1} << 40;
  CHECK(lgm::initialize_means(context_of(1), bad, 1, T(1), lgm::parameters<T>{mean.data()}) ==
        status::size_too_large);
  for (const T scale : {infinity, nan})
    CHECK(lgm::initialize_means(context_of(1), good, 1, scale, lgm::parameters<T>{mean.data()}) ==
          status::invalid_option);
  CHECK(mean.untouched());
}
