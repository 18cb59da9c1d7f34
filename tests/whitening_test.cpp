// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <lgm/whitening.hpp>
#include <limits>
#include <string>
#include <vector>

#include "support/instantiated.hpp"
#include "support/moments.hpp"

// The covariance that all classes share, against Cholesky's factor and its inverse in long double; and densities of
// whitened features against those of the features.

namespace {

using lgm::status;
using namespace support;
using matrix = std::vector<real>;

// Moments of made-up classes: means, counts, and a scatter with a condition number of about `spread`; with class 1 empty and its
// mean poison.
template <class A>
struct whitening_problem {
  lgm::shape shape;
  guarded<A> count, mean, scatter;

  // rank: of the scatter.
  whitening_problem(std::uint64_t seed, std::int64_t classes, std::int64_t dims, double spread,
                    std::int64_t rank = 1 << 20)
      : shape(make_shape(0, classes, dims, lgm::covariance::identity)),
        count(classes),
        mean(classes, dims),
        scatter(dims, dims) {
    begin_problem();
    generator random(seed);
    for (std::size_t k = 0; k < size_of(classes); ++k) {
      count.data()[k] = k == 1 ? A(0) : static_cast<A>(random.below(40) + 1);
      for (std::size_t j = 0; j < size_of(dims); ++j)
        if (k != 1) mean.data()[k * size_of(dims) + j] = static_cast<A>(random.normal() + 3);
    }
    // Of `rank` directions or twice as many as there are dimensions; the later a dimension, the smaller.
    const std::int64_t directions = std::min(rank, 2 * dims + 2);
    std::vector<double> direction(size_of(directions * dims));
    for (std::size_t n = 0; n < direction.size(); ++n) {
      const double along = static_cast<double>(n % size_of(dims)) / static_cast<double>(dims);
      direction[n] = random.normal() * std::pow(spread, -along / 2);
    }
    const double total = static_cast<double>(samples());
    for (std::size_t i = 0; i < size_of(dims); ++i)
      for (std::size_t j = i; j < size_of(dims); ++j) {
        double sum = 0;
        for (std::size_t r = 0; r < size_of(directions); ++r)
          sum += direction[r * size_of(dims) + i] * direction[r * size_of(dims) + j];
        // The lower triangle is not read: it stays poison.
        scatter.data()[i * size_of(dims) + j] = static_cast<A>(total * sum / static_cast<double>(directions));
      }
  }
  real samples() const {
    real sum = 0;
    for (std::size_t k = 0; k < count.size(); ++k) sum += static_cast<real>(count[k]);
    return sum;
  }
  lgm::class_moments<A> moments() {
    lgm::class_moments<A> m;
    m.count = count.data();
    m.mean = mean.data();
    m.scatter = scatter.data();
    return m;
  }
  // Sigma, as the options say.
  matrix covariance(real shrinkage, real floor) const {
    const std::size_t dims = size_of(shape.dims);
    matrix sigma(dims * dims);
    real trace = 0;
    for (std::size_t j = 0; j < dims; ++j)
      trace += static_cast<real>(scatter[j * dims + j]) / samples() / static_cast<real>(dims);
    for (std::size_t i = 0; i < dims; ++i)
      for (std::size_t j = 0; j < dims; ++j)
        sigma[i * dims + j] =
            (1 - shrinkage) * static_cast<real>(scatter[std::min(i, j) * dims + std::max(i, j)]) / samples() +
            (i == j ? shrinkage * trace + floor : 0);
    return sigma;
  }
  matrix centre() const {
    const std::size_t dims = size_of(shape.dims);
    matrix c(dims);
    for (std::size_t k = 0; k < count.size(); ++k)
      for (std::size_t j = 0; j < dims && count[k] != A(0); ++j)
        c[j] += static_cast<real>(count[k]) * static_cast<real>(mean[k * dims + j]) / samples();
    return c;
  }
};

// The inverse of Cholesky's factor, row by row from the text-book.
matrix inverse_factor(const matrix& sigma, std::size_t dims) {
  matrix l(dims * dims), w(dims * dims);
  for (std::size_t i = 0; i < dims; ++i)
    for (std::size_t j = 0; j <= i; ++j) {
      real sum = sigma[i * dims + j];
      for (std::size_t k = 0; k < j; ++k) sum -= l[i * dims + k] * l[j * dims + k];
      l[i * dims + j] = i == j ? std::sqrt(sum) : sum / l[j * dims + j];
    }
  for (std::size_t j = 0; j < dims; ++j)
    for (std::size_t i = j; i < dims; ++i) {
      real sum = i == j ? 1 : 0;
      for (std::size_t k = j; k < i; ++k) sum -= l[i * dims + k] * w[k * dims + j];
      w[i * dims + j] = sum / l[i * dims + i];
    }
  return w;
}

template <class T>
struct map_memory : guarded_outputs<map_memory<T>> {
  guarded<T> matrix, offset, log_abs_det;

  explicit map_memory(std::int64_t dims, std::size_t offset_elements = 0)
      : matrix(dims, dims, 0, offset_elements), offset(dims, 1, 0, offset_elements), log_abs_det(1) {}
  lgm::whitening<T> get() { return {matrix.data(), offset.data(), log_abs_det.data()}; }
  template <class F>
  void each(const map_memory& other, F f) const {
    f("matrix", matrix, other.matrix);
    f("offset", offset, other.offset);
    f("log_abs_det", log_abs_det, other.log_abs_det);
  }
};

// In a workspace of exactly the size that is needed, at `offset` bytes off a cache line.
template <class T, class A>
status estimate(const suite_context& ctx, whitening_problem<A>& p, const lgm::whitening_options<T>& o,
                const lgm::whitening<T>& out, std::size_t offset = 0) {
  scratch memory(lgm::whitening_workspace_size<A>(ctx, p.shape), offset);
  const status result = lgm::estimate_whitening(ctx, p.shape, p.moments(), o, out, memory.get());
  CHECK(memory.intact());
  return result;
}

// The largest error of W as a share of the largest of its row, of c relative to the largest, and of log |det W|.
template <class T>
void check_map(const map_memory<T>& got, const matrix& sigma, const matrix& centre, double tolerance) {
  const std::size_t dims = centre.size();
  const matrix w = inverse_factor(sigma, dims);
  double worst = 0, worst_offset = 0;
  real log_abs_det = 0, far = 1;
  for (std::size_t i = 0; i < dims; ++i) {
    real row = 0;
    for (std::size_t j = 0; j <= i; ++j) row = std::max(row, std::fabs(w[i * dims + j]));
    for (std::size_t j = 0; j < dims; ++j) {
      const real value = static_cast<real>(got.matrix[i * dims + j]);
      if (j > i)
        CHECK(value == 0);
      else
        raise(worst, std::fabs(value - w[i * dims + j]) / row);
    }
    log_abs_det += std::log(w[i * dims + i]);
    far = std::max(far, std::fabs(centre[i]));
  }
  for (std::size_t j = 0; j < dims; ++j)
    raise(worst_offset, std::fabs(static_cast<real>(got.offset[j]) - centre[j]) / far);
  CHECK(worst <= tolerance);
  CHECK(worst_offset <= 4 * static_cast<double>(std::numeric_limits<T>::epsilon()));
  CHECK(std::fabs(static_cast<double>(static_cast<real>(got.log_abs_det[0]) - log_abs_det)) <=
        tolerance * static_cast<double>(dims + 1));
  got.check_intact();
}

constexpr std::int64_t block = lgm::detail::whitening_block;

}  // namespace

TEST_CASE("the map is the inverse of Cholesky's factor") {
  for (const std::int64_t dims : {std::int64_t{1}, std::int64_t{2}, std::int64_t{7}, block - 1, block,
                                  block + 1, 2 * block, 2 * block + 1, 3 * block + 5})
    for (const int threads : support::thread_counts({1, 3})) {
      CAPTURE(dims);
      CAPTURE(threads);
      const auto ctx = context_of(threads);
      whitening_problem<double> p(1, 5, dims, 1e4);
      map_memory<double> exact(dims), moved(dims, 3);
      REQUIRE(estimate<double>(ctx, p, {}, exact.get()) == status::success);
      check_map(exact, p.covariance(0, 0), p.centre(), 1e-11);
      REQUIRE(estimate<double>(ctx, p, {}, moved.get(), 8) == status::success);
      moved.check_same_bits(exact);
      // Results of float from moments of double are those, rounded.
      map_memory<float> narrow(dims);
      REQUIRE(estimate<float>(ctx, p, {}, narrow.get()) == status::success);
      for (std::size_t n = 0; n < narrow.matrix.size(); ++n)
        CHECK(narrow.matrix[n] == static_cast<float>(exact.matrix[n]));
    }
}

TEST_CASE("whitening from float moments is right to float") {
  for (const std::int64_t dims : {3L, 70L}) {
    whitening_problem<float> p(2, 4, dims, 10);
    map_memory<float> got(dims);
    REQUIRE(estimate<float>(context_of(2), p, {}, got.get()) == status::success);
    check_map(got, p.covariance(0, 0), p.centre(), 2e-4);
  }
}

TEST_CASE("more dimensions than samples, and dimensions that never change") {
  for (const std::int64_t dims : {5L, 100L}) {
    CAPTURE(dims);
    const auto ctx = context_of(2);
    whitening_problem<double> p(3, 3, dims, 10, 3);
    for (std::size_t i = 0; i < size_of(dims); ++i)
      p.scatter.data()[std::min<std::size_t>(i, 2) * size_of(dims) + std::max<std::size_t>(i, 2)] = 0;
    map_memory<double> got(dims);
    lgm::whitening_options<double> o;
    const auto refused = [&] {
      const status result = estimate<double>(ctx, p, o, got.get());
      if (suite_is_device) {
        CHECK(result == status::success);
        CHECK(std::isnan(got.log_abs_det[0]));
        for (std::size_t n = 0; n < got.matrix.size(); ++n) CHECK(std::isnan(got.matrix[n]));
      } else {
        CHECK(result == status::not_positive_definite);
        CHECK(got.untouched());
      }
    };
    refused();
    o.shrinkage = 0.25;
    REQUIRE(estimate<double>(ctx, p, o, got.get()) == status::success);
    check_map(got, p.covariance(0.25L, 0), p.centre(), 1e-11);
    o = {};
    o.variance_floor = 0.125;
    REQUIRE(estimate<double>(ctx, p, o, got.get()) == status::success);
    check_map(got, p.covariance(0, 0.125L), p.centre(), 1e-11);
    o = {0.5, 1.0};  // nothing of the scatter but its trace
    REQUIRE(estimate<double>(ctx, p, o, got.get()) == status::success);
    check_map(got, p.covariance(1, 0.5L), p.centre(), 1e-12);
  }
}

TEST_CASE("a dimension that follows from others is singular, whichever way its variance was rounded") {
  for (std::uint64_t seed = 20; seed < 40; ++seed) {
    CAPTURE(seed);
    // Three directions in four dimensions.
    whitening_problem<double> p(seed, 3, 4, 10, 3);
    map_memory<double> got(4);
    const status result = estimate<double>(context_of(1), p, {}, got.get());
    if (suite_is_device)
      CHECK(std::isnan(got.log_abs_det[0]));
    else
      CHECK(result == status::not_positive_definite);
  }
}

TEST_CASE("a covariance that is not finite, and no samples at all") {
  for (const int what : {0, 1, 2}) {
    whitening_problem<double> p(4, 3, 80, 10);
    lgm::whitening_options<double> o;
    o.variance_floor = 1;
    if (what == 0) p.scatter.data()[5 * 80 + 71] = std::numeric_limits<double>::quiet_NaN();
    if (what == 1) p.scatter.data()[70 * 80 + 70] = std::numeric_limits<double>::infinity();
    if (what == 2) std::fill_n(p.count.data(), 3, 0.0);
    map_memory<double> got(80);
    const status result = estimate<double>(context_of(2), p, o, got.get());
    if (suite_is_device)
      CHECK(std::isnan(got.log_abs_det[0]));
    else
      CHECK(result == status::not_positive_definite);
  }
}

TEST_CASE_TEMPLATE("whitened rows are right in tiles and with strides", T, float, double) {
  for (const std::int64_t dims : {1L, 5L, 255L, 256L, 257L, 300L})
    for (const std::int64_t samples : {0L, 1L, 3L, 600L})
      for (const std::size_t tile_bytes : {std::size_t{1}, std::size_t{64} << 20}) {
        // One thread's scratch ends where the workspace does; of several each has its own.
        const int threads = tile_bytes == 1 || dims < 256 ? 1 : 3;
        CAPTURE(dims);
        CAPTURE(samples);
        CAPTURE(tile_bytes);
        generator random(5);
        lgm::shape s = make_shape(samples, 0, dims, lgm::covariance::diagonal);
        s.feature_stride = dims + 3;
        s.gradient_stride = dims + 2;
        std::vector<T> features(size_of(samples * s.feature_stride)), map(size_of(dims * dims)),
            offset(size_of(dims));
        for (T& x : features) x = static_cast<T>(100 + random.normal());
        for (T& c : offset) c = static_cast<T>(100 + random.normal());
        for (std::size_t i = 0; i < size_of(dims); ++i)
          for (std::size_t j = 0; j <= i; ++j) map[i * size_of(dims) + j] = static_cast<T>(random.normal());
        guarded<T> out(samples, dims, s.gradient_stride), plain(samples, dims, s.gradient_stride);
        const auto call = [&](const lgm::whitening<T>& w, guarded<T>& to) {
          return run<T>(context_of(threads, tile_bytes), s, [&](lgm::workspace memory) {
            return lgm::whiten(context_of(threads, tile_bytes), s, w, features.data(), to.data(), memory);
          });
        };
        REQUIRE(call({map.data(), offset.data()}, out) == status::success);
        REQUIRE(call({map.data()}, plain) == status::success);
        double worst = 0;
        for (std::size_t i = 0; i < size_of(samples); ++i)
          for (std::size_t j = 0; j < size_of(dims); ++j)
            for (const bool centred : {true, false}) {
              real sum = 0, size = 0;
              for (std::size_t k = 0; k <= j; ++k) {
                const real x = static_cast<real>(features[i * size_of(s.feature_stride) + k]) -
                               (centred ? static_cast<real>(offset[k]) : 0);
                sum += static_cast<real>(map[j * size_of(dims) + k]) * x;
                size += std::fabs(static_cast<real>(map[j * size_of(dims) + k]) * x);
              }
              const real value = static_cast<real>((centred ? out : plain).at(i, j));
              raise(worst, std::fabs(value - sum) / size);
            }
        CHECK(worst <= 24 * static_cast<double>(std::numeric_limits<T>::epsilon()));
        CHECK(out.intact());
        CHECK(plain.intact());
      }
}

TEST_CASE_TEMPLATE("one row is whitened in a kernel of one's own, under one thread and under lanes", T, float,
                   double) {
  for (const std::int64_t dims : {1L, 7L, 33L})
    for (const bool centred : {false, true}) {
      CAPTURE(dims);
      CAPTURE(centred);
      generator random(8);
      const std::size_t d = size_of(dims);
      // What is above the diagonal is not read.
      std::vector<T> map(d * d, std::numeric_limits<T>::quiet_NaN()), x(d), offset(d);
      for (std::size_t i = 0; i < d; ++i) {
        for (std::size_t j = 0; j <= i; ++j) map[i * d + j] = static_cast<T>(random.normal());
        x[i] = static_cast<T>(3 + random.normal());
        offset[i] = static_cast<T>(3 + random.normal());
      }
      std::vector<real> expected(d), bound(d);
      for (std::size_t i = 0; i < d; ++i)
        for (std::size_t j = 0; j <= i; ++j) {
          const real term = static_cast<real>(map[i * d + j]) *
                            (static_cast<real>(x[j]) - (centred ? static_cast<real>(offset[j]) : 0));
          expected[i] += term;
          bound[i] += growth<T>(d) * std::fabs(term);
        }
      const auto check = [&](const char* name, const auto& team) {
        guarded<T> y(dims);
        team.run([&](const auto& group, int) {
          lgm::whiten_row(group, dims, static_cast<const T*>(map.data()),
                          centred ? static_cast<const T*>(offset.data()) : nullptr,
                          static_cast<const T*>(x.data()), y.data());
        });
        CHECK(y.intact());
        check_within(name, y, expected, bound);
      };
      check("one thread", one_lane<lgm::serial_group>{});
      check("lanes", emulated_group{5, lane_order::shuffled});
    }
}

TEST_CASE_TEMPLATE("densities of whitened features are those of the features", T, float, double) {
  for (const std::int64_t dims : {3L, 70L}) {
    CAPTURE(dims);
    const std::int64_t classes = 4, samples = 9;
    const std::size_t d = size_of(dims);
    whitening_problem<double> p(6, classes, dims, 100);
    p.count.data()[1] = 5;  // no class is empty: all of them are scored
    generator random(7);
    for (std::size_t j = 0; j < d; ++j) p.mean.data()[d + j] = random.normal();
    map_memory<T> map(dims);
    lgm::whitening_options<T> o;
    o.shrinkage = T(0.125);
    const auto ctx = context_of(2);
    REQUIRE(estimate<T>(ctx, p, o, map.get()) == status::success);
    std::vector<T> features(size_of(samples) * d), means(size_of(classes) * d), log_prior;
    for (T& x : features) x = static_cast<T>(3 + 2 * random.normal());
    for (std::size_t n = 0; n < means.size(); ++n) means[n] = static_cast<T>(p.mean[n]);
    for (std::int64_t k = 0; k < classes; ++k) log_prior.push_back(static_cast<T>(random.uniform(-2, 0)));
    const auto whitened = [&](std::int64_t rows, const std::vector<T>& in) {
      const lgm::shape s = make_shape(rows, classes, dims, lgm::covariance::identity);
      std::vector<T> out(in.size());
      REQUIRE(run<T>(ctx, s, [&](lgm::workspace w) {
                return lgm::whiten(ctx, s, map.get(), in.data(), out.data(), w);
              }) == status::success);
      return out;
    };
    const std::vector<T> white = whitened(samples, features), white_means = whitened(classes, means);
    const lgm::shape s = make_shape(samples, classes, dims, lgm::covariance::identity);
    lgm::mixture<T> mixture;
    mixture.mean = white_means.data();
    mixture.log_prior = log_prior.data();
    mixture.log_abs_det = map.log_abs_det.data();
    score_outputs<T> scores(s);
    REQUIRE(run<T>(ctx, s, [&](lgm::workspace w) {
              return lgm::score(ctx, s, mixture, white.data(), scores.result(), w);
            }) == status::success);

    // (x - mu)^T Sigma^-1 (x - mu), with W of long double.
    const matrix w = inverse_factor(p.covariance(0.125L, 0), d);
    real log_det = 0, priors = 0;
    for (std::size_t j = 0; j < d; ++j) log_det += std::log(w[j * d + j]);
    for (const T each : log_prior) priors += std::exp(static_cast<real>(each));
    const real constant = log_det - static_cast<real>(dims) / 2 * std::log(2 * std::acos(real(-1)));
    for (std::size_t i = 0; i < size_of(samples); ++i) {
      std::vector<real> squared, logit;
      for (std::size_t k = 0; k < size_of(classes); ++k) {
        real sum = 0;
        for (std::size_t r = 0; r < d; ++r) {
          real y = 0;
          for (std::size_t j = 0; j <= r; ++j)
            y +=
                w[r * d + j] * (static_cast<real>(features[i * d + j]) - static_cast<real>(means[k * d + j]));
          sum += y * y;
        }
        squared.push_back(sum);
        logit.push_back(static_cast<real>(log_prior[k]) - sum / 2);
      }
      const std::size_t best =
          static_cast<std::size_t>(std::max_element(logit.begin(), logit.end()) - logit.begin());
      real evidence = 0;
      for (const real l : logit) evidence += std::exp(l - logit[best]);
      const real mixed = logit[best] + std::log(evidence) - std::log(priors) + constant;
      const double tolerance = std::is_same<T, float>::value ? 2e-5 : 1e-12;
      const auto near = [&](T value, real expected) {
        CHECK(std::fabs(static_cast<double>(static_cast<real>(value) - expected)) <=
              tolerance * (1 + std::fabs(static_cast<double>(expected))));
      };
      CHECK(scores.predicted[i] == static_cast<std::int64_t>(best));
      near(scores.squared_mahalanobis[i], squared[best]);
      near(scores.nearest_squared_mahalanobis[i], *std::min_element(squared.begin(), squared.end()));
      near(scores.log_density[i], constant - squared[best] / 2);
      near(scores.log_mixture[i], mixed);
    }
  }
}

TEST_CASE("what is not asked for, and what is wrong") {
  const auto ctx = context_of(1);
  whitening_problem<double> p(8, 3, 6, 10);
  map_memory<double> got(6), all(6);
  REQUIRE(estimate<double>(ctx, p, {}, all.get()) == status::success);
  REQUIRE(estimate<double>(ctx, p, {}, {got.matrix.data()}) == status::success);
  CHECK(got.matrix.same_bits(all.matrix));
  CHECK(got.offset.untouched());
  CHECK(got.log_abs_det.untouched());

  map_memory<double> none(6);
  scratch memory(lgm::whitening_workspace_size<double>(ctx, p.shape));
  const auto answer = [&](const lgm::shape& s, const lgm::class_moments<double>& m,
                          const lgm::whitening_options<double>& o, const lgm::whitening<double>& out,
                          const lgm::workspace& w) {
    const status result = lgm::estimate_whitening(ctx, s, m, o, out, w);
    CHECK(none.untouched());
    return result;
  };
  const auto moments = p.moments();
  const auto with = [&](auto change) {
    auto m = moments;
    change(m);
    return m;
  };
  CHECK(answer(p.shape, with([](auto& m) { m.count = nullptr; }), {}, none.get(), memory.get()) ==
        status::null_pointer);
  CHECK(answer(p.shape, with([](auto& m) { m.scatter = nullptr; }), {}, none.get(), memory.get()) ==
        status::null_pointer);
  CHECK(answer(p.shape, with([](auto& m) { m.mean = nullptr; }), {}, none.get(), memory.get()) ==
        status::null_pointer);
  CHECK(answer(p.shape, moments, {}, {nullptr, none.offset.data()}, memory.get()) == status::null_pointer);
  CHECK(answer(p.shape, moments, {}, none.get(), {}) == status::null_pointer);
  CHECK(answer(p.shape, moments, {-1.0, 0.0}, none.get(), memory.get()) == status::invalid_option);
  CHECK(answer(p.shape, moments, {0.0, 1.5}, none.get(), memory.get()) == status::invalid_option);
  CHECK(answer(p.shape, moments, {std::nan(""), 0.0}, none.get(), memory.get()) == status::invalid_option);
  CHECK(answer(p.shape, moments, {}, none.get(), {memory.get().data, memory.get().bytes - 1}) ==
        status::workspace_too_small);
  lgm::shape bad = p.shape;
  bad.dims = -1;
  CHECK(answer(bad, moments, {}, none.get(), memory.get()) == status::negative_size);
  CHECK(lgm::whitening_workspace_size<double>(ctx, bad) == 0);
  bad.dims = std::int64_t{1} << 32;
  bad.classes = 0;
  CHECK(answer(bad, moments, {}, none.get(), memory.get()) == status::size_too_large);

  lgm::shape s = make_shape(2, 0, 6, lgm::covariance::identity);
  std::vector<double> in(12), out(12);
  scratch small(lgm::workspace_size<double>(ctx, s));
  CHECK(lgm::whiten<double>(ctx, s, {}, in.data(), out.data(), small.get()) == status::null_pointer);
  CHECK(lgm::whiten<double>(ctx, s, all.get(), nullptr, out.data(), small.get()) == status::null_pointer);
  CHECK(lgm::whiten<double>(ctx, s, all.get(), in.data(), nullptr, small.get()) == status::null_pointer);
  CHECK(lgm::whiten<double>(ctx, s, all.get(), in.data(), out.data(), {}) == status::null_pointer);
  CHECK(lgm::whiten<double>(ctx, s, all.get(), in.data(), out.data(), {small.get().data, 1}) ==
        status::workspace_too_small);
  s.gradient_stride = 5;
  CHECK(lgm::whiten<double>(ctx, s, all.get(), in.data(), out.data(), small.get()) ==
        status::stride_too_small);
}

TEST_CASE("whitening without samples or dimensions succeeds") {
  const auto ctx = context_of(1);
  whitening_problem<double> p(9, 3, 0, 1);
  map_memory<double> got(0);
  scratch memory(lgm::whitening_workspace_size<double>(ctx, p.shape));
  CHECK(lgm::estimate_whitening(ctx, p.shape, p.moments(), lgm::whitening_options<double>{}, got.get(),
                                memory.get()) == status::success);
  CHECK(got.log_abs_det[0] == 0);
}
