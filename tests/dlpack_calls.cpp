// SPDX-License-Identifier: MIT
#include <cstdint>
#include <lgm/dlpack.hpp>
#include <lgm/lgm.hpp>
#include <vector>

// A library for dlpack_python.py: scores of tensors that other libraries lend.

namespace {

// DLPack's DLTensor, which the capsules of Python's __dlpack__ begin with.
struct tensor {
  void* data;
  struct {
    std::int32_t device_type, device_id;
  } device;
  std::int32_t ndim;
  struct {
    std::uint8_t code, bits;
    std::uint16_t lanes;
  } dtype;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;
};

}  // namespace

// density [samples] and predicted [samples] of features [samples, dims] under means [classes, dims] with unit variances.
// Answers a sentence, or null.
extern "C" const char* lgm_dlpack_score(const tensor* features, const tensor* mean, const tensor* density,
                                        const tensor* predicted) {
  constexpr auto memory = lgm::tensor_memory::host;
  lgm::rows<const float> x, mu;
  lgm::score_result<float> result;
  lgm::status s = lgm::rows_of(*features, memory, x);
  if (s == lgm::status::success) s = lgm::rows_of(*mean, memory, mu);
  if (s == lgm::status::success) s = lgm::values_of(*density, memory, x.count, result.log_mixture);
  if (s == lgm::status::success) s = lgm::values_of(*predicted, memory, x.count, result.predicted);
  // The library's means are packed.
  if (s == lgm::status::success && (mu.length != x.length || mu.stride != mu.length))
    s = lgm::status::wrong_layout;
  if (s == lgm::status::success) {
    lgm::shape shape{x.count, mu.count, x.length, lgm::covariance::identity};
    shape.feature_stride = x.stride;
    const lgm::host_context context;
    std::vector<char> memory_of_call(lgm::workspace_size<float>(context, shape));
    s = lgm::score(context, shape, lgm::mixture<float>{mu.data}, x.data, result,
                   lgm::workspace{memory_of_call.data(), memory_of_call.size()});
  }
  return s == lgm::status::success ? nullptr : lgm::to_string(s);
}
