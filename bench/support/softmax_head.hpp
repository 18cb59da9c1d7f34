// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <lgm/detail/host/packet_group.hpp>
#include <lgm/formula.hpp>
#include <lgm/host.hpp>
#include <limits>

#include "support/array.hpp"
#include "support/products.hpp"

namespace bench {

// What the library takes the place of: a linear layer, softmax and cross entropy, averaged over the samples, with all
// gradients. It is made of the same parts (products, threads, vector instructions, tiles of whole rows within the
// context's limit), so that only the algorithm differs.
template <class T>
class softmax_head {
 public:
  softmax_head(const lgm::host_context& context, std::int64_t samples, std::int64_t classes,
               std::int64_t dims)
      : samples_(samples), classes_(classes), dims_(dims), multiply_(context, dims) {
    const std::int64_t limit = static_cast<std::int64_t>(context.tile_bytes / sizeof(T));
    const std::int64_t tiles = (samples - 1) / std::clamp<std::int64_t>(limit / classes, 1, samples) + 1;
    rows_ = (samples - 1) / tiles + 1;
    tile_ = array<T>(rows_ * classes);
    parts_ = multiply_.row_parts(rows_ * (classes + dims) * 8);
    loss_ = array<double>(parts_);
    bias_ = array<T>(parts_ * classes);
  }

  std::int64_t bytes() const {
    return (tile_.size() + bias_.size()) * std::int64_t(sizeof(T)) + multiply_.bytes();
  }

  //   features [samples, dims], labels [samples] in [0, classes), weight [classes, dims], bias [classes]
  //   feature_gradient, weight_gradient, bias_gradient  of the same shapes, written
  // Returns the loss.
  T forward_backward(const T* features, const std::int64_t* labels, const T* weight, const T* bias,
                     T* feature_gradient, T* weight_gradient, T* bias_gradient) {
    std::fill(loss_.data(), loss_.data() + parts_, 0.0);
    std::fill(bias_.data(), bias_.data() + bias_.size(), T(0));
    for (std::int64_t first = 0; first < samples_; first += rows_) {
      const std::int64_t rows = std::min(rows_, samples_ - first);
      const T* const x = features + first * dims_;
      multiply_.logits(rows, classes_, x, weight, tile_.data());
      multiply_.for_rows(
          rows, rows * (classes_ + dims_) * 8, [&](std::int64_t part, std::int64_t begin, std::int64_t end) {
            double loss = 0;
            for (std::int64_t i = begin; i < end; ++i)
              loss += static_cast<double>(
                  differentiate(tile_.data() + i * classes_, bias, labels[first + i], bias_part(part)));
            loss_[part] += loss;
          });
      multiply_.gradients(rows, classes_, tile_.data(), x, weight, false, feature_gradient + first * dims_,
                          first > 0, weight_gradient);
    }
    double loss = 0;
    for (std::int64_t part = 0; part < parts_; ++part) loss += loss_[part];
    group{}.for_each(classes_, [&](auto k) {
      vector sum = load(bias_part(0), k);
      for (std::int64_t part = 1; part < parts_; ++part) sum = sum + load(bias_part(part), k);
      store(bias_gradient, k, sum);
    });
    return static_cast<T>(loss / static_cast<double>(samples_));
  }

 private:
  using group = lgm::detail::packet_group<T>;
  using vector = lgm::detail::packet<T>;

  T* bias_part(std::int64_t part) { return bias_.data() + part * classes_; }

  // A row of products without bias becomes the gradient of its logits, which is also added to bias_gradient. Returns
  // the sample's loss. The label's entry comes from the sum of the others: p - 1 would cancel where p is near 1.
  // Shares far below rounding are zero, as in the library: products are slow on subnormal numbers.
  T differentiate(T* row, const T* bias, std::int64_t label, T* bias_gradient) const {
    const T max = group{}.reduce(
        classes_, -std::numeric_limits<T>::infinity(),
        [&](auto k) {
          const vector logit = load(static_cast<const T*>(row), k) + load(bias, k);
          store(row, k, logit);
          return logit;
        },
        lgm::maximum{});
    const T target = row[label] - max;
    row[label] = -std::numeric_limits<T>::infinity();
    const T others = group{}.reduce(
        classes_, T(0),
        [&](auto k) {
          const vector share = exp_above(load(static_cast<const T*>(row), k) - vector(max),
                                         vector(lgm::numeric<T>::negligible));
          store(row, k, share);
          return share;
        },
        lgm::plus{});
    const T own = std::exp(target), total = others + own;
    const T scale = T(1) / (total * static_cast<T>(samples_));
    row[label] = -others;
    group{}.for_each(classes_, [&](auto k) {
      const vector gradient = load(static_cast<const T*>(row), k) * vector(scale);
      store(row, k, gradient);
      store(bias_gradient, k, load(static_cast<const T*>(bias_gradient), k) + gradient);
    });
    return own >= others ? std::log1p(others / own) : std::log(total) - target;
  }

  std::int64_t samples_, classes_, dims_, rows_ = 1, parts_ = 1;
  array<T> tile_;
  tile_products<T> multiply_;
  array<double> loss_;  // [parts]
  array<T> bias_;       // [parts, classes]
};

}  // namespace bench
