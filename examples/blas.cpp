// SPDX-License-Identifier: MIT

// The matrix products of the BLAS at hand in place of Eigen's. include/lgm/README.md shows the part between the markers.

// [readme]
#include <cblas.h>

#include <lgm/cblas.hpp>
#include <lgm/lgm.hpp>
// [/readme]

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

int main() {
  const lgm::shape shape{/*samples=*/256, /*classes=*/100, /*dims=*/64, lgm::covariance::identity};
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> features(256 * 64), mean(100 * 64), mixture_density(256);
  for (float& v : mean) v = normal(random);
  for (float& v : features) v = normal(random);

  lgm::host_context context;
  std::vector<char> memory(lgm::workspace_size<float>(context, shape));
  lgm::status status = lgm::status::success;
  const auto mean_log_density = [&] {
    lgm::score_result<float> result;
    result.log_mixture = mixture_density.data();
    status =
        lgm::score(context, shape, {mean.data()}, features.data(), result, {memory.data(), memory.size()});
    double sum = 0;
    for (const float v : mixture_density) sum += static_cast<double>(v);
    return sum / 256;
  };

  const double with_eigen = mean_log_density();
  // [readme]
  context.gemm = lgm::cblas_gemm<cblas_sgemm, cblas_dgemm>();
  // [/readme]
  const double with_blas = mean_log_density();

  std::printf("%s; mean log density: %.5f with Eigen, %.5f with the BLAS\n", lgm::to_string(status),
              with_eigen, with_blas);
  return std::fabs(with_eigen - with_blas) < 1e-5 * std::fabs(with_eigen) ? 0 : 1;
}
