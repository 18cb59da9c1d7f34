// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/types.hpp>

#include "support/compiled_cuda.hpp"
#include "support/cuda_memory.hpp"

namespace bench {

// The loss and its gradients on a device as published kernels compute them, naive_lgm.hpp's counterpart: a thread for each
// number of each matrix, whole matrices in between. Averaged over the samples; every label counts.
template <class T>
class naive_cuda {
 public:
  naive_cuda(const support::compiled_cuda& context, const lgm::shape& shape)
      : stream_(context.stream),
        shape_(shape),
        distance_(shape.samples * shape.classes),
        weight_(shape.samples * shape.classes),
        slope_(shape.samples * shape.classes),
        loss_(shape.samples) {}

  std::int64_t bytes() const { return (3 * distance_.size() + loss_.size()) * std::int64_t(sizeof(T)); }

  // gradient.log_variance is not written with unit variances; the other pointers are not null. The samples' losses, in
  // device memory.
  const T* forward_backward(const lgm::mixture<T>& m, const lgm::loss_options<T>& options, const T* features,
                            const std::int64_t* labels, const lgm::gradients<T, T>& gradient);

 private:
  cudaStream_t stream_;
  lgm::shape shape_;
  cuda_array<T> distance_, weight_, slope_, loss_;  // slope: dL/dl_k
};

}  // namespace bench
