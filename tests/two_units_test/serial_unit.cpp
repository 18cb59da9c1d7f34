// SPDX-License-Identifier: MIT
#include "unit.hpp"

// Compiled without OpenMP; no hooks.

#if defined(_OPENMP)
#error "this file is to be compiled without OpenMP"
#endif

namespace two_units {

results<float> serial_float(lgm::covariance covariance) {
  return compute<float>(three_threads(), covariance);
}
results<double> serial_double(lgm::covariance covariance) {
  return compute<double>(three_threads(), covariance);
}

}  // namespace two_units
