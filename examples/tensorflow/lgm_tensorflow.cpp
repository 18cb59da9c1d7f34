// SPDX-License-Identifier: MIT

// The library's functions as TensorFlow operations for the CPU, for lgm_tensorflow.py. Tensors are dense and row-major, as
// TensorFlow has them. T: float or double. What may be left out (log_variance, log_prior, labels) is a list of one tensor or
// none; the rank of log_variance tells the covariance. Threads are TensorFlow's, and so is the workspace.

#include <tensorflow/core/framework/op.h>
#include <tensorflow/core/framework/op_kernel.h>
#include <tensorflow/core/framework/shape_inference.h>
#include <tensorflow/core/platform/threadpool.h>

#include <cstddef>
#include <cstdint>
#include <lgm/lgm.hpp>
#include <string>
#include <type_traits>
#include <vector>

namespace tf = tensorflow;
using tf::shape_inference::InferenceContext;
using tf::shape_inference::ShapeHandle;

namespace {

// ---- shapes, as far as they are known when a graph is made ----

// features [samples, dims] and what every operation has.
struct known_shapes {
  ShapeHandle features, mean;
  std::vector<ShapeHandle> log_variance, log_prior, labels;

  absl::Status read(InferenceContext* c) {
    TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 2, &features));
    TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 2, &mean));
    tf::shape_inference::DimensionHandle dims;
    TF_RETURN_IF_ERROR(c->Merge(c->Dim(features, 1), c->Dim(mean, 1), &dims));
    TF_RETURN_IF_ERROR(c->input("log_variance", &log_variance));
    TF_RETURN_IF_ERROR(c->input("log_prior", &log_prior));
    if (!c->input("labels", &labels).ok()) labels.clear();  // score has none
    ShapeHandle merged;
    const ShapeHandle classes = c->Vector(c->Dim(mean, 0));
    for (const ShapeHandle& shape : log_variance) {
      TF_RETURN_IF_ERROR(c->WithRankAtLeast(shape, 1, &merged));
      if (!c->RankKnown(shape)) continue;
      TF_RETURN_IF_ERROR(c->Merge(shape, c->Rank(shape) == 1 ? classes : mean, &merged));
    }
    for (const ShapeHandle& shape : log_prior) TF_RETURN_IF_ERROR(c->Merge(shape, classes, &merged));
    for (const ShapeHandle& shape : labels) TF_RETURN_IF_ERROR(c->Merge(shape, samples(c), &merged));
    return absl::OkStatus();
  }
  ShapeHandle samples(InferenceContext* c) const { return c->Vector(c->Dim(features, 0)); }
};

absl::Status gradient_shapes(InferenceContext* c) {
  known_shapes known;
  TF_RETURN_IF_ERROR(known.read(c));
  int n = 0;
  c->set_output(n++, known.features);
  c->set_output(n++, known.mean);
  for (const ShapeHandle& shape : known.log_variance) c->set_output(n++, shape);
  for (const ShapeHandle& shape : known.log_prior) c->set_output(n++, shape);
  return absl::OkStatus();
}

// ---- what every kernel does ----

absl::Status answer(lgm::status status) {
  if (status == lgm::status::success) return absl::OkStatus();
  return absl::InvalidArgumentError(std::string("lgm: ") + lgm::to_string(status));
}

// TensorFlow's threads for kernels of this device.
lgm::host_context context_of(tf::OpKernelContext* c) {
  const auto run = [](void* pool, int slots, void (*call)(void*, int), void* state) {
    using params = tf::thread::ThreadPool::SchedulingParams;
    static_cast<tf::thread::ThreadPool*>(pool)->ParallelFor(
        slots, params::Fixed(1), [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t slot = begin; slot < end; ++slot) call(state, static_cast<int>(slot));
        });
  };
  const auto* threads = c->device()->tensorflow_cpu_worker_threads();
  lgm::host_context context;
  context.threads = threads->num_threads;
  context.parallel_for = {run, threads->workers};
  return context;
}

template <class T>
const T* data(const tf::Tensor& tensor) {
  return tensor.flat<T>().data();
}
template <class T>
T* data(tf::Tensor* tensor) {
  return tensor->flat<T>().data();
}

// The arguments that the operations share, checked: sizes, which TensorFlow does not promise to have compared, and the mixture.
template <class T>
struct arguments {
  lgm::host_context context;
  lgm::shape shape;
  lgm::mixture<T> mixture;
  lgm::loss_options<T> options;
  const T* features = nullptr;
  const std::int64_t* labels = nullptr;  // null: none were given

  absl::Status read(tf::OpKernelContext* c) {
    context = context_of(c);
    const tf::Tensor &x = c->input(0), &mean = c->input(1);
    if (x.dims() != 2 || mean.dims() != 2 || x.dim_size(1) != mean.dim_size(1))
      return wrong("features [samples, dims] and mean [classes, dims] are of", x, mean);
    shape.samples = x.dim_size(0);
    shape.classes = mean.dim_size(0);
    shape.dims = mean.dim_size(1);
    features = data<T>(x);
    mixture.mean = data<T>(mean);

    const tf::Tensor* tensor = nullptr;
    shape.covariance = lgm::covariance::identity;
    TF_RETURN_IF_ERROR(optional(c, "log_variance", &tensor));
    if (tensor != nullptr) {
      const bool spherical = tensor->dims() == 1 && tensor->dim_size(0) == shape.classes;
      if (!spherical && tensor->shape() != mean.shape())
        return wrong("log_variance [classes] or [classes, dims] and mean are of", *tensor, mean);
      shape.covariance = spherical ? lgm::covariance::spherical : lgm::covariance::diagonal;
      mixture.log_variance = data<T>(*tensor);
    }
    TF_RETURN_IF_ERROR(optional(c, "log_prior", &tensor));
    if (tensor != nullptr) {
      if (tensor->dims() != 1 || tensor->dim_size(0) != shape.classes)
        return wrong("log_prior [classes] and mean are of", *tensor, mean);
      mixture.log_prior = data<T>(*tensor);
    }
    return absl::OkStatus();
  }
  absl::Status read_labels(tf::OpKernelContext* c, std::int64_t ignore_label) {
    const tf::Tensor* tensor = nullptr;
    TF_RETURN_IF_ERROR(optional(c, "labels", &tensor));
    options.ignore_label = ignore_label;
    if (tensor == nullptr) return absl::OkStatus();
    if (tensor->dims() != 1 || tensor->dim_size(0) != shape.samples)
      return wrong("labels [samples] and features are of", *tensor, c->input(0));
    labels = data<std::int64_t>(*tensor);
    return absl::OkStatus();
  }
  // A number among the options.
  static absl::Status read_option(tf::OpKernelContext* c, const char* name, T& option) {
    const tf::Tensor* tensor = nullptr;
    TF_RETURN_IF_ERROR(c->input(name, &tensor));
    if (tensor->dims() != 0)
      return absl::InvalidArgumentError(std::string("lgm: ") + name + " is a number, not of " +
                                        tensor->shape().DebugString());
    option = tensor->scalar<T>()();
    return absl::OkStatus();
  }
  // f(workspace)
  template <class F>
  absl::Status run(tf::OpKernelContext* c, F f) const {
    tf::Tensor memory;
    const auto bytes = static_cast<std::int64_t>(lgm::workspace_size<T>(context, shape));
    TF_RETURN_IF_ERROR(c->allocate_temp(tf::DT_UINT8, tf::TensorShape({bytes}), &memory));
    return answer(f(lgm::workspace{data<std::uint8_t>(&memory), static_cast<std::size_t>(bytes)}));
  }
  // Of the parameters that were given, in their order; the features' first.
  static absl::Status allocate(tf::OpKernelContext* c, lgm::gradients<T, T>& gradients) {
    const char* const inputs[] = {"features", "mean", "log_variance", "log_prior"};
    T** const outputs[] = {&gradients.feature, &gradients.mean, &gradients.log_variance,
                           &gradients.log_prior};
    int n = 0;
    for (int i = 0; i < 4; ++i) {
      const tf::Tensor* input = nullptr;
      TF_RETURN_IF_ERROR(optional(c, inputs[i], &input));
      if (input == nullptr) continue;
      tf::Tensor* output = nullptr;
      TF_RETURN_IF_ERROR(c->allocate_output(n++, input->shape(), &output));
      *outputs[i] = data<T>(output);
    }
    return absl::OkStatus();
  }

 private:
  static absl::Status optional(tf::OpKernelContext* c, const char* name, const tf::Tensor** tensor) {
    tf::OpInputList list;
    TF_RETURN_IF_ERROR(c->input_list(name, &list));
    if (list.size() > 1) return absl::InvalidArgumentError(std::string("lgm: more than one ") + name);
    *tensor = list.size() == 0 ? nullptr : &list[0];
    return absl::OkStatus();
  }
  static absl::Status wrong(const char* what, const tf::Tensor& a, const tf::Tensor& b) {
    return absl::InvalidArgumentError(std::string("lgm: ") + what + " " + a.shape().DebugString() + " and " +
                                      b.shape().DebugString());
  }
};

// A kernel of an operation that takes labels.
class labelled_kernel : public tf::OpKernel {
 public:
  explicit labelled_kernel(tf::OpKernelConstruction* c) : OpKernel(c) {
    OP_REQUIRES_OK(c, c->GetAttr("ignore_label", &ignore_label_));
  }
  void Compute(tf::OpKernelContext* c) override { OP_REQUIRES_OK(c, compute(c)); }

 protected:
  virtual absl::Status compute(tf::OpKernelContext* c) const = 0;
  // The arguments with the labels and the margin.
  template <class T>
  absl::Status read(tf::OpKernelContext* c, arguments<T>& a) const {
    TF_RETURN_IF_ERROR(a.read(c));
    TF_RETURN_IF_ERROR(a.read_labels(c, ignore_label_));
    return a.read_option(c, "alpha", a.options.alpha);
  }

 private:
  std::int64_t ignore_label_ = 0;
};

// ---- logits, and the likelihood of each sample: what a loss of the caller's own is made of ----

template <class T>
class logits_kernel : public labelled_kernel {
 public:
  using labelled_kernel::labelled_kernel;

 private:
  absl::Status compute(tf::OpKernelContext* c) const override {
    arguments<T> a;
    TF_RETURN_IF_ERROR(read(c, a));
    a.options.reduction = lgm::reduction::none;
    tf::Tensor *logits = nullptr, *likelihood = nullptr;
    TF_RETURN_IF_ERROR(c->allocate_output(0, {a.shape.samples, a.shape.classes}, &logits));
    TF_RETURN_IF_ERROR(c->allocate_output(1, {a.labels == nullptr ? 0 : a.shape.samples}, &likelihood));
    return a.run(c, [&](lgm::workspace w) {
      const lgm::status made =
          lgm::logits(a.context, a.shape, a.mixture, a.options, a.features, a.labels, data<T>(logits), w);
      if (made != lgm::status::success || a.labels == nullptr) return made;
      lgm::loss_result<T> result;
      result.likelihood = data<T>(likelihood);
      return lgm::forward(a.context, a.shape, a.mixture, a.options, a.features, a.labels, result, w);
    });
  }
};

template <class T>
class logits_gradient_kernel : public labelled_kernel {
 public:
  using labelled_kernel::labelled_kernel;

 private:
  absl::Status compute(tf::OpKernelContext* c) const override {
    arguments<T> a;
    TF_RETURN_IF_ERROR(read(c, a));
    const tf::Tensor *of_logits = nullptr, *of_likelihood = nullptr;
    TF_RETURN_IF_ERROR(c->input("logits_gradient", &of_logits));
    TF_RETURN_IF_ERROR(c->input("likelihood_gradient", &of_likelihood));
    if (of_logits->shape() != tf::TensorShape({a.shape.samples, a.shape.classes}) ||
        of_likelihood->shape() != tf::TensorShape({a.labels == nullptr ? 0 : a.shape.samples}))
      return absl::InvalidArgumentError("lgm: gradients are not of the results' shapes");
    // Each sample's likelihood, weighed by what flows back to it.
    a.options.reduction = lgm::reduction::sum;
    a.options.lambda = T(1);
    a.options.sample_weight = data<T>(*of_likelihood);
    lgm::gradients<T, T> gradients;
    TF_RETURN_IF_ERROR(a.allocate(c, gradients));
    return a.run(c, [&](lgm::workspace w) {
      return lgm::logits_backward(a.context, a.shape, a.mixture, a.options, a.features, a.labels,
                                  data<T>(*of_logits), nullptr, gradients, w);
    });
  }
};

// ---- the loss ----

class loss_base : public labelled_kernel {
 public:
  explicit loss_base(tf::OpKernelConstruction* c) : labelled_kernel(c) {
    std::string name;
    OP_REQUIRES_OK(c, c->GetAttr("reduction", &name));
    reduction_ = name == "mean"  ? lgm::reduction::mean
                 : name == "sum" ? lgm::reduction::sum
                                 : lgm::reduction::none;
  }

 protected:
  template <class T>
  absl::Status read_loss(tf::OpKernelContext* c, arguments<T>& a) const {
    TF_RETURN_IF_ERROR(read(c, a));
    TF_RETURN_IF_ERROR(a.read_option(c, "lambda", a.options.lambda));
    a.options.reduction = reduction_;
    return absl::OkStatus();
  }
  // Of the loss.
  tf::TensorShape result_shape(const lgm::shape& shape) const {
    return reduction_ == lgm::reduction::none ? tf::TensorShape({shape.samples}) : tf::TensorShape({});
  }

 private:
  lgm::reduction reduction_ = lgm::reduction::mean;
};

template <class T>
class loss_kernel : public loss_base {
 public:
  using loss_base::loss_base;

 private:
  absl::Status compute(tf::OpKernelContext* c) const override {
    arguments<T> a;
    TF_RETURN_IF_ERROR(read_loss(c, a));
    tf::Tensor *loss = nullptr, *row_state = nullptr;
    TF_RETURN_IF_ERROR(c->allocate_output(0, result_shape(a.shape), &loss));
    TF_RETURN_IF_ERROR(c->allocate_output(1, {a.shape.samples, 2}, &row_state));
    lgm::loss_result<T> result;
    result.total = data<T>(loss);
    result.row_state = data<T>(row_state);
    return a.run(c, [&](lgm::workspace w) {
      return lgm::forward(a.context, a.shape, a.mixture, a.options, a.features, a.labels, result, w);
    });
  }
};

template <class T>
class loss_gradient_kernel : public loss_base {
 public:
  using loss_base::loss_base;

 private:
  absl::Status compute(tf::OpKernelContext* c) const override {
    arguments<T> a;
    TF_RETURN_IF_ERROR(read_loss(c, a));
    const tf::Tensor *row_state = nullptr, *upstream = nullptr;
    TF_RETURN_IF_ERROR(c->input("row_state", &row_state));
    TF_RETURN_IF_ERROR(c->input("loss_gradient", &upstream));
    if (row_state->shape() != tf::TensorShape({a.shape.samples, 2}) ||
        upstream->shape() != result_shape(a.shape))
      return absl::InvalidArgumentError("lgm: gradients are not of the results' shapes");
    lgm::gradients<T, T> gradients;
    TF_RETURN_IF_ERROR(a.allocate(c, gradients));
    return a.run(c, [&](lgm::workspace w) {
      return lgm::backward(a.context, a.shape, a.mixture, a.options, a.features, a.labels,
                           data<T>(*row_state), data<T>(*upstream), gradients, w);
    });
  }
};

// ---- scores ----

template <class T>
class score_kernel : public tf::OpKernel {
 public:
  using tf::OpKernel::OpKernel;
  void Compute(tf::OpKernelContext* c) override { OP_REQUIRES_OK(c, compute(c)); }

 private:
  static absl::Status compute(tf::OpKernelContext* c) {
    arguments<T> a;
    TF_RETURN_IF_ERROR(a.read(c));
    lgm::score_result<T> result;
    absl::Status allocated = absl::OkStatus();
    int n = 0;
    lgm::for_each_score(result, [&](const char*, auto*& array) {
      tf::Tensor* out = nullptr;
      allocated.Update(c->allocate_output(n++, {a.shape.samples}, &out));
      if (out != nullptr) array = data<std::remove_pointer_t<std::remove_reference_t<decltype(array)>>>(out);
    });
    TF_RETURN_IF_ERROR(allocated);
    return a.run(c, [&](lgm::workspace w) {
      return lgm::score(a.context, a.shape, a.mixture, a.features, result, w);
    });
  }
};

}  // namespace

REGISTER_OP("LgmLogits")
    .Input("features: T")
    .Input("mean: T")
    .Input("log_variance: variances * T")
    .Input("log_prior: priors * T")
    .Input("labels: targets * int64")
    .Input("alpha: T")
    .Output("logits: T")
    .Output("likelihood: T")
    .Attr("T: {float, double}")
    .Attr("variances: int >= 0")
    .Attr("priors: int >= 0")
    .Attr("targets: int >= 0")
    .Attr("ignore_label: int = -100")
    .SetShapeFn([](InferenceContext* c) {
      known_shapes known;
      TF_RETURN_IF_ERROR(known.read(c));
      c->set_output(0, c->Matrix(c->Dim(known.features, 0), c->Dim(known.mean, 0)));
      c->set_output(1, known.labels.empty() ? c->Vector(0) : known.samples(c));
      return absl::OkStatus();
    })
    .Doc(
        "Logits of a Gaussian mixture, with the margin where there are labels, and then each sample's "
        "likelihood term.");

REGISTER_OP("LgmLogitsGrad")
    .Input("features: T")
    .Input("mean: T")
    .Input("log_variance: variances * T")
    .Input("log_prior: priors * T")
    .Input("labels: targets * int64")
    .Input("alpha: T")
    .Input("logits_gradient: T")
    .Input("likelihood_gradient: T")
    .Output("features_gradient: T")
    .Output("mean_gradient: T")
    .Output("log_variance_gradient: variances * T")
    .Output("log_prior_gradient: priors * T")
    .Attr("T: {float, double}")
    .Attr("variances: int >= 0")
    .Attr("priors: int >= 0")
    .Attr("targets: int >= 0")
    .Attr("ignore_label: int = -100")
    .SetShapeFn(gradient_shapes)
    .Doc("The gradient of LgmLogits.");

REGISTER_OP("LgmLoss")
    .Input("features: T")
    .Input("mean: T")
    .Input("log_variance: variances * T")
    .Input("log_prior: priors * T")
    .Input("labels: int64")
    .Input("alpha: T")
    .Input("lambda: T")
    .Output("loss: T")
    .Output("row_state: T")
    .Attr("T: {float, double}")
    .Attr("variances: int >= 0")
    .Attr("priors: int >= 0")
    .Attr("ignore_label: int = -100")
    .Attr("reduction: {'mean', 'sum', 'none'} = 'mean'")
    .SetShapeFn([](InferenceContext* c) {
      known_shapes known;
      TF_RETURN_IF_ERROR(known.read(c));
      std::string reduction;
      TF_RETURN_IF_ERROR(c->GetAttr("reduction", &reduction));
      c->set_output(0, reduction == "none" ? known.samples(c) : c->Scalar());
      c->set_output(1, c->Matrix(c->Dim(known.features, 0), 2));
      return absl::OkStatus();
    })
    .Doc("The large-margin Gaussian mixture loss; row_state is what its gradient needs.");

REGISTER_OP("LgmLossGrad")
    .Input("features: T")
    .Input("mean: T")
    .Input("log_variance: variances * T")
    .Input("log_prior: priors * T")
    .Input("labels: int64")
    .Input("alpha: T")
    .Input("lambda: T")
    .Input("row_state: T")
    .Input("loss_gradient: T")
    .Output("features_gradient: T")
    .Output("mean_gradient: T")
    .Output("log_variance_gradient: variances * T")
    .Output("log_prior_gradient: priors * T")
    .Attr("T: {float, double}")
    .Attr("variances: int >= 0")
    .Attr("priors: int >= 0")
    .Attr("ignore_label: int = -100")
    .Attr("reduction: {'mean', 'sum', 'none'} = 'mean'")
    .SetShapeFn(gradient_shapes)
    .Doc("The gradient of LgmLoss.");

// As REGISTER_OP, with an output for each score.
[[maybe_unused]] static const tf::InitOnStartupMarker registered_score = tf::InitOnStartupMarker{} << [] {
  tf::register_op::OpDefBuilderWrapper op("LgmScore");
  op.Input("features: T")
      .Input("mean: T")
      .Input("log_variance: variances * T")
      .Input("log_prior: priors * T");
  lgm::score_result<float> scores;
  lgm::for_each_score(scores, [&](const char* name, auto*& array) {
    const bool is_class = std::is_same<decltype(array), std::int64_t*&>::value;
    op.Output(std::string(name) + (is_class ? ": int64" : ": T"));
  });
  op.Attr("T: {float, double}")
      .Attr("variances: int >= 0")
      .Attr("priors: int >= 0")
      .SetShapeFn([](InferenceContext* c) {
        known_shapes known;
        TF_RETURN_IF_ERROR(known.read(c));
        for (int n = 0; n < lgm::count_scores(); ++n) c->set_output(n, known.samples(c));
        return absl::OkStatus();
      })
      .Doc("What a Gaussian mixture says of each sample.");
  return op;
}();

#define LGM_KERNEL(op, kernel)                                                                        \
  REGISTER_KERNEL_BUILDER(Name(op).Device(tf::DEVICE_CPU).TypeConstraint<float>("T"), kernel<float>); \
  REGISTER_KERNEL_BUILDER(Name(op).Device(tf::DEVICE_CPU).TypeConstraint<double>("T"), kernel<double>)
LGM_KERNEL("LgmLogits", logits_kernel);
LGM_KERNEL("LgmLogitsGrad", logits_gradient_kernel);
LGM_KERNEL("LgmLoss", loss_kernel);
LGM_KERNEL("LgmLossGrad", loss_gradient_kernel);
LGM_KERNEL("LgmScore", score_kernel);
