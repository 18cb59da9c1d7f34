// SPDX-License-Identifier: MIT

// The classes of a mixture spread over four ranks, here one after the other in one process: each sees its own classes
// only, and together they compute what one call with all classes does. include/lgm/README.md shows the part between the markers.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <lgm/lgm.hpp>
#include <random>
#include <stdexcept>
#include <vector>

void must(lgm::status status) {
  if (status != lgm::status::success) throw std::runtime_error(lgm::to_string(status));
}

struct rank {
  lgm::shape shard;
  lgm::mixture<float> mixture;  // the means of its classes
  std::vector<float> row_state, feature_gradient, mean_gradient;
  float loss = 0;
};

int main() {
  constexpr int ranks_count = 4, samples = 64, classes = 1000, dims = 16;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(samples * dims), mean(classes * dims);
  std::vector<std::int64_t> label(samples);
  for (float& v : mean) v = normal(random);
  for (std::size_t i = 0; i < samples; ++i) {
    label[i] = static_cast<std::int64_t>(i) * 13 % classes;
    for (std::size_t j = 0; j < dims; ++j)
      x[i * dims + j] = mean[static_cast<std::size_t>(label[i]) * dims + j] + normal(random);
  }
  const float* const features = x.data();
  const std::int64_t* const labels = label.data();

  const lgm::host_context context;
  const lgm::loss_options<float> options{/*alpha=*/0.3f, /*lambda=*/0.1f};
  const lgm::shape whole{samples, classes, dims, lgm::covariance::identity};
  std::vector<char> memory(lgm::workspace_size<float>(context, whole));
  const lgm::workspace workspace{memory.data(), memory.size()};

  std::vector<rank> ranks(ranks_count);
  for (std::size_t n = 0; n < ranks_count; ++n) {
    constexpr std::size_t share = classes / ranks_count;
    lgm::shape shard = whole;
    shard.classes = share;
    shard.class_begin = static_cast<std::int64_t>(n * share);
    shard.total_classes = classes;
    ranks[n] = {shard,
                {mean.data() + n * share * dims},
                std::vector<float>(2 * samples),
                std::vector<float>(samples * dims),
                std::vector<float>(share * dims)};
  }

  // [readme]
  // Every rank: what its classes say of each sample.
  for (rank& r : ranks) {
    lgm::loss_result<float> result;
    result.row_state = r.row_state.data();
    must(lgm::forward(context, r.shard, r.mixture, options, features, labels, result, workspace));
  }
  // Everybody's together, in any order.
  float* const merged = ranks[0].row_state.data();
  for (std::size_t n = 1; n < ranks.size(); ++n)
    must(lgm::merge_row_state(context, whole, ranks[n].row_state.data(), merged));
  // Every rank: the gradients of its means, and its parts of the loss and of the feature gradient, which add up.
  for (rank& r : ranks) {
    must(lgm::finish_forward(context, r.shard, r.mixture, options, features, labels, merged, {&r.loss},
                             workspace));
    must(lgm::backward(context, r.shard, r.mixture, options, features, labels, merged, nullptr,
                       {r.feature_gradient.data(), r.mean_gradient.data()}, workspace));
  }
  // [/readme]

  float sharded = 0, unsharded = 0;
  for (const rank& r : ranks) sharded += r.loss;
  must(lgm::forward(context, whole, {mean.data()}, options, features, labels, {&unsharded}, workspace));
  std::printf("loss of %d classes: %.6f in %d shards, %.6f in one call\n", classes,
              static_cast<double>(sharded), ranks_count, static_cast<double>(unsharded));
  return std::fabs(sharded - unsharded) <= 1e-5f * unsharded ? 0 : 1;
}
