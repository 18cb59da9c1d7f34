// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <lgm/row.hpp>
#include <lgm/soft_row.hpp>
#include <vector>

#include "support/group_runs.hpp"

// The row algorithms under every group, lanes and order (support/group_runs.hpp).

namespace {

using namespace support;
using reference::real;

constexpr real infinity = std::numeric_limits<real>::infinity();

// The terms of 2 d_k (eq:distance).
template <class T>
real_sum squared_distance_of(const inputs<T>& in, lgm::covariance form) {
  real_sum sum;
  for (std::size_t j = 0; j < size_of(in.n); ++j) {
    const real t = widen(in.features[j]) - widen(in.mean[j]);
    sum.add(t * t * std::exp(-in.log_variance_at(form, j)));
  }
  return sum;
}

// The terms of h_k (eq:log_det).
template <class T>
real_sum half_log_det_of(const inputs<T>& in, lgm::covariance form) {
  real_sum sum;
  for (std::size_t j = 0; j < size_of(in.n); ++j) sum.add(in.log_variance_at(form, j) / 2);
  return sum;
}

struct squared_distance_run {
  static constexpr int variants = 3;
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>&, std::vector<T>& answers) {
    const auto c = in.parameters(form_of(in.variant));
    answers.push_back(lgm::squared_distance(group, in.n, in.features.data(), c));
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    const real_sum sum = squared_distance_of(in, form_of(in.variant));
    e.answer(sum.value, sum.template bound<T>(in.n));
  }
};

struct half_log_det_run {
  static constexpr int variants = 3;
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>&, std::vector<T>& answers) {
    answers.push_back(lgm::half_log_det(group, in.n, in.parameters(form_of(in.variant))));
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    const real_sum sum = half_log_det_of(in, form_of(in.variant));
    e.answer(sum.value, sum.template bound<T>(in.n));
  }
};

struct centre_row_run {
  static constexpr int variants = 1;
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>& answers) {
    answers.push_back(lgm::centre_row(group, in.n, in.features.data(), in.centre.data(), out.a));
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    real_sum sum;
    for (std::size_t j = 0; j < size_of(in.n); ++j) {
      const real t = widen(in.features[j]) - widen(in.centre[j]);
      e.a[j] = {t, epsilon<T>() * std::fabs(t)};
      sum.add(t * t / 2);
    }
    e.answer(sum.value, sum.template bound<T>(in.n));
  }
};

// A row of logits (eq:logit) from its products, some computed again from the differences, and what each is
// off by.
template <class T>
struct finished_row {
  std::vector<real> logit, bound;
  real top = -infinity, worst = 0;

  finished_row(const inputs<T>& in, const class_row<T>& row, std::int64_t target, real known_max) {
    for (std::size_t k = 0; k < size_of(in.n); ++k) {
      logit.push_back(row.expanded(k));
      bound.push_back(row.expanded_bound(k));
    }
    if (target >= 0) {
      logit[size_of(target)] = -infinity;
      bound[size_of(target)] = 0;
    }
    const real near = std::max(largest(), known_max) - 25;  // 20, with room on both sides
    for (std::size_t k = 0; k < size_of(in.n); ++k) {
      if (row.untrusted(k) && logit[k] >= near) {
        logit[k] = widen(row.bias[k]) - widen(row.direct[k]);
        bound[k] = epsilon<T>() * std::fabs(logit[k]);
      }
      worst = std::max(worst, bound[k]);
    }
    top = largest();
  }
  real largest() const {
    real most = -infinity;
    for (const real l : logit) most = std::max(most, l);
    return most;
  }
};

struct finish_logits_run {
  static constexpr int variants = 4;
  static bool spherical(int variant) { return variant % 2 != 0; }
  static bool cancels(int variant) { return variant >= 2; }
  template <class T>
  static std::int64_t target(const inputs<T>& in) {
    return in.variant == 1 || in.variant == 2 ? -1 : in.target;
  }
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>& answers) {
    const auto& row = in.row(spherical(in.variant), cancels(in.variant));
    auto held = hold_copy(group, row.products, out.a);
    answers.push_back(lgm::finish_logits(group, held, row.constants(), row.frame(), target(in), T(-5),
                                         [&](std::int64_t k) { return row.direct[size_of(k)]; }));
    held.store(out.a);
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    const finished_row<T> row(in, in.row(spherical(in.variant), cancels(in.variant)), target(in), -5);
    for (std::size_t k = 0; k < size_of(in.n); ++k) e.a[k] = {row.logit[k], row.bound[k]};
    e.answer(row.top, row.worst);
  }
};

struct evidence_run {
  static constexpr int variants = 3;  // a row of logits; one of none but the target; the best not asked for
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>& answers) {
    auto held = hold_copy(group, in.logits, out.a);
    if (in.variant == 1)
      group.for_each(held, [](auto& l, auto) {
        using V = std::decay_t<decltype(l)>;
        l = V(-lgm::numeric<T>::infinity);
      });
    const T top = in.variant == 1 ? -lgm::numeric<T>::infinity : in.largest_logit();
    auto e = lgm::evidence_of(group, held, top, 100, in.variant != 2);
    lgm::add_spread(group, held, e);
    for (const T value : {e.others.max, e.others.sum, static_cast<T>(e.best), e.spread})
      answers.push_back(value);
    held.store(out.a);
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    real top = -infinity, best = -1;
    for (std::size_t k = 0; k < size_of(in.n); ++k) {
      const real l = in.variant == 1 ? -infinity : widen(in.logits[k]);
      e.a[k] = {l, 0};
      if (l > top) {
        top = l;
        best = 100 + static_cast<real>(k);
      }
    }
    real_sum sum, spread;
    for (std::size_t k = 0; k < size_of(in.n) && top > -infinity; ++k) {
      const real below = e.a[k].value - top, off = epsilon<T>() * std::fabs(below);
      if (below < -100) continue;  // -1000, and the target
      sum.add(std::exp(below), off * std::exp(below));
      spread.add(-below * std::exp(below), off * (1 - below) * std::exp(below));
    }
    e.answer(top);
    e.answer(sum.value, sum.template bound<T>(in.n));
    e.answer(in.variant == 2 ? -1 : best);
    e.answer(spread.value, spread.template bound<T>(in.n));
  }
};

struct nearest_run {
  static constexpr int variants = 4;
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>& answers) {
    const auto& row = in.row(in.variant % 2 != 0, in.variant >= 2, true);
    const auto held = hold_copy(group, row.products, out.a);
    const auto nearest = lgm::nearest_of(
        group, held, row.constants(), row.frame(), 100,
        [&](std::int64_t k) { return row.direct[size_of(k)]; }, out.scratch);
    answers.push_back(nearest.distance);
    answers.push_back(static_cast<T>(nearest.index));
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    const auto& row = in.row(in.variant % 2 != 0, in.variant >= 2, true);
    for (std::size_t k = 0; k < size_of(in.n); ++k) e.a[k] = {widen(row.products[k]), 0};
    if (in.n == 0) {
      e.answer(infinity);
      e.answer(-1);
      return;
    }
    // The product's rounding can be told from the distance itself only where some class of the range cancels:
    // then whichever is nearest is computed again.
    const std::size_t k = size_of(in.n / 3);
    const bool again = in.variant >= 2 && in.n > 1;
    if (again)
      e.answer(widen(row.direct[k]));
    else
      e.answer(widen(row.bias[k]) - row.expanded(k),
               row.expanded_bound(k) + epsilon<T>() * widen(row.norm[k]));
    e.answer(100 + static_cast<real>(k));
  }
};

struct target_run {
  static constexpr int variants = 3;
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>&, std::vector<T>& answers) {
    const auto c = in.parameters(form_of(in.variant));
    const auto t = lgm::target_of(group, in.n, in.features.data(), c, T(-1.25), T(0.5));
    for (const T value : {t.distance, t.half_log_det, t.logit, t.logit_without_margin})
      answers.push_back(value);
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    const real_sum two_d = squared_distance_of(in, form_of(in.variant)),
                   h = half_log_det_of(in, form_of(in.variant));
    const real d = two_d.value / 2, d_bound = two_d.template bound<T>(in.n) / 2,
               h_bound = h.template bound<T>(in.n);
    e.answer(d, d_bound);
    e.answer(h.value, h_bound);
    const real prior = -1.25L;
    for (const real margin : {1.5L, 1.0L})
      e.answer(prior - h.value - margin * d,
               margin * d_bound + h_bound + 2 * epsilon<T>() * (1.25L + std::fabs(h.value) + margin * d));
  }
};

// What weights add up to. The rows' base_scale is 0, so that one of the first two is the sum of w_k / Lambda_k.
template <class T>
void add_sums(const lgm::weight_sums<T>& sums, std::vector<T>& answers) {
  answers.push_back(sums.weight);
  answers.push_back(sums.beyond);
  answers.push_back(sums.extra);
}
struct expected_sums {
  real_sum weight, beyond, extra;
  void add(real w, real bound, real inverse, bool spherical) {
    weight.add(w, bound);
    if (spherical) beyond.add(w * inverse, bound * inverse);
  }
  template <class T>
  void answer(const inputs<T>& in, expectation_of<T>& e) const {
    for (const real_sum* sum : {&weight, &beyond, &extra}) e.answer(sum->value, sum->template bound<T>(in.n));
  }
};

// What finish_weights is to give for finished logits that are off by `error`: weights in a, their sums by
// class in b.
template <class T>
void expect_weights(const inputs<T>& in, const class_row<T>& row, const std::vector<real>& logit,
                    real evidence, real error, real scale, real smoothing, bool with_class_weights,
                    bool with_sums, expectation_of<T>& e) {
  expected_sums sums;
  for (std::size_t k = 0; k < size_of(in.n); ++k) {
    const real below = logit[k] - evidence,
               smooth = smoothing * (with_class_weights ? widen(in.class_weight[k]) : 1);
    real w = 0, bound = 0;
    if (below >= -100) {
      w = scale * std::exp(below);
      bound = std::fabs(w) * std::expm1(error + epsilon<T>() * (8 + 2 * std::fabs(below)));
    }
    if (static_cast<std::int64_t>(k) != in.target) {
      w += smooth;
      bound += epsilon<T>() * std::fabs(smooth);
    }
    const real inverse = row.spherical ? widen(row.scale[k]) : static_cast<real>(1);
    e.a[k] = {w, bound};
    sums.add(w, bound, inverse, row.spherical);
    if (with_sums) {
      const real before = widen(in.b[k]);
      e.b[k] = {before + w, w == 0 ? 0 : bound + epsilon<T>() * (std::fabs(before) + std::fabs(w))};
    }
  }
  sums.answer(in, e);
}

// log sum exp over the targets of 1.5 and all others of 2.25.
template <class T>
lgm::log_evidence<T> some_evidence() {
  return {T(1.5), lgm::log_sum<T>{T(2.25), T(1)}};
}
real some_exact_evidence() { return 2.25L + std::log1p(std::exp(-0.75L)); }

struct finish_weights_run {
  static constexpr int variants =
      5;  // no variances; variances; no sums by class; smoothing; with class weights
  static real smoothing(int variant) { return variant >= 3 ? 0.03125L : 0.0L; }
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>& answers) {
    auto held = hold_copy(group, in.logits, out.a);
    lgm::class_sum_rows<T> sums;
    if (in.variant != 2) sums.weight = out.b;
    add_sums(lgm::finish_weights(group, held, in.row(in.variant == 1, false).constants(), {},
                                 some_evidence<T>(), T(-0.75), static_cast<T>(smoothing(in.variant)),
                                 in.variant == 4 ? in.class_weight.data() : nullptr, in.target, sums),
             answers);
    held.store(out.a);
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    const std::vector<real> logit(in.logits.begin(), in.logits.end());
    expect_weights(in, in.row(in.variant == 1, false), logit, some_exact_evidence(), 0, -0.75L,
                   smoothing(in.variant), in.variant == 4, in.variant != 2, e);
  }
};

// The sum of w_k d_k of each class; the target's and the far classes' terms are exactly zero, whatever their
// distance.
struct class_distance_run {
  static constexpr int variants = 1;
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>&) {
    auto held = hold_copy(group, in.logits, out.scratch);
    lgm::class_sum_rows<T> sums;
    sums.weight = out.a;
    sums.distance = out.b;
    lgm::finish_weights(group, held, in.row(true, false).constants(), {}, some_evidence<T>(), T(-0.75), T(0),
                        nullptr, in.target, sums);
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    for (std::size_t k = 0; k < size_of(in.n); ++k) {
      const real l = widen(in.logits[k]), below = l - some_exact_evidence();
      if (below < -100) continue;
      const real bias = widen(in.row(true, false).bias[k]);
      const real w = -0.75L * std::exp(below), d = bias - l;
      const real relative = epsilon<T>() * (8 + 2 * std::fabs(below));
      e.a[k] = {widen(in.a[k]) + w, relative * std::fabs(w) + epsilon<T>() * std::fabs(widen(in.a[k]))};
      e.b[k] = {widen(in.b[k]) + w * d, 2 * relative * std::fabs(w * d) +
                                            epsilon<T>() * std::fabs(widen(in.b[k])) +
                                            epsilon<T>() * std::fabs(w) * (std::fabs(bias) + std::fabs(l))};
    }
  }
};

// A sample from its products to its weights, the row held throughout: what is in registers stays there.
struct whole_row_run {
  static constexpr int variants = 2;
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>& answers) {
    const auto& row = in.row(in.variant == 1, true);
    auto held = hold_copy(group, row.products, out.a);
    const T target = T(-2);
    const T top = lgm::finish_logits(group, held, row.constants(), row.frame(), in.target, target,
                                     [&](std::int64_t k) { return row.direct[size_of(k)]; });
    const auto evidence = lgm::evidence_of(group, held, top, 0, false);
    lgm::class_sum_rows<T> sums;
    sums.weight = out.b;
    sums.distance = out.scratch;
    add_sums(lgm::finish_weights(group, held, row.constants(), row.frame(),
                                 lgm::log_evidence<T>(target, evidence.others), T(2), T(0), nullptr,
                                 in.target, sums),
             answers);

    held.store(out.a);
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    const auto& row = in.row(in.variant == 1, true);
    const finished_row<T> finished(in, row, in.target, -2);
    const real evidence = reference::log_sum_exp(
        size_of(in.n) + 1, [&](std::size_t k) { return k < size_of(in.n) ? finished.logit[k] : -2.0L; },
        [](std::size_t) { return true; });
    // The logits' own errors count twice: in the weight, and in what it is relative to.
    expect_weights(in, row, finished.logit, evidence,
                   2 * finished.worst + growth<T>(size_of(in.n)) + 60 * epsilon<T>(), 2, 0, false, true, e);
  }
};

// ---- soft targets, label smoothing, and gradients of the caller's own ----

struct add_excess_run {
  static constexpr int variants = 1;
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>& answers) {
    const auto held = hold_copy(group, in.logits, out.scratch);
    lgm::row_evidence<T> e;
    e.others.max = in.largest_logit();
    lgm::add_gap(group, held, elements_of(in.soft_target), e);
    answers.push_back(e.coefficient);
    answers.push_back(e.gap);
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    real_sum coefficient, excess;
    for (std::size_t k = 0; k < size_of(in.n); ++k) {
      const real c = widen(in.soft_target[k]);
      coefficient.add(c);
      if (c != 0) excess.add(c * (widen(in.largest_logit()) - widen(in.logits[k])));
    }
    e.answer(coefficient.value, coefficient.template bound<T>(in.n));
    e.answer(excess.value, excess.template bound<T>(in.n));
  }
};

template <class T>
lgm::soft_row<T> soft_row_of(const inputs<T>& in, bool with_class_weights) {
  return {in.soft_target.data(), with_class_weights ? in.class_weight.data() : nullptr, T(0.875),
          T(0.0078125), T(0.25)};
}
template <class T>
real soft_margin_at(const inputs<T>& in, std::size_t k) {
  return 1 + widen(in.soft_target[k]) / 4;
}

// Logits with the margins of soft targets, from finished ones without.
template <class T>
finished_row<T> with_soft_margins(const inputs<T>& in, const class_row<T>& row) {
  finished_row<T> r(in, row, -1, -5);
  std::vector<real> distance;
  for (std::size_t k = 0; k < size_of(in.n); ++k) {
    const real m = soft_margin_at(in, k), l = r.logit[k];
    distance.push_back(widen(row.bias[k]) - l);
    r.logit[k] = l - (m - 1) * distance[k];
    r.bound[k] = m * r.bound[k] +
                 2 * epsilon<T>() * (std::fabs(l) + (m - 1) * (std::fabs(distance[k]) + std::fabs(l)));
  }
  const real near = std::max(r.largest(), -5.0L) - 25;
  r.worst = 0;
  for (std::size_t k = 0; k < size_of(in.n); ++k) {
    const real norm = widen(row.norm[k]), q = std::fabs(widen(in.soft_target[k]));
    const real cancels = std::sqrt(2 * widen(row.half_norm) * widen(row.scale[k]) * norm) + norm;
    const bool weighs =
        q != 0 && (distance[k] < 0.375L || q * cancels > widen(lgm::cancellation<T>::trusted));
    if (row.untrusted(k) && (r.logit[k] >= near || weighs)) {
      const real m = soft_margin_at(in, k), bias = widen(row.bias[k]), direct = widen(row.direct[k]);
      r.logit[k] = bias - m * direct;
      r.bound[k] = 2 * epsilon<T>() * (std::fabs(bias) + m * std::fabs(direct));
    }
    r.worst = std::max(r.worst, r.bound[k]);
  }
  r.top = r.largest();
  return r;
}

struct soft_margin_run {
  static constexpr int variants = 4;
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>& answers) {
    const auto& row = in.row(in.variant % 2 != 0, in.variant >= 2);
    const auto direct = [&](std::int64_t k) { return row.direct[size_of(k)]; };
    auto held = hold_copy(group, row.products, out.a);
    lgm::finish_logits(group, held, row.constants(), row.frame(), -1, T(-5), direct);
    answers.push_back(lgm::add_soft_margin(group, held, row.constants(), row.frame(), soft_row_of(in, false),
                                           T(-5), direct));
    held.store(out.a);
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    const auto r = with_soft_margins(in, in.row(in.variant % 2 != 0, in.variant >= 2));
    for (std::size_t k = 0; k < size_of(in.n); ++k) e.a[k] = {r.logit[k], r.bound[k]};
    e.answer(r.top, r.worst);
  }
};

struct soft_likelihood_run {
  static constexpr int variants = 2;
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>& answers) {
    const auto held = hold_copy(group, in.logits, out.scratch);
    answers.push_back(lgm::soft_likelihood(group, held, in.row(false, false).constants(), {},
                                           soft_row_of(in, in.variant == 1)));
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    const auto& row = in.row(false, false);
    real_sum sum;
    for (std::size_t k = 0; k < size_of(in.n); ++k) {
      const real share = widen(in.soft_target[k]) * (in.variant == 1 ? widen(in.class_weight[k]) : 1);
      if (share == 0) continue;
      const real bias = widen(row.bias[k]), l = widen(in.logits[k]), h = widen(row.half_log_det[k]);
      const real d = (bias - l) / soft_margin_at(in, k);
      sum.add(share * (d + h), 4 * epsilon<T>() * share * (std::fabs(bias) + std::fabs(l) + std::fabs(h)));
    }
    e.answer(sum.value, sum.template bound<T>(in.n));
  }
};

// What finish_soft_weights is to give: weights in a, and sums by class; the logits are off by `error`.
template <class T>
void expect_soft_weights(const inputs<T>& in, const class_row<T>& row, const std::vector<real>& logit,
                         real evidence, real error, bool with_class_weights, bool with_distance,
                         expectation_of<T>& e) {
  constexpr real total = 1.25L, lambda = 0.5L, upstream = -0.75L;
  const real eps = epsilon<T>();
  expected_sums sums;
  for (std::size_t k = 0; k < size_of(in.n); ++k) {
    const real below = logit[k] - evidence, m = soft_margin_at(in, k), q = widen(in.soft_target[k]);
    const real share = with_class_weights ? widen(in.class_weight[k]) : 1;
    const real c = share * (0.875L * q + 0.0078125L);
    const real p = below < -100 ? 0 : total * std::exp(below);
    const real p_bound = p == 0 ? 0 : p * std::expm1(error + eps * (8 + 2 * std::fabs(below)));
    const real g = upstream * (p - c), own = upstream * lambda * share * q, w = own - g * m;
    const real g_bound = std::fabs(upstream) * (p_bound + 4 * eps * (p + c));
    const real own_bound = 2 * eps * std::fabs(own);
    const real w_bound = own_bound + m * g_bound + 2 * eps * (std::fabs(own) + m * std::fabs(g));
    e.a[k] = {w, w_bound};
    const auto add = [&](auto& sums, real value, real bound) {
      sums[k] = {sums[k].value + value, bound + eps * (std::fabs(sums[k].value) + std::fabs(value))};
    };
    add(e.b, w, w_bound);
    const real bias = widen(row.bias[k]), d = (bias - logit[k]) / m;
    if (with_distance)
      add(e.c, w * d,
          w_bound * std::fabs(d) +
              std::fabs(w) * (error + 4 * eps * (std::fabs(bias) + std::fabs(logit[k]))));
    else
      add(e.c, own - g, own_bound + g_bound + eps * (std::fabs(own) + std::fabs(g)));
    add(e.d, g, g_bound);
    const real inverse = row.spherical ? widen(row.scale[k]) : static_cast<real>(1);
    sums.add(w, w_bound, inverse, row.spherical);
    sums.extra.add(w + g, 3 * w_bound + 4 * eps * (std::fabs(w) + std::fabs(own)));
  }
  sums.answer(in, e);
}

// Sums by class: of weights, of probabilities, and of shares or distances.
template <class T>
lgm::class_sum_rows<T> soft_sums(const arrays<T>& out, bool with_distance) {
  lgm::class_sum_rows<T> sums;
  sums.weight = out.b;
  (with_distance ? sums.distance : sums.variance_weight) = out.c;
  sums.probability = out.d;
  return sums;
}

struct soft_weights_run {
  static constexpr int variants = 2;
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>& answers) {
    const bool one = in.variant == 1;
    auto held = hold_copy(group, in.logits_of_all, out.a);
    add_sums(lgm::finish_soft_weights(group, held, in.row(one, false).constants(), {}, some_evidence<T>(),
                                      soft_row_of(in, one), T(1.25), T(0.5), T(-0.75), soft_sums(out, one)),
             answers);
    held.store(out.a);
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    const bool one = in.variant == 1;
    const std::vector<real> logit(in.logits_of_all.begin(), in.logits_of_all.end());
    expect_soft_weights(in, in.row(one, false), logit, some_exact_evidence(), 0, one, one, e);
  }
};

// A sample with soft targets from its products to its weights, the row held throughout.
struct whole_soft_row_run {
  static constexpr int variants = 2;
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>& answers) {
    const bool one = in.variant == 1;
    const auto& row = in.row(one, true);
    const auto direct = [&](std::int64_t k) { return row.direct[size_of(k)]; };
    const auto c = row.constants();
    const auto soft = soft_row_of(in, one);
    auto held = hold_copy(group, row.products, out.a);
    lgm::finish_logits(group, held, c, row.frame(), -1, T(-5), direct);
    const T top = lgm::add_soft_margin(group, held, c, row.frame(), soft, T(-5), direct);
    const auto evidence = lgm::evidence_of(group, held, top, 0, true);
    add_sums(lgm::finish_soft_weights(group, held, c, row.frame(),
                                      lgm::log_evidence<T>(-lgm::numeric<T>::infinity, evidence.others), soft,
                                      T(1.25), T(0.5), T(-0.75), soft_sums(out, one)),
             answers);
    held.store(out.a);
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    const auto& row = in.row(in.variant == 1, true);
    const auto finished = with_soft_margins(in, row);
    const real evidence = reference::log_sum_exp(
        size_of(in.n), [&](std::size_t k) { return finished.logit[k]; }, [](std::size_t) { return true; });
    expect_soft_weights(in, row, finished.logit, evidence,
                        2 * finished.worst + growth<T>(size_of(in.n)) + 60 * epsilon<T>(), in.variant == 1,
                        in.variant == 1, e);
  }
};

struct given_weights_run {
  static constexpr int variants = 2;  // with the sums of distances, without
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>& answers) {
    auto held = hold_copy(group, in.logits, out.a);
    lgm::class_sum_rows<T> sums;
    sums.weight = out.b;
    if (in.variant == 0) sums.distance = out.c;
    add_sums(lgm::finish_given_weights(group, held, in.row(true, false).constants(), {}, in.gradient.data(),
                                       T(-0.75), in.target, sums),
             answers);
    held.store(out.a);
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    const auto& row = in.row(true, false);
    const real eps = epsilon<T>();
    expected_sums sums;
    for (std::size_t k = 0; k < size_of(in.n); ++k) {
      const bool is_target = static_cast<std::int64_t>(k) == in.target;
      const real w = is_target ? 0 : -0.75L * widen(in.gradient[k]), size = std::fabs(w);
      const real bias = widen(row.bias[k]), l = widen(in.logits[k]);
      e.a[k] = {w, eps * size};
      sums.add(w, 0, widen(row.scale[k]), true);
      if (is_target) continue;
      e.b[k] = {e.b[k].value + w, 2 * eps * (size + std::fabs(e.b[k].value))};
      if (in.variant == 0)
        e.c[k] = {e.c[k].value + w * (bias - l),
                  2 * eps * (size * (std::fabs(bias) + std::fabs(l)) + std::fabs(e.c[k].value))};
    }
    sums.answer(in, e);
  }
};

struct feature_gradient_run {
  // Each covariance; without the sample's part; without the difference; over what is there; the mean as it is.
  static constexpr int variants = 7;
  template <class T>
  static lgm::feature_terms<T> terms(int variant) {
    return {T(variant == 3 ? 0 : 0.625), T(variant == 4 ? 0 : -1.375), T(variant == 2 ? 0 : 0.375)};
  }
  template <class Group, class T>
  static void run(const Group& group, const inputs<T>& in, const arrays<T>& out, std::vector<T>&) {
    const auto c = in.parameters(form_of(in.variant));
    lgm::init_feature_gradient(group, in.n, in.features.data(), in.centre.data(), terms<T>(in.variant), c,
                               in.variant == 6 ? nullptr : in.gradient.data(), in.variant != 5, out.a);
  }
  template <class T>
  static void expect(const inputs<T>& in, expectation_of<T>& e) {
    for (std::size_t j = 0; j < size_of(in.n); ++j) {
      const auto t = terms<T>(in.variant);
      const real row = widen(t.sample) * widen(in.centre[j]);
      const real origin = in.variant == 6 ? 0 : widen(in.gradient[j]), mean = widen(in.mean[j]);
      const bool diagonal = form_of(in.variant) == lgm::covariance::diagonal;
      const real own = widen(t.difference) * (widen(in.features[j]) - mean) *
                       (diagonal ? std::exp(-in.log_variance_at(form_of(in.variant), j)) : 1.0L);
      const real centred = widen(t.mean) * (mean - origin), before = in.variant == 5 ? 0 : widen(in.a[j]);
      e.a[j] = {before + row + own + centred, 4 * epsilon<T>() *
                                                  (std::fabs(before) + std::fabs(row) + std::fabs(own) +
                                                   widen(t.mean) * (std::fabs(mean) + std::fabs(origin)))};
    }
  }
};

}  // namespace

TEST_CASE_TEMPLATE("row algorithms give the same under every group", Algorithm, squared_distance_run,
                   half_log_det_run, centre_row_run, finish_logits_run, evidence_run, nearest_run, target_run,
                   finish_weights_run, class_distance_run, whole_row_run, feature_gradient_run,
                   add_excess_run, soft_margin_run, soft_likelihood_run, soft_weights_run, whole_soft_row_run,
                   given_weights_run) {
  check_algorithm<Algorithm>();
}
