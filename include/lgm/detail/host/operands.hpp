// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <lgm/column.hpp>
#include <lgm/detail/check.hpp>
#include <lgm/detail/host/direct.hpp>
#include <lgm/detail/host/packet_group.hpp>
#include <lgm/detail/host/parallel.hpp>
#include <lgm/detail/host/plan.hpp>
#include <lgm/detail/scalar.hpp>
#include <lgm/row.hpp>
#include <lgm/types.hpp>

namespace lgm::detail {

// Which operand of the products the buffer holds. The two differ only for a diagonal covariance.
enum class operand_kind { none, logits, gradient };

// The classes' operand of the products: means and variances of a range of classes, in the form that features or weights are
// multiplied with.
template <class T, class Threads>
class host_operands {
 public:
  host_operands(const host_plan& plan, const shape& s, const mixture<T>& m, host_buffers<T>& buffers)
      : plan_(plan), shape_(s), mixture_(m), b_(buffers) {
    uniform_log_prior_ = total_classes(s) > 0 ? -std::log(static_cast<T>(total_classes(s))) : T(0);
  }

  T log_prior(std::int64_t k) const {
    return mixture_.log_prior != nullptr ? mixture_.log_prior[k] : uniform_log_prior_;
  }

  // Sets the offset: the mixture's origin, or where none is given the mean of the means, so that features and means far from
  // zero lose nothing in the products. The offset is 0 on a shard without an origin, since it does not know the other means,
  // and where the means lie near zero: the square of their mean is less than a quarter of their mean square. Then features, and
  // with unit variances the means, are multiplied as they are.
  //   shares_states  whether row states are to merge with those of other shards
  void centre(bool shares_states) {
    shares_states_ = shares_states;
    b_.constants.base_scale = base_scale();
    const bool unit_variances =
        shape_.covariance == covariance::identity || (!diagonal() && mixture_.log_variance == nullptr);
    raw_ = false;
    if (mixture_.origin != nullptr) {
      std::copy(mixture_.origin, mixture_.origin + shape_.dims, b_.offset);
      return;
    }
    raw_ =
        (shares_states && shape_.covariance == covariance::identity) || (average_means() && unit_variances);
    if (raw_) std::fill(b_.offset, b_.offset + shape_.dims, T(0));
  }

  // Whether features and means are multiplied as the caller has them.
  bool is_raw() const { return raw_; }
  // The point that is subtracted from both, [dims]; null: 0.
  const T* origin() const { return raw_ ? nullptr : b_.offset; }
  // Of classes [first_class + begin, ...), which prepare has made: [count, dims] where not diagonal.
  const T* operand(std::int64_t first_class, std::int64_t begin) const {
    return raw_ ? mixture_.mean + (first_class + begin) * shape_.dims : b_.operand;
  }

  // Makes the operand of classes [begin, begin + count) of the class tile that starts with first_class, and for the
  // logits their constants, unless it is what the buffer holds.
  void prepare(operand_kind kind, std::int64_t first_class, std::int64_t begin, std::int64_t count) {
    if (!diagonal()) kind = operand_kind::logits;
    if (held_kind_ == kind && held_begin_ == first_class + begin && held_count_ == count) return;
    const std::int64_t dims = shape_.dims,
                       part = std::max<std::int64_t>(plan_.grain / (8 * std::max<std::int64_t>(dims, 1)), 1);
    const std::int64_t work = (raw_ ? 2 : 8) * count * dims;
    parallel_for<Threads>(plan_.parallel, plan_.threads_for(work), (count + part - 1) / part,
                          [&](std::int64_t task, int) {
                            for (std::int64_t c = task * part; c < smaller(count, (task + 1) * part); ++c) {
                              if (kind == operand_kind::gradient)
                                prepare_gradient(first_class + begin + c, c, count);
                              else
                                prepare_logits(first_class + begin + c, begin, c);
                            }
                          });
    held_kind_ = kind;
    held_begin_ = first_class + begin;
    held_count_ = count;
  }

 private:
  using group_type = packet_group<T>;

  bool diagonal() const { return shape_.covariance == covariance::diagonal; }

  // Of class_constants.
  T base_scale() const {
    if (shape_.covariance == covariance::identity) return T(1);
    if (diagonal() || shares_states_ || shape_.classes == 0) return T(0);
    const T* const v = mixture_.log_variance;
    return v == nullptr ? T(1) : inverse_variance(*std::max_element(v, v + shape_.classes));
  }

  // offset = the mean of the means; returns whether they lie near zero.
  bool average_means() {
    constexpr int packets = 8;
    const std::int64_t dims = shape_.dims, columns = packets * packet<T>::size;
    const T share = T(1) / static_cast<T>(std::max<std::int64_t>(shape_.classes, 1));
    T* const squares = b_.sums[0];  // free until the first product
    parallel_for<Threads>(plan_.parallel, plan_.threads_for(2 * shape_.classes * dims),
                          (dims + columns - 1) / columns, [&](std::int64_t part, int) {
                            const std::int64_t first = part * columns;
                            const group_type group;
                            const std::int64_t n = smaller(columns, dims - first);
                            packet<T> sum[packets], square[packets];
                            for (int c = 0; c < packets; ++c) sum[c] = square[c] = packet<T>(T(0));
                            for (std::int64_t k = 0; k < shape_.classes; ++k) {
                              const T* mean = mixture_.mean + k * dims + first;
                              group.for_each(n, [&](packet_index j) {
                                const auto c = j.first / packet<T>::size;
                                const packet<T> mu = load(mean, j);
                                sum[c] = fused(packet<T>(share), mu, sum[c]);
                                square[c] = fused(mu, mu, square[c]);
                              });
                            }
                            group.for_each(n, [&](packet_index j) {
                              const auto c = j.first / packet<T>::size;
                              store(b_.offset + first, j, sum[c]);
                              store(squares + first, j, square[c]);
                            });
                          });
    const group_type group;
    const T offset_norm = group.reduce(
        dims, T(0), [&](auto j) { return load(b_.offset, j) * load(b_.offset, j); }, plus{});
    const T norms = group.reduce(
        dims, T(0), [&](auto j) { return load(squares, j); }, plus{});
    return offset_norm <= T(0.25) * share * norms;
  }

  // Class k, which is the c-th of the operand and the (begin + c)-th of the tile.
  void prepare_logits(std::int64_t k, std::int64_t begin, std::int64_t c) {
    const group_type group;
    const std::int64_t dims = shape_.dims;
    const class_parameters<T> p(shape_, mixture_, k);
    class_constants<T>& constants = b_.constants;
    constants.half_log_det[begin + c] = half_log_det(group, dims, p);
    const T bias = log_prior(k) - constants.half_log_det[begin + c];
    constants.bias[begin + c] = constants.offset[begin + c] = bias;
    if (!diagonal()) {
      const T scale = p.log_variance != nullptr ? inverse_variance(*p.log_variance) : T(1);
      const T norm = raw_ ? squared_norm(group, dims, p.mean)
                          : centre_class(group, dims, p, b_.offset, scale, b_.operand + c * dims);
      constants.norm[begin + c] = norm;
      constants.offset[begin + c] = bias - T(0.5) * norm;
      if (constants.scale != nullptr) constants.scale[begin + c] = scale;
      return;
    }
    constants.norm[begin + c] = 0;
    group.for_each(dims, [&](auto j) {
      packet<T> inverse(T(1));
      if (p.log_variance != nullptr) inverse = inverse_deviation(load(p.log_variance, j));
      packet<T> shift = (load(p.mean, j) - load(b_.offset, j)) * inverse;
      for_lanes(inverse, j,
                [&](T& lane, std::int64_t i) { interleaved<T>::at(b_.operand, dims, c, i)[0] = lane; });
      for_lanes(shift, j, [&](T& lane, std::int64_t i) {
        interleaved<T>::at(b_.operand, dims, c, i)[interleaved<T>::width] = lane;
      });
    });
  }

  void prepare_gradient(std::int64_t k, std::int64_t c, std::int64_t count) {
    const std::int64_t dims = shape_.dims;
    const class_parameters<T> p(shape_, mixture_, k);
    group_type{}.for_each(dims, [&](auto j) {
      packet<T> inverse(T(1));
      if (p.log_variance != nullptr) inverse = inverse_variance(load(p.log_variance, j));
      T* out = interleaved<T>::at(b_.operand, count, j.first, c);
      inverse.store(out);
      ((load(p.mean, j) - load(b_.offset, j)) * inverse).store(out + packet<T>::size);
    });
  }

  const host_plan& plan_;
  const shape& shape_;
  const mixture<T>& mixture_;
  host_buffers<T>& b_;
  T uniform_log_prior_;
  bool raw_ = false, shares_states_ = false;

  // The classes whose operand the buffer holds.
  operand_kind held_kind_ = operand_kind::none;
  std::int64_t held_begin_ = 0, held_count_ = 0;
};

}  // namespace lgm::detail
