// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/context.hpp"
#include "support/moments.hpp"

// The device's moments and what follows from them, kernel by kernel on the host or (LGM_TEST_CUDA) on a CUDA device, against
// two passes in long double and against the host's.

namespace {

using lgm::status;
using namespace support;
using without = moments_memory<double>::without;

#if defined(LGM_TEST_CUDA)
compiled_cuda context_with(std::size_t tile_bytes) {
  compiled_cuda c;
  c.tile_bytes = tile_bytes;
  return c;
}
std::vector<compiled_cuda> device_contexts() {
  return {context_with(std::size_t{64} << 20), context_with(1), context_with(2000)};
}
#else
device_context context_with(std::size_t tile_bytes) {
  return device_context_of(task_groups::serial, tile_bytes);
}
std::vector<device_context> device_contexts() {
  return {device_context_of(task_groups::serial), device_context_of(task_groups::serial, 1, true),
          device_context_of(task_groups::emulated), device_context_of(task_groups::threads, 2000)};
}
#endif

// Within the bound that the host promises for double.
void check_promised(moments_memory<double>& m, const exact_moments& exact) {
  const moments_error e = error_of(m, exact, without::nothing);
  CHECK(e.mean <= 1e-12);
  CHECK(e.mean_in_deviations <= 1e-12);
  CHECK(e.m2 <= 1e-12);
  CHECK(e.scatter <= 1e-12);
}

}  // namespace

TEST_CASE("moments agree with two passes, far from zero, streamed and merged") {
  for (const double offset : {0.0, 1e6}) {
    sample_recipe how;
    how.offset = offset;
    how.weighted = offset == 0;
    how.stride = 11;
    const auto s = make_samples<double>(81, 230, 6, 9, how);
    const exact_moments exact = exact_moments::of<double>(s);
    for (const auto& c : device_contexts()) {
      CAPTURE(offset);
      CAPTURE(c.tile_bytes);
      moments_memory<double> all(s.shape), streamed(s.shape), first(s.shape), second(s.shape);
      REQUIRE(accumulate(c, s, 0, 230, all.get(without::nothing)) == status::success);
      check_promised(all, exact);
      stream(c, s, 23, streamed.get(without::nothing));
      streamed.check_same_class_bits(all);
      check_promised(streamed, exact);
      REQUIRE(accumulate(c, s, 0, 100, first.get(without::nothing)) == status::success);
      REQUIRE(accumulate(c, s, 100, 130, second.get(without::nothing)) == status::success);
      REQUIRE(lgm::merge_moments(c, s.shape, second.get(without::nothing), first.get(without::nothing)) ==
              status::success);
      check_promised(first, exact);
    }
  }
}

TEST_CASE("sizes around the tile and the blocks, and arrays that are left out") {
  for (const std::int64_t dims : {1, 127, 128, 129, 257})
    for (const std::int64_t samples : {0, 1, 31, 32, 33, 97}) {
      CAPTURE(dims);
      CAPTURE(samples);
      const auto s = make_samples<double>(82, samples, 5, dims);
      const exact_moments exact = exact_moments::of<double>(s);
      // Tiles of one sample, of 32 and of all.
      for (const std::size_t tile_bytes :
           {std::size_t{1}, static_cast<std::size_t>(dims) * 512, std::size_t{64} << 20}) {
        const auto c = context_with(tile_bytes);
        moments_memory<double> all(s.shape);
        REQUIRE(accumulate(c, s, 0, s.samples(), all.get(without::nothing)) == status::success);
        check_promised(all, exact);
        moments_memory<double> merged(s.shape), rest(s.shape);
        const std::size_t half = s.samples() / 2;
        REQUIRE(accumulate(c, s, 0, half, merged.get(without::nothing)) == status::success);
        REQUIRE(accumulate(c, s, half, s.samples() - half, rest.get(without::nothing)) == status::success);
        REQUIRE(lgm::merge_moments(c, s.shape, rest.get(without::nothing), merged.get(without::nothing)) ==
                status::success);
        check_promised(merged, exact);
        moments_memory<double> counts(s.shape);
        REQUIRE(accumulate(c, s, 0, s.samples(),
                           counts.get(without::no_mean | without::no_m2 | without::no_scatter |
                                      without::no_residual)) == status::success);
        CHECK(counts.count.same_bits(all.count));
        CHECK(counts.mean.untouched());
      }
    }
}

TEST_CASE("a label that is no class is not counted, and its features are not read") {
  auto s = make_samples<double>(83, 40, 4, 3);
  auto clean = s;
  s.labels[7] = 4;
  s.labels[8] = -1;
  clean.labels[7] = clean.labels[8] = s.options.ignore_label;
  s.feature(7, 0) = s.feature(8, 2) = std::numeric_limits<double>::quiet_NaN();
  const auto c = context_with(std::size_t{64} << 20);
  moments_memory<double> got(s.shape), expected(s.shape);
  REQUIRE(accumulate(c, s, 0, 40, got.get(without::nothing)) == status::success);
  REQUIRE(accumulate(c, clean, 0, 40, expected.get(without::nothing)) == status::success);
  got.check_same_class_bits(expected);
  CHECK(got.scatter.same_bits(expected.scatter));
}

TEST_CASE("a sample without weight is not counted, and its features are not read") {
  auto s = make_samples<double>(86, 40, 4, 3, {5, 0});
  s.weights.assign(40, 0.5);
  auto clean = s;
  // Among them the first of each class.
  for (const std::size_t i : {0u, 1u, 2u, 3u, 4u, 5u, 20u}) {
    s.weights[i] = 0;
    s.feature(i, 1) = std::numeric_limits<double>::quiet_NaN();
    clean.labels[i] = clean.options.ignore_label;
  }
  for (const auto& c : device_contexts()) {
    moments_memory<double> got(s.shape), expected(s.shape);
    REQUIRE(accumulate(c, s, 0, 40, got.get(without::nothing)) == status::success);
    REQUIRE(accumulate(c, clean, 0, 40, expected.get(without::nothing)) == status::success);
    got.check_same_class_bits(expected);
    CHECK(got.scatter.same_bits(expected.scatter));
  }
}

TEST_CASE("estimates are the host's") {
  for (const auto covariance : covariances)
    for (const double shrinkage : {0.0, 0.25})
      for (const double decay : {0.0, 0.5, 1.0}) {
        CAPTURE(name_of(covariance));
        CAPTURE(shrinkage);
        CAPTURE(decay);
        auto s = make_samples<double>(84, 120, 7, 130);
        s.shape.covariance = covariance;
        moments_memory<double> m(s.shape);
        stream(context_of(1), s, 40, m.get(without::nothing));
        lgm::estimate_options<double> options;
        options.variance_floor = 0.5;
        options.shrinkage = shrinkage;
        options.decay = decay;
        const std::size_t variances = size_of(lgm::log_variance_size(s.shape));
        struct set {
          std::vector<double> mean, log_variance, log_prior;
          lgm::parameters<double> get() { return {mean.data(), log_variance.data(), log_prior.data()}; }
        };
        const set before{std::vector<double>(7 * 130, 2), std::vector<double>(variances, 0.25),
                         std::vector<double>(7, -2)};
        set host = before;
        REQUIRE(lgm::estimate(context_of(1), s.shape, m.get(), options, host.get()) == status::success);
        for (const auto& c : device_contexts()) {
          set device = before;
          REQUIRE(lgm::estimate(c, s.shape, m.get(), options, device.get()) == status::success);
          const auto near = [](const std::vector<double>& a, const std::vector<double>& b) {
            for (std::size_t n = 0; n < a.size(); ++n)
              CHECK(std::fabs(a[n] - b[n]) <= 1e-13 * (1 + std::fabs(b[n])));
          };
          near(device.mean, host.mean);
          near(device.log_variance, host.log_variance);
          near(device.log_prior, host.log_prior);
        }
      }
}

TEST_CASE("whitening is the host's, under every group") {
  const auto s = make_samples<double>(85, 150, 4, 70);
  moments_memory<double> m(s.shape);
  stream(context_of(1), s, 50, m.get(without::nothing));
  lgm::whitening_options<double> options;
  options.shrinkage = 0.125;
  struct map_and_rows {
    std::vector<double> matrix = std::vector<double>(70 * 70), offset = std::vector<double>(70),
                        log_abs_det = {0}, rows = std::vector<double>(40 * 70);
    lgm::whitening<double> get() { return {matrix.data(), offset.data(), log_abs_det.data()}; }
  };
  // Rows that do count: features of ignored samples are no numbers.
  std::vector<double> features(40 * 70);
  for (std::size_t n = 0; n < features.size(); ++n) features[n] = 1e6 + 0.125 * static_cast<double>(n % 37);
  lgm::shape rows = s.shape;
  rows.samples = 40;
  const auto whitened = [&](const auto& context) {
    map_and_rows out;
    scratch memory(lgm::whitening_workspace_size<double>(context, s.shape));
    REQUIRE(lgm::estimate_whitening(context, s.shape, m.get(without::nothing), options, out.get(),
                                    memory.get()) == status::success);
    CHECK(memory.intact());
    REQUIRE(run<double>(context, rows, [&](lgm::workspace w) {
              return lgm::whiten(context, rows, out.get(), features.data(), out.rows.data(), w);
            }) == status::success);
    return out;
  };
  map_and_rows host = whitened(context_of(1));
  for (const auto& c : device_contexts()) {
    const map_and_rows device = whitened(c);
    const auto near = [](const std::vector<double>& a, const std::vector<double>& b) {
      double scale = 0;
      for (const double value : b) scale = std::max(scale, std::fabs(value));
      for (std::size_t n = 0; n < a.size(); ++n) CHECK(std::fabs(a[n] - b[n]) <= 1e-12 * scale);
    };
    near(device.matrix, host.matrix);
    near(device.offset, host.offset);
    near(device.log_abs_det, host.log_abs_det);
    near(device.rows, host.rows);
  }
}
