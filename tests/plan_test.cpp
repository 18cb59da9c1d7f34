// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <lgm/detail/workspace.hpp>
#include <lgm/lgm.hpp>
#include <limits>

// How calls are cut into tiles: the workspace's promises by arithmetic, at sizes that nobody would run in a
// test.

namespace {

constexpr std::size_t mebibyte = std::size_t(1) << 20;

struct sizes {
  std::int64_t samples, classes, dims;
};
// From a toy over MNIST, CIFAR-100, ImageNet and faces to what does not fit anywhere.
const sizes shapes[] = {{128, 10, 2},         {128, 10, 64},         {256, 100, 384},
                        {1024, 1000, 512},    {4096, 1000, 2048},    {2048, 10000, 512},
                        {1024, 100000, 512},  {16384, 250000, 2048}, {1, 1, 1},
                        {1, 10000000, 512},   {1000000, 1000, 512},  {std::int64_t(1) << 31, 10, 3},
                        {1000000, 2, 100000}, {3, 10000000, 2},      {200, 70000, 64}};
const lgm::covariance covariances[] = {lgm::covariance::identity, lgm::covariance::spherical,
                                       lgm::covariance::diagonal};

lgm::shape make(const sizes& n, lgm::covariance c) {
  lgm::shape s;
  s.samples = n.samples;
  s.classes = n.classes;
  s.dims = n.dims;
  s.covariance = c;
  return s;
}

}  // namespace

TEST_CASE_TEMPLATE("the workspace stays within the limit", T, float, double) {
  for (const sizes& n : shapes) {
    for (const lgm::covariance c : covariances) {
      for (const int threads : {1, 2, 16, 128}) {
        CAPTURE(n.samples);
        CAPTURE(n.classes);
        CAPTURE(n.dims);
        CAPTURE(threads);
        lgm::host_context ctx;
        ctx.threads = threads;
        CHECK(lgm::workspace_size<T>(ctx, make(n, c)) <= 64 * mebibyte);
        ctx.tile_bytes = 256 * mebibyte;
        CHECK(lgm::workspace_size<T>(ctx, make(n, c)) <= 256 * mebibyte);
      }
    }
  }
}

TEST_CASE("a limit that is too small gives the least that works, not nothing") {
  lgm::host_context ctx;
  ctx.tile_bytes = 0;
  const std::size_t least =
      lgm::workspace_size<float>(ctx, make({1024, 1000, 512}, lgm::covariance::diagonal));
  CHECK(least > 0);
  CHECK(least < 4 * mebibyte);
}

TEST_CASE("tiles cover the problem, with whole rows where they fit") {
  for (const sizes& n : shapes) {
    for (const lgm::covariance c : covariances) {
      const lgm::shape s = make(n, c);
      const auto plan = lgm::detail::host_plan::make<float>(s, 2, 64 * mebibyte);
      CHECK(plan.rows >= 1);
      CHECK(plan.rows <= n.samples);
      CHECK(plan.classes >= 1);
      CHECK(plan.classes <= n.classes);
      CHECK(plan.operand >= 1);
      CHECK(plan.operand <= plan.classes);
      CHECK(plan.block >= 1);
      CHECK(plan.block <= lgm::detail::host_plan::largest_block);
      // The blocks of classes are cut out of an operand that is interleaved by packets.
      CHECK((plan.block % lgm::detail::packet<float>::size == 0 || plan.block >= plan.operand));
      CHECK(plan.whole_rows == (plan.classes == n.classes));
    }
  }
  const auto plan = [](const sizes& n) {
    return lgm::detail::host_plan::make<float>(make(n, lgm::covariance::identity), 2, 64 * mebibyte);
  };
  CHECK(plan({1024, 1000, 512}).rows == 1024);
  CHECK(plan({2048, 10000, 512}).whole_rows);
  CHECK(plan({2048, 10000, 512}).rows >= 128);
}

TEST_CASE("sizes that a function would refuse need no workspace") {
  const lgm::host_context ctx;
  CHECK(lgm::workspace_size<float>(ctx, make({-1, 10, 2}, lgm::covariance::identity)) == 0);
  CHECK(lgm::workspace_size<float>(
            ctx, make({std::int64_t(1) << 40, 10, std::int64_t(1) << 40}, lgm::covariance::identity)) == 0);
}

TEST_CASE_TEMPLATE("sizes that no memory has need a workspace that no memory has, or as much as the limit", T,
                   float, double) {
  constexpr std::int64_t last = std::numeric_limits<std::int64_t>::max(), half = std::int64_t(1) << 57;
  for (const sizes& n : {sizes{last, 0, 0}, sizes{0, last, 0}, sizes{0, 0, last}, sizes{last / 16, 1, 1},
                         sizes{1, last / 16, 1}, sizes{1, 1, last / 16}, sizes{half, 2, 2}, sizes{2, half, 2},
                         sizes{2, 2, half}, sizes{half, 1, 0}, sizes{0, half, 1}, sizes{0, 1, half}})
    for (const lgm::covariance c : covariances)
      for (const int threads : {1, 2, std::numeric_limits<int>::max()}) {
        CAPTURE(n.samples);
        CAPTURE(n.classes);
        CAPTURE(n.dims);
        CAPTURE(static_cast<int>(c));
        lgm::host_context ctx;
        ctx.threads = threads;
        ctx.tile_bytes = mebibyte;
        CHECK(lgm::workspace_size<T>(ctx, make(n, c)) >= mebibyte);
      }
}

TEST_CASE_TEMPLATE("a workspace for some samples is enough for fewer", T, float, double) {
  for (const sizes& n : shapes) {
    for (const lgm::covariance c : covariances) {
      for (const std::size_t limit : {std::size_t(0), 3 * mebibyte, 64 * mebibyte}) {
        lgm::host_context ctx;
        ctx.threads = 2;
        ctx.tile_bytes = limit;
        std::size_t fewer = 0;
        for (std::int64_t samples = 0; samples <= n.samples; samples += 1 + samples / 7) {
          const std::size_t bytes = lgm::workspace_size<T>(ctx, make({samples, n.classes, n.dims}, c));
          CHECK(bytes >= fewer);
          fewer = bytes;
        }
      }
    }
  }
}

TEST_CASE("log_variance_size is what the covariance needs") {
  CHECK(lgm::log_variance_size(make({5, 3, 4}, lgm::covariance::identity)) == 0);
  CHECK(lgm::log_variance_size(make({5, 3, 4}, lgm::covariance::spherical)) == 3);
  CHECK(lgm::log_variance_size(make({5, 3, 4}, lgm::covariance::diagonal)) == 12);
}

TEST_CASE("pieces of a workspace begin at cache lines, wherever its memory does") {
  alignas(64) static char memory[1024];
  for (std::size_t offset = 0; offset <= 64; ++offset) {
    lgm::detail::arena sizes, pieces(lgm::workspace{memory + offset, sizeof(memory) - offset});
    for (lgm::detail::arena* a : {&sizes, &pieces}) {
      char* const one = a->take<char>(1);
      double* const two = a->take<double>(9);
      CHECK(reinterpret_cast<std::uintptr_t>(one) % 64 == 0);
      CHECK(reinterpret_cast<std::uintptr_t>(two) % 64 == 0);
      if (one != nullptr) CHECK(reinterpret_cast<char*>(two + 9) <= memory + offset + sizes.bytes());
    }
  }
}
