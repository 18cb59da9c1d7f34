// SPDX-License-Identifier: MIT
#include "support/problem.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <vector>

namespace support {

template <class T>
problem<T>::problem() = default;
template <class T>
problem<T>::problem(const problem&) = default;
template <class T>
problem<T>::problem(problem&&) noexcept = default;
template <class T>
problem<T>& problem<T>::operator=(const problem&) = default;
template <class T>
problem<T>& problem<T>::operator=(problem&&) noexcept = default;
template <class T>
problem<T>::~problem() = default;

template <class T>
outputs<T>::outputs(const lgm::shape& s, lgm::reduction reduction, std::size_t offset)
    : total(reduction == lgm::reduction::none ? s.samples : 1, 1, 0, offset),
      classification(reduction == lgm::reduction::none ? s.samples : 1, 1, 0, offset),
      likelihood(reduction == lgm::reduction::none ? s.samples : 1, 1, 0, offset),
      row_state(s.samples, 2, 0, offset),
      log_evidence(s.samples, 1, 0, offset),
      counted(1, 1, 0, offset),
      correct(1, 1, 0, offset),
      feature(s.samples, s.dims, s.gradient_stride, offset),
      mean(s.classes, s.dims, 0, offset),
      log_variance(s.covariance == lgm::covariance::identity ? 0 : s.classes,
                   s.covariance == lgm::covariance::diagonal ? s.dims : 1, 0, offset),
      log_prior(s.classes, 1, 0, offset) {}

template <class T>
outputs<T>::outputs(outputs&&) noexcept = default;
template <class T>
outputs<T>::~outputs() = default;

template <class T>
problem<T> make_problem(std::uint64_t seed, const lgm::shape& shape, const lgm::loss_options<T>& options,
                        const recipe& how) {
  begin_problem();
  generator random(seed);
  problem<T> p;
  p.shape = shape;
  p.options = options;
  const auto value = [](double v) { return static_cast<T>(v); };
  for (std::size_t n = 0; n < p.classes() * p.dims(); ++n)
    p.mean.push_back(value(how.offset + how.spread * random.normal()));
  for (std::size_t n = 0; n < p.log_variance_size(); ++n)
    p.log_variance.push_back(value(random.uniform(-how.log_variance, how.log_variance)));
  for (std::size_t k = 0; k < p.classes(); ++k) p.log_prior.push_back(value(random.uniform(-3, 0)));
  // The last row has no padding after it: reading there is reading out of bounds.
  const std::size_t length = p.samples() == 0 ? 0 : (p.samples() - 1) * p.feature_stride() + p.dims();
  p.features.assign(length, std::numeric_limits<T>::quiet_NaN());
  for (std::size_t i = 0; i < p.samples(); ++i) {
    const bool ignored = shape.classes == 0 || random.chance(how.ignored);
    const std::int64_t label = shape.classes == 0 ? 0 : random.below(shape.classes);
    p.labels.push_back(ignored ? options.ignore_label : label);
    for (std::size_t j = 0; j < p.dims(); ++j) {
      const std::size_t k = size_of(label);
      double log_variance = 0, mean = 0;
      if (shape.classes > 0) mean = static_cast<double>(p.mean[k * p.dims() + j]);
      if (shape.classes > 0 && shape.covariance == lgm::covariance::spherical)
        log_variance = static_cast<double>(p.log_variance[k]);
      if (shape.classes > 0 && shape.covariance == lgm::covariance::diagonal)
        log_variance = static_cast<double>(p.log_variance[k * p.dims() + j]);
      p.feature(i, j) = value(mean + how.noise * std::exp(log_variance / 2) * random.normal());
    }
  }
  const std::size_t upstreams = options.reduction == lgm::reduction::none ? p.samples() : 1;
  for (std::size_t n = 0; n < upstreams; ++n) p.upstream.push_back(value(random.uniform(-2, 2)));
  return p;
}

template <class T>
void give(problem<T>& p, std::uint64_t seed, const extras& what) {
  generator random(seed + 0x5EEDu);
  const auto weight = [&] { return static_cast<T>(random.uniform(0.25, 3)); };
  if (what.class_weight)
    for (std::int64_t k = 0; k < p.total_classes(); ++k) p.class_weight.push_back(weight());
  if (what.sample_weight)
    for (std::size_t i = 0; i < p.samples(); ++i) p.sample_weight.push_back(weight());
  if (what.normalizer) p.normalizer.push_back(static_cast<T>(random.uniform(1, 50)));
  p.options.label_smoothing = static_cast<T>(what.smoothing);
  p.soft = what.soft;
  if (!what.soft) return;
  std::vector<double> row(p.classes());
  std::size_t drawn = p.samples();
  p.targets =
      strided_rows<T>(p.samples(), p.classes(), p.row_of_targets(), [&](std::size_t i, std::size_t k) {
        if (i != drawn) {
          drawn = i;
          const auto one = [&] { return size_of(random.below(p.shape.classes)); };
          std::fill(row.begin(), row.end(), 0.0);
          const std::int64_t kind = random.below(5);
          if (kind == 0) row[one()] = 1;
          if (kind == 1) {
            const double share = random.uniform();
            row[one()] += share;
            row[one()] += 1 - share;
          }
          if (kind == 2 || kind == 3) {
            double sum = 0;
            for (double& q : row) sum += q = std::exp(2 * random.normal());
            for (double& q : row) q *= (kind == 2 ? 1.0 : 1.7) / sum;
          }
        }
        return static_cast<T>(row[k]);
      });
}

template <class T>
void give_grad_logits(problem<T>& p, std::uint64_t seed) {
  generator random(seed + 0x60Du);
  std::size_t drawn = p.samples();
  double share = 0;
  p.grad_logits =
      strided_rows<T>(p.samples(), p.classes(), p.logits_stride(), [&](std::size_t i, std::size_t) {
        if (i != drawn) {
          drawn = i;
          share = random.pick(std::initializer_list<double>{1, 1, 0.5, 0});
        }
        return static_cast<T>(random.chance(share) ? random.normal() : 0.0);
      });
}

template <class T>
problem<T> shard_of(const problem<T>& p, std::size_t begin, std::size_t n) {
  problem<T> part = p;
  part.shape.total_classes = p.shape.classes;
  part.shape.class_begin = static_cast<std::int64_t>(begin);
  part.shape.classes = static_cast<std::int64_t>(n);
  if (p.shape.logits_stride != 0)
    part.shape.logits_stride = p.shape.logits_stride - p.shape.classes + part.shape.classes;
  const auto classes_of = [&](const std::vector<T>& values) {
    const std::size_t each = p.classes() == 0 ? 0 : values.size() / p.classes();
    return std::vector<T>(values.begin() + static_cast<std::ptrdiff_t>(begin * each),
                          values.begin() + static_cast<std::ptrdiff_t>((begin + n) * each));
  };
  part.mean = classes_of(p.mean);
  part.log_variance = classes_of(p.log_variance);
  part.log_prior = classes_of(p.log_prior);
  if (p.soft) {
    part.target_stride = part.shape.classes + 2;
    part.targets = strided_rows<T>(p.samples(), n, n + 2,
                                   [&](std::size_t i, std::size_t k) { return p.target(i, begin + k); });
  }
  if (!p.grad_logits.empty())
    part.grad_logits =
        strided_rows<T>(p.samples(), n, part.logits_stride(),
                        [&](std::size_t i, std::size_t k) { return p.grad_logit(i, begin + k); });
  return part;
}

template <class T>
reference::input to_reference(const problem<T>& p) {
  reference::input in;
  in.samples = p.samples();
  in.classes = p.classes();
  in.dims = p.dims();
  in.form = p.shape.covariance == lgm::covariance::identity    ? reference::variances::identity
            : p.shape.covariance == lgm::covariance::spherical ? reference::variances::spherical
                                                               : reference::variances::diagonal;
  in.over = p.options.reduction == lgm::reduction::mean  ? reference::averaging::mean
            : p.options.reduction == lgm::reduction::sum ? reference::averaging::sum
                                                         : reference::averaging::none;
  in.alpha = p.options.alpha_at ? *p.options.alpha_at : p.options.alpha;
  in.lambda = p.options.lambda;
  in.label_smoothing = p.options.label_smoothing;
  in.normalized = !p.normalizer.empty();
  if (in.normalized) in.normalizer = p.normalizer[0];
  in.class_weight.assign(in.classes, 1);
  for (std::size_t k = 0; k < in.classes && !p.class_weight.empty(); ++k)
    in.class_weight[k] = p.class_weight[size_of(p.shape.class_begin) + k];
  in.sample_weight.assign(in.samples, 1);
  if (!p.sample_weight.empty()) in.sample_weight.assign(p.sample_weight.begin(), p.sample_weight.end());
  in.soft = p.soft;
  for (std::size_t i = 0; i < in.samples; ++i) {
    for (std::size_t j = 0; j < in.dims; ++j) in.features.push_back(p.feature(i, j));
    if (p.soft) {
      for (std::size_t k = 0; k < in.classes; ++k) in.target.push_back(p.target(i, k));
      const auto row = in.target.end() - static_cast<std::ptrdiff_t>(in.classes);
      in.label.push_back(in.classes == 0 ? -1 : std::max_element(row, in.target.end()) - row);
    } else {
      const std::int64_t label = p.labels[i] - p.shape.class_begin;
      in.label.push_back(p.ignored(i) || label < 0 || label >= p.shape.classes ? -1 : label);
    }
    const bool each = p.options.reduction == lgm::reduction::none;
    in.upstream.push_back(p.upstream_given ? static_cast<real>(p.upstream[each ? i : 0])
                                           : static_cast<real>(1));
  }
  in.mean.assign(p.mean.begin(), p.mean.end());
  in.log_variance.assign(p.log_variance_size(), 0);
  if (p.log_variance_given) in.log_variance.assign(p.log_variance.begin(), p.log_variance.end());
  in.log_prior.assign(in.classes, -std::log(static_cast<real>(p.total_classes())));
  if (p.log_prior_given) in.log_prior.assign(p.log_prior.begin(), p.log_prior.end());
  return in;
}

template <class T>
std::vector<real> packed_grad_logits(const problem<T>& p) {
  std::vector<real> values;
  for (std::size_t i = 0; i < p.samples(); ++i)
    for (std::size_t k = 0; k < p.classes(); ++k) values.push_back(p.grad_logit(i, k));
  return values;
}

template <class T, class Context>
lgm::status forward(const Context& context, const problem<T>& p, const lgm::loss_result<T>& result,
                    std::size_t offset) {
  return run<T>(
      context, p.shape,
      [&](lgm::workspace w) {
        return with_targets(p, [&](const auto& targets) {
          return lgm::forward(context, p.shape, p.mixture(), p.call_options(), p.features.data(), targets,
                              result, w);
        });
      },
      offset);
}

template <class T, class Context>
lgm::status backward(const Context& context, const problem<T>& p, const T* row_state,
                     const lgm::gradients<T, T>& gradients, std::size_t offset) {
  return run<T>(
      context, p.shape,
      [&](lgm::workspace w) {
        return with_targets(p, [&](const auto& targets) {
          return lgm::backward(context, p.shape, p.mixture(), p.call_options(), p.features.data(), targets,
                               row_state, p.upstream_data(), gradients, w);
        });
      },
      offset);
}

template <class T, class Context>
lgm::status forward_backward(const Context& context, const problem<T>& p, const lgm::loss_result<T>& result,
                             const lgm::gradients<T, T>& gradients, std::size_t offset) {
  return run<T>(
      context, p.shape,
      [&](lgm::workspace w) {
        return with_targets(p, [&](const auto& targets) {
          return lgm::forward_backward(context, p.shape, p.mixture(), p.call_options(), p.features.data(),
                                       targets, p.upstream_data(), result, gradients, w);
        });
      },
      offset);
}

template <class T, class Context>
lgm::status finish_forward(const Context& context, const problem<T>& p, const T* row_state,
                           const lgm::loss_result<T>& result, std::size_t offset) {
  return run<T>(
      context, p.shape,
      [&](lgm::workspace w) {
        return with_targets(p, [&](const auto& targets) {
          return lgm::finish_forward(context, p.shape, p.mixture(), p.call_options(), p.features.data(),
                                     targets, row_state, result, w);
        });
      },
      offset);
}

template <class T, class Context>
lgm::status logits_backward(const Context& context, const problem<T>& p,
                            const lgm::gradients<T, T>& gradients, bool labelled, std::size_t offset) {
  return run<T>(
      context, p.shape,
      [&](lgm::workspace w) {
        return lgm::logits_backward(context, p.shape, p.mixture(), p.call_options(), p.features.data(),
                                    labelled ? p.labels.data() : nullptr, p.grad_logits.data(),
                                    p.upstream_data(), gradients, w);
      },
      offset);
}

template <class T, class Context>
lgm::status logits(const Context& context, const problem<T>& p, T* out, bool labelled, std::size_t offset) {
  return run<T>(
      context, p.shape,
      [&](lgm::workspace w) {
        return lgm::logits(context, p.shape, p.mixture(), p.call_options(), p.features.data(),
                           labelled ? p.labels.data() : nullptr, out, w);
      },
      offset);
}

template <class T, class Context>
lgm::status score(const Context& context, const problem<T>& p, const lgm::score_result<T>& result,
                  std::size_t offset) {
  return run<T>(
      context, p.shape,
      [&](lgm::workspace w) {
        return lgm::score(context, p.shape, p.mixture(), p.features.data(), result, w);
      },
      offset);
}

#define LGM_TEST_PROBLEM(T)                                                                       \
  template struct problem<T>;                                                                     \
  template struct outputs<T>;                                                                     \
  template struct guarded_outputs<outputs<T>>;                                                    \
  template struct guarded_outputs<score_outputs<T>>;                                              \
  template problem<T> make_problem(std::uint64_t, const lgm::shape&, const lgm::loss_options<T>&, \
                                   const recipe&);                                                \
  template void give(problem<T>&, std::uint64_t, const extras&);                                  \
  template void give_grad_logits(problem<T>&, std::uint64_t);                                     \
  template problem<T> shard_of(const problem<T>&, std::size_t, std::size_t);                      \
  template reference::input to_reference(const problem<T>&);                                      \
  template std::vector<real> packed_grad_logits(const problem<T>&);

#define LGM_TEST_CALLS(T, Context)                                                                           \
  template lgm::status forward(const Context&, const problem<T>&, const lgm::loss_result<T>&, std::size_t);  \
  template lgm::status backward(const Context&, const problem<T>&, const T*, const lgm::gradients<T, T>&,    \
                                std::size_t);                                                                \
  template lgm::status forward_backward(const Context&, const problem<T>&, const lgm::loss_result<T>&,       \
                                        const lgm::gradients<T, T>&, std::size_t);                           \
  template lgm::status finish_forward(const Context&, const problem<T>&, const T*,                           \
                                      const lgm::loss_result<T>&, std::size_t);                              \
  template lgm::status logits_backward(const Context&, const problem<T>&, const lgm::gradients<T, T>&, bool, \
                                       std::size_t);                                                         \
  template lgm::status logits(const Context&, const problem<T>&, T*, bool, std::size_t);                     \
  template lgm::status score(const Context&, const problem<T>&, const lgm::score_result<T>&, std::size_t);

LGM_TEST_PROBLEM(float)
LGM_TEST_PROBLEM(double)
LGM_TEST_CALLS(float, lgm::host_context)
LGM_TEST_CALLS(double, lgm::host_context)
#if defined(LGM_TEST_CUDA)
LGM_TEST_CALLS(float, compiled_cuda)
LGM_TEST_CALLS(double, compiled_cuda)
#else
LGM_TEST_CALLS(float, device_context)
LGM_TEST_CALLS(double, device_context)
#if defined(LGM_TEST_DEVICE)
LGM_TEST_CALLS(float, block_context)
LGM_TEST_CALLS(double, block_context)
#endif
#endif

}  // namespace support
