// SPDX-License-Identifier: MIT

// The loss in C++ alone: a torch::autograd::Function around the library, its gradients against finite differences, and a
// layer trained under it on made-up data.

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <lgm/lgm.hpp>
#include <utility>
#include <vector>

namespace {

using torch::Tensor;

void must(lgm::status status) {
  TORCH_CHECK(status == lgm::status::success, "lgm: ", lgm::to_string(status));
}

// On the CPU, all of float64 but the labels: features [samples, dims], labels [samples] of int64, mean and log_variance
// [classes, dims]. (For float32 put float for double.)
class lgm_loss : public torch::autograd::Function<lgm_loss> {
 public:
  static Tensor forward(torch::autograd::AutogradContext* ctx, const Tensor& x, const Tensor& labels,
                        const Tensor& mean, const Tensor& log_variance, double alpha, double lambda) {
    const Tensor features = x.contiguous();
    const Tensor loss = torch::empty({}, features.options());
    const Tensor row_state = torch::empty({features.size(0), 2}, features.options());
    lgm::loss_result<double> result;
    result.total = loss.mutable_data_ptr<double>();
    result.row_state = row_state.mutable_data_ptr<double>();
    call(features, mean, [&](const auto& context, const auto& shape, lgm::workspace w) {
      return lgm::forward(context, shape, mixture(mean, log_variance), options(alpha, lambda),
                          features.const_data_ptr<double>(), labels.const_data_ptr<std::int64_t>(), result,
                          w);
    });
    ctx->save_for_backward({features, labels, mean, log_variance, row_state});
    ctx->saved_data["alpha"] = alpha;
    ctx->saved_data["lambda"] = lambda;
    return loss;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& upstream) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &features = saved[0], &labels = saved[1], &mean = saved[2], &log_variance = saved[3],
                 &row_state = saved[4];
    const Tensor scale = upstream[0].contiguous();
    const Tensor feature_gradient = torch::empty_like(features), mean_gradient = torch::empty_like(mean),
                 log_variance_gradient = torch::empty_like(log_variance);
    call(features, mean, [&](const auto& context, const auto& shape, lgm::workspace w) {
      const lgm::gradients<double, double> gradients{feature_gradient.mutable_data_ptr<double>(),
                                                     mean_gradient.mutable_data_ptr<double>(),
                                                     log_variance_gradient.mutable_data_ptr<double>()};
      return lgm::backward(context, shape, mixture(mean, log_variance),
                           options(ctx->saved_data["alpha"].toDouble(), ctx->saved_data["lambda"].toDouble()),
                           features.const_data_ptr<double>(), labels.const_data_ptr<std::int64_t>(),
                           row_state.const_data_ptr<double>(), scale.const_data_ptr<double>(), gradients, w);
    });
    return {feature_gradient, Tensor(), mean_gradient, log_variance_gradient, Tensor(), Tensor()};
  }

 private:
  static lgm::mixture<double> mixture(const Tensor& mean, const Tensor& log_variance) {
    return {mean.const_data_ptr<double>(), log_variance.const_data_ptr<double>()};
  }
  static lgm::loss_options<double> options(double alpha, double lambda) { return {alpha, lambda}; }
  // function(context, shape, workspace)
  template <class F>
  static void call(const Tensor& features, const Tensor& mean, F function) {
    const lgm::host_context context;
    const lgm::shape shape{features.size(0), mean.size(0), mean.size(1), lgm::covariance::diagonal};
    const auto bytes = static_cast<std::int64_t>(lgm::workspace_size<double>(context, shape));
    const Tensor memory = torch::empty({bytes}, torch::kByte);
    must(
        function(context, shape, lgm::workspace{memory.mutable_data_ptr(), static_cast<std::size_t>(bytes)}));
  }
};

// The largest difference between gradients and central differences.
double gradient_error() {
  const auto options = torch::TensorOptions().requires_grad(true);
  const Tensor labels = torch::randint(4, {6}, torch::kLong);
  const std::vector<Tensor> leaves = {torch::randn({6, 3}, options), torch::randn({4, 3}, options),
                                      torch::randn({4, 3}, options)};
  const auto loss = [&] { return lgm_loss::apply(leaves[0], labels, leaves[1], leaves[2], 0.3, 0.1); };
  const auto gradients = torch::autograd::grad({2 * loss()}, leaves);
  double worst = 0;
  const torch::NoGradGuard no_grad;
  for (std::size_t n = 0; n < leaves.size(); ++n) {
    const Tensor value = leaves[n].view(-1), gradient = gradients[n].view(-1);
    for (std::int64_t i = 0; i < value.numel(); ++i) {
      const double at = value[i].item<double>(), step = 1e-6;
      value[i] = at + step;
      const double above = loss().item<double>();
      value[i] = at - step;
      const double below = loss().item<double>();
      value[i] = at;
      worst = std::max(worst, std::abs(gradient[i].item<double>() - 2 * (above - below) / (2 * step)));
    }
  }
  return worst;
}

// Trains a linear layer and the mixture; the losses of the first and of the last step.
std::pair<double, double> train() {
  const std::int64_t samples = 256, classes = 5, inputs = 16, dims = 8;
  const Tensor labels = torch::randint(classes, {samples}, torch::kLong);
  const Tensor x = torch::randn({classes, inputs}).index_select(0, labels) + torch::randn({samples, inputs});
  torch::nn::Linear layer(inputs, dims);
  const Tensor mean = torch::empty({classes, dims}), log_variance = torch::empty({classes, dims});
  must(lgm::initialize_means(
      lgm::host_context(), lgm::shape{0, classes, dims}, /*seed=*/1, /*scale=*/1,
      lgm::parameters<double>{mean.mutable_data_ptr<double>(), log_variance.mutable_data_ptr<double>()}));
  std::vector<Tensor> parameters = layer->parameters();
  parameters.push_back(mean.set_requires_grad(true));
  parameters.push_back(log_variance.set_requires_grad(true));
  torch::optim::Adam optimizer(parameters, torch::optim::AdamOptions(0.05));
  double first = 0, last = 0;
  for (int step = 0; step < 100; ++step) {
    optimizer.zero_grad();
    const Tensor loss = lgm_loss::apply(layer(x), labels, mean, log_variance, 0.1, 0.01);
    loss.backward();
    optimizer.step();
    last = loss.item<double>();
    if (step == 0) first = last;
  }
  return {first, last};
}

}  // namespace

int main() {
  torch::set_default_dtype(caffe2::TypeMeta::Make<double>());
  torch::manual_seed(0);
  const double error = gradient_error();
  const auto [first, last] = train();
  std::printf("gradients differ from finite differences by %.1e; loss %.3f -> %.3f\n", error, first, last);
  return error < 1e-7 && last < first / 2 ? 0 : 1;
}
