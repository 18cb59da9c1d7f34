// SPDX-License-Identifier: MIT
#include "unit.hpp"

// Compiled with OpenMP; no hooks.

#if !defined(_OPENMP)
#error "this file is to be compiled with OpenMP"
#endif

namespace two_units {

results<float> openmp_float(lgm::covariance covariance) {
  return compute<float>(three_threads(), covariance);
}
results<double> openmp_double(lgm::covariance covariance) {
  return compute<double>(three_threads(), covariance);
}

}  // namespace two_units
