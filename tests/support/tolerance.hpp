// SPDX-License-Identifier: MIT
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "support/problem.hpp"
#include "support/reference.hpp"

// How far a result in T may be from the reference, by the sizes of the numbers that went into it.
//
// A sum of n rounded terms is off by at most n u sum |term| (u = eps / 2), and by sqrt(n) u times a small
// factor but for a chance that is negligible (Higham and Mary, 2019). growth(n) = 4 (1 + sqrt(n)) eps is 8
// times sqrt(n) u, and more where n is small and a term itself takes several roundings.
//
// A logit l_k is off by E_k, for which there are two ways:
// - direct: sum of t^2, t = (x - mu) s, each t off by a few eps of s (|x - c| + |mu - c|), c the centre;
// - product: |x|^2 - 2 x mu + |mu|^2, all centred, off by 8 eps (|x - c|^2 + |mu - c|^2) / Lambda.
//
// The target of a label must be direct. Others may be products, except near the row's maximum (within 20), where a product
// may stand only if eps (|x - c| |mu - c| + |mu - c|^2) / Lambda is at most 1e-4, and where a soft target is not zero,
// only if that is at most 1e-4 (1 + d). Entries count as near within 18 of the maximum here, so that rounding does not
// decide which side they fall on.
//
// The rest is what E does to each formula, as exp and log spread it, plus growth of each sum's own terms:
// - A label without smoothing has the loss c log(1 + e^R) and the slope c sigmoid(R): their errors are those of R, as
//   large as the loss is, however close p_z is to 1.
// - Else a loss is sum_k c_k (E - l_k), each difference off by the errors of both and the steps of their own sizes; g =
//   S p_k - c_k by S times what E and l_k do to p_k, and the steps of its two terms. S is a sum of positive numbers, and
//   with soft targets comes out of its logarithm log(S / s): off by steps of that number's size.
// - A divisor that is a sum of weights is off by growth of its terms, and with it all that it divides.
// No bound here was found by trying.

namespace support {

template <class T>
real epsilon() {
  return static_cast<real>(std::numeric_limits<T>::epsilon());
}

template <class T>
real growth(std::size_t n) {
  return 4 * (1 + std::sqrt(static_cast<real>(n))) * epsilon<T>();
}

// Products of reduced precision. Their operands are off by `epsilon` of themselves, and norms are those of the operands as
// rounded, so that d_k is off by epsilon |x - mu| (|x - c| + |mu - c|) / Lambda, by `left` and 2 epsilon d_k at most where an
// estimate above `left` has it computed again. Weights are off by `weight` of themselves, but for a label's own. The features'
// gradient is stored with an error of `feature` of itself, or `feature_step` near zero.
struct product_model {
  real epsilon = 0, left = static_cast<real>(1e-4), weight = 0, feature = 0, feature_step = 0;
  bool uncentred = false;  // features are not centred before they are multiplied
};

struct loss_bounds {
  std::vector<real> total, classification, likelihood;  // as reported
  std::vector<real> row_state;                          // [samples, 2]
  std::vector<real> log_evidence;
  std::vector<real> feature, mean, log_variance, log_prior;
  std::int64_t correct_low = 0, correct_high = 0;
};

// E of every logit, without margin and with it [samples, classes], and of every label's target [samples].
struct logit_bounds {
  std::vector<real> logit, with_margin, target;
  std::vector<real> operands;                 // what the operands' rounding adds to d_k [samples, classes]
  std::vector<real> feature_size, mean_size;  // |x - c| [samples, dims] and |mu - c| [classes, dims]
  std::vector<real> determinant;              // [classes]: of h_k
  std::vector<real> shared;                   // [samples]: what logits leave out of all d_k; 0: nothing
};

// What the row_state of merged shards is to be, [samples, 2], and may be off by.
struct expected_state {
  std::vector<real> value, bound;
};
template <class T>
expected_state expected_shard_state(const reference::input& in, const reference::output& out,
                                    const loss_bounds& bound);

// T: float or double, as of all functions here that are declared alone.
template <class T>
logit_bounds bound_logits(const reference::input& in, const reference::output& out,
                          const product_model& model = {});

template <class T>
loss_bounds bound_losses(const reference::input& in, const reference::output& out,
                         const product_model& model = {});

// Of logits_backward: g is what the caller gave, exact but for the roundings of the factors.
template <class T>
loss_bounds bound_logits_backward(const reference::input& in, const reference::output& out,
                                  const product_model& model = {});

// max |got - expected| / bound. NaN must answer NaN, infinity itself, and where the bound is zero the value
// must be exact.
template <class Buffer>
real worst_ratio(const Buffer& got, const std::vector<real>& expected, const std::vector<real>& bound) {
  if (got.size() != expected.size() || got.size() != bound.size())
    return std::numeric_limits<real>::infinity();
  real worst = 0;
  for (std::size_t n = 0; n < got.size(); ++n) {
    const real value = static_cast<real>(got[n]);
    if (std::isnan(expected[n])) {
      if (!std::isnan(value)) return std::numeric_limits<real>::infinity();
      continue;
    }
    if (value == expected[n]) continue;
    const real ratio = std::fabs(value - expected[n]) / bound[n];
    if (std::isnan(ratio)) return std::numeric_limits<real>::infinity();
    worst = std::max(worst, ratio);
  }
  return worst;
}

// A number as a message shows it: doctest does not print long double everywhere.
inline double shown(real value) { return static_cast<double>(value); }

template <class Buffer>
void check_within(const std::string& name, const Buffer& got, const std::vector<real>& expected,
                  const std::vector<real>& bound) {
  const double worst = shown(worst_ratio(got, expected, bound));
  CHECK_MESSAGE(worst <= 1.0, name << " is off by " << worst << " times what is allowed");
}

// The reference's answer to a problem, and the bounds that go with it.
template <class T>
struct expectation {
  reference::input in;
  reference::output out;
  loss_bounds bound;

  explicit expectation(const problem<T>& p, const product_model& model = {}, bool shards = false);
  expectation(const expectation&);
  ~expectation();

  void check_results(const outputs<T>& got) const;
  void check_gradients(const outputs<T>& got) const;
  void check_whole_state(const outputs<T>& got) const;
  void check_all(const outputs<T>& got) const {
    check_results(got);
    check_gradients(got);
  }
};

extern template struct expectation<float>;
extern template struct expectation<double>;

// Gradients from the problem's grad_logits, with its labels or without.
template <class T>
void check_logits_backward(const problem<T>& p, const outputs<T>& got, bool labelled = true,
                           const product_model& model = {});

template <class T>
void check_results(const problem<T>& p, const outputs<T>& got) {
  expectation<T>(p).check_results(got);
}

template <class T>
void check_gradients(const problem<T>& p, const outputs<T>& got) {
  expectation<T>(p).check_gradients(got);
}

template <class T>
void check_all(const problem<T>& p, const outputs<T>& got) {
  expectation<T>(p).check_all(got);
}

// Logits [samples, classes], with the margin at the targets or without.
template <class T>
void check_logits(const problem<T>& p, const guarded<T>& got, bool margin, const product_model& model = {});

// Scores; one class at least. The predicted class may be any that rounding can make the largest, and what
// belongs to it is compared with the reference's for that class.
template <class T>
void check_scores(const problem<T>& p, const score_outputs<T>& got, const product_model& model = {});

// max |got - expected| over an array, as a share of the array's own largest magnitude.
template <class Buffer>
real error_over_scale(const Buffer& got, const std::vector<real>& expected) {
  real error = 0, scale = 0;
  for (std::size_t n = 0; n < expected.size(); ++n) {
    const real difference = std::fabs(static_cast<real>(got[n]) - expected[n]);
    if (std::isnan(difference)) return std::numeric_limits<real>::infinity();
    error = std::max(error, difference);
    scale = std::max(scale, std::fabs(expected[n]));
  }
  return error == 0 ? 0 : error / scale;
}

}  // namespace support
