// SPDX-License-Identifier: MIT

// Trains a mixture of three classes on six made-up samples; then scores a point like them and one unlike them.
#include <cstdio>
#include <lgm/lgm.hpp>
#include <stdexcept>
#include <vector>

void must(lgm::status status) {
  if (status != lgm::status::success) throw std::runtime_error(lgm::to_string(status));
}

int main() {
  const float x[] = {-1, 3, 1, 3, -4, -2, -2, -2, 2, -2, 4, -2};
  const int labels[] = {0, 0, 1, 1, 2, 2};
  std::vector<float> mean(3 * 2), mean_gradient(3 * 2);

  const lgm::host_context context;
  const lgm::shape shape{/*samples=*/6, /*classes=*/3, /*dims=*/2, lgm::covariance::identity};
  const lgm::parameters<float> model{mean.data()};
  const lgm::gradients<float, float> gradients{/*feature=*/nullptr, mean_gradient.data()};
  std::vector<char> memory(lgm::workspace_size<float>(context, shape));
  const lgm::workspace workspace{memory.data(), memory.size()};
  lgm::sgd_options<float> sgd;
  sgd.mean_rate = 1;

  must(lgm::initialize_means(context, shape, /*seed=*/1, /*scale=*/1, model));
  for (int step = 0; step <= 60; ++step) {
    float loss = 0;
    must(lgm::forward_backward(context, shape, model, {/*alpha=*/0.3f, /*lambda=*/0.1f}, x, labels,
                               /*upstream=*/nullptr, {&loss}, gradients, workspace));
    must(lgm::sgd_step(context, shape, sgd, gradients, /*momentum=*/{}, model));
    if (step % 20 == 0) std::printf("step %2d: loss %.3f\n", step, loss);
  }

  const float points[] = {0, 3, 0, 9};  // in the middle of class 0, and where no sample was
  float posterior[2] = {}, log_mixture[2] = {};
  must(lgm::score(context, {2, 3, 2, lgm::covariance::identity}, model, points,
                  {/*predicted=*/nullptr, posterior, /*log_density=*/nullptr, log_mixture}, workspace));
  for (int i = 0; i < 2; ++i)
    std::printf("(%g, %g): posterior %.3f, log p(x) %.1f\n", points[2 * i], points[2 * i + 1], posterior[i],
                log_mixture[i]);
}
