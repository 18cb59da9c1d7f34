// SPDX-License-Identifier: MIT

// The library's functions as XLA FFI handlers for the CPU, for lgm_jax.py. Arrays are dense and row-major, as XLA has them;
// one without elements is a null pointer. T: float or double.

#include <xla/ffi/api/ffi.h>

#include <cstddef>
#include <cstdint>
#include <lgm/lgm.hpp>
#include <memory>
#include <string>
#include <type_traits>

namespace ffi = xla::ffi;

namespace {

template <class T>
constexpr ffi::DataType type_of = sizeof(T) == 4 ? ffi::F32 : ffi::F64;
template <class T>
using array = ffi::Buffer<type_of<T>>;
template <class T>
using result_array = ffi::Result<ffi::Buffer<type_of<T>>>;
using labels_array = ffi::Buffer<ffi::S32>;

template <class T>
T* pointer(array<T>& a) {
  return a.element_count() == 0 ? nullptr : a.typed_data();
}
template <class T>
T* pointer(result_array<T>& a) {
  return a->element_count() == 0 ? nullptr : a->typed_data();
}

ffi::Error answer(lgm::status status) {
  if (status == lgm::status::success) return ffi::Error::Success();
  return ffi::Error::InvalidArgument(std::string("lgm: ") + lgm::to_string(status));
}

// What every call has: its sizes, from the arrays themselves, and the mixture.
template <class T>
struct call {
  lgm::host_context context;
  lgm::shape shape;
  lgm::mixture<T> mixture;
  lgm::loss_options<T> options;

  call(array<T>& features, array<T>& mean, array<T>& log_variance, array<T>& log_prior) {
    const auto x = features.dimensions(), mu = mean.dimensions();
    shape.samples = x[0];
    shape.classes = mu[0];
    shape.dims = mu[1];
    const std::size_t variances = log_variance.dimensions().size();
    shape.covariance = log_variance.element_count() == 0 ? lgm::covariance::identity
                       : variances == 1                  ? lgm::covariance::spherical
                                                         : lgm::covariance::diagonal;
    mixture.mean = pointer<T>(mean);
    mixture.log_variance = pointer<T>(log_variance);
    mixture.log_prior = pointer<T>(log_prior);
  }
  // mean: 1, the mean of the batch; 0: a loss for each sample.
  void set(double lambda, std::int64_t mean, array<T>& alpha) {
    options.lambda = static_cast<T>(lambda);
    options.reduction = mean != 0 ? lgm::reduction::mean : lgm::reduction::none;
    options.alpha_at = alpha.typed_data();
  }
  // f(workspace)
  template <class F>
  ffi::Error run(F f) const {
    const std::size_t bytes = lgm::workspace_size<T>(context, shape);
    const std::unique_ptr<std::byte[]> memory(new std::byte[bytes]);
    return answer(f(lgm::workspace{memory.get(), bytes}));
  }
};

template <class T>
ffi::Error forward(double lambda, std::int64_t mean_of_batch, array<T> features, labels_array labels,
                   array<T> mean, array<T> log_variance, array<T> log_prior, array<T> alpha,
                   result_array<T> loss, result_array<T> row_state) {
  call<T> c(features, mean, log_variance, log_prior);
  c.set(lambda, mean_of_batch, alpha);
  lgm::loss_result<T> result;
  result.total = loss->typed_data();
  result.row_state = pointer<T>(row_state);
  return c.run([&](lgm::workspace w) {
    return lgm::forward(c.context, c.shape, c.mixture, c.options, features.typed_data(), labels.typed_data(),
                        result, w);
  });
}

template <class T>
ffi::Error backward(double lambda, std::int64_t mean_of_batch, array<T> features, labels_array labels,
                    array<T> mean, array<T> log_variance, array<T> log_prior, array<T> alpha,
                    array<T> row_state, array<T> upstream, result_array<T> features_gradient,
                    result_array<T> mean_gradient, result_array<T> log_variance_gradient,
                    result_array<T> log_prior_gradient) {
  call<T> c(features, mean, log_variance, log_prior);
  c.set(lambda, mean_of_batch, alpha);
  const lgm::gradients<T, T> gradients{pointer<T>(features_gradient), pointer<T>(mean_gradient),
                                       pointer<T>(log_variance_gradient), pointer<T>(log_prior_gradient)};
  return c.run([&](lgm::workspace w) {
    return lgm::backward(c.context, c.shape, c.mixture, c.options, features.typed_data(), labels.typed_data(),
                         row_state.typed_data(), upstream.typed_data(), gradients, w);
  });
}

// predicted is an array of its own; values [scores, samples] has the others, in the order of lgm_score_names.
template <class T>
ffi::Error score(array<T> features, array<T> mean, array<T> log_variance, array<T> log_prior,
                 ffi::Result<ffi::Buffer<ffi::S32>> predicted, result_array<T> values) {
  call<T> c(features, mean, log_variance, log_prior);
  const auto samples = static_cast<std::size_t>(c.shape.samples);
  // The library's classes are 64 bits wide; JAX's integers are 32 unless told otherwise.
  const std::unique_ptr<std::int64_t[]> classes(new std::int64_t[samples]);
  lgm::score_result<T> result;
  T* row = values->typed_data();
  lgm::for_each_score(result, [&](const char*, auto*& out) {
    if constexpr (std::is_same<decltype(out), T*&>::value) {
      out = row;
      row += samples;
    } else {
      out = classes.get();
    }
  });
  ffi::Error done = c.run([&](lgm::workspace w) {
    return lgm::score(c.context, c.shape, c.mixture, features.typed_data(), result, w);
  });
  if (done.success())
    for (std::size_t i = 0; i < samples; ++i)
      predicted->typed_data()[i] = static_cast<std::int32_t>(classes[i]);
  return done;
}

// What forward and backward begin with.
template <class T>
auto bind_loss() {
  return ffi::Ffi::Bind()
      .Attr<double>("lambda")
      .Attr<std::int64_t>("mean")
      .Arg<array<T>>()
      .template Arg<labels_array>()
      .template Arg<array<T>>()
      .template Arg<array<T>>()
      .template Arg<array<T>>()
      .template Arg<array<T>>();
}

template <class T>
auto bind_forward() {
  return bind_loss<T>().template Ret<array<T>>().template Ret<array<T>>();
}

template <class T>
auto bind_backward() {
  return bind_loss<T>()
      .template Arg<array<T>>()
      .template Arg<array<T>>()
      .template Ret<array<T>>()
      .template Ret<array<T>>()
      .template Ret<array<T>>()
      .template Ret<array<T>>();
}

template <class T>
auto bind_score() {
  return ffi::Ffi::Bind()
      .Arg<array<T>>()
      .template Arg<array<T>>()
      .template Arg<array<T>>()
      .template Arg<array<T>>()
      .template Ret<ffi::Buffer<ffi::S32>>()
      .template Ret<array<T>>();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(lgm_forward_float32, forward<float>, bind_forward<float>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(lgm_forward_float64, forward<double>, bind_forward<double>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(lgm_backward_float32, backward<float>, bind_backward<float>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(lgm_backward_float64, backward<double>, bind_backward<double>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(lgm_score_float32, score<float>, bind_score<float>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(lgm_score_float64, score<double>, bind_score<double>());

// The rows of score's values, with commas between them.
extern "C" const char* lgm_score_names() {
  static const std::string names = [] {
    std::string all;
    lgm::score_result<float> scores;
    lgm::for_each_score(scores, [&](const char* name, auto*& array) {
      if constexpr (std::is_same<decltype(array), float*&>::value)
        all += (all.empty() ? "" : ",") + std::string(name);
    });
    return all;
  }();
  return names.c_str();
}
