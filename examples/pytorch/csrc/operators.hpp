// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/ATen.h>
#include <ATen/DeviceGuard.h>
#include <torch/library.h>

#include <array>
#include <cstdint>
#include <lgm/schedule.hpp>
#include <lgm/types.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>

// The library's functions as PyTorch operators, once for both kinds of device: host and device functions have the same
// names and arguments. To be included after lgm/lgm.hpp or lgm/lgm.cuh. A Backend brings
//   context(device)                    where functions run
//   computed_as(features, parameters)  the type that features are computed in, given the parameters'
//   with_features<T>(tensor, f)        f(pointer to the features), T the type of the parameters
//   schedule(context, schedule, iteration, out)
//   set_alpha(options, tensor)         has the options read the margin
//
// Parameters and results are float or double. Features of another floating type are converted to the parameters', but for
// those that a device takes as they are; their gradient is of their own type.

namespace lgm_torch {

using at::Tensor;
using optional_tensor = std::optional<Tensor>;

inline void must(lgm::status status) {
  TORCH_CHECK_INDEX(status != lgm::status::label_out_of_range, "lgm: ", lgm::to_string(status));
  TORCH_CHECK_VALUE(status == lgm::status::success, "lgm: ", lgm::to_string(status));
}

inline lgm::reduction reduction_of(std::string_view name) {
  if (name == "mean") return lgm::reduction::mean;
  if (name == "sum") return lgm::reduction::sum;
  TORCH_CHECK_VALUE(name == "none", "lgm: reduction is mean, sum or none, not ", name);
  return lgm::reduction::none;
}

inline lgm::schedule_policy policy_of(std::string_view name) {
  if (name == "constant") return lgm::schedule_policy::constant;
  if (name == "step_up") return lgm::schedule_policy::step_up;
  if (name == "add_up") return lgm::schedule_policy::add_up;
  TORCH_CHECK_VALUE(name == "ramp", "lgm: policy is constant, step_up, add_up or ramp, not ", name);
  return lgm::schedule_policy::ramp;
}

// A tensor of this type and shape on the device of `like`, its numbers next to each other.
inline Tensor checked(const Tensor& tensor, const char* name, at::ScalarType type, at::IntArrayRef shape,
                      const Tensor& like) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == type, "lgm: ", name, " is ", tensor.scalar_type(), ", expected ",
                   type);
  TORCH_CHECK_VALUE(tensor.sizes() == shape, "lgm: ", name, " has shape ", tensor.sizes(), ", expected ",
                    shape);
  TORCH_CHECK_VALUE(tensor.device() == like.device(), "lgm: ", name, " is on ", tensor.device(),
                    ", expected ", like.device());
  return tensor.contiguous();
}

// The same of what is written: it cannot be copied.
inline void check_written(const Tensor& tensor, const char* name, at::ScalarType type, at::IntArrayRef shape,
                          const Tensor& like) {
  checked(tensor, name, type, shape, like);
  TORCH_CHECK_VALUE(tensor.is_contiguous(), "lgm: ", name, " must be contiguous");
}

template <class T>
T* pointer(const Tensor& tensor) {
  if constexpr (std::is_const_v<T>)
    return tensor.defined() && tensor.numel() > 0 ? tensor.const_data_ptr<std::remove_const_t<T>>() : nullptr;
  else
    return tensor.defined() && tensor.numel() > 0 ? tensor.mutable_data_ptr<T>() : nullptr;
}

// A matrix as rows of contiguous numbers: itself, or a copy where its strides are not those of rows.
inline Tensor as_rows(const Tensor& matrix) {
  const bool contiguous_rows = matrix.size(1) <= 1 || matrix.stride(1) == 1;
  const bool apart = matrix.size(0) <= 1 || matrix.stride(0) >= matrix.size(1);
  return contiguous_rows && apart ? matrix : matrix.contiguous();
}
inline std::int64_t row_stride(const Tensor& rows) { return rows.size(0) <= 1 ? 0 : rows.stride(0); }

template <class F>
void with_type(at::ScalarType type, F f) {
  if (type == at::kDouble)
    f(double{});
  else
    f(float{});
}

// Features and mixture of a call, checked: what is a copy lives as long as this.
template <class Backend>
struct problem {
  Tensor features, mean, log_variance, log_prior;
  at::ScalarType type;  // of parameters and results
  lgm::shape shape;
  at::OptionalDeviceGuard guard;

  problem(const Tensor& x, const Tensor& mu, const optional_tensor& variance, const optional_tensor& prior)
      : guard(device_of(x)) {
    type = mu.scalar_type();
    TORCH_CHECK_TYPE(type == at::kFloat || type == at::kDouble, "lgm: mean is ", type,
                     ", expected float32 or float64");
    TORCH_CHECK_TYPE(x.is_floating_point(), "lgm: features are ", x.scalar_type(),
                     ", expected floating-point numbers");
    TORCH_CHECK_VALUE(x.dim() == 2 && mu.dim() == 2 && x.size(1) == mu.size(1), "lgm: features have shape ",
                      x.sizes(), " and mean ", mu.sizes(), ", expected [samples, dims] and [classes, dims]");
    shape.samples = x.size(0);
    shape.classes = mu.size(0);
    shape.dims = mu.size(1);
    shape.covariance = lgm::covariance::identity;
    mean = checked(mu, "mean", type, mu.sizes(), x);
    if (variance) {
      const bool diagonal = variance->dim() == 2;
      shape.covariance = diagonal ? lgm::covariance::diagonal : lgm::covariance::spherical;
      log_variance = checked(*variance, "log_variance", type, mu.sizes().slice(0, diagonal ? 2 : 1), x);
    }
    if (prior) log_prior = checked(*prior, "log_prior", type, {shape.classes}, x);
    features = as_rows(x.to(Backend::computed_as(x.scalar_type(), type)));
    shape.feature_stride = row_stride(features);
  }

  template <class T>
  lgm::mixture<T> mixture() const {
    return {pointer<const T>(mean), pointer<const T>(log_variance), pointer<const T>(log_prior)};
  }

  Tensor results(at::IntArrayRef sizes) const { return at::empty(sizes, mean.options()); }

  // run(features, context, workspace), F the features' type as the library knows it
  template <class T, class Run>
  void run(Run run) const {
    const auto context = Backend::context(features.device());
    Backend::template with_features<T>(features, [&](auto* data) {
      using F = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
      const auto bytes = static_cast<std::int64_t>(lgm::workspace_size<F>(context, shape));
      const Tensor memory = at::empty({bytes}, features.options().dtype(at::kByte));
      must(run(data, context, lgm::workspace{memory.mutable_data_ptr(), static_cast<std::size_t>(bytes)}));
    });
  }
};

// What the target is: labels [samples] or soft targets [samples, classes]; and what goes with it.
template <class Backend>
struct targets {
  Tensor labels, soft;

  targets(const problem<Backend>& p, const Tensor& target) {
    if (target.is_floating_point()) {
      checked(target, "target", p.type, {p.shape.samples, p.shape.classes}, p.features);
      soft = as_rows(target);
    } else {
      TORCH_CHECK_TYPE(target.scalar_type() != at::kBool && !target.is_complex(), "lgm: target is ",
                       target.scalar_type(), ", expected labels or probabilities");
      labels = checked(target.to(at::kLong), "target", at::kLong, {p.shape.samples}, p.features);
    }
  }

  // use(targets), as the library's functions take them
  template <class T, class Use>
  lgm::status with(Use use) const {
    if (soft.defined()) return use(lgm::soft_targets<T>{pointer<const T>(soft), row_stride(soft)});
    return use(pointer<const std::int64_t>(labels));
  }
};

// The options of the loss. Tensors are checked by the constructor, which also keeps copies alive.
template <class Backend>
struct loss_settings {
  Tensor alpha, class_weight, sample_weight, normalizer;
  double lambda = 0, label_smoothing = 0;
  lgm::reduction reduction = lgm::reduction::mean;
  std::int64_t ignore_index = -100;

  loss_settings(const problem<Backend>& p, const Tensor& margin) {
    alpha = checked(margin, "alpha", p.type, {1}, p.features);
  }
  void weigh(const problem<Backend>& p, const optional_tensor& of_classes, const optional_tensor& of_samples,
             const optional_tensor& divisor) {
    if (of_classes)
      class_weight = checked(*of_classes, "class_weight", p.type, {p.shape.classes}, p.features);
    if (of_samples)
      sample_weight = checked(*of_samples, "sample_weight", p.type, {p.shape.samples}, p.features);
    if (divisor) normalizer = checked(*divisor, "normalizer", p.type, {1}, p.features);
  }

  template <class T>
  lgm::loss_options<T> options() const {
    lgm::loss_options<T> o;
    Backend::set_alpha(o, alpha);
    o.lambda = static_cast<T>(lambda);
    o.reduction = reduction;
    o.ignore_label = ignore_index;
    o.class_weight = pointer<const T>(class_weight);
    o.sample_weight = pointer<const T>(sample_weight);
    o.label_smoothing = static_cast<T>(label_smoothing);
    o.normalizer = pointer<const T>(normalizer);
    return o;
  }
};

// Gradients of the features, the mean, log_variance and log_prior; without elements where they are not needed.
using four_gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

template <class Backend>
struct gradient_tensors {
  Tensor feature, mean, log_variance, log_prior;

  // feature_type: of the features' gradient.
  gradient_tensors(const problem<Backend>& p, at::ScalarType feature_type, const std::array<bool, 4>& needs) {
    const auto make = [&](bool needed, const Tensor& like, at::ScalarType type) {
      if (!needed || !like.defined()) return p.results({0});
      return at::empty(like.sizes(), p.mean.options().dtype(type));
    };
    feature = make(needs[0], p.features, feature_type);
    mean = make(needs[1], p.mean, p.type);
    log_variance = make(needs[2], p.log_variance, p.type);
    log_prior = make(needs[3], p.log_prior, p.type);
  }

  // G: feature_type as the library knows it.
  template <class G, class T>
  lgm::gradients<G, T> pointers() const {
    const auto data = feature.numel() > 0 ? static_cast<G*>(feature.mutable_data_ptr()) : nullptr;
    return {data, pointer<T>(mean), pointer<T>(log_variance), pointer<T>(log_prior)};
  }
};

template <class Backend>
struct operators {
  using problem = lgm_torch::problem<Backend>;
  using settings = lgm_torch::loss_settings<Backend>;

  static settings settings_of(const problem& p, const Tensor& alpha, const optional_tensor& class_weight,
                              const optional_tensor& sample_weight, const optional_tensor& normalizer,
                              double lambda, std::string_view reduction, std::int64_t ignore_index,
                              double label_smoothing) {
    settings s(p, alpha);
    s.weigh(p, class_weight, sample_weight, normalizer);
    s.lambda = lambda;
    s.reduction = reduction_of(reduction);
    s.ignore_index = ignore_index;
    s.label_smoothing = label_smoothing;
    return s;
  }

  // The loss and its row state; and, where it is one number, the gradients that `make` names: made at once they save a product.
  // They are of the parameters' type, not yet rounded to the features'.
  static std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> loss(
      const Tensor& features, const Tensor& target, const Tensor& mean, const optional_tensor& log_variance,
      const optional_tensor& log_prior, const Tensor& alpha, const optional_tensor& class_weight,
      const optional_tensor& sample_weight, const optional_tensor& normalizer, double lambda,
      std::string_view reduction, std::int64_t ignore_index, double label_smoothing,
      std::array<bool, 4> make) {
    const problem p(features, mean, log_variance, log_prior);
    const targets<Backend> t(p, target);
    const settings s = settings_of(p, alpha, class_weight, sample_weight, normalizer, lambda, reduction,
                                   ignore_index, label_smoothing);
    const bool one = s.reduction != lgm::reduction::none;
    const Tensor total = one ? p.results({}) : p.results({p.shape.samples});
    const Tensor row_state = p.results({p.shape.samples, 2});
    const gradient_tensors<Backend> made(p, p.type, one ? make : std::array<bool, 4>{});
    const bool any = one && (make[0] || make[1] || make[2] || make[3]);
    with_type(p.type, [&](auto type) {
      using T = decltype(type);
      lgm::loss_result<T> result;
      result.total = pointer<T>(total);
      result.row_state = pointer<T>(row_state);
      p.template run<T>([&](auto* x, const auto& context, const lgm::workspace& w) {
        return t.template with<T>([&](const auto& z) {
          const lgm::mixture<T> m = p.template mixture<T>();
          const lgm::loss_options<T> o = s.template options<T>();
          if (!any) return lgm::forward(context, p.shape, m, o, x, z, result, w);
          return lgm::forward_backward(context, p.shape, m, o, x, z, nullptr, result,
                                       made.template pointers<T, T>(), w);
        });
      });
    });
    return {total, row_state, made.feature, made.mean, made.log_variance, made.log_prior};
  }

  // made_*: what the loss has made, which has only to be scaled where it is all that is needed.
  static four_gradients loss_backward(const Tensor& upstream, const Tensor& row_state,
                                      const Tensor& made_feature, const Tensor& made_mean,
                                      const Tensor& made_log_variance, const Tensor& made_log_prior,
                                      const Tensor& features, const Tensor& target, const Tensor& mean,
                                      const optional_tensor& log_variance, const optional_tensor& log_prior,
                                      const Tensor& alpha, const optional_tensor& class_weight,
                                      const optional_tensor& sample_weight, const optional_tensor& normalizer,
                                      double lambda, std::string_view reduction, std::int64_t ignore_index,
                                      double label_smoothing, std::array<bool, 4> make,
                                      std::array<bool, 4> needs) {
    const problem p(features, mean, log_variance, log_prior);
    const lgm::reduction r = reduction_of(reduction);
    const std::int64_t each[] = {p.shape.samples};
    const at::IntArrayRef upstream_shape(each, r == lgm::reduction::none ? 1 : 0);
    const Tensor scale = checked(upstream, "upstream", p.type, upstream_shape, p.features);

    bool all = r != lgm::reduction::none;
    for (std::size_t n = 0; n < needs.size(); ++n) all = all && (make[n] || !needs[n]);
    if (all) {
      const auto scaled = [&](bool needed, const Tensor& gradient, at::ScalarType type) {
        return needed ? (gradient * scale).to(type) : p.results({0});
      };
      return {scaled(needs[0], made_feature, features.scalar_type()), scaled(needs[1], made_mean, p.type),
              scaled(needs[2], made_log_variance, p.type), scaled(needs[3], made_log_prior, p.type)};
    }

    const targets<Backend> t(p, target);
    const settings s = settings_of(p, alpha, class_weight, sample_weight, normalizer, lambda, reduction,
                                   ignore_index, label_smoothing);
    const Tensor state = checked(row_state, "row_state", p.type, {p.shape.samples, 2}, p.features);
    const gradient_tensors<Backend> gradients(p, p.features.scalar_type(), needs);
    with_type(p.type, [&](auto type) {
      using T = decltype(type);
      p.template run<T>([&](auto* x, const auto& context, const lgm::workspace& w) {
        using F = std::remove_const_t<std::remove_pointer_t<decltype(x)>>;
        return t.template with<T>([&](const auto& z) {
          return lgm::backward(context, p.shape, p.template mixture<T>(), s.template options<T>(), x, z,
                               pointer<const T>(state), pointer<const T>(scale),
                               gradients.template pointers<F, T>(), w);
        });
      });
    });
    return {gradients.feature.to(features.scalar_type()), gradients.mean, gradients.log_variance,
            gradients.log_prior};
  }

  static Tensor logits(const Tensor& features, const optional_tensor& target, const Tensor& mean,
                       const optional_tensor& log_variance, const optional_tensor& log_prior,
                       const Tensor& alpha, std::int64_t ignore_index) {
    const problem p(features, mean, log_variance, log_prior);
    const Tensor labels = labels_of(p, target);
    settings s(p, alpha);
    s.ignore_index = ignore_index;
    const Tensor out = p.results({p.shape.samples, p.shape.classes});
    with_type(p.type, [&](auto type) {
      using T = decltype(type);
      p.template run<T>([&](auto* x, const auto& context, const lgm::workspace& w) {
        return lgm::logits(context, p.shape, p.template mixture<T>(), s.template options<T>(), x,
                           pointer<const std::int64_t>(labels), pointer<T>(out), w);
      });
    });
    return out;
  }

  static four_gradients logits_backward(const Tensor& grad_logits, const Tensor& features,
                                        const optional_tensor& target, const Tensor& mean,
                                        const optional_tensor& log_variance, const optional_tensor& log_prior,
                                        const Tensor& alpha, std::int64_t ignore_index,
                                        std::array<bool, 4> needs) {
    const problem p(features, mean, log_variance, log_prior);
    const Tensor labels = labels_of(p, target);
    settings s(p, alpha);
    s.ignore_index = ignore_index;
    const Tensor upstream =
        checked(grad_logits, "grad_logits", p.type, {p.shape.samples, p.shape.classes}, p.features);
    const gradient_tensors<Backend> gradients(p, p.features.scalar_type(), needs);
    with_type(p.type, [&](auto type) {
      using T = decltype(type);
      p.template run<T>([&](auto* x, const auto& context, const lgm::workspace& w) {
        using F = std::remove_const_t<std::remove_pointer_t<decltype(x)>>;
        return lgm::logits_backward(context, p.shape, p.template mixture<T>(), s.template options<T>(), x,
                                    pointer<const std::int64_t>(labels), pointer<const T>(upstream), nullptr,
                                    gradients.template pointers<F, T>(), w);
      });
    });
    return {gradients.feature.to(features.scalar_type()), gradients.mean, gradients.log_variance,
            gradients.log_prior};
  }

  // Every score, in the order of lgm::for_each_score.
  using score_tensors = std::array<Tensor, static_cast<std::size_t>(lgm::count_scores())>;
  static auto score(const Tensor& features, const Tensor& mean, const optional_tensor& log_variance,
                    const optional_tensor& log_prior) {
    const problem p(features, mean, log_variance, log_prior);
    score_tensors values;
    with_type(p.type, [&](auto type) {
      using T = decltype(type);
      lgm::score_result<T> result;
      auto next = values.begin();
      lgm::for_each_score(result, [&](const char*, auto*& array) {
        using value = std::remove_pointer_t<std::remove_reference_t<decltype(array)>>;
        const at::ScalarType type_of_value = c10::CppTypeToScalarType<value>::value;
        *next = at::empty({p.shape.samples}, p.mean.options().dtype(type_of_value));
        array = pointer<value>(*next++);
      });
      p.template run<T>([&](auto* x, const auto& context, const lgm::workspace& w) {
        return lgm::score(context, p.shape, p.template mixture<T>(), x, result, w);
      });
    });
    return std::apply([](const auto&... each) { return std::make_tuple(each...); }, values);
  }

  // Writes mean, log_variance and log_prior.
  static void initialize(Tensor mean, const optional_tensor& log_variance, const optional_tensor& log_prior,
                         std::int64_t seed, double scale) {
    written_mixture m(mean, log_variance, log_prior);
    const at::OptionalDeviceGuard guard(device_of(mean));
    with_type(mean.scalar_type(), [&](auto type) {
      using T = decltype(type);
      must(lgm::initialize_means(Backend::context(mean.device()), m.shape, static_cast<std::uint64_t>(seed),
                                 static_cast<T>(scale), m.template parameters<T>()));
    });
  }

  // Writes out [1]; iteration [1], int64.
  static void schedule(Tensor out, const Tensor& iteration, std::string_view policy, double value,
                       std::int64_t step, double gamma, double min, double max) {
    check_parameters(out, "out");
    check_written(out, "out", out.scalar_type(), {1}, out);
    const Tensor at = checked(iteration, "iteration", at::kLong, {1}, out);
    const at::OptionalDeviceGuard guard(device_of(out));
    with_type(out.scalar_type(), [&](auto type) {
      using T = decltype(type);
      const lgm::stepped_schedule<T> schedule{
          policy_of(policy),     static_cast<T>(value), step,
          static_cast<T>(gamma), static_cast<T>(min),   static_cast<T>(max)};
      must(Backend::schedule(Backend::context(out.device()), schedule, pointer<const std::int64_t>(at),
                             pointer<T>(out)));
    });
  }

  // Writes the moments; see moments_of.
  static void accumulate_moments(const Tensor& features, const Tensor& labels,
                                 const optional_tensor& sample_weight, std::int64_t ignore_index,
                                 Tensor count, Tensor mean, Tensor m2, Tensor mean_residual) {
    const auto moments = moments_of(count, mean, m2, mean_residual);
    // Of the moments' shape, in the type that features are computed in.
    const at::ScalarType type = features.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const problem p(features, at::empty_like(mean, mean.options().dtype(type)), std::nullopt, std::nullopt);
    const Tensor z = checked(labels.to(at::kLong), "labels", at::kLong, {p.shape.samples}, p.features);
    Tensor weight;
    if (sample_weight) weight = checked(*sample_weight, "sample_weight", type, {p.shape.samples}, p.features);
    with_type(type, [&](auto number) {
      using T = decltype(number);
      lgm::loss_options<T> options;
      options.ignore_label = ignore_index;
      options.sample_weight = pointer<const T>(weight);
      p.template run<T>([&](auto* x, const auto& context, const lgm::workspace& w) {
        return lgm::accumulate_moments(context, p.shape, options, x, pointer<const std::int64_t>(z), moments,
                                       w);
      });
    });
  }

  // Writes count, mean, m2 and mean_residual.
  static void merge_moments(const Tensor& from_count, const Tensor& from_mean, const Tensor& from_m2,
                            const Tensor& from_mean_residual, Tensor count, Tensor mean, Tensor m2,
                            Tensor mean_residual) {
    const auto from = moments_of(from_count, from_mean, from_m2, from_mean_residual);
    const auto into = moments_of(count, mean, m2, mean_residual);
    TORCH_CHECK_VALUE(from_mean.sizes() == mean.sizes() && from_mean.device() == mean.device(),
                      "lgm: moments of other sizes or devices cannot be merged");
    const at::OptionalDeviceGuard guard(device_of(mean));
    must(lgm::merge_moments(Backend::context(mean.device()), shape_of(mean, lgm::covariance::identity), from,
                            into));
  }

  // Writes mean, log_variance and log_prior, those that are there.
  static void estimate(const Tensor& count, const Tensor& mean_of_class, const Tensor& m2,
                       double variance_floor, double shrinkage, double decay, Tensor mean,
                       const optional_tensor& log_variance, const optional_tensor& log_prior) {
    const auto moments = moments_of(count, mean_of_class, m2, std::nullopt);
    written_mixture m(mean, log_variance, log_prior);
    TORCH_CHECK_VALUE(mean_of_class.sizes() == mean.sizes() && mean_of_class.device() == mean.device(),
                      "lgm: the moments are of another size, or on another device");
    const at::OptionalDeviceGuard guard(device_of(mean));
    with_type(mean.scalar_type(), [&](auto type) {
      using T = decltype(type);
      const lgm::estimate_options<T> options{static_cast<T>(variance_floor), static_cast<T>(shrinkage),
                                             static_cast<T>(decay)};
      must(lgm::estimate(Backend::context(mean.device()), m.shape, moments, options,
                         m.template parameters<T>()));
    });
  }

  static void register_in(torch::Library& library) {
    library.impl("loss", TORCH_FN(loss));
    library.impl("loss_backward", TORCH_FN(loss_backward));
    library.impl("logits", TORCH_FN(logits));
    library.impl("logits_backward", TORCH_FN(logits_backward));
    library.impl("score", TORCH_FN(score));
    library.impl("initialize_", TORCH_FN(initialize));
    library.impl("schedule_", TORCH_FN(schedule));
    library.impl("accumulate_moments_", TORCH_FN(accumulate_moments));
    library.impl("merge_moments_", TORCH_FN(merge_moments));
    library.impl("estimate_", TORCH_FN(estimate));
  }

 private:
  static Tensor labels_of(const problem& p, const optional_tensor& target) {
    if (!target) return {};
    const targets<Backend> t(p, *target);
    TORCH_CHECK_TYPE(t.labels.defined(), "lgm: logits take labels, not probabilities");
    return t.labels;
  }

  static void check_parameters(const Tensor& t, const char* name) {
    TORCH_CHECK_TYPE(t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble, "lgm: ", name, " is ",
                     t.scalar_type(), ", expected float32 or float64");
  }

  static lgm::shape shape_of(const Tensor& mean, lgm::covariance covariance) {
    lgm::shape s;
    s.classes = mean.size(0);
    s.dims = mean.size(1);
    s.covariance = covariance;
    return s;
  }

  struct written_mixture {
    Tensor mean, log_variance, log_prior;
    lgm::shape shape;

    written_mixture(const Tensor& mu, const optional_tensor& variance, const optional_tensor& prior)
        : mean(mu) {
      check_parameters(mu, "mean");
      TORCH_CHECK_VALUE(mu.dim() == 2, "lgm: mean has shape ", mu.sizes(), ", expected [classes, dims]");
      check_written(mu, "mean", mu.scalar_type(), mu.sizes(), mu);
      lgm::covariance covariance = lgm::covariance::identity;
      if (variance) {
        const bool diagonal = variance->dim() == 2;
        covariance = diagonal ? lgm::covariance::diagonal : lgm::covariance::spherical;
        check_written(*variance, "log_variance", mu.scalar_type(), mu.sizes().slice(0, diagonal ? 2 : 1), mu);
        log_variance = *variance;
      }
      shape = shape_of(mu, covariance);
      if (prior) {
        check_written(*prior, "log_prior", mu.scalar_type(), {shape.classes}, mu);
        log_prior = *prior;
      }
    }

    template <class T>
    lgm::parameters<T> parameters() const {
      return {pointer<T>(mean), pointer<T>(log_variance), pointer<T>(log_prior)};
    }
  };

  // count [classes], the others [classes, dims], all float64.
  static lgm::class_moments<double> moments_of(const Tensor& count, const Tensor& mean, const Tensor& m2,
                                               const optional_tensor& mean_residual) {
    TORCH_CHECK_VALUE(mean.dim() == 2, "lgm: moments have shape ", mean.sizes(),
                      ", expected [classes, dims]");
    check_written(mean, "mean", at::kDouble, mean.sizes(), mean);
    check_written(count, "count", at::kDouble, {mean.size(0)}, mean);
    check_written(m2, "m2", at::kDouble, mean.sizes(), mean);
    if (mean_residual) check_written(*mean_residual, "mean_residual", at::kDouble, mean.sizes(), mean);
    lgm::class_moments<double> moments;
    moments.count = pointer<double>(count);
    moments.mean = pointer<double>(mean);
    moments.m2 = pointer<double>(m2);
    if (mean_residual) moments.mean_residual = pointer<double>(*mean_residual);
    return moments;
  }
};

}  // namespace lgm_torch
