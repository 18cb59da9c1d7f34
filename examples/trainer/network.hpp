// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "workers.hpp"

// The network in front of a head: dense layers with a PReLU (one slope a layer) between them, none after the
// last.

namespace trainer {

template <class Scalar>
using row_matrix = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class Scalar>
using vector = Eigen::Matrix<Scalar, Eigen::Dynamic, 1>;
template <class Scalar>
using matrix_view = Eigen::Ref<row_matrix<Scalar>>;
template <class Scalar>
using const_matrix_view = Eigen::Ref<const row_matrix<Scalar>>;

// Fills with uniform numbers of [-bound, bound]: the same bits for a seed with every standard library.
template <class Scalar>
void fill_uniform(Scalar* out, std::int64_t count, double bound, std::mt19937_64& random) {
  for (std::int64_t i = 0; i < count; ++i) {
    const double unit = static_cast<double>(random() >> 11) * 0x1p-53;
    out[i] = static_cast<Scalar>(bound * (2 * unit - 1));
  }
}

// All parameters lie in one vector, so that an optimiser needs to know nothing of layers.
template <class Scalar>
class network {
 public:
  using matrix = row_matrix<Scalar>;

  // widths: of the input, the hidden layers, and the features. Batches may have up to max_samples rows. The
  // team, which must outlive the network, shares the products.
  network(const std::vector<std::int64_t>& widths, std::int64_t max_samples, std::uint64_t seed,
          workers& team);

  vector<Scalar>& parameters() { return parameters_; }
  const vector<Scalar>& parameters() const { return parameters_; }
  const vector<Scalar>& gradient() const { return gradient_; }

  // Calls function(name, shape, begin) for each array in parameters(): "0.weight", its shape, its first element.
  template <class Function>
  void for_each_array(const Function& function) const {
    using sizes = std::vector<std::int64_t>;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const layer& each = layers_[i];
      const std::string name = std::to_string(i);
      function(name + ".weight", sizes{each.inputs, each.outputs}, each.weight_at);
      function(name + ".bias", sizes{each.outputs}, each.bias_at);
      if (!each.is_last) function(name + ".slope", sizes{1}, each.slope_at);
    }
  }

  // The features [samples, dims] of an input [samples, inputs]; valid until the next call.
  Eigen::Map<const matrix> forward(const const_matrix_view<Scalar>& input);

  // Writes the gradient of every parameter, given that of the features of the last forward(input).
  void backward(const const_matrix_view<Scalar>& input, const const_matrix_view<Scalar>& feature_gradient);

  // Writes the gradient of the input of the last forward() [samples, inputs], given that of its features, and no
  // parameter's.
  void input_gradient(const const_matrix_view<Scalar>& feature_gradient, matrix_view<Scalar> out);

 private:
  struct layer {
    std::int64_t inputs = 0, outputs = 0;
    bool is_last = false;
    std::int64_t weight_at = 0, bias_at = 0,
                 slope_at = 0;     // weight [inputs, outputs], bias [outputs], slope [1]
    matrix sum, output, gradient;  // [max_samples, outputs]
  };

  // Turns the gradient of a layer's output into that of its sum.
  void pass_activation(layer& now, Eigen::Index samples) const;

  Eigen::Map<const matrix> weight(const layer& of) const {
    return {parameters_.data() + of.weight_at, of.inputs, of.outputs};
  }

  workers* team_;
  std::vector<layer> layers_;
  vector<Scalar> parameters_, gradient_;
};

extern template class network<float>;
extern template class network<double>;

}  // namespace trainer
