// SPDX-License-Identifier: MIT

// A hand-rolled training loop: a linear layer under an L-GM head, on three made-up classes. include/lgm/README.md shows the part
// between the two markers.

#include <lgm/lgm.hpp>

#include <Eigen/Core>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

int main() {
  const std::int64_t samples = 300, inputs = 5, classes = 3, dims = 2;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  matrix x = matrix::NullaryExpr(samples, inputs, [&] { return normal(random); });
  std::vector<std::int32_t> labels;
  for (std::int32_t i = 0; i < samples; ++i) {
    labels.push_back(i % 3);
    x(i, i % 3) += 4;  // class k is moved along axis k
  }
  matrix weight = 0.1f * matrix::Random(inputs, dims), features(samples, dims),
         feature_gradient(samples, dims);

  // [readme]
  matrix mean(classes, dims), mean_gradient(classes, dims), velocity = matrix::Zero(classes, dims);
  float loss = 0;

  const lgm::host_context context;
  const lgm::shape shape{samples, classes, dims, lgm::covariance::identity};
  std::vector<char> memory(lgm::workspace_size<float>(context, shape));
  const lgm::workspace workspace{memory.data(), memory.size()};
  const lgm::parameters<float> parameters{mean.data()};
  const lgm::gradients<float, float> gradients{feature_gradient.data(), mean_gradient.data()};
  lgm::loss_result<float> result;
  result.total = &loss;
  lgm::sgd_options<float> sgd;
  sgd.mean_rate = 0.1f;
  sgd.momentum = 0.9f;

  lgm::status status = lgm::initialize_means(context, shape, /*seed=*/1, /*scale=*/1, parameters);
  for (int step = 0; step < 100 && status == lgm::status::success; ++step) {
    features.noalias() = x * weight;
    const lgm::loss_options<float> options{/*alpha=*/0.3f, /*lambda=*/0.1f};
    status = lgm::forward_backward(context, shape, parameters, options, features.data(), labels.data(),
                                   /*upstream=*/nullptr, result, gradients, workspace);
    if (status != lgm::status::success) break;
    weight -= 0.1f * x.transpose() * feature_gradient;
    status = lgm::sgd_step(context, shape, sgd, gradients, {velocity.data()}, parameters);
    if (step % 10 == 9) std::printf("step %3d: loss %.4f\n", step + 1, static_cast<double>(loss));
  }
  // [/readme]
  if (status != lgm::status::success) std::printf("%s\n", lgm::to_string(status));
  return status == lgm::status::success ? 0 : 1;
}
