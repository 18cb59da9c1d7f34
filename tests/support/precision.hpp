// SPDX-License-Identifier: MIT
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <lgm/device.hpp>
#include <string>
#include <type_traits>
#include <vector>

#include "support/narrow.hpp"
#include "support/problem.hpp"
#include "support/tolerance.hpp"

// Calls with features and feature gradients of other types than float, and products of reduced precision, on problems and
// outputs of float: features are rounded before the call, so that the reference sees what the library does.

namespace support {

template <class F, class G, lgm::precision P>
struct kind {
  using feature = F;
  using gradient = G;
  static constexpr lgm::precision precision = P;
  static constexpr bool narrow = !std::is_same<F, float>::value;
};
using full = kind<float, float, lgm::precision::highest>;
using tf32 = kind<float, float, lgm::precision::tf32>;
using split_tf32 = kind<float, float, lgm::precision::split_tf32>;
using brain = kind<brain16, brain16, lgm::precision::highest>;
using brain_to_float = kind<brain16, float, lgm::precision::highest>;
using fast_brain = kind<brain16, brain16, lgm::precision::fast>;
using half = kind<half16, half16, lgm::precision::highest>;
using half_to_float = kind<half16, float, lgm::precision::highest>;
using fast_half = kind<half16, half16, lgm::precision::fast>;

template <class Kind>
std::string name_of() {
  const std::string feature = std::is_same<typename Kind::feature, half16>::value    ? "half"
                              : std::is_same<typename Kind::feature, brain16>::value ? "bfloat16"
                                                                                     : "float";
  switch (Kind::precision) {
    case lgm::precision::highest: return feature;
    case lgm::precision::tf32: return "tf32";
    case lgm::precision::split_tf32: return "split_tf32";
    case lgm::precision::fast: return "fast " + feature;
  }
  return "";
}

// What types.hpp promises of a kind. products: false where all is computed from differences.
template <class Kind>
product_model model_of(lgm::covariance covariance) {
  product_model m;
  if (std::is_same<typename Kind::gradient, half16>::value) {
    m.feature = 0x1p-11;
    m.feature_step = 0x1p-25;
  } else if (std::is_same<typename Kind::gradient, brain16>::value) {
    m.feature = 0x1p-8;
  }
  if (covariance == lgm::covariance::diagonal) return m;
  m.uncentred = Kind::narrow;
  m.weight = Kind::narrow                                    ? 0x1p-8
             : Kind::precision == lgm::precision::tf32       ? 0x1p-11
             : Kind::precision == lgm::precision::split_tf32 ? 0x1p-22
                                                             : 0;
  switch (Kind::precision) {
    case lgm::precision::highest:
      if (!Kind::narrow) break;
      m.epsilon = std::is_same<typename Kind::feature, half16>::value ? 0x1p-15 : 0x1p-16;
      m.left = 256 * m.epsilon;
      break;
    case lgm::precision::split_tf32: m.epsilon = 0x1p-21; break;
    case lgm::precision::tf32:
      m.epsilon = 0x1p-11;
      m.left = 0.125;
      break;
    case lgm::precision::fast:
      m.epsilon = 0x1p-8;
      m.left = 1;
      break;
  }
  return m;
}

template <class Kind>
device_context context_for(std::size_t tile_bytes = std::size_t{64} << 20) {
  device_context c;
  c.precision = Kind::precision;
  c.tile_bytes = tile_bytes;
  return c;
}

// The problem with features that the kind can hold.
template <class Kind>
problem<float> rounded_to(problem<float> p) {
  for (float& x : p.features) x = static_cast<float>(static_cast<typename Kind::feature>(x));
  return p;
}

// call(features, gradients, workspace) as the kind has them. Its feature gradients end up in out.feature.
template <class Kind, class Call>
lgm::status call_as(const device_context& context, const problem<float>& p, outputs<float>& out, Call call) {
  using F = typename Kind::feature;
  using G = typename Kind::gradient;
  const std::vector<F> features(p.features.begin(), p.features.end());
  guarded<G> feature(p.shape.samples, p.shape.dims, p.shape.gradient_stride);
  lgm::gradients<G, float> gradient;
  gradient.feature = feature.data();
  gradient.mean = out.mean.data();
  gradient.log_variance = out.log_variance.data();
  gradient.log_prior = out.log_prior.data();
  scratch memory(lgm::workspace_size<F>(context, p.shape));
  const lgm::status answer = call(features.data(), gradient, memory.get());
  CHECK_MESSAGE(memory.intact(), "written outside the workspace");
  CHECK_MESSAGE(feature.intact(), "written outside the features' gradient");
  const std::size_t stride = size_of(p.shape.gradient_stride == 0 ? p.shape.dims : p.shape.gradient_stride);
  for (std::size_t n = 0; n < feature.size(); ++n)
    out.feature.data()[n / p.dims() * stride + n % p.dims()] = static_cast<float>(feature[n]);
  return answer;
}

template <class Kind>
lgm::status forward_backward_as(const device_context& context, const problem<float>& p, outputs<float>& out) {
  return call_as<Kind>(context, p, out, [&](const auto* features, const auto& gradient, lgm::workspace w) {
    return with_targets(p, [&](const auto& targets) {
      return lgm::forward_backward(context, p.shape, p.mixture(), p.call_options(), features, targets,
                                   p.upstream_data(), out.result(), gradient, w);
    });
  });
}

// forward, and backward from the row state that it leaves.
template <class Kind>
lgm::status forward_and_backward_as(const device_context& context, const problem<float>& p,
                                    outputs<float>& out) {
  return call_as<Kind>(context, p, out, [&](const auto* features, const auto& gradient, lgm::workspace w) {
    return with_targets(p, [&](const auto& targets) {
      const lgm::status first =
          lgm::forward(context, p.shape, p.mixture(), p.call_options(), features, targets, out.result(), w);
      return first != lgm::status::success
                 ? first
                 : lgm::backward(context, p.shape, p.mixture(), p.call_options(), features, targets,
                                 out.row_state.data(), p.upstream_data(), gradient, w);
    });
  });
}

}  // namespace support
