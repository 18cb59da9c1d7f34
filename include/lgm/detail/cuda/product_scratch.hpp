// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <lgm/detail/scalar.hpp>
#include <lgm/detail/workspace.hpp>
#include <lgm/types.hpp>

namespace lgm::detail {

// Bytes of a workspace that cuBLASLt's products may use: enough for the partial sums of products that are cut along their inner
// dimension; only small ones are.
inline std::size_t product_scratch_bytes(const shape& s) {
  constexpr std::int64_t most = std::int64_t(32) << 20;
  const auto at_most = [&](std::int64_t rows, std::int64_t columns) {
    return smaller(most, bounded_product(bounded_product(rows, columns), 16 * sizeof(double)));
  };
  const std::int64_t bytes =
      larger(larger(at_most(s.samples, s.classes), at_most(s.samples, s.dims)), at_most(s.classes, s.dims));
  return static_cast<std::size_t>(bytes) / 256 * 256 + 256;
}

}  // namespace lgm::detail
