// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <lgm/detail/number_format.hpp>
#include <lgm/types.hpp>
#include <type_traits>

// Tensors of other libraries (NumPy, PyTorch, JAX, CuPy, TVM, ...) as arguments: what DLPack describes, checked and turned into
// pointers and strides.
//
//   lgm::rows<const float> x, mean;
//   lgm::status s = lgm::rows_of(tensor, lgm::tensor_memory::host, x);      // tensor: a DLTensor
//   if (s == lgm::status::success) s = lgm::rows_of(mean_tensor, lgm::tensor_memory::host, mean);
//   shape.samples = x.count, shape.dims = x.length, shape.feature_stride = x.stride;
//
// It takes DLTensor as a type of the caller's, by its fields' names, so that any version of dlpack.h will do. Who owns the
// memory, and when it is given back, stays between the caller and the other library.

namespace lgm {

// Which memory a tensor has to lie in: the host's, or that of a CUDA device. Pinned and managed memory will do for both.
enum class tensor_memory { host, cuda };

// A matrix [count, length] whose rows are contiguous.
template <class T>
struct rows {
  T* data = nullptr;
  std::int64_t count = 0, length = 0;
  std::int64_t stride = 0;  // elements between rows; >= length, as shape's strides are
};

namespace detail {

// DLPack's numbers of types (DLDataTypeCode) and memories (DLDeviceType).
struct dlpack {
  static constexpr int signed_integer = 0, unsigned_integer = 1, floating = 2, bfloat = 4;
  static constexpr int cpu = 1, cuda = 2, cuda_host = 3, cuda_managed = 13;

  // Of T: float, double, an integer, or a type of 16 bits that lgm.cuh knows.
  template <class T>
  static constexpr int code() {
    if constexpr (std::is_integral<T>::value)
      return std::is_signed<T>::value ? signed_integer : unsigned_integer;
    else
      return feature_type<T>::format == number_format::bfloat16 ? bfloat : floating;
  }

  static bool reaches(int device, tensor_memory memory) {
    if (device == cuda_host || device == cuda_managed) return true;
    return device == (memory == tensor_memory::host ? cpu : cuda);
  }

  template <class T, class Tensor>
  static status check_tensor(const Tensor& t, tensor_memory memory) {
    using number = std::remove_const_t<T>;
    if (!reaches(static_cast<int>(t.device.device_type), memory)) return status::wrong_device;
    const bool same = static_cast<int>(t.dtype.code) == code<number>() && t.dtype.lanes == 1 &&
                      t.dtype.bits == 8 * sizeof(number);
    if (!same) return status::wrong_type;
    for (std::int64_t n = 0; n < t.ndim; ++n)
      if (t.shape[n] < 0) return status::negative_size;
    return status::success;
  }

  template <class T, class Tensor>
  static T* data_of(const Tensor& t) {
    return t.data == nullptr ? nullptr : reinterpret_cast<T*>(static_cast<char*>(t.data) + t.byte_offset);
  }

  static status check_data(const void* data, std::int64_t size) {
    return data == nullptr && size > 0 ? status::null_pointer : status::success;
  }
};

}  // namespace detail

// A tensor of two dimensions, [count, length]. Numbers of a row must be next to each other, and rows must neither overlap
// nor go backwards: else status::wrong_layout, as with any other number of dimensions. Other types and memories:
// status::wrong_type, status::wrong_device. out is written where success is returned.
template <class T, class Tensor>
status rows_of(const Tensor& tensor, tensor_memory memory, rows<T>& out) {
  const status checked = detail::dlpack::check_tensor<T>(tensor, memory);
  if (checked != status::success) return checked;
  if (tensor.ndim != 2) return status::wrong_layout;
  rows<T> found;
  found.data = detail::dlpack::data_of<T>(tensor);
  found.count = tensor.shape[0];
  found.length = found.stride = tensor.shape[1];
  // Strides of dimensions that nobody steps along may be anything; without strides the tensor is packed.
  if (tensor.strides != nullptr && found.count > 0 && found.length > 0) {
    if (found.length > 1 && tensor.strides[1] != 1) return status::wrong_layout;
    if (found.count > 1) found.stride = tensor.strides[0];
    if (found.stride < found.length) return status::wrong_layout;
  }
  const status there = detail::dlpack::check_data(found.data, found.count > 0 ? found.length : 0);
  if (there == status::success) out = found;
  return there;
}

// A tensor of `size` numbers, all next to each other in the order of its dimensions: labels and weights [samples], losses [1]
// or of no dimensions, packed matrices.
template <class T, class Tensor>
status values_of(const Tensor& tensor, tensor_memory memory, std::int64_t size, T*& out) {
  const status checked = detail::dlpack::check_tensor<T>(tensor, memory);
  if (checked != status::success) return checked;
  std::int64_t packed = 1;  // the stride that the dimension must have
  for (std::int64_t n = tensor.ndim; n-- > 0;) {
    if (tensor.strides != nullptr && tensor.shape[n] > 1 && tensor.strides[n] != packed && size > 0)
      return status::wrong_layout;
    packed *= tensor.shape[n];
  }
  if (packed != size) return status::wrong_layout;
  T* const data = detail::dlpack::data_of<T>(tensor);
  const status there = detail::dlpack::check_data(data, size);
  if (there == status::success) out = data;
  return there;
}

}  // namespace lgm
