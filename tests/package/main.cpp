// SPDX-License-Identifier: MIT

// One forward call through an lgm that another project found: two samples, each on the mean of its class.

#include <cstdint>
#include <cstdio>
#include <lgm/lgm.hpp>
#include <vector>

int main() {
  lgm::host_context context;
  lgm::shape shape;
  shape.samples = 2;
  shape.classes = 2;
  shape.dims = 2;
  shape.covariance = lgm::covariance::identity;
  const float mean[] = {0, 0, 8, 8};
  const std::int32_t labels[] = {0, 1};

  float total = -1;
  std::int64_t correct = 0;
  lgm::loss_result<float> result;
  result.total = &total;
  result.correct = &correct;
  std::vector<unsigned char> scratch(lgm::workspace_size<float, float>(context, shape));
  const lgm::status status =
      lgm::forward(context, shape, lgm::mixture<float>{mean}, lgm::loss_options<float>{}, mean, labels,
                   result, lgm::workspace{scratch.data(), scratch.size()});
  std::printf("%s: loss %g, %d correct\n", lgm::to_string(status), static_cast<double>(total),
              static_cast<int>(correct));
  return status == lgm::status::success && correct == 2 && total >= 0 && total < 1e-6f ? 0 : 1;
}
