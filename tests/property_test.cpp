// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "support/cases.hpp"
#include "support/problem.hpp"
#include "support/tolerance.hpp"

// What must hold between calls, whatever the numbers are.

namespace {

using lgm::status;
using namespace support;

// Largest difference between two buffers as a share of the second's largest magnitude (at least 1).
template <class Buffer>
double difference(const Buffer& a, const Buffer& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0, scale = 1;
  for (std::size_t n = 0; n < a.size(); ++n) {
    if (a[n] == b[n]) continue;
    worst = std::max(worst, std::fabs(static_cast<double>(a[n]) - static_cast<double>(b[n])));
    scale = std::max(scale, std::fabs(static_cast<double>(b[n])));
    if (std::isnan(worst)) return worst;
  }
  return worst / scale;
}

// 64-bit sums of some thousand terms, each with a few roundings.
constexpr double close = 1e-11;

std::vector<std::size_t> permutation(generator& random, std::size_t n) {
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t i = n; i > 1; --i)
    std::swap(order[i - 1], order[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(i)))]);
  return order;
}

}  // namespace

TEST_CASE("moving features and means together changes nothing") {
  for (const auto covariance : covariances)
    for (const unsigned mask : {no_extras, weights | smoothing, soft | weights | smoothing}) {
      CAPTURE(name_of(covariance));
      CAPTURE(mask);
      auto p = make_problem<double>(41, make_shape(40, 9, 14, covariance),
                                    margin_options<double>(lgm::reduction::mean));
      give(p, 41, extras_of(mask));
      auto moved = p;
      for (std::size_t j = 0; j < p.dims(); ++j) {
        const double by = 3.7 * static_cast<double>(j) - 11;
        for (std::size_t i = 0; i < p.samples(); ++i) moved.feature(i, j) += by;
        for (std::size_t k = 0; k < p.classes(); ++k) moved.mean[k * p.dims() + j] += by;
      }
      outputs<double> before(p), after(p);
      REQUIRE(forward_backward(context_of(1), p, before) == status::success);
      REQUIRE(forward_backward(context_of(1), moved, after) == status::success);
      before.each(after, [&](const std::string& name, const auto& a, const auto& b) {
        // A far sample's state may count from a point that has not moved along.
        if (name != "row_state" || covariance == lgm::covariance::diagonal)
          CHECK_MESSAGE(difference(a, b) <= close, name);
      });
    }
}

TEST_CASE("the order of samples does not matter") {
  generator random(42);
  for (const auto covariance : covariances)
    for (const auto reduction : reductions) {
      CAPTURE(name_of(covariance));
      auto p = make_problem<double>(42, make_shape(50, 8, 11, covariance), margin_options<double>(reduction));
      const unsigned mask = static_cast<unsigned>(random.below(32));
      CAPTURE(mask);
      give(p, mask, extras_of(mask));
      const auto order = permutation(random, p.samples());
      auto shuffled = p;
      for (std::size_t i = 0; i < p.samples(); ++i) {
        shuffled.labels[i] = p.labels[order[i]];
        if (!p.sample_weight.empty()) shuffled.sample_weight[i] = p.sample_weight[order[i]];
        for (std::size_t k = 0; k < p.classes() && p.soft; ++k) shuffled.target(i, k) = p.target(order[i], k);
        for (std::size_t j = 0; j < p.dims(); ++j) shuffled.feature(i, j) = p.feature(order[i], j);
      }
      outputs<double> a(p), b(p);
      REQUIRE(forward_backward(context_of(1), p, a) == status::success);
      REQUIRE(forward_backward(context_of(1), shuffled, b) == status::success);
      CHECK(difference(a.mean, b.mean) <= close);
      CHECK(difference(a.log_variance, b.log_variance) <= close);
      CHECK(difference(a.log_prior, b.log_prior) <= close);
      CHECK(a.counted[0] == b.counted[0]);
      CHECK(a.correct[0] == b.correct[0]);
      if (reduction != lgm::reduction::none) {
        CHECK(difference(a.total, b.total) <= close);
        CHECK(difference(a.classification, b.classification) <= close);
        CHECK(difference(a.likelihood, b.likelihood) <= close);
      }
      double worst = 0;
      for (std::size_t i = 0; i < p.samples(); ++i) {
        if (reduction == lgm::reduction::none)
          worst = std::max(worst, std::fabs(b.total[i] - a.total[order[i]]));
        worst = std::max(worst, std::fabs(b.log_evidence[i] - a.log_evidence[order[i]]));
        for (std::size_t j = 0; j < p.dims(); ++j)
          worst = std::max(worst, std::fabs(b.feature.at(i, j) - a.feature.at(order[i], j)));
      }
      CHECK(worst <= close * 100);
    }
}

TEST_CASE("the order of classes does not matter") {
  generator random(43);
  for (const auto covariance : covariances)
    for (const unsigned mask :
         {no_extras, class_weights, weights | smoothing, soft | class_weights, soft | weights | smoothing}) {
      CAPTURE(name_of(covariance));
      CAPTURE(mask);
      auto p = make_problem<double>(43, make_shape(50, 12, 7, covariance),
                                    margin_options<double>(lgm::reduction::mean));
      give(p, mask, extras_of(mask));
      const auto order = permutation(random, p.classes());  // class k of `shuffled` is class order[k] of p
      auto shuffled = p;
      std::vector<std::int64_t> place(p.classes());
      const std::size_t per_class = p.classes() == 0 ? 0 : p.log_variance.size() / p.classes();
      for (std::size_t k = 0; k < p.classes(); ++k) {
        place[order[k]] = static_cast<std::int64_t>(k);
        shuffled.log_prior[k] = p.log_prior[order[k]];
        if (!p.class_weight.empty()) shuffled.class_weight[k] = p.class_weight[order[k]];
        for (std::size_t i = 0; i < p.samples() && p.soft; ++i) shuffled.target(i, k) = p.target(i, order[k]);
        for (std::size_t j = 0; j < p.dims(); ++j)
          shuffled.mean[k * p.dims() + j] = p.mean[order[k] * p.dims() + j];
        for (std::size_t j = 0; j < per_class; ++j)
          shuffled.log_variance[k * per_class + j] = p.log_variance[order[k] * per_class + j];
      }
      for (std::size_t i = 0; i < p.samples(); ++i)
        if (p.labels[i] != p.options.ignore_label) shuffled.labels[i] = place[size_of(p.labels[i])];
      outputs<double> a(p), b(p);
      REQUIRE(forward_backward(context_of(1), p, a) == status::success);
      REQUIRE(forward_backward(context_of(1), shuffled, b) == status::success);
      CHECK(difference(a.total, b.total) <= close);
      CHECK(difference(a.feature, b.feature) <= close);
      CHECK(difference(a.row_state, b.row_state) <= close);
      if (!p.soft) CHECK(a.correct[0] == b.correct[0]);  // soft targets may tie: to the lowest class
      double worst = 0;
      for (std::size_t k = 0; k < p.classes(); ++k) {
        worst = std::max(worst, std::fabs(b.log_prior[k] - a.log_prior[order[k]]));
        for (std::size_t j = 0; j < p.dims(); ++j)
          worst = std::max(worst, std::fabs(b.mean.at(k, j) - a.mean.at(order[k], j)));
        for (std::size_t j = 0; j < per_class; ++j)
          worst = std::max(worst, std::fabs(b.log_variance.at(k, j) - a.log_variance.at(order[k], j)));
      }
      CHECK(worst <= close * 10);
    }
}

TEST_CASE("a batch is the sum of its parts") {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    const auto p = make_problem<double>(44, make_shape(61, 7, 9, covariance),
                                        margin_options<double>(lgm::reduction::sum));
    outputs<double> whole(p);
    REQUIRE(forward_backward(context_of(1), p, whole) == status::success);
    double total = 0, likelihood = 0;
    std::int64_t counted = 0, correct = 0;
    std::vector<double> mean(p.mean.size(), 0), log_variance(p.log_variance.size(), 0),
        log_prior(p.log_prior.size(), 0);
    std::vector<double> feature;
    const std::int64_t cuts[] = {0, 1, 20, 20, 48, 61};  // one of them empty
    for (std::size_t part = 0; part + 1 < std::size(cuts); ++part) {
      auto q = p;
      q.shape.samples = cuts[part + 1] - cuts[part];
      q.features.assign(p.features.begin() + cuts[part] * 9, p.features.begin() + cuts[part + 1] * 9);
      q.labels.assign(p.labels.begin() + cuts[part], p.labels.begin() + cuts[part + 1]);
      outputs<double> out(q);
      REQUIRE(forward_backward(context_of(1), q, out) == status::success);
      total += out.total[0];
      likelihood += out.likelihood[0];
      counted += out.counted[0];
      correct += out.correct[0];
      for (std::size_t n = 0; n < mean.size(); ++n) mean[n] += out.mean[n];
      for (std::size_t n = 0; n < log_variance.size(); ++n) log_variance[n] += out.log_variance[n];
      for (std::size_t n = 0; n < log_prior.size(); ++n) log_prior[n] += out.log_prior[n];
      for (std::size_t n = 0; n < out.feature.size(); ++n) feature.push_back(out.feature[n]);
    }
    CHECK(total == doctest::Approx(whole.total[0]).epsilon(close));
    CHECK(likelihood == doctest::Approx(whole.likelihood[0]).epsilon(close));
    CHECK(counted == whole.counted[0]);
    CHECK(correct == whole.correct[0]);
    CHECK(difference(mean, whole.mean.packed()) <= close);
    CHECK(difference(log_variance, whole.log_variance.packed()) <= close);
    CHECK(difference(log_prior, whole.log_prior.packed()) <= close);
    CHECK(difference(feature, whole.feature.packed()) <= close);
  }
}

TEST_CASE_TEMPLATE("tiles of any height and width agree with the reference", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : {lgm::reduction::mean, lgm::reduction::none}) {
      CAPTURE(name_of(covariance));
      lgm::shape shape = make_shape(83, 57, 19, covariance);
      shape.feature_stride = 23;
      shape.gradient_stride = 20;
      auto p = make_problem<T>(45, shape, margin_options<T>(reduction));
      p.upstream_given = true;
      const expectation<T> expected(p);
      for (const std::size_t tile_bytes :
           {std::size_t{0}, std::size_t{1}, std::size_t{1} << 10, std::size_t{1} << 12, std::size_t{1} << 13,
            std::size_t{1} << 14, std::size_t{1} << 15, std::size_t{1} << 16, std::size_t{1} << 18,
            std::size_t{1} << 26, std::size_t{1} << 40}) {
        for (const int threads : support::thread_counts({1, 3})) {
          CAPTURE(tile_bytes);
          CAPTURE(threads);
          const auto context = context_of(threads, tile_bytes);
          outputs<T> out(p);
          REQUIRE(forward_backward(context, p, out) == status::success);
          out.check_intact();
          expected.check_all(out);
          outputs<T> apart(p);
          REQUIRE(forward(context, p, apart.result()) == status::success);
          REQUIRE(backward(context, p, apart.row_state.data(), apart.gradients()) == status::success);
          apart.check_intact();
          expected.check_all(apart);
          guarded<T> logits(shape.samples, shape.classes);
          REQUIRE(run<T>(context, shape, [&](lgm::workspace w) {
                    return lgm::logits(context, shape, p.mixture(), p.features.data(), logits.data(), w);
                  }) == status::success);
          CHECK(logits.intact());
          check_logits(p, logits, false);
          score_outputs<T> scores(shape);
          REQUIRE(score(context, p, scores.result()) == status::success);
          scores.check_intact();
          check_scores(p, scores);
        }
      }
    }
}

TEST_CASE("a smaller tile limit never needs more workspace, and the limit is kept where it can be") {
  for (const auto covariance : covariances) {
    const lgm::shape shape = make_shape(4096, 1000, 64, covariance);
    std::size_t before = 0;
    for (std::size_t tile_bytes = std::size_t{1} << 10; tile_bytes <= std::size_t{1} << 28; tile_bytes *= 2) {
      const std::size_t needed = lgm::workspace_size<float, float>(context_of(2, tile_bytes), shape);
      CHECK(needed >= before);
      before = needed;
      if (tile_bytes >= std::size_t{1} << 23) CHECK(needed <= tile_bytes);
    }
  }
}

TEST_CASE_TEMPLATE("any number of threads agrees with the reference", T, float, double) {
  for (const auto covariance : covariances)
    for (const int threads : support::thread_counts({0, 1, 2, 3, 7})) {
      CAPTURE(name_of(covariance));
      CAPTURE(threads);
      const auto p =
          make_problem<T>(46, make_shape(97, 31, 24, covariance), margin_options<T>(lgm::reduction::mean));
      outputs<T> out(p);
      REQUIRE(forward_backward(context_of(threads, 1 << 16), p, out) == status::success);
      out.check_intact();
      check_all(p, out);
    }
}

TEST_CASE_TEMPLATE("the same call gives the same bits", T, float, double) {
  for (const auto covariance : covariances)
    for (const int threads : support::thread_counts({1, 2, 3}))
      for (const std::size_t tile_bytes : {std::size_t{1} << 14, std::size_t{1} << 26}) {
        const auto context = context_of(threads, tile_bytes);
        const auto p =
            make_problem<T>(47, make_shape(129, 33, 21, covariance), margin_options<T>(lgm::reduction::mean));
        outputs<T> first(p);
        score_outputs<T> first_scores(p.shape);
        REQUIRE(forward_backward(context, p, first) == status::success);
        REQUIRE(score(context, p, first_scores.result()) == status::success);
        for (int repeat = 0; repeat < 5; ++repeat) {
          outputs<T> again(p);
          score_outputs<T> again_scores(p.shape);
          REQUIRE(forward_backward(context, p, again) == status::success);
          REQUIRE(score(context, p, again_scores.result()) == status::success);
          again.check_same_bits(first);
          again_scores.check_same_bits(first_scores);
        }
      }
}

TEST_CASE_TEMPLATE("results have the same bits at every alignment", T, float, double) {
  const auto moved = [](const std::vector<T>& values, std::size_t offset) {
    guarded<T> copy(static_cast<std::int64_t>(values.size()), 1, 0, offset);
    std::copy(values.begin(), values.end(), copy.data());
    return copy;
  };
  for (const auto covariance : covariances)
    for (const std::int64_t dims : {5, 16, 37})
      for (const int threads : support::thread_counts({1, 2})) {
        CAPTURE(name_of(covariance));
        CAPTURE(dims);
        lgm::shape shape = make_shape(43, 18, dims, covariance);
        const auto context = context_of(threads, 1 << 15);
        auto p = make_problem<T>(48, shape, margin_options<T>(lgm::reduction::none));
        p.upstream_given = true;

        const auto call = [&](outputs<T>& out, outputs<T>& apart, guarded<T>& logits,
                              score_outputs<T>& scores, const T* features, const T* mean,
                              const T* log_variance, const T* log_prior, const T* upstream,
                              std::size_t workspace_offset) {
          const lgm::mixture<T> mixture{mean, log_variance, log_prior};
          REQUIRE(run<T>(
                      context, shape,
                      [&](lgm::workspace w) {
                        return lgm::forward_backward(context, shape, mixture, p.options, features,
                                                     p.labels.data(), upstream, out.result(), out.gradients(),
                                                     w);
                      },
                      workspace_offset) == status::success);
          REQUIRE(run<T>(
                      context, shape,
                      [&](lgm::workspace w) {
                        return lgm::forward(context, shape, mixture, p.options, features, p.labels.data(),
                                            apart.result(), w);
                      },
                      workspace_offset) == status::success);
          REQUIRE(run<T>(
                      context, shape,
                      [&](lgm::workspace w) {
                        return lgm::backward(context, shape, mixture, p.options, features, p.labels.data(),
                                             apart.row_state.data(), upstream, apart.gradients(), w);
                      },
                      workspace_offset) == status::success);
          REQUIRE(run<T>(
                      context, shape,
                      [&](lgm::workspace w) {
                        return lgm::logits(context, shape, mixture, features, logits.data(), w);
                      },
                      workspace_offset) == status::success);
          REQUIRE(run<T>(
                      context, shape,
                      [&](lgm::workspace w) {
                        return lgm::score(context, shape, mixture, features, scores.result(), w);
                      },
                      workspace_offset) == status::success);
        };
        const auto call_at = [&](std::size_t offsets[7], outputs<T>& out, outputs<T>& apart,
                                 guarded<T>& logits, score_outputs<T>& scores) {
          const auto features = moved(p.features, offsets[0]), mean = moved(p.mean, offsets[1]);
          const auto log_variance = moved(p.log_variance, offsets[2]),
                     log_prior = moved(p.log_prior, offsets[3]);
          const auto upstream = moved(p.upstream, offsets[4]);
          call(out, apart, logits, scores, features.data(), mean.data(), log_variance.data(),
               log_prior.data(), upstream.data(), offsets[6]);
        };
        std::size_t none[7] = {};
        outputs<T> expected(p), expected_apart(p);
        guarded<T> expected_logits(shape.samples, shape.classes);
        score_outputs<T> expected_scores(shape);
        call_at(none, expected, expected_apart, expected_logits, expected_scores);

        const auto check_at = [&](std::size_t offsets[7]) {
          outputs<T> out(p, offsets[5]), apart(p, offsets[5]);
          guarded<T> logits(shape.samples, shape.classes, 0, offsets[5]);
          score_outputs<T> scores(shape, offsets[5]);
          call_at(offsets, out, apart, logits, scores);
          out.check_same_bits(expected);
          apart.check_same_bits(expected_apart);
          CHECK(logits.same_bits(expected_logits));
          scores.check_same_bits(expected_scores);
        };
        // Each array alone by every offset, the workspace by every byte, then all at random.
        for (std::size_t which = 0; which < 6; ++which)
          for (std::size_t offset = 1; offset < 16; offset += support::every(7)) {
            CAPTURE(which);
            CAPTURE(offset);
            std::size_t offsets[7] = {};
            offsets[which] = offset;
            check_at(offsets);
          }
        for (std::size_t offset = 1; offset < 64; offset += support::every(7)) {
          CAPTURE(offset);
          std::size_t offsets[7] = {};
          offsets[6] = offset;
          check_at(offsets);
        }
        generator random(49);
        for (int trial = 0; trial < 10; ++trial) {
          std::size_t offsets[7];
          for (std::size_t& offset : offsets) offset = static_cast<std::size_t>(random.below(16));
          check_at(offsets);
        }
      }
}

TEST_CASE_TEMPLATE(
    "results have the same bits at every alignment of weights, targets and gradients of the logits", T, float,
    double) {
  const auto moved = [](const std::vector<T>& values, std::size_t offset) {
    guarded<T> copy(static_cast<std::int64_t>(values.size()), 1, 0, offset);
    std::copy(values.begin(), values.end(), copy.data());
    return copy;
  };
  for (const auto covariance : covariances)
    for (const int threads : support::thread_counts({1, 2})) {
      CAPTURE(name_of(covariance));
      CAPTURE(threads);
      const auto context = context_of(threads, 1 << 15);
      auto p =
          make_problem<T>(55, make_shape(43, 37, 6, covariance), margin_options<T>(lgm::reduction::none));
      give(p, 55, {true, true, false, 0.1, true});
      give_grad_logits(p, 55);
      const auto call = [&](const std::size_t(&offsets)[6], outputs<T>& soft, outputs<T>& labelled,
                            outputs<T>& slopes) {
        const auto class_weight = moved(p.class_weight, offsets[0]),
                   sample_weight = moved(p.sample_weight, offsets[1]), targets = moved(p.targets, offsets[2]),
                   grad_logits = moved(p.grad_logits, offsets[3]);
        lgm::loss_options<T> o = p.options;
        o.class_weight = class_weight.data();
        o.sample_weight = sample_weight.data();
        const lgm::soft_targets<T> target{targets.data()};
        const T* features = p.features.data();
        const lgm::shape& s = p.shape;
        const auto run_at = [&](auto f) { REQUIRE(run<T>(context, s, f, offsets[5]) == status::success); };
        run_at([&](lgm::workspace w) {
          return lgm::forward(context, s, p.mixture(), o, features, target, soft.result(), w);
        });
        run_at([&](lgm::workspace w) {
          return lgm::backward(context, s, p.mixture(), o, features, target, soft.row_state.data(), nullptr,
                               soft.gradients(), w);
        });
        run_at([&](lgm::workspace w) {
          return lgm::forward_backward(context, s, p.mixture(), o, features, p.labels.data(), nullptr,
                                       labelled.result(), labelled.gradients(), w);
        });
        run_at([&](lgm::workspace w) {
          return lgm::logits_backward(context, s, p.mixture(), o, features, p.labels.data(),
                                      grad_logits.data(), nullptr, slopes.gradients(), w);
        });
      };
      const std::size_t none[6] = {};
      outputs<T> soft(p), labelled(p), slopes(p);
      call(none, soft, labelled, slopes);
      for (std::size_t which = 0; which < 6; ++which)
        for (std::size_t offset = 1; offset < 16; offset += support::every(7)) {
          CAPTURE(which);
          CAPTURE(offset);
          std::size_t offsets[6] = {};
          offsets[which] = offset;
          outputs<T> a(p, offsets[4]), b(p, offsets[4]), c(p, offsets[4]);
          call(offsets, a, b, c);
          a.check_same_bits(soft);
          b.check_same_bits(labelled);
          c.check_same_bits(slopes);
        }
    }
}

// Both routes compute the same formulas; row_state rounds R = rest - l_z to the steps of its two parts, which
// moves weights by a few eps of them.
TEST_CASE_TEMPLATE("backward from row_state is forward_backward to a few roundings", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions) {
      CAPTURE(name_of(covariance));
      auto p = make_problem<T>(50, make_shape(64, 10, 16, covariance), margin_options<T>(reduction));
      p.upstream_given = true;
      outputs<T> fused(p), apart(p);
      REQUIRE(forward_backward(context_of(1), p, fused) == status::success);
      REQUIRE(forward(context_of(1), p, apart.result()) == status::success);
      REQUIRE(backward(context_of(1), p, apart.row_state.data(), apart.gradients()) == status::success);
      apart.each_result(fused, [&](const std::string& name, const auto& a, const auto& b) {
        CHECK_MESSAGE(difference(a, b) <= 4 * shown(epsilon<T>()), name);
      });
      double size = 1;
      for (std::size_t n = 0; n < apart.row_state.size(); ++n)
        if (std::isfinite(apart.row_state[n]))
          size = std::max(size, std::fabs(static_cast<double>(apart.row_state[n])));
      apart.each_gradient(fused, [&](const std::string& name, const auto& a, const auto& b) {
        double scale = 0;
        for (std::size_t n = 0; n < b.size(); ++n)
          scale = std::max(scale, std::fabs(static_cast<double>(b[n])));
        double worst = 0;
        for (std::size_t n = 0; n < b.size(); ++n)
          worst = std::max(worst, std::fabs(static_cast<double>(a[n]) - static_cast<double>(b[n])));
        CHECK_MESSAGE(worst <= 8 * shown(epsilon<T>()) * size * std::max(scale, 1e-3), name);
      });
    }
}

TEST_CASE_TEMPLATE("upstream scales gradients and nothing else", T, float, double) {
  for (const auto covariance : covariances)
    for (const auto reduction : reductions) {
      CAPTURE(name_of(covariance));
      CAPTURE(name_of(reduction));
      auto p = make_problem<T>(51, make_shape(27, 6, 8, covariance), margin_options<T>(reduction));
      outputs<T> plain(p);
      REQUIRE(forward_backward(context_of(1), p, plain) == status::success);
      // A power of two scales without rounding, so that only its place in the order of operations can differ.
      p.upstream_given = true;
      std::fill(p.upstream.begin(), p.upstream.end(), T(1024));
      outputs<T> scaled(p);
      REQUIRE(forward_backward(context_of(1), p, scaled) == status::success);
      scaled.each_result(plain, [](const std::string& name, const auto& a, const auto& b) {
        CHECK_MESSAGE(a.same_bits(b), name);
      });
      scaled.each_gradient(plain, [](const std::string& name, const auto& a, const auto& b) {
        bool all = true;
        for (std::size_t n = 0; n < a.size(); ++n) all = all && a[n] == b[n] * 1024;
        CHECK_MESSAGE(all, name);
      });
      std::fill(p.upstream.begin(), p.upstream.end(), T(1));
      outputs<T> one(p);
      REQUIRE(forward_backward(context_of(1), p, one) == status::success);
      one.check_same_bits(plain);
      std::fill(p.upstream.begin(), p.upstream.end(), T(0));
      outputs<T> zero(p);
      REQUIRE(forward_backward(context_of(1), p, zero) == status::success);
      CHECK(zero.feature.all_zero());
      CHECK(zero.mean.all_zero());
      CHECK(zero.log_variance.all_zero());
      CHECK(zero.log_prior.all_zero());
    }
}

TEST_CASE("upstream of one sample reaches that sample alone") {
  for (const auto covariance : covariances) {
    auto p = make_problem<double>(52, make_shape(12, 5, 6, covariance),
                                  margin_options<double>(lgm::reduction::none), {1, 1, 1, 0, 0});
    p.upstream_given = true;
    std::fill(p.upstream.begin(), p.upstream.end(), 0.0);
    p.upstream[7] = 2;
    outputs<double> out(p);
    REQUIRE(forward_backward(context_of(1), p, out) == status::success);
    for (std::size_t i = 0; i < 12; ++i)
      for (std::size_t j = 0; j < 6; ++j) CHECK((out.feature.at(i, j) == 0) == (i != 7));
    check_gradients(p, out);
  }
}

TEST_CASE("the three reductions fit together") {
  for (const auto covariance : covariances) {
    CAPTURE(name_of(covariance));
    auto p = make_problem<double>(53, make_shape(45, 7, 5, covariance),
                                  margin_options<double>(lgm::reduction::none));
    outputs<double> none(p);
    REQUIRE(forward_backward(context_of(1), p, none) == status::success);
    p.options.reduction = lgm::reduction::sum;
    outputs<double> sum(p);
    REQUIRE(forward_backward(context_of(1), p, sum) == status::success);
    p.options.reduction = lgm::reduction::mean;
    outputs<double> mean(p);
    REQUIRE(forward_backward(context_of(1), p, mean) == status::success);
    const auto counted = static_cast<double>(sum.counted[0]);
    CHECK(mean.counted[0] == sum.counted[0]);
    CHECK(none.counted[0] == sum.counted[0]);
    CHECK(sum.counted[0] < 45);
    const auto check_losses = [&](const guarded<double>& each, const guarded<double>& all,
                                  const guarded<double>& average) {
      double total = 0;
      for (std::size_t i = 0; i < each.size(); ++i) total += each[i];
      CHECK(total == doctest::Approx(all[0]).epsilon(close));
      CHECK(all[0] / counted == doctest::Approx(average[0]).epsilon(close));
    };
    check_losses(none.total, sum.total, mean.total);
    check_losses(none.classification, sum.classification, mean.classification);
    check_losses(none.likelihood, sum.likelihood, mean.likelihood);
    CHECK(mean.row_state.same_bits(sum.row_state));
    CHECK(none.row_state.same_bits(sum.row_state));
    sum.each_gradient(none, [](const std::string& name, const auto& a, const auto& b) {
      CHECK_MESSAGE(difference(a, b) <= close, name);
    });
    sum.each_gradient(mean, [&](const std::string& name, const auto& a, const auto& b) {
      auto scaled = b.packed();
      for (double& value : scaled) value *= counted;
      CHECK_MESSAGE(difference(a.packed(), scaled) <= close, name);
    });
  }
}

TEST_CASE("priors and slopes of log_prior sum as probabilities do") {
  for (const auto covariance : covariances) {
    auto p = make_problem<double>(54, make_shape(30, 6, 4, covariance),
                                  margin_options<double>(lgm::reduction::mean));
    outputs<double> out(p), shifted(p);
    REQUIRE(forward_backward(context_of(1), p, out) == status::success);
    double sum = 0;
    for (std::size_t k = 0; k < 6; ++k) sum += out.log_prior[k];
    CHECK(std::fabs(sum) <= 1e-14);
    // A bias that all classes share moves the logits and nothing else.
    for (double& value : p.log_prior) value += 5;
    REQUIRE(forward_backward(context_of(1), p, shifted) == status::success);
    CHECK(difference(shifted.total, out.total) <= close);
    shifted.each_gradient(out, [](const std::string& name, const auto& a, const auto& b) {
      CHECK_MESSAGE(difference(a, b) <= close, name);
    });
    score_outputs<double> scores(p.shape);
    REQUIRE(score(context_of(1), p, scores.result()) == status::success);
    for (double& value : p.log_prior) value -= 5;
    score_outputs<double> plain(p.shape);
    REQUIRE(score(context_of(1), p, plain.result()) == status::success);
    CHECK(difference(scores.log_mixture, plain.log_mixture) <= close);
    CHECK(difference(scores.posterior, plain.posterior) <= close);
  }
}

// Means around zero are multiplied as they are, others centred. A row that is left out decides nothing of the others.
TEST_CASE_TEMPLATE("operands as they are and centred ones are both right, whatever rows are left out", T,
                   float, double) {
  recipe counted;
  counted.ignored = 0;
  for (const auto covariance : {lgm::covariance::identity, lgm::covariance::spherical})
    for (const auto& context : tiled_contexts()) {
      CAPTURE(name_of(covariance));
      auto raw = make_problem<T>(71, strided_shape({37, 30, 23}, covariance),
                                 margin_options<T>(lgm::reduction::sum), counted);
      raw.log_variance_given = false;
      check_both_ways(context, raw, expectation<T>(raw));
      auto without = raw;
      without.labels[36] = without.options.ignore_label;
      check_both_ways(context, without, expectation<T>(without));
      auto far = counted;
      far.offset = 5;
      auto centred = make_problem<T>(71, strided_shape({37, 30, 23}, covariance),
                                     margin_options<T>(lgm::reduction::sum), far);
      centred.log_variance_given = false;
      check_both_ways(context, centred, expectation<T>(centred));
    }
}
