// SPDX-License-Identifier: MIT
#include "support/tolerance.hpp"

namespace support {

namespace {

// A share of the evidence that may count as none: near the smallest normal numbers, where scaled weights
// would be subnormal. About 6e-35 in float, 3e-277 in double, against shares that add to 1.
template <class T>
real negligible_share() {
  return std::pow(static_cast<real>(std::numeric_limits<T>::min()), static_cast<real>(0.9));
}

// exp(log_share) expm1(error), where one factor may overflow while the product does not.
inline real spread(real log_share, real error) {
  return error < 1 ? std::exp(log_share) * std::expm1(error) : std::exp(log_share + error);
}

constexpr real product_factor = 8;

// The sizes of the terms that make up w, which may cancel.
inline real weight_size(const reference::input& in, const reference::output& out, std::size_t i,
                        std::size_t k) {
  const std::size_t n = i * in.classes + k;
  return std::fabs(out.posterior_slope[n]) * (1 + in.alpha * reference::target_at(in, i, k)) +
         std::fabs(out.own[n]);
}

// The divisor's relative error: of a sum of weights.
template <class T>
real divisor_error(const reference::input& in) {
  const auto one = [](real w) { return w == 1; };
  const bool plain = std::all_of(in.sample_weight.begin(), in.sample_weight.end(), one) &&
                     (in.soft || std::all_of(in.class_weight.begin(), in.class_weight.end(), one));
  return in.over != reference::averaging::mean || in.normalized || plain ? 0 : growth<T>(in.samples);
}

// The bounds of all gradients, from those of the slopes g and weights w of each sample and class, [samples, classes];
// all with the sample's factor.
template <class T>
void bound_gradients(const reference::input& in, const reference::output& out, const logit_bounds& e,
                     const std::vector<real>& g_error, const std::vector<real>& w_error,
                     const product_model& model, loss_bounds& b) {
  const std::size_t n_classes = in.classes, dims = in.dims;
  b.feature.assign(in.samples * dims, 0);
  b.mean.assign(n_classes * dims, 0);
  b.log_variance.assign(in.log_variance.size(), 0);
  b.log_prior.assign(n_classes, 0);
  std::vector<real> feature_terms(b.feature), mean_terms(b.mean), variance_terms(b.log_variance),
      prior_terms(b.log_prior);
  for (std::size_t i = 0; i < in.samples; ++i) {
    const real f = std::fabs(out.factor[i]);
    const std::size_t z = in.label[i] < 0 ? 0 : static_cast<std::size_t>(in.label[i]);
    for (std::size_t k = 0; k < n_classes; ++k) {
      const std::size_t n = i * n_classes + k;
      const real g = std::fabs(out.posterior_slope[n]), own = std::fabs(out.own[n]);
      const real w = weight_size(in, out, i, k);
      if (g_error[n] == 0 && w_error[n] == 0 && w == 0) continue;
      b.log_prior[k] += g_error[n];
      prior_terms[k] += f * g;
      for (std::size_t j = 0; j < dims; ++j) {
        const real precision = std::exp(-reference::log_variance_at(in, k, j));
        const real difference = std::fabs(in.features[i * dims + j] - in.mean[k * dims + j]);
        const real x = e.feature_size[i * dims + j], mu = e.mean_size[k * dims + j];
        b.feature[i * dims + j] +=
            w_error[n] * precision * (in.shards ? std::max(difference, mu) : difference);
        // What a weight's rounding multiplies: the other classes' means less the target's, or of far samples more.
        if (reference::counts(in, i) && in.form != reference::variances::diagonal)
          b.feature[i * dims + j] +=
              model.weight * f * w * precision * std::fabs(in.features[i * dims + j] - in.mean[z * dims + j]);
        feature_terms[i * dims + j] += f * w * precision * (x + mu);
        b.feature[i * dims + j] += 2 * model.epsilon * f * w * precision * (x + mu);
        b.mean[k * dims + j] += w_error[n] * precision * difference;
        mean_terms[k * dims + j] += f * w * precision * (x + mu);
        b.mean[k * dims + j] += 2 * model.epsilon * f * w * precision * (x + mu);
        if (model.uncentred)
          mean_terms[k * dims + j] +=
              f * w * precision * (std::fabs(in.features[i * dims + j]) + std::fabs(in.mean[k * dims + j]));
        if (in.form == reference::variances::identity) continue;
        const std::size_t at = in.form == reference::variances::spherical ? k : k * dims + j;
        b.log_variance[at] += (g_error[n] + w_error[n] * precision * difference * difference) / 2;
        variance_terms[at] += (f * (own + g) + f * w * precision * (x * x + mu * mu)) / 2;
      }
      if (in.form == reference::variances::spherical) b.log_variance[k] += f * w * e.operands[n];
    }
  }
  // The sums' own roundings.
  for (std::size_t n = 0; n < b.feature.size(); ++n)
    b.feature[n] += growth<T>(n_classes) * feature_terms[n] +
                    std::max(model.feature * (std::fabs(out.feature[n]) + b.feature[n]), model.feature_step);
  for (std::size_t n = 0; n < b.mean.size(); ++n) b.mean[n] += growth<T>(in.samples) * mean_terms[n];
  for (std::size_t n = 0; n < b.log_variance.size(); ++n)
    b.log_variance[n] += growth<T>(in.samples + dims) * variance_terms[n];
  for (std::size_t k = 0; k < n_classes; ++k) b.log_prior[k] += growth<T>(in.samples) * prior_terms[k];
}

}  // namespace

// Whether the logits of sample i leave out what its classes share: they are then as good as their products, and no better. The
// target decides, by whether its d_k is half of that, with room for rounding.
//   half_norm  |x'|^2 / 2 of the centred features
//   scale      the least precision
static bool is_far(const reference::input& in, const reference::output& out, real half_norm, real scale,
                   std::size_t i) {
  if (in.form == reference::variances::diagonal || in.classes == 0 || in.dims == 0) return false;
  if (in.shards || in.label[i] < 0) return in.form == reference::variances::identity;
  real plain = 0;
  for (std::size_t j = 0; j < in.dims; ++j)
    plain += in.features[i * in.dims + j] * in.features[i * in.dims + j] / 2;
  return out.distance[i * in.classes + static_cast<std::size_t>(in.label[i])] >=
         0.45L * scale * std::min(half_norm, plain);
}

template <class T>
logit_bounds bound_logits(const reference::input& in, const reference::output& out,
                          const product_model& model) {
  const real eps = epsilon<T>();
  const std::size_t n_classes = in.classes, dims = in.dims;
  logit_bounds e;
  std::vector<real> centre(dims, 0);
  for (std::size_t k = 0; k < n_classes; ++k)
    for (std::size_t j = 0; j < dims; ++j) centre[j] += in.mean[k * dims + j] / static_cast<real>(n_classes);
  if (in.shards && in.form == reference::variances::identity) centre.assign(dims, 0);
  for (std::size_t i = 0; i < in.samples; ++i)
    for (std::size_t j = 0; j < dims; ++j)
      e.feature_size.push_back(std::fabs(in.features[i * dims + j] - centre[j]));
  std::vector<real> precision;
  for (std::size_t k = 0; k < n_classes; ++k) {
    real sum = 0;
    for (std::size_t j = 0; j < dims; ++j) {
      e.mean_size.push_back(std::fabs(in.mean[k * dims + j] - centre[j]));
      precision.push_back(std::exp(-reference::log_variance_at(in, k, j)));
      sum += std::fabs(reference::log_variance_at(in, k, j)) / 2;
    }
    e.determinant.push_back(growth<T>(dims) * sum);
  }
  const real least_precision = precision.empty() ? 0 : *std::min_element(precision.begin(), precision.end());
  e.logit.assign(in.samples * n_classes, 0);
  e.with_margin.assign(in.samples * n_classes, 0);
  e.target.assign(in.samples, 0);
  for (std::size_t i = 0; i < in.samples; ++i) {
    real largest = -std::numeric_limits<real>::infinity();
    for (std::size_t k = 0; k < n_classes; ++k) largest = std::max(largest, out.logit[i * n_classes + k]);
    real half_norm = 0;
    for (std::size_t j = 0; j < dims; ++j)
      half_norm += e.feature_size[i * dims + j] * e.feature_size[i * dims + j] / 2;
    const bool far = is_far(in, out, half_norm, least_precision, i);
    e.shared.push_back(far ? least_precision * half_norm : 0);
    for (std::size_t k = 0; k < n_classes; ++k) {
      real norms = 0, cross = 0, given = 0;
      for (std::size_t j = 0; j < dims; ++j) {
        const real x = e.feature_size[i * dims + j], mu = e.mean_size[k * dims + j];
        const real s2 = precision[k * dims + j];
        norms += s2 * (x * x + mu * mu);
        cross += s2 * std::fabs(in.features[i * dims + j] - in.mean[k * dims + j]) * (x + mu);
        if (model.uncentred) given += s2 * std::fabs(in.features[i * dims + j]) * mu;
      }
      const real d = out.distance[i * n_classes + k], l = out.logit[i * n_classes + k];
      const real direct = growth<T>(dims) * d + 4 * eps * cross;
      real product = product_factor * eps * (norms + given),
           operands = product_factor * model.epsilon * norms;
      if (l >= largest - 18) {
        if (!far) product = std::min(product, product_factor * model.left);
        operands = std::min(operands, product_factor * (model.left + model.epsilon * d));
      }
      e.operands.push_back(operands);
      product += operands;
      const real other = e.determinant[k] + 4 * eps * (std::fabs(in.log_prior[k]) + std::fabs(l));
      e.logit[i * n_classes + k] = direct + product + other;
      const real q = reference::target_at(in, i, k), margin_logit = out.logit_with_margin[i * n_classes + k];
      e.with_margin[i * n_classes + k] = e.logit[i * n_classes + k];
      if (q == 0) continue;
      const real trusted =
          product_factor * (model.left + model.epsilon * d) * std::min(1 + d, 1 / std::fabs(q));
      const real product_of_target = in.soft ? std::min(product, trusted) : 0;
      e.with_margin[i * n_classes + k] = (1 + in.alpha * q) * (direct + product_of_target) + other +
                                         4 * eps * std::fabs(margin_logit) + (far ? product : 0);
      if (!in.soft) e.target[i] = e.with_margin[i * n_classes + k];
    }
  }
  return e;
}

namespace {

// The sum of |c_k| / s_i.
real coefficient_size(const reference::input& in, std::size_t i) {
  real sum = 0;
  for (std::size_t k = 0; k < in.classes; ++k)
    sum += std::fabs(in.class_weight[k]) * (std::fabs(reference::target_at(in, i, k)) + in.label_smoothing);
  return sum;
}

}  // namespace

template <class T>
expected_state expected_shard_state(const reference::input& in, const reference::output& out,
                                    const loss_bounds& bound) {
  expected_state state{{}, bound.row_state};
  for (std::size_t i = 0; i < in.samples; ++i) {
    real shared = 0;
    for (std::size_t j = 0; j < in.dims && in.form == reference::variances::identity; ++j)
      shared += in.features[i * in.dims + j] * in.features[i * in.dims + j] / 2;
    const real numbers[] = {out.target_logit[i] + (in.soft ? 0 : shared), out.rest[i] + shared};
    for (std::size_t n = 0; n < 2; ++n) {
      state.value.push_back(numbers[n]);
      if (std::isfinite(numbers[n]))
        state.bound[2 * i + n] += 4 * epsilon<T>() * (shared + std::fabs(numbers[n]));
    }
  }
  return state;
}

template <class T>
loss_bounds bound_losses(const reference::input& in, const reference::output& out,
                         const product_model& model) {
  const real eps = epsilon<T>();
  const real tiny = negligible_share<T>();
  const std::size_t n_classes = in.classes;
  const bool sharp = !in.soft && in.label_smoothing == 0;
  const real divisor_share = divisor_error<T>(in);
  const logit_bounds e = bound_logits<T>(in, out, model);
  loss_bounds b;
  std::vector<real> classification(in.samples, 0), likelihood(in.samples, 0), total(in.samples, 0);
  std::vector<real> g_error(in.samples * n_classes, 0), w_error(g_error);
  b.row_state.assign(in.samples * 2, 0);
  b.log_evidence.assign(in.samples, 0);
  for (std::size_t i = 0; i < in.samples; ++i) {
    if (!reference::counts(in, i) || n_classes == 0) continue;
    const std::size_t row = i * n_classes, z = static_cast<std::size_t>(in.label[i]);
    const real* l = out.logit_with_margin.data() + row;
    const real* error = e.with_margin.data() + row;
    const real* c = out.coefficient.data() + row;
    const bool alone = n_classes == 1;
    // eq:rest, and E: each term of the sum is off by a factor exp(+-error), its logarithm by at most
    // log sum share exp(error).
    real rest = 0, evidence = 0;
    for (std::size_t k = 0; k < n_classes; ++k) {
      evidence += spread(l[k] - out.log_evidence[i], error[k]);
      if (!in.soft && k != z) rest += spread(l[k] - out.rest[i], error[k]);
    }
    rest = std::log1p(rest);
    evidence = std::log1p(evidence) + growth<T>(n_classes) + 4 * eps * std::fabs(out.log_evidence[i]);
    b.log_evidence[i] = evidence + 4 * eps * e.shared[i];
    real relative = 0;
    if (in.soft) {
      b.row_state[2 * i] = growth<T>(n_classes) * coefficient_size(in, i);
      b.row_state[2 * i + 1] = evidence;
    } else {
      const real rest_error = alone ? 0 : rest + growth<T>(n_classes) + 4 * eps * std::fabs(out.rest[i]);
      b.row_state[2 * i] = e.target[i];
      b.row_state[2 * i + 1] = rest_error;
      relative = alone ? 0 : rest_error + e.target[i];
    }
    // log sigmoid(R): what L_cls changes by where R does.
    const real log_slope_z = out.rest[i] - out.log_evidence[i];
    const real s_z = out.coefficient_sum[i];
    real likelihood_size = 0;
    for (std::size_t k = 0; k < n_classes; ++k) {
      const real loss = out.log_evidence[i] - l[k];
      if (sharp && k == z)
        classification[i] += std::fabs(s_z) * (spread(log_slope_z, relative) + (alone ? 0 : tiny)) +
                             8 * eps * std::fabs(out.classification[i]);
      else if (c[k] != 0)
        classification[i] += std::fabs(c[k]) * (evidence + error[k] +
                                                4 * eps * (std::fabs(out.log_evidence[i]) + std::fabs(l[k])) +
                                                growth<T>(n_classes) * std::fabs(loss));
      const real q = reference::target_at(in, i, k);
      if (q == 0) continue;
      const real share = std::fabs(in.sample_weight[i] * in.class_weight[k] * q);
      const real size = std::fabs(out.distance[row + k]) + std::fabs(out.half_log_det[k]);
      likelihood[i] += share * (error[k] + 4 * eps * size);
      likelihood_size += share * size;
    }
    likelihood[i] += growth<T>(in.soft ? n_classes : 1) * likelihood_size;
    total[i] = classification[i] + in.lambda * likelihood[i] +
               4 * eps * (std::fabs(out.classification[i]) + in.lambda * std::fabs(out.likelihood[i]));
    // arg max: certain when no other class can reach it.
    bool certain = true, possible = true;
    for (std::size_t k = 0; k < n_classes; ++k) {
      if (k == z) continue;
      const real gap = out.logit[row + z] - out.logit[row + k], slack = e.logit[row + z] + e.logit[row + k];
      if (!(gap > slack)) certain = false;
      if (gap < -slack) possible = false;
    }
    b.correct_low += certain;
    b.correct_high += possible;

    const real f = std::fabs(out.factor[i]);
    const real sum_error = sharp ? 0 : growth<T>(n_classes) * in.sample_weight[i] * coefficient_size(in, i);
    const real unweighted = sharp && s_z != 0 ? out.classification[i] / s_z : 0;
    const real unweighted_error =
        sharp ? spread(log_slope_z, relative) + 8 * eps * unweighted + (alone ? 0 : tiny) : 0;
    for (std::size_t k = 0; k < n_classes; ++k) {
      const real g = std::fabs(out.posterior_slope[row + k]);
      const real q = reference::target_at(in, i, k);
      const real share = s_z * std::exp(l[k] - out.log_evidence[i]);
      if (sharp) {
        const real log_share = k == z ? log_slope_z : l[k] - out.log_evidence[i];
        const real exponent = k == z ? relative : error[k] + e.target[i] + unweighted_error;
        g_error[row + k] = std::fabs(s_z) * (spread(log_share, exponent) + (alone ? 0 : tiny)) + 8 * eps * g;
      } else {
        g_error[row + k] = std::fabs(s_z) * (spread(l[k] - out.log_evidence[i], error[k] + evidence) + tiny) +
                           sum_error * std::exp(l[k] - out.log_evidence[i]) +
                           8 * eps * (std::fabs(share) + std::fabs(c[k]));
      }
      const real rounding = in.soft || k != z ? model.weight : 0;
      g_error[row + k] = f * (g_error[row + k] + (divisor_share + rounding) * g);
      w_error[row + k] = g_error[row + k] * (1 + in.alpha * q) +
                         (4 * eps + divisor_share + rounding) * f * weight_size(in, out, i, k);
    }
  }
  bound_gradients<T>(in, out, e, g_error, w_error, model, b);
  const auto reduce = [&](const std::vector<real>& bound,
                          const std::vector<real>& loss) -> std::vector<real> {
    if (in.over == reference::averaging::none) return bound;
    real sum = 0;
    for (std::size_t i = 0; i < in.samples; ++i)
      sum += bound[i] + (growth<T>(in.samples) + divisor_share) * std::fabs(loss[i]);
    return {sum / out.divisor};
  };
  b.total = reduce(total, out.total);
  b.classification = reduce(classification, out.classification);
  b.likelihood = reduce(likelihood, out.likelihood);
  return b;
}

template <class T>
loss_bounds bound_logits_backward(const reference::input& in, const reference::output& out,
                                  const product_model& model) {
  const std::size_t n_classes = in.classes;
  loss_bounds b;
  std::vector<real> g_error(in.samples * n_classes, 0), w_error(g_error);
  for (std::size_t i = 0; i < in.samples; ++i)
    for (std::size_t k = 0; k < n_classes; ++k) {
      const std::size_t n = i * n_classes + k;
      const real f = std::fabs(out.factor[i]);
      const real rounding = in.label[i] != static_cast<std::int64_t>(k) ? model.weight : 0;
      g_error[n] = (4 * epsilon<T>() + rounding) * f * std::fabs(out.posterior_slope[n]);
      w_error[n] = f * ((8 * epsilon<T>() + rounding) * weight_size(in, out, i, k) +
                        divisor_error<T>(in) * std::fabs(out.own[n]));
    }
  bound_gradients<T>(in, out, bound_logits<T>(in, out, model), g_error, w_error, model, b);
  return b;
}

template <class T>
expectation<T>::expectation(const problem<T>& p, const product_model& model, bool shards)
    : in(to_reference(p)), out(reference::evaluate(in)) {
  in.shards = shards || p.shape.total_classes != 0;
  bound = bound_losses<T>(in, out, model);
}
template <class T>
expectation<T>::expectation(const expectation&) = default;
template <class T>
expectation<T>::~expectation() = default;

template <class T>
void expectation<T>::check_results(const outputs<T>& got) const {
  check_within("total", got.total, reference::reduced(in, out, out.total), bound.total);
  check_within("classification", got.classification, reference::reduced(in, out, out.classification),
               bound.classification);
  check_within("likelihood", got.likelihood, reference::reduced(in, out, out.likelihood), bound.likelihood);
  if (in.shards) {
    const expected_state state = expected_shard_state<T>(in, out, bound);
    check_within("row_state", got.row_state, state.value, state.bound);
  } else {
    check_whole_state(got);
  }
  check_within("log_evidence", got.log_evidence, out.log_evidence, bound.log_evidence);
  CHECK(got.counted[0] == out.counted);
  CHECK(got.correct[0] >= bound.correct_low);
  CHECK(got.correct[0] <= bound.correct_high);
}

// What the first number of row_state is relative to depends on the sample.
template <class T>
void expectation<T>::check_whole_state(const outputs<T>& got) const {
  std::vector<real> state, expected_state, state_bound;
  for (std::size_t i = 0; i < in.samples; ++i) {
    real largest = -std::numeric_limits<real>::infinity();
    for (std::size_t k = 0; k < in.classes && reference::counts(in, i); ++k)
      if (in.soft || static_cast<std::int64_t>(k) != in.label[i])
        largest = std::max(largest, out.logit_with_margin[i * in.classes + k]);
    state.push_back(got.row_state.at(i, 1));
    expected_state.push_back(std::isfinite(largest) ? out.rest[i] - largest : largest);
    state_bound.push_back(2 * bound.row_state[2 * i + 1]);
  }
  check_within("row_state", state, expected_state, state_bound);
}

template <class T>
void expectation<T>::check_gradients(const outputs<T>& got) const {
  check_within("feature gradient", got.feature, out.feature, bound.feature);
  check_within("mean gradient", got.mean, out.mean, bound.mean);
  check_within("log_variance gradient", got.log_variance, out.log_variance, bound.log_variance);
  check_within("log_prior gradient", got.log_prior, out.log_prior, bound.log_prior);
}

template <class T>
void check_logits_backward(const problem<T>& p, const outputs<T>& got, bool labelled,
                           const product_model& model) {
  reference::input in = to_reference(p);
  if (!labelled) std::fill(in.label.begin(), in.label.end(), -1);
  const reference::output out = reference::evaluate_logits_backward(in, packed_grad_logits(p));
  const loss_bounds bound = bound_logits_backward<T>(in, out, model);
  check_within("feature gradient", got.feature, out.feature, bound.feature);
  check_within("mean gradient", got.mean, out.mean, bound.mean);
  check_within("log_variance gradient", got.log_variance, out.log_variance, bound.log_variance);
  check_within("log_prior gradient", got.log_prior, out.log_prior, bound.log_prior);
}

template <class T>
void check_logits(const problem<T>& p, const guarded<T>& got, bool margin, const product_model& model) {
  const reference::input in = to_reference(p);
  const reference::output out = reference::evaluate(in);
  const logit_bounds e = bound_logits<T>(in, out, model);
  const std::vector<real>& expected = margin ? out.logit_with_margin : out.logit;
  const std::vector<real>& bound = margin ? e.with_margin : e.logit;
  check_within("logits", got, expected, bound);
}

template <class T>
void check_scores(const problem<T>& p, const score_outputs<T>& got, const product_model& model) {
  reference::input in = to_reference(p);
  in.alpha = in.lambda = 0;
  const reference::output out = reference::evaluate(in);
  const reference::scores expected = reference::score(in);
  const logit_bounds e = bound_logits<T>(in, out, model);
  const real eps = epsilon<T>();
  const real constant = static_cast<real>(in.dims) / 2 * std::log(8 * std::atan(static_cast<real>(1)));
  const std::size_t n_classes = in.classes;
  std::vector<real> posterior, density, mahalanobis;
  std::vector<real> posterior_bound, density_bound, mixture_bound, mahalanobis_bound, entropy_bound;
  for (std::size_t i = 0; i < in.samples; ++i) {
    const real* logit = out.logit.data() + i * n_classes;
    const real* error = e.logit.data() + i * n_classes;
    const std::int64_t answered = got.predicted[i];
    const bool in_range = answered >= 0 && answered < static_cast<std::int64_t>(n_classes);
    CHECK(in_range);
    if (!in_range) return;
    const std::size_t k = static_cast<std::size_t>(answered);
    const std::size_t best = static_cast<std::size_t>(expected.predicted[i]);
    CHECK(logit[k] >= logit[best] - error[k] - error[best]);
    const real evidence = expected.log_mixture[i] + constant + [&] {
      return reference::log_sum_exp(
          n_classes, [&](std::size_t c) { return in.log_prior[c]; }, [](std::size_t) { return true; });
    }();
    real total_spread = 0, low = std::numeric_limits<real>::infinity(), high = low, priors = 0;
    for (std::size_t c = 0; c < n_classes; ++c) {
      total_spread += spread(logit[c] - evidence, error[c]);
      const real d = out.distance[i * n_classes + c];
      low = std::min(low, d - error[c]);
      high = std::min(high, d + error[c]);
      priors = std::max(priors, std::fabs(in.log_prior[c]));
    }
    total_spread = std::log1p(total_spread);
    // Of each term p log p: by as much as its logit, and the evidence, may be off, and a sum's rounding.
    real of_entropy = 0;
    for (std::size_t c = 0; c < n_classes; ++c) {
      const real log_p = logit[c] - evidence, off = error[c] + total_spread;
      if (std::isinf(log_p)) continue;
      of_entropy += spread(log_p, off) * (1 + std::fabs(log_p) + off);
      of_entropy += growth<T>(n_classes) * std::exp(log_p) * (1 + std::fabs(log_p));
    }
    entropy_bound.push_back(of_entropy);
    const real p_k = std::exp(logit[k] - evidence);
    posterior.push_back(p_k);
    posterior_bound.push_back(spread(logit[k] - evidence, error[k] + total_spread) +
                              growth<T>(n_classes) * p_k);
    density.push_back(-out.distance[i * n_classes + k] - out.half_log_det[k] - constant);
    density_bound.push_back(error[k] + 4 * eps * (std::fabs(density.back()) + constant));
    mixture_bound.push_back(
        total_spread + growth<T>(n_classes) +
        4 * eps * (std::fabs(expected.log_mixture[i]) + constant + std::fabs(evidence) + priors));
    mahalanobis.push_back(2 * out.distance[i * n_classes + k]);
    mahalanobis_bound.push_back(2 * error[k]);
    const real nearest = static_cast<real>(got.nearest_squared_mahalanobis[i]) / 2;
    CHECK(nearest >= low);
    CHECK(nearest <= high);
  }
  check_within("posterior", got.posterior, posterior, posterior_bound);
  check_within("log_density", got.log_density, density, density_bound);
  check_within("log_mixture", got.log_mixture, expected.log_mixture, mixture_bound);
  check_within("squared_mahalanobis", got.squared_mahalanobis, mahalanobis, mahalanobis_bound);
  check_within("entropy", got.entropy, expected.entropy, entropy_bound);
  // predicted and nearest_squared_mahalanobis are looked at above.
  static_assert(lgm::count_scores() == 7, "a score is checked here");
}

#define LGM_TEST_INSTANTIATE(T)                                                                          \
  template struct expectation<T>;                                                                        \
  template logit_bounds bound_logits<T>(const reference::input&, const reference::output&,               \
                                        const product_model&);                                           \
  template loss_bounds bound_logits_backward<T>(const reference::input&, const reference::output&,       \
                                                const product_model&);                                   \
  template loss_bounds bound_losses<T>(const reference::input&, const reference::output&,                \
                                       const product_model&);                                            \
  template expected_state expected_shard_state<T>(const reference::input&, const reference::output&,     \
                                                  const loss_bounds&);                                   \
  template void check_logits_backward(const problem<T>&, const outputs<T>&, bool, const product_model&); \
  template void check_logits(const problem<T>&, const guarded<T>&, bool, const product_model&);          \
  template void check_scores(const problem<T>&, const score_outputs<T>&, const product_model&);
LGM_TEST_INSTANTIATE(float)
LGM_TEST_INSTANTIATE(double)

}  // namespace support
