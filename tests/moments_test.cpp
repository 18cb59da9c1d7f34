// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <lgm/detail/host/packet_group.hpp>
#include <lgm/moments.hpp>
#include <limits>
#include <string>
#include <vector>

#include "support/moments.hpp"
#include "support/plain_gemm.hpp"

// Moments of classes, however their samples arrive, against two passes in long double.

namespace {

using lgm::status;
using namespace support;
using without = moments_memory<double>::without;

constexpr double promised = 1e-12;
constexpr std::size_t batches[] = {1, 7, 64, 1000000};

// Every batch in moments of its own, merged two at a time until one is left: a random tree.
template <class A, class T>
moments_memory<A> merged_tree(generator& random, const lgm::host_context& context,
                              const labelled_samples<T>& s, std::size_t batch, unsigned leave_out) {
  std::vector<moments_memory<A>> parts;
  for (std::size_t first = 0; first < s.samples(); first += batch) {
    parts.emplace_back(s.shape);
    REQUIRE(accumulate(context, s, first, std::min(batch, s.samples() - first),
                       parts.back().get(leave_out)) == status::success);
  }
  std::vector<std::size_t> roots = shuffled(random, parts.size());
  while (roots.size() > 1) {
    const std::size_t from = roots.back();
    roots.pop_back();
    const std::size_t into = random.pick(roots);
    REQUIRE(lgm::merge_moments(context, s.shape, parts[from].get(leave_out), parts[into].get(leave_out)) ==
            status::success);
  }
  return std::move(parts[roots.front()]);
}

template <class A>
void check_error(moments_memory<A>& got, const exact_moments& exact, unsigned leave_out, double bound) {
  const moments_error e = error_of(got, exact, leave_out);
  CHECK(e.mean <= bound);
  CHECK(e.mean_in_deviations <= bound);
  CHECK(e.m2 <= bound);
  CHECK(e.scatter <= bound);
}

}  // namespace

TEST_CASE_TEMPLATE("any order, any batches, any tree of merges: 1e-12 at a mean of 1e6", T, float, double) {
  generator random(1);
  for (const bool weighted : {false, true}) {
    CAPTURE(weighted);
    sample_recipe how;
    how.weighted = weighted;
    const labelled_samples<T> original = make_samples<T>(2, 700, 5, 19, how);
    const exact_moments exact = exact_moments::of<double>(original);
    REQUIRE(exact.count[3] > 0);
    REQUIRE(exact.count[4] == 0);
    for (int order = 0; order < 3; ++order) {
      const labelled_samples<T> s =
          order == 0 ? original : original.ordered(shuffled(random, original.samples()));
      for (const std::size_t batch : batches) {
        CAPTURE(batch);
        moments_memory<double> streamed(s.shape);
        stream(context_of(1), s, batch, streamed.get(without::nothing));
        check_error(streamed, exact, without::nothing, promised);
        moments_memory<double> merged =
            merged_tree<double>(random, context_of(1), s, batch, without::nothing);
        check_error(merged, exact, without::nothing, promised);
      }
    }
  }
}

TEST_CASE("30,000 samples one by one keep their digits, which without the residual they do not") {
  const auto s = make_samples<double>(3, 30000, 1, 2);
  const exact_moments exact = exact_moments::of<double>(s);
  moments_memory<double> kept(s.shape), dropped(s.shape);
  stream(context_of(1), s, 1, kept.get());
  check_error(kept, exact, without::no_scatter, promised);
  stream(context_of(1), s, 1, dropped.get(without::no_scatter | without::no_residual));
  const moments_error e = error_of(dropped, exact, without::no_scatter | without::no_residual);
  CHECK(e.m2 > promised);
  CHECK(e.m2 < 1e6 * std::numeric_limits<double>::epsilon());
  CHECK(dropped.residual.untouched());
}

TEST_CASE("the squares of samples far from the first, and of equal samples") {
  // The first sample is 1e8 deviations away from all others; what it adds must not hide their own squares' digits.
  auto s = make_samples<double>(4, 300, 1, 3, {0, 0});
  for (std::size_t j = 0; j < 3; ++j) s.feature(0, j) = 1e8;
  const exact_moments exact = exact_moments::of<double>(s);
  moments_memory<double> m(s.shape);
  stream(context_of(1), s, 1, m.get());
  CHECK(error_of(m, exact, without::no_scatter).m2 <= promised);
  CHECK(error_of(m, exact, without::no_scatter).mean <= promised);
  // Equal samples have no variance at all, whatever their weights.
  for (double& x : s.features) x = 1e6 + 0.1;
  for (std::size_t i = 0; i < s.samples(); ++i) s.weights.push_back(0.1 + 0.7 * static_cast<double>(i % 5));
  moments_memory<double> equal(s.shape);
  stream(context_of(1), s, 7, equal.get());
  CHECK(equal.m2.all_zero());
  for (std::size_t j = 0; j < 3; ++j) CHECK(equal.mean[j] == 1e6 + 0.1);
}

TEST_CASE("float moments are right for float features, and for double features as rounded to float") {
  generator random(5);
  const auto check = [&](const auto& s) {
    const exact_moments exact = exact_moments::of<float>(s);
    // Each class's sums have some 170 terms, of up to three roundings each.
    const double bound = shown(growth<float>(400));
    for (const std::size_t batch : batches) {
      CAPTURE(batch);
      moments_memory<float> streamed(s.shape);
      stream(context_of(1), s, batch, streamed.get(without::nothing));
      check_error(streamed, exact, without::nothing, bound);
      moments_memory<float> merged = merged_tree<float>(random, context_of(1), s, batch, without::nothing);
      check_error(merged, exact, without::nothing, bound);
    }
  };
  check(make_samples<float>(6, 500, 5, 17, {1e4, 0.1}));
  check(make_samples<double>(7, 500, 5, 17, {100, 0.1, true}));
}

TEST_CASE_TEMPLATE("the same bits however a call is cut: batches, tiles, threads, strides, alignment, pool",
                   A, float, double) {
  const lgm::shape narrow = make_shape(300, 6, 37, lgm::covariance::diagonal);
  for (const std::int64_t dims : {narrow.dims, std::int64_t(1100)}) {
    CAPTURE(dims);
    auto s = make_samples<float>(8, 300, 6, dims, {10, 0.1, true});
    moments_memory<A> expected(s.shape);
    REQUIRE(accumulate(context_of(1), s, 0, 300, expected.get(without::nothing)) == status::success);
    CHECK_FALSE(expected.scatter.all_zero());
    for (const std::size_t batch : {1u, 7u, 64u}) {
      moments_memory<A> m(s.shape);
      stream(context_of(1), s, batch, m.get());
      m.check_same_class_bits(expected);
    }
    for (const std::size_t tile_bytes : {0u, 5000u, 1u << 16}) {
      moments_memory<A> m(s.shape);
      REQUIRE(accumulate(context_of(2, tile_bytes), s, 0, 300, m.get(without::nothing)) == status::success);
      m.check_same_class_bits(expected);
    }
    lgm::host_context pool = context_of(3);
    pool.parallel_for.run = [](void*, int slots, void (*call)(void*, int), void* state) {
      for (int slot = slots - 1; slot >= 0; --slot) call(state, slot);
    };
    for (const lgm::host_context& context : {context_of(2), context_of(5), pool})
      for (const std::size_t offset : {0u, 1u, 3u}) {
        moments_memory<A> m(s.shape, offset);
        REQUIRE(accumulate(context, s, 0, 300, m.get(without::nothing), offset) == status::success);
        m.check_same_bits(expected);
      }
    const auto wide = make_samples<float>(8, 300, 6, dims, {10, 0.1, true, dims + 3});
    moments_memory<A> m(s.shape);
    REQUIRE(accumulate(context_of(1), wide, 0, 300, m.get(without::nothing)) == status::success);
    m.check_same_bits(expected);

    // Merges.
    moments_memory<A> half(s.shape), whole(s.shape);
    REQUIRE(accumulate(context_of(1), s, 0, 140, half.get(without::nothing)) == status::success);
    REQUIRE(accumulate(context_of(1), s, 140, 160, whole.get(without::nothing)) == status::success);
    REQUIRE(lgm::merge_moments(context_of(1), s.shape, half.get(without::nothing),
                               whole.get(without::nothing)) == status::success);
    for (const lgm::host_context& context : {context_of(2), context_of(5), pool})
      for (const std::size_t offset : {0u, 1u, 3u}) {
        moments_memory<A> from(s.shape, offset), into(s.shape, offset);
        REQUIRE(accumulate(context_of(1), s, 0, 140, from.get(without::nothing)) == status::success);
        REQUIRE(accumulate(context_of(1), s, 140, 160, into.get(without::nothing)) == status::success);
        REQUIRE(lgm::merge_moments(context, s.shape, from.get(without::nothing),
                                   into.get(without::nothing)) == status::success);
        into.check_same_bits(whole);
        from.check_same_bits(half);
      }
  }
}

TEST_CASE("samples are sorted where one digit of the sort does not tell the classes apart") {
  // Classes k, k + 1024 and k + 2048 share their lowest ten bits, and their samples come in any order.
  const auto s = make_samples<double>(19, 4000, 2500, 2, {10, 0.1});
  moments_memory<double> m(s.shape);
  stream(context_of(1), s, 2000, m.get());
  check_error(m, exact_moments::of<double>(s), without::no_scatter, promised);
}

TEST_CASE("the scatter is symmetric to the bit, and in tiles and squares of any size right") {
  for (const std::int64_t dims : {1, 63, 65, 300}) {
    CAPTURE(dims);
    const auto s = make_samples<double>(9, 90, 4, dims, {50, 0.1, true});
    const exact_moments exact = exact_moments::of<double>(s);
    const auto symmetric = [&](const moments_memory<double>& m) {
      bool same = true;
      for (std::size_t i = 0; i < s.dims(); ++i)
        for (std::size_t j = 0; j < i; ++j) same = same && m.scatter.at(i, j) == m.scatter.at(j, i);
      CHECK(same);
    };
    for (const std::size_t tile_bytes : {0u, 3000u, 1u << 20}) {
      moments_memory<double> m(s.shape), first(s.shape), rest(s.shape);
      stream(context_of(2, tile_bytes), s, 50, m.get(without::nothing));
      symmetric(m);
      check_error(m, exact, without::nothing, promised);
      REQUIRE(accumulate(context_of(1), s, 0, 30, first.get(without::nothing)) == status::success);
      REQUIRE(accumulate(context_of(1), s, 30, 60, rest.get(without::nothing)) == status::success);
      REQUIRE(lgm::merge_moments(context_of(2), s.shape, rest.get(without::nothing),
                                 first.get(without::nothing)) == status::success);
      symmetric(first);
      check_error(first, exact, without::nothing, promised);
    }
    // A lower triangle that is poison is not read, only written.
    moments_memory<double> m(s.shape);
    for (std::size_t i = 0; i < s.dims(); ++i)
      for (std::size_t j = 0; j < i; ++j) m.scatter.data()[i * s.dims() + j] = NAN;
    REQUIRE(accumulate(context_of(1), s, 0, 90, m.get(without::nothing)) == status::success);
    check_error(m, exact, without::nothing, promised);
  }
}

namespace {
// A caller's products: plain loops that count their calls and decline every `decline`-th.
struct plain_products {
  int calls = 0, decline = 0;
  static bool call(void* user, bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n,
                   std::int64_t k, double alpha, const double* a, std::int64_t lda, const double* b,
                   std::int64_t ldb, double beta, double* c, std::int64_t ldc) {
    auto& self = *static_cast<plain_products*>(user);
    if (++self.calls % 3 == self.decline) return false;
    return plain_gemm(nullptr, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  }
};
}  // namespace

TEST_CASE("the scatter's products are the caller's where there is a hook that takes them") {
  const auto s = make_samples<double>(10, 200, 4, 600);
  const exact_moments exact = exact_moments::of<double>(s);
  for (const int decline : {3, 0, 1, 2}) {
    CAPTURE(decline);
    plain_products products;
    products.decline = decline;
    lgm::host_context context = context_of(2);
    context.gemm.dgemm = plain_products::call;
    context.gemm.user = &products;
    moments_memory<double> m(s.shape);
    stream(context, s, 150, m.get(without::nothing));
    CHECK(products.calls == 6);  // three rows of squares, twice
    check_error(m, exact, without::nothing, promised);
  }
}

TEST_CASE("arrays that are null are not computed, and the others have the same bits") {
  const auto s = make_samples<float>(11, 80, 4, 9);
  moments_memory<double> all(s.shape);
  stream(context_of(1), s, 30, all.get(without::nothing));
  using w = without;
  for (const unsigned leave_out :
       {+w::no_scatter, +w::no_m2, w::no_m2 | w::no_scatter, w::no_m2 | w::no_scatter | w::no_mean,
        w::no_m2 | w::no_scatter | w::no_residual}) {
    CAPTURE(leave_out);
    moments_memory<double> m(s.shape), from(s.shape), into(s.shape);
    stream(context_of(1), s, 30, m.get(leave_out));
    REQUIRE(accumulate(context_of(1), s, 0, 40, into.get(leave_out)) == status::success);
    REQUIRE(accumulate(context_of(1), s, 40, 40, from.get(leave_out)) == status::success);
    REQUIRE(lgm::merge_moments(context_of(1), s.shape, from.get(leave_out), into.get(leave_out)) ==
            status::success);
    CHECK(m.count.same_bits(all.count));
    CHECK(into.count.same_bits(all.count));
    if (leave_out & w::no_mean) {
      CHECK(m.mean.untouched());
      CHECK(m.residual.untouched());
      CHECK(into.mean.untouched());
      CHECK(into.residual.untouched());
      continue;
    }
    if (leave_out & w::no_residual) {
      CHECK(m.residual.untouched());
      CHECK(into.residual.untouched());
    } else {
      CHECK(m.mean.same_bits(all.mean));
      CHECK(m.residual.same_bits(all.residual));
    }
    if (leave_out & w::no_m2) {
      CHECK(m.m2.untouched());
      CHECK(into.m2.untouched());
    } else {
      CHECK(m.m2.same_bits(all.m2));
    }
    if (leave_out & w::no_scatter) {
      CHECK(m.scatter.all_zero());
      CHECK(into.scatter.all_zero());
    } else {
      CHECK(m.scatter.same_bits(all.scatter));
    }
  }
  // Counts alone need no features.
  moments_memory<double> counts(s.shape);
  scratch memory(lgm::workspace_size<float>(context_of(1), s.shape));
  CHECK(lgm::accumulate_moments(context_of(1), s.shape, s.options, static_cast<const float*>(nullptr),
                                s.labels.data(), counts.get(w::no_scatter | w::no_m2 | w::no_mean),
                                memory.get()) == status::success);
  CHECK(counts.count.same_bits(all.count));
}

TEST_CASE("merges with a residual on one side only") {
  const auto s = make_samples<double>(12, 400, 2, 5);
  const exact_moments exact = exact_moments::of<double>(s);
  for (const unsigned lost : {1u, 2u}) {
    moments_memory<double> from(s.shape), into(s.shape);
    stream(context_of(1), s, 400, into.get(without::nothing));
    // All of it once more.
    stream(context_of(1), s, 400, from.get(without::nothing));
    const auto drop = [&](unsigned bit) {
      return lost == bit ? without::no_residual | without::nothing : +without::nothing;
    };
    REQUIRE(lgm::merge_moments(context_of(1), s.shape, from.get(drop(1)), into.get(drop(2))) ==
            status::success);
    exact_moments twice = exact;
    for (auto* array : {&twice.count, &twice.m2, &twice.scatter})
      for (real& value : *array) value *= 2;
    // The means differ by what was dropped, 1e-10 deviations at most, and its square is all that m2 sees of it.
    check_error(into, twice, without::no_residual, promised);
    CHECK(into.residual.intact());
  }
}

TEST_CASE("of a class that has no samples nothing is read or written") {
  const auto s = make_samples<double>(13, 60, 5, 6);
  moments_memory<double> seen(s.shape), empty(s.shape), into(s.shape);
  stream(context_of(1), s, 60, seen.get(without::nothing));
  // The last class has none: error_of looks for the poison.
  CHECK(error_of(seen, exact_moments::of<double>(s), without::nothing).mean <= promised);
  // Into moments without samples, and from them.
  REQUIRE(lgm::merge_moments(context_of(1), s.shape, seen.get(without::nothing),
                             into.get(without::nothing)) == status::success);
  into.check_same_bits(seen);
  REQUIRE(lgm::merge_moments(context_of(1), s.shape, empty.get(without::nothing),
                             into.get(without::nothing)) == status::success);
  into.check_same_bits(seen);
  // No samples, and only samples that do not count.
  labelled_samples<double> none = s;
  none.labels.assign(60, none.options.ignore_label);
  for (double& x : none.features) x = NAN;
  REQUIRE(accumulate(context_of(1), none, 0, 60, into.get(without::nothing)) == status::success);
  REQUIRE(accumulate(context_of(1), none, 0, 0, into.get(without::nothing)) == status::success);
  into.check_same_bits(seen);
  none.labels = s.labels;
  none.weights.assign(60, 0);
  REQUIRE(accumulate(context_of(1), none, 0, 60, into.get(without::nothing)) == status::success);
  into.check_same_bits(seen);
}

TEST_CASE("no dimensions leave the counts; no classes need no memory") {
  const auto flat = make_samples<double>(14, 60, 5, 0);
  moments_memory<double> once(flat.shape), twice(flat.shape);
  for (auto* into : {&once, &twice}) stream(context_of(1), flat, 60, into->get(without::nothing));
  check_error(once, exact_moments::of<double>(flat), without::nothing, promised);
  REQUIRE(lgm::merge_moments(context_of(1), flat.shape, once.get(without::nothing),
                             twice.get(without::nothing)) == status::success);
  for (std::size_t k = 0; k < 5; ++k) CHECK(twice.count[k] == 2 * once.count[k]);
  const lgm::shape none = make_shape(0, 0, 6, lgm::covariance::diagonal);
  CHECK(lgm::merge_moments(context_of(1), none, lgm::class_moments<double>{}, lgm::class_moments<double>{}) ==
        status::success);
}

TEST_CASE_TEMPLATE("a feature that is not finite stays in its class and dimension", A, float, double) {
  auto s = make_samples<float>(14, 100, 5, 20, {3, 0.1});
  moments_memory<A> clean(s.shape), spoiled(s.shape);
  stream(context_of(1), s, 30, clean.get(without::nothing));
  std::size_t at = 50;
  while (s.labels[at] != 1) ++at;
  for (const float value :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    s.feature(at, 4) = value;
    moments_memory<A> m(s.shape);
    stream(context_of(1), s, 30, m.get(without::nothing));
    const auto hit = [](std::size_t k, std::size_t j) { return k == 1 && j == 4; };
    CHECK(m.count.same_bits(clean.count));
    for (std::size_t k = 0; k < 4; ++k)
      for (std::size_t j = 0; j < 20; ++j) {
        CHECK(std::isfinite(m.mean.at(k, j)) == !hit(k, j));
        CHECK(std::isfinite(m.m2.at(k, j)) == !hit(k, j));
        if (!hit(k, j)) CHECK(m.mean.at(k, j) == clean.mean.at(k, j));
        if (!hit(k, j)) CHECK(m.m2.at(k, j) == clean.m2.at(k, j));
      }
    for (std::size_t i = 0; i < 20; ++i)
      for (std::size_t j = 0; j < 20; ++j) {
        CHECK(std::isfinite(m.scatter.at(i, j)) == (i != 4 && j != 4));
        if (i != 4 && j != 4) CHECK(m.scatter.at(i, j) == clean.scatter.at(i, j));
      }
  }
}

TEST_CASE_TEMPLATE("labels of every type; an ignored label may be one of the classes", L, std::int32_t,
                   std::int64_t, std::uint8_t, unsigned, long long, std::size_t) {
  auto s = make_samples<double>(15, 90, 4, 5, {2, 0});
  s.options.ignore_label = 1;
  for (std::size_t i = 0; i < 90; ++i)
    if (s.labels[i] == 1) s.feature(i, 0) = NAN;
  const std::vector<L> labels(s.labels.begin(), s.labels.end());
  moments_memory<double> m(s.shape);
  CHECK(run<double>(context_of(1), s.shape, [&](lgm::workspace w) {
          return lgm::accumulate_moments(context_of(1), s.shape, s.options, s.features.data(), labels.data(),
                                         m.get(), w);
        }) == status::success);
  CHECK(m.count[1] == 0);
  check_error(m, exact_moments::of<double>(s), without::no_scatter, promised);
}

TEST_CASE("shards of the classes hold what the whole would") {
  const auto s = make_samples<double>(16, 200, 7, 11);
  moments_memory<double> whole(s.shape);
  stream(context_of(1), s, 60, whole.get(without::nothing));
  std::vector<real> scatter(121, 0);
  for (const std::int64_t begin : {0, 3, 6}) {
    auto shard = s;
    shard.shape.class_begin = begin;
    shard.shape.classes = begin == 6 ? 1 : 3;
    shard.shape.total_classes = 7;
    moments_memory<double> m(shard.shape), doubled(shard.shape);
    stream(context_of(1), shard, 60, m.get(without::nothing));
    for (std::size_t k = 0; k < size_of(shard.shape.classes); ++k) {
      const std::size_t in_whole = k + size_of(begin);
      CHECK(m.count[k] == whole.count[in_whole]);
      for (std::size_t j = 0; j < 11 && m.count[k] > 0; ++j) {
        CHECK(m.mean.at(k, j) == whole.mean.at(in_whole, j));
        CHECK(m.m2.at(k, j) == whole.m2.at(in_whole, j));
      }
    }
    for (std::size_t n = 0; n < 121; ++n) scatter[n] += static_cast<real>(m.scatter[n]);
    CHECK(lgm::merge_moments(context_of(1), shard.shape, m.get(), doubled.get()) == status::success);
    m.check_same_class_bits(doubled);
  }
  for (std::size_t n = 0; n < 121; ++n)
    CHECK(std::fabs(shown(scatter[n] - static_cast<real>(whole.scatter[n]))) <= 1e-10);
}

namespace {

template <class A, class T, class Group>
void check_group_merge(const Group& group) {
  for (const std::int64_t dims : {1, 5, 16, 33}) {
    const auto s = make_samples<T>(17, 200, 1, dims, {1e3, 0});
    const exact_moments exact = exact_moments::of<A>(s);
    moments_memory<A> m(s.shape), half(s.shape);
    std::vector<A> deviation(size_of(dims) + 1, A(7)), squares(size_of(dims), A(0));
    A* count = m.count.data();
    const auto add = [&](moments_memory<A>& into, std::size_t i) {
      lgm::merge_class<Group, const T*, A>(
          group, dims, A(1), &s.features[i * size_of(dims)], nullptr, nullptr, into.count.data()[0],
          {into.mean.data(), into.residual.data(), into.m2.data()}, deviation.data());
      into.count.data()[0] += A(1);
      for (std::size_t j = 0; j < size_of(dims); ++j) squares[j] += deviation[j] * deviation[j];
    };
    for (std::size_t i = 0; i < 90; ++i) add(m, i);
    for (std::size_t i = 90; i < 200; ++i) add(half, i);
    lgm::merge_class<Group, const A*, A>(group, dims, half.count[0], half.mean.data(), half.residual.data(),
                                         half.m2.data(), count[0],
                                         {m.mean.data(), m.residual.data(), m.m2.data()}, deviation.data());
    *count += half.count[0];
    const double bound = shown(growth<A>(200));
    check_error(m, exact, without::no_scatter, bound);
    CHECK(deviation.back() == A(7));
    for (std::size_t j = 0; j < size_of(dims); ++j)
      CHECK(std::fabs(shown(static_cast<real>(squares[j] + deviation[j] * deviation[j]) / exact.m2[j] - 1)) <=
            bound);
  }
}

}  // namespace

TEST_CASE_TEMPLATE("one class's sums are right under one thread", A, float, double) {
  check_group_merge<A, float>(lgm::serial_group{});
  check_group_merge<A, double>(lgm::serial_group{});
}

TEST_CASE_TEMPLATE("one class's sums are right under the lanes of a register", A, float, double) {
  check_group_merge<A, float>(lgm::detail::packet_group<A>{});
  check_group_merge<A, double>(lgm::detail::packet_group<A>{});
}

TEST_CASE("two_sum loses nothing") {
  generator random(18);
  for (int n = 0; n < 10000; ++n) {
    const float a = static_cast<float>(random.normal() * std::exp2(random.uniform(-20, 20)));
    const float b = static_cast<float>(random.normal() * std::exp2(random.uniform(-20, 20)));
    const lgm::double_word<float> s = lgm::two_sum(a, b);
    const bool exact = s.high == a + b && static_cast<real>(s.high) + static_cast<real>(s.low) ==
                                              static_cast<real>(a) + static_cast<real>(b);
    CHECK(exact);
  }
}
