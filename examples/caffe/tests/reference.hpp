// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

// Both formulas of the layer in plain float64 loops. x_i: sample i, z_i its label; w_k: mean of class k, s_k (isotropic) or s_kj:
// what the blob of variances holds; m: the margin; g_ik: the gradient of logit k of sample i.

struct sizes {
  int samples, classes, dims;
};

struct problem {
  sizes n;
  bool product = false, isotropic = true, update_sigma = false, labelled = true, train = true;
  double margin = 0, center_coef = 0;
  std::vector<double> x, w, s, g;
  std::vector<int> z;

  double variance(int k, int j) const { return s[isotropic ? k : k * n.dims + j]; }
  double difference(int i, int k, int j) const { return x[i * n.dims + j] - w[k * n.dims + j]; }
  bool is_target(int i, int k) const { return labelled && z[i] == k; }
};

// A sum, and how large its terms are: what an error is measured by.
struct term_sum {
  double value = 0, size = 0;
  void add(double term) {
    value += term;
    size += std::fabs(term);
  }
};

struct answer {
  std::vector<term_sum> logits, x, w, s;
  term_sum likelihood;

  explicit answer(const problem& p)
      : logits(p.n.samples * p.n.classes), x(p.x.size()), w(p.w.size()), s(p.s.size()) {}
};

// The authors' layer:
//   L2, isotropic   v_k = max(s_k, 0) + 1e-4;  l_ik = -1/2 |x_i - w_k|^2 / v_k
//   L2, diagonal    l_ik = -1/2 sum_j (x_ij - w_kj)^2 / max(s_kj, 1e-8)
//   IP              l_ik = w_k . x_i
//   training with labels: l_iz is multiplied by 1 + m; without labels, or in testing, it is not
// and its gradients, where with labels c_ik = 1 + m at the label (in testing too), else 1:
//   L2   dx_ij = sum_k c_ik g_ik (w_kj - x_ij) / a_kj,  dw_kj = sum_i c_ik g_ik (x_ij - w_kj) / b_kj
//        isotropic a = b = v;  diagonal a = max(s, 0) + 1e-8, b = max(s, 0) + 1e-4;  without labels a = b = 1
//   IP   dx_ij = sum_k c_ik g_ik w_kj,  dw_kj = sum_i c_ik g_ik x_ij
//   with labels: dx_ij += center_coef / N (x_ij - w_zj), dw_zj the opposite
//   update_sigma, L2 with labels: isotropic ds_k = sum_i c_ik g_ik |x_i - w_k|^2 / (2 v_k s_k),
//                                 diagonal ds_kj = sum_i c_ik g_ik (x_ij - w_kj)^2 / (2 b_kj^2)
inline answer authors(const problem& p) {
  answer out(p);
  const auto n = p.n;
  for (int i = 0; i < n.samples; ++i)
    for (int k = 0; k < n.classes; ++k) {
      const double c = p.is_target(i, k) ? 1 + p.margin : 1, forward_c = p.train ? c : 1;
      const double g = p.g[i * n.classes + k];
      term_sum& l = out.logits[i * n.classes + k];
      const double v = std::max(p.variance(k, 0), 0.) + 1e-4;
      double squared_distance = 0;
      for (int j = 0; j < n.dims; ++j) {
        const double d = p.difference(i, k, j), x = p.x[i * n.dims + j], w = p.w[k * n.dims + j];
        const double s = p.variance(k, j);
        term_sum &dx = out.x[i * n.dims + j], &dw = out.w[k * n.dims + j];
        squared_distance += d * d;
        if (p.product) {
          l.add(forward_c * w * x);
          dx.add(c * g * w);
          dw.add(c * g * x);
        } else {
          double a = v, b = v;
          if (p.isotropic) {
            l.add(-0.5 * forward_c * d * d / v);
          } else {
            l.add(-0.5 * forward_c * d * d / std::max(s, 1e-8));
            a = std::max(s, 0.) + 1e-8;
            b = std::max(s, 0.) + 1e-4;
            if (p.update_sigma && p.labelled) out.s[k * n.dims + j].add(c * g * d * d / (2 * b * b));
          }
          if (!p.labelled) a = b = 1;
          dx.add(c * g * -d / a);
          dw.add(c * g * d / b);
        }
        if (p.is_target(i, k)) {
          dx.add(p.center_coef / n.samples * d);
          dw.add(-p.center_coef / n.samples * d);
        }
      }
      if (!p.product && p.isotropic && p.update_sigma && p.labelled)
        out.s[k].add(c * g * squared_distance / (2 * v * p.variance(k, 0)));
    }
  return out;
}

// The paper's, with equal priors: l_ik = -log C - h_k - (1 + m at the label, training) d_ik, the likelihood is the mean of
// d_iz + h_z over the batch. IP: inner products, and the likelihood of unit variances.
inline answer paper(const problem& p) {
  answer out(p);
  const auto n = p.n;
  for (int i = 0; i < n.samples; ++i)
    for (int k = 0; k < n.classes; ++k) {
      const bool target = p.is_target(i, k);
      const double c = target && p.train ? 1 + p.margin : 1;
      term_sum& l = out.logits[i * n.classes + k];
      if (!p.product) l.add(-std::log(n.classes));
      for (int j = 0; j < n.dims; ++j) {
        const double v = p.product ? 1 : p.variance(k, j), half_log = 0.5 * std::log(v);
        const double distance = 0.5 * p.difference(i, k, j) * p.difference(i, k, j) / v;
        if (p.product) {
          l.add(c * p.w[k * n.dims + j] * p.x[i * n.dims + j]);
        } else {
          l.add(-half_log);
          l.add(-c * distance);
        }
        if (target) out.likelihood.add(p.center_coef * (distance + half_log) / n.samples);
      }
    }
  return out;
}

// The authors' schedule, one number for each training iteration. Parameters and the value are floats there. Its start from
// `iter` counts the steps that were done, and a first iteration that is a multiple of the step counts it again.
class authors_schedule {
 public:
  enum policy { constant, step_up, add_up };

  authors_schedule(policy p, float value, float min, float max, float gamma, int step, int iter)
      : policy_(p), value_(value), min_(min), max_(max), gamma_(gamma), step_(step), iteration_(iter) {
    const int steps = iter / step;
    if (iter != 0 && p == step_up) value_ = clamped(value * std::pow(gamma, static_cast<float>(steps)));
    if (iter != 0 && p == add_up) value_ = clamped(value + gamma * static_cast<float>(steps));
  }
  double next() {
    if (iteration_ != 0 && iteration_ % step_ == 0) {
      if (policy_ == step_up) value_ = clamped(value_ * gamma_);
      if (policy_ == add_up) value_ = clamped(value_ + gamma_);
    }
    ++iteration_;
    return value_;
  }
  double now() const { return value_; }

 private:
  float clamped(float v) const { return std::max(min_, std::min(max_, v)); }

  policy policy_;
  float value_, min_, max_, gamma_;
  int step_, iteration_;
};
