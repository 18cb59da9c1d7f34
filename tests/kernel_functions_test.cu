// SPDX-License-Identifier: MIT

// Every function of row.hpp, column.hpp, moments.hpp, whitening.hpp and schedule.hpp in a kernel of one's own, without lgm.cuh: one thread
// computes one small problem through all of them. Compiling it, with warnings as errors, shows that none is for the host
// alone; kernel_functions.py holds the list against the headers. Where there is a device, its numbers are held against
// the host's.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <lgm/column.hpp>
#include <lgm/config.hpp>
#include <lgm/formula.hpp>
#include <lgm/group.hpp>
#include <lgm/moments.hpp>
#include <lgm/row.hpp>
#include <lgm/schedule.hpp>
#include <lgm/soft_row.hpp>
#include <lgm/types.hpp>
#include <lgm/whitening.hpp>
#include <vector>

namespace {

constexpr int skipped = 77;  // what the test driver takes for "not run"
constexpr std::int64_t classes = 5, dims = 3, target = 2, most_results = 512;

// What is computed, in order; as many as most_results.
template <class T>
struct results {
  T* values;
  std::int64_t count = 0;

  LGM_HD void add(T value) {
    if (count < most_results) values[count++] = value;
  }
  LGM_HD void add(const T* from, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) add(from[i]);
  }
};

// The inputs of one sample and a few classes.
template <class T>
struct problem {
  T features[dims], centred[dims], offset[dims], gradient[dims];
  T mean[classes * dims], log_variance[classes * dims], operand[classes * dims], soft[classes],
      slope[classes];
  T bias[classes], constant[classes], norm[classes], half_log_dets[classes], products[classes], row[classes],
      scratch[classes];
  lgm::shape shape;

  LGM_HD explicit problem(lgm::covariance covariance) {
    for (std::int64_t j = 0; j < dims; ++j) {
      features[j] = T(0.5) * static_cast<T>(j) - T(0.25);
      offset[j] = T(0.125) * static_cast<T>(j);
    }
    for (std::int64_t n = 0; n < classes * dims; ++n) {
      mean[n] = static_cast<T>(lgm::normal_at(1, static_cast<std::uint64_t>(n)));
      log_variance[n] = T(0.0625) * static_cast<T>(n % 7) - T(0.125);
    }
    for (std::int64_t k = 0; k < classes; ++k) {
      soft[k] = T(1) / static_cast<T>(classes);
      slope[k] = T(0.25) * static_cast<T>(k) - T(0.5);
    }
    shape.samples = 1;
    shape.classes = classes;
    shape.dims = dims;
    shape.covariance = covariance;
  }
  LGM_HD lgm::class_parameters<T> parameters_of(std::int64_t k) const {
    lgm::mixture<T> m;
    m.mean = mean;
    m.log_variance = log_variance;
    return {shape, m, k};
  }
};

// row.hpp: fixed variances, as the product of the centred features with the classes' operands makes them.
template <class T>
LGM_HD void compute_row(results<T>& out) {
  const lgm::serial_group group;
  problem<T> p(lgm::covariance::identity);
  const T log_prior = -std::log(static_cast<T>(classes)), none = -lgm::numeric<T>::infinity;
  const T half_norm = lgm::centre_row(group, dims, p.features, static_cast<const T*>(p.offset), p.centred);
  out.add(half_norm);
  out.add(T(0.5) * lgm::squared_norm(group, dims, static_cast<const T*>(p.centred)));
  lgm::class_constants<T> constants{p.bias, p.constant, nullptr, p.norm, p.half_log_dets, T(1), T(0)};
  for (std::int64_t k = 0; k < classes; ++k) {
    const lgm::class_parameters<T> c = p.parameters_of(k);
    p.norm[k] =
        lgm::centre_class(group, dims, c, static_cast<const T*>(p.offset), T(1), p.operand + k * dims);
    p.half_log_dets[k] = lgm::half_log_det(group, dims, c);
    p.bias[k] = log_prior - p.half_log_dets[k];
    p.constant[k] = p.bias[k] - T(0.5) * p.norm[k];
    if (p.norm[k] > constants.max_norm) constants.max_norm = p.norm[k];
    p.products[k] = 0;
    for (std::int64_t j = 0; j < dims; ++j) p.products[k] += p.centred[j] * p.operand[k * dims + j];
  }
  out.add(lgm::cancellation<T>::bound(half_norm, constants.max_scale, constants.max_norm));
  out.add(constants.bound_of(half_norm, target) + constants.slack(T(1), T(1)) +
          constants.threshold(T(1), T(1)));
  out.add(lgm::store_centred(p.scratch, std::int64_t(0), p.features[0], p.offset[0]));
  out.add(lgm::store_scaled(p.scratch, std::int64_t(1), p.features[1], T(0.5)));
  out.add(p.scratch, std::int64_t(2));
  out.add(lgm::unrounded{}(T(0.125), 0));
  lgm::row_frame<T> frame = lgm::row_frame<T>(half_norm, T(1)).bounded();
  out.add(lgm::not_finite(group, dims, p.features));
  out.add(lgm::distance_beyond(group, dims, p.features, p.parameters_of(target), p.offset, half_norm, T(1)));
  out.add(frame.overflows() ? T(1) : frame.complete(T(2)));
  const auto direct = [&](std::int64_t k) {
    return T(0.5) * lgm::squared_distance(group, dims, p.features, p.parameters_of(k));
  };
  const lgm::row_target<T> own =
      lgm::target_of(group, dims, p.features, p.parameters_of(target), log_prior, T(0.25));
  out.add(own.logit);
  lgm::row_frame<T> far = frame;
  far.omit_shared();
  lgm::row_target<T> far_target = own;
  lgm::omit_from(group, dims, p.features, p.parameters_of(target), log_prior, T(0.25), far, p.offset, T(1),
                 far_target);
  out.add(far_target.logit_without_margin);
  out.add(far.complete(far_target.logit));
  far.omit_unless_near(own.distance);
  out.add(far.omitted);
  far.omit_nothing();
  out.add(far.shared());
  lgm::mixture<T> mixture;
  mixture.mean = p.mean;
  out.add(static_cast<T>(lgm::nearest_scaled(group, p.shape, mixture, p.features)));

  auto row = group.load_row(p.row, classes);
  const auto fill = [&] { group.for_each(row, [&](T& l, std::int64_t k) { l = p.products[k]; }); };
  fill();
  lgm::nearest_class<T> nearest;
  nearest.take_nearer(lgm::nearest_of(group, row, constants, frame, 0, direct, p.scratch));
  out.add(lgm::least_beyond(group, row, constants, half_norm));
  out.add(lgm::frame_of(group, row, constants, frame).shared());
  out.add(nearest.distance);
  out.add(static_cast<T>(nearest.index));

  // A label.
  T top = lgm::finish_logits(group, row, constants, frame, target, own.logit, direct);
  out.add(p.row, target);
  lgm::row_evidence<T> evidence = lgm::evidence_of(group, row, top, 0, true);
  lgm::add_gap(
      group, row, [&](std::int64_t k) { return k == target ? T(0) : T(0.0625); }, evidence);
  lgm::add_spread(group, row, evidence);
  out.add(evidence.merged_spread(lgm::row_evidence<T>()));
  evidence.merge(lgm::row_evidence<T>());
  const T others = evidence.others.value();
  const lgm::log_evidence<T> log_evidence(own.logit, evidence.others);
  out.add(others);
  out.add(evidence.classification_loss(log_evidence));
  const lgm::class_sum_rows<T> no_sums;
  out.add(
      lgm::finish_weights(group, row, constants, frame, log_evidence, T(-1), T(0), nullptr, target, no_sums)
          .weight);
  out.add(p.row, classes);
  const lgm::weight_sums<T> halves =
      lgm::make_weights(group, row, constants, [](T& w, std::int64_t) { w = T(0.5) * w; });
  const lgm::feature_terms<T> terms{T(0.25), T(0.5), T(2) * halves.weight};
  lgm::init_feature_gradient(group, dims, p.features, p.centred, terms, p.parameters_of(target), p.offset,
                             false, p.gradient);
  out.add(p.gradient, dims);

  // Soft targets.
  fill();
  const lgm::soft_row<T> soft{p.soft, nullptr, T(0.875), T(0.025), T(0.25)};
  out.add(soft.weight(std::int64_t(1)) * soft.coefficient(std::int64_t(1)) + soft.margin(std::int64_t(1)));
  out.add(lgm::sum_of_coefficients(group, classes, soft));
  lgm::finish_logits(group, row, constants, frame, std::int64_t(-1), none, direct);
  top = lgm::add_soft_margin(group, row, constants, frame, soft, none, direct);
  out.add(lgm::soft_likelihood(group, row, constants, frame, soft));
  out.add(soft.distance(constants, std::int64_t(1), p.row[1], frame.omitted));
  const lgm::row_evidence<T> soft_evidence = lgm::evidence_of(group, row, top, 0, false);
  const lgm::log_evidence<T> soft_log(none, soft_evidence.others);
  out.add(soft_log.finite_anchor());
  out.add(
      lgm::finish_soft_weights(group, row, constants, frame, soft_log, soft, T(1), T(0.125), T(1), no_sums)
          .extra);
  out.add(p.row, classes);

  // A gradient of the caller's.
  out.add(lgm::finish_given_weights(group, row, constants, frame, p.slope, T(-1), target, no_sums).beyond);
  out.add(p.row, classes);
}

// column.hpp: one class and its one sample, for each form of variances; and a step.
template <class T>
LGM_HD void compute_column(lgm::covariance covariance, results<T>& out) {
  const lgm::serial_group group;
  problem<T> p(covariance);
  const lgm::class_parameters<T> c = p.parameters_of(target);
  T difference[dims] = {}, square[dims] = {}, gradient[dims], velocity[dims] = {};
  lgm::class_sums<T> sums{difference, square};
  lgm::begin_class_sum(group, dims, c.mean, static_cast<const T*>(p.offset), T(0.5), difference);
  lgm::add_target(group, dims, p.features, c.mean, T(0.5), T(0.25), T(0.125), T(2), sums);
  out.add(difference, dims);
  lgm::write_mean_gradient(group, dims, c, sums, false, gradient);
  out.add(gradient, dims);
  lgm::sgd_rule<T> rule{T(0.5), T(0.875), T(0.01), T(1), true, T(-2), T(2)};
  lgm::sgd_update(group, dims, rule, gradient, velocity, p.mean + target * dims);
  out.add(p.mean + target * dims, dims);
  if (covariance == lgm::covariance::identity) return;
  lgm::write_log_variance_gradient(group, dims, c, sums, false, gradient);
  out.add(gradient, covariance == lgm::covariance::diagonal ? dims : std::int64_t(1));
}

// moments.hpp: A is the type of the moments.
template <class A, class T>
LGM_HD void compute_moments(results<T>& out) {
  const lgm::serial_group group;
  const T first[dims] = {T(1), T(2), T(3)}, second[dims] = {T(0.5), T(-1), T(0.25)};
  A mean[dims] = {}, residual[dims] = {}, m2[dims] = {}, deviation[dims], pooled[dims];
  const lgm::class_moment_rows<A> rows{mean, residual, m2};
  lgm::merge_class(group, dims, A(1), first, static_cast<const A*>(nullptr), static_cast<const A*>(nullptr),
                   A(0), rows, static_cast<A*>(nullptr));
  lgm::merge_class(group, dims, A(1), second, static_cast<const A*>(nullptr), static_cast<const A*>(nullptr),
                   A(1), rows, deviation);
  const lgm::double_word<A> sum = lgm::two_sum(A(1), A(0.0625)),
                            quick = lgm::quick_two_sum(sum.high, sum.low);
  const lgm::merge_weights<A> weights(A(3), A(1));
  out.add(static_cast<T>(quick.high + quick.low + weights.square + lgm::mixed(A(1), A(2), A(0.25))));
  T new_mean[dims] = {}, new_log_variance[dims] = {};
  const lgm::estimate_rule<A> rule{A(0.25), A(0.0625), A(0.5)};
  for (std::int64_t j = 0; j < dims; ++j) pooled[j] = A(1);
  lgm::estimate_mean(group, dims, static_cast<const A*>(mean), rule, new_mean);
  lgm::estimate_log_variance(group, dims, static_cast<const A*>(m2), A(0.5), static_cast<const A*>(pooled),
                             rule, new_log_variance);
  for (std::int64_t j = 0; j < dims; ++j) out.add(static_cast<T>(mean[j] + residual[j] + deviation[j]));
  out.add(new_mean, dims);
  out.add(new_log_variance, dims);
  out.add(static_cast<T>(lgm::estimated_log_variance(A(2), A(1), A(0), rule)));
  out.add(static_cast<T>(lgm::estimated_log_prior(A(0.25), A(-1), rule)));
}

// whitening.hpp.
template <class T>
LGM_HD void compute_whitening(results<T>& out) {
  const lgm::serial_group group;
  T map[dims * dims] = {T(4), T(0), T(0), T(1), T(3), T(0), T(0.5), T(1), T(2)}, factor[dims * dims], y[dims];
  const T deviation[dims] = {T(2), T(1.75), T(1.5)}, x[dims] = {T(1), T(2), T(-1)},
          offset[dims] = {T(0.5), T(0.25), T(0)};
  lgm::invert_cholesky(group, dims, map, dims, factor);
  out.add(lgm::is_determined(group, std::int64_t(2), map + 2 * dims, deviation) ? T(1) : T(0));
  out.add(map, dims * dims);
  lgm::whiten_row(group, dims, static_cast<const T*>(map), offset, static_cast<const T*>(x), y);
  out.add(y, dims);
}

template <class T>
LGM_HD void compute_all(T* values) {
  results<T> out{values};
  compute_row(out);
  for (const auto covariance :
       {lgm::covariance::identity, lgm::covariance::spherical, lgm::covariance::diagonal})
    compute_column(covariance, out);
  compute_moments<T>(out);
  compute_moments<double>(out);
  compute_whitening(out);
  for (const auto policy : {lgm::schedule_policy::constant, lgm::schedule_policy::step_up,
                            lgm::schedule_policy::add_up, lgm::schedule_policy::ramp}) {
    lgm::stepped_schedule<T> schedule;
    schedule.policy = policy;
    schedule.value = T(0.25);
    schedule.gamma = T(0.5);
    out.add(schedule(1500));
  }
}

template <class T>
__global__ void compute_on_device(T* values) {
  compute_all(values);
}

// Results of host and device agree. values: [most_results], zero.
template <class T>
bool run(double tolerance) {
  std::vector<T> host(most_results), device(most_results);
  compute_all(host.data());
  T* memory = nullptr;
  constexpr std::size_t bytes = most_results * sizeof(T);
  bool good = cudaMalloc(&memory, bytes) == cudaSuccess && cudaMemset(memory, 0, bytes) == cudaSuccess;
  if (good) compute_on_device<<<1, 1>>>(memory);
  good = good && cudaMemcpy(device.data(), memory, bytes, cudaMemcpyDeviceToHost) == cudaSuccess;
  cudaFree(memory);
  if (!good) std::printf("the kernel failed: %s\n", cudaGetErrorString(cudaGetLastError()));
  for (std::size_t n = 0; good && n < host.size(); ++n) {
    const double expected = static_cast<double>(host[n]), found = static_cast<double>(device[n]);
    if (expected == found || std::fabs(expected - found) <= tolerance * (1 + std::fabs(expected))) continue;
    std::printf("result %zu is %g on the device, %g on the host\n", n, found, expected);
    good = false;
  }
  return good;
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return skipped;
  }
  return run<float>(1e-4) && run<double>(1e-12) ? 0 : 1;
}
