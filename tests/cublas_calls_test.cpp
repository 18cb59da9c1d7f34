// SPDX-License-Identifier: MIT

// How cuBLASLt is called, without it: its functions here are the test's own, which hold each call to what cuBLAS's
// documentation asks, and compute the product. Compiled with CUDA's headers; it needs no device.

#include <cublasLt.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <lgm/detail/cuda/product.cuh>
#include <lgm/detail/device/call.hpp>
#include <lgm/detail/number_format.hpp>
#include <limits>
#include <string>
#include <vector>

#include "support/cases.hpp"
#include "support/emulated_device.hpp"
#include "support/memory.hpp"

namespace {

using lgm::detail::number_format;

// ---- cuBLASLt ----

struct descriptor {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  cublasOperation_t transpose_a, transpose_b;
};
struct layout {
  cudaDataType type;
  std::uint64_t rows, columns;
  std::int64_t stride;
};
struct preference {
  std::uint64_t scratch_bytes;
  std::uint32_t schemes, alignments[4];  // of A, B, C, D
};

// What the calls have shown so far.
struct seen {
  int products = 0, without_tensor_cores = 0;
  std::string wrong;
  // What the next calls answer, and whether products are computed or only looked at.
  cublasStatus_t heuristic = CUBLAS_STATUS_SUCCESS, product = CUBLAS_STATUS_SUCCESS;
  int algorithms = 1;
  bool computes = false;
  lgm::workspace scratch;  // what the caller has
  preference preferred{};
} calls;

void expect(bool good, const char* what) {
  if (!good && calls.wrong.empty()) calls.wrong = what;
}

template <class Value, class Opaque>
Value& as(Opaque* opaque) {
  static_assert(sizeof(Value) <= sizeof(Opaque), "what the test keeps is in place of cuBLAS's own");
  return *reinterpret_cast<Value*>(opaque);
}

template <class Value>
void take(Value& into, const void* from, std::size_t bytes) {
  expect(bytes == sizeof(Value), "an attribute of another size");
  std::memcpy(&into, from, sizeof(Value));
}

std::int64_t bytes_of(cudaDataType type) {
  return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : type == CUDA_R_16F || type == CUDA_R_16BF ? 2 : 0;
}

// cublasLtMatmul's table of types, the rows that the library is for.
bool go_together(const descriptor& d, cudaDataType a, cudaDataType b, cudaDataType c) {
  if (a != b) return false;
  if (d.compute == CUBLAS_COMPUTE_64F) return d.scale == CUDA_R_64F && a == CUDA_R_64F && c == CUDA_R_64F;
  if (d.scale != CUDA_R_32F || c != CUDA_R_32F) return false;
  if (d.compute == CUBLAS_COMPUTE_32F_FAST_TF32) return a == CUDA_R_32F;
  return d.compute == CUBLAS_COMPUTE_32F && (a == CUDA_R_32F || a == CUDA_R_16F || a == CUDA_R_16BF);
}

void check_operation(const descriptor& d, const layout& a, const layout& b, const layout& c,
                     const layout& out) {
  expect(go_together(d, a.type, b.type, c.type), "types that do not go together");
  for (const layout* const each : {&a, &b, &c, &out}) {
    expect(each->rows > 0 && each->columns > 0, "an empty matrix");
    expect(each->stride >= static_cast<std::int64_t>(each->rows), "columns that overlap");
  }
  const bool flip_a = d.transpose_a == CUBLAS_OP_T, flip_b = d.transpose_b == CUBLAS_OP_T;
  expect((flip_a ? a.columns : a.rows) == c.rows, "rows of A and C differ");
  expect((flip_b ? b.rows : b.columns) == c.columns, "columns of B and C differ");
  expect((flip_a ? a.rows : a.columns) == (flip_b ? b.columns : b.rows), "the inner dimensions differ");
  expect(c.type == out.type && c.rows == out.rows && c.columns == out.columns && c.stride == out.stride,
         "in place, with other layouts");
}

template <class T>
void compute(const descriptor& d, T alpha, const void* a, const layout& left, const void* b,
             const layout& right, T beta, void* c, const layout& out) {
  const auto element = [](const void* data, cudaDataType type, std::int64_t at) {
    if (type == CUDA_R_16F) return static_cast<T>(float(static_cast<const support::half16*>(data)[at]));
    if (type == CUDA_R_16BF) return static_cast<T>(float(static_cast<const support::brain16*>(data)[at]));
    return static_cast<const T*>(data)[at];
  };
  const bool flip_a = d.transpose_a == CUBLAS_OP_T, flip_b = d.transpose_b == CUBLAS_OP_T;
  const auto rows = static_cast<std::int64_t>(out.rows), columns = static_cast<std::int64_t>(out.columns);
  const auto inner = static_cast<std::int64_t>(flip_a ? left.rows : left.columns);
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j) {
      T sum = 0;
      for (std::int64_t p = 0; p < inner; ++p)
        sum += element(a, left.type, flip_a ? p + i * left.stride : i + p * left.stride) *
               element(b, right.type, flip_b ? j + p * right.stride : p + j * right.stride);
      T& to = static_cast<T*>(c)[i + j * out.stride];
      to = beta == T(0) ? alpha * sum : alpha * sum + beta * to;
    }
}

}  // namespace

extern "C" {

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t d, size_t bytes,
                                               cublasComputeType_t compute, cudaDataType_t scale) {
  expect(bytes == sizeof(*d), "a descriptor of another size");
  as<descriptor>(d) = {compute, scale, CUBLAS_OP_N, CUBLAS_OP_N};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t name,
                                              const void* value, size_t bytes) {
  auto& own = as<descriptor>(d);
  if (name == CUBLASLT_MATMUL_DESC_TRANSA)
    take(own.transpose_a, value, bytes);
  else if (name == CUBLASLT_MATMUL_DESC_TRANSB)
    take(own.transpose_b, value, bytes);
  else
    return CUBLAS_STATUS_INVALID_VALUE;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t l, size_t bytes, cudaDataType type,
                                                 uint64_t rows, uint64_t columns, int64_t stride) {
  expect(bytes == sizeof(*l), "a layout of another size");
  as<layout>(l) = {type, rows, columns, stride};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t p, size_t bytes) {
  expect(bytes == sizeof(*p), "a preference of another size");
  as<preference>(p) = {0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}};
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t name,
                                                    const void* value, size_t bytes) {
  auto& own = as<preference>(p);
  switch (name) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: take(own.scratch_bytes, value, bytes); break;
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: take(own.schemes, value, bytes); break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: take(own.alignments[0], value, bytes); break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: take(own.alignments[1], value, bytes); break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: take(own.alignments[2], value, bytes); break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: take(own.alignments[3], value, bytes); break;
    default: return CUBLAS_STATUS_INVALID_VALUE;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t d,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t out,
                                              cublasLtMatmulPreference_t p, int asked,
                                              cublasLtMatmulHeuristicResult_t results[], int* found) {
  check_operation(as<descriptor>(d), as<layout>(a), as<layout>(b), as<layout>(c), as<layout>(out));
  calls.preferred = as<preference>(p);
  // Sums that depend on who is first are not asked for.
  expect((calls.preferred.schemes & CUBLASLT_REDUCTION_SCHEME_INPLACE) == 0, "sums in place");
  *found = std::min(asked, calls.algorithms);
  if (*found > 0) results[0].state = CUBLAS_STATUS_SUCCESS;
  return calls.heuristic;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t d, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t left, const void* b, cublasLtMatrixLayout_t right,
                              const void* beta, const void* c, cublasLtMatrixLayout_t in, void* out,
                              cublasLtMatrixLayout_t result, const cublasLtMatmulAlgo_t* algorithm,
                              void* scratch, size_t scratch_bytes, cudaStream_t) {
  ++calls.products;
  const auto& own = as<descriptor>(d);
  const layout &la = as<layout>(left), &lb = as<layout>(right), &lc = as<layout>(in);
  check_operation(own, la, lb, lc, as<layout>(result));
  expect(c == out, "not in place");
  expect(algorithm != nullptr, "no algorithm");
  expect(scratch_bytes <= calls.preferred.scratch_bytes, "more scratch than was said");
  const auto begin = reinterpret_cast<std::uintptr_t>(scratch),
             own_begin = reinterpret_cast<std::uintptr_t>(calls.scratch.data);
  expect(begin % 256 == 0, "scratch that is not aligned");
  expect(begin >= own_begin && begin + scratch_bytes <= own_begin + calls.scratch.bytes,
         "scratch beyond what there is");
  const void* const data[] = {a, b, c, out};
  const layout* const layouts[] = {&la, &lb, &lc, &lc};
  bool whole = true;  // rows of 16 bytes, which tensor cores take as they are
  for (int n = 0; n < 4; ++n) {
    const auto address = reinterpret_cast<std::uintptr_t>(data[n]);
    const std::int64_t bytes = bytes_of(layouts[n]->type);
    expect(address % static_cast<std::uintptr_t>(bytes) == 0, "an array that is not aligned to its type");
    expect(address % calls.preferred.alignments[n] == 0, "an array less aligned than was said");
    if (n < 2) whole = whole && address % 16 == 0 && layouts[n]->stride * bytes % 16 == 0;
  }
  if (own.compute == CUBLAS_COMPUTE_32F_FAST_TF32 || la.type == CUDA_R_16F || la.type == CUDA_R_16BF)
    calls.without_tensor_cores += whole ? 0 : 1;
  // alpha and beta are the host's, of the scale's type.
  if (calls.computes && own.scale == CUDA_R_64F)
    compute(own, *static_cast<const double*>(alpha), a, la, b, lb, *static_cast<const double*>(beta), out,
            lc);
  else if (calls.computes)
    compute(own, *static_cast<const float*>(alpha), a, la, b, lb, *static_cast<const float*>(beta), out, lc);
  return calls.product;
}

}  // extern "C"

namespace {

// A device that launches nothing, and whose products are what cuBLASLt would be asked for.
struct product_device {
  lgm::cuda_context context;
  lgm::workspace scratch;

  template <int... Widths, class Kernel>
  void launch(int, std::int64_t, const Kernel&) {}
  template <class T>
  void multiply(number_format format, bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n,
                std::int64_t k, T alpha, const void* a, std::int64_t lda, const void* b, std::int64_t ldb,
                T beta, T* c, std::int64_t ldc) {
    if (m == 0 || n == 0 || k == 0) return;
    CHECK(lgm::detail::cuda_product<T>(context, scratch)
              .enqueue(format, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc) ==
          CUBLAS_STATUS_SUCCESS);
  }
  lgm::status result() const { return lgm::status::success; }
};

// Addresses that nothing reads, aligned as cudaMalloc's are, but for those of the caller's arrays, `apart` bytes further.
template <class T>
void call_at(const lgm::shape& shape, lgm::precision precision, number_format format, std::size_t apart) {
  const auto address = [&](std::uintptr_t n) { return reinterpret_cast<T*>((n << 52) + apart); };
  const lgm::detail::device_limits limits{std::size_t{256} << 20, precision};
  product_device device;
  device.scratch = {reinterpret_cast<void*>((std::uintptr_t(11) << 52) + apart), std::size_t(1) << 20};
  calls.scratch = device.scratch;
  const auto labels = reinterpret_cast<const std::int64_t*>(std::uintptr_t(7) << 52);
  auto call = lgm::detail::call_of<lgm::detail::any_kind>(shape, lgm::mixture<T>{address(1)},
                                                          lgm::loss_options<T>{}, address(9), labels);
  call.features.format = format;
  call.result.total = address(2);
  call.gradient = {address(3), format, address(4), address(5), address(6)};
  call.request(lgm::detail::loss_function::forward_backward);
  const lgm::workspace w{reinterpret_cast<void*>(std::uintptr_t(8) << 52),
                         lgm::detail::device_loss_bytes<T>(shape, limits, format)};
  REQUIRE(lgm::detail::device_run_loss<product_device, T>(device, limits, call, w) == lgm::status::success);
}

}  // namespace

TEST_CASE("what cuBLASLt is asked for is what its documentation allows, at every shape of the list") {
  using lgm::precision;
  struct kind {
    number_format format;
    lgm::precision precision;
  };
  const kind kinds[] = {
      {number_format::full, precision::highest},     {number_format::full, precision::tf32},
      {number_format::full, precision::split_tf32},  {number_format::half, precision::highest},
      {number_format::bfloat16, precision::highest}, {number_format::half, precision::fast},
      {number_format::bfloat16, precision::fast}};
  const support::sizes3 shapes[] = {{128, 10, 64},        {256, 100, 384},       {1024, 1000, 512},
                                    {4096, 1000, 2048},   {2048, 10000, 512},    {1024, 100000, 512},
                                    {8192, 131072, 4096}, {16384, 248320, 2048}, {3000, 517, 33},
                                    {33, 3001, 129}};
  calls = {};
  for (const auto covariance : {lgm::covariance::identity, lgm::covariance::spherical})
    for (const auto& sizes : shapes) {
      CAPTURE(sizes.samples);
      CAPTURE(sizes.classes);
      CAPTURE(sizes.dims);
      const lgm::shape shape = support::make_shape(sizes.samples, sizes.classes, sizes.dims, covariance);
      for (const kind& each : kinds)
        for (const std::size_t apart : {std::size_t(0), std::size_t(8)}) {
          calls.without_tensor_cores = 0;
          call_at<float>(shape, each.precision, each.format, apart);
          CHECK(calls.wrong == "");
          // Operands are copied where they are not as tensor cores want them; TF32 ones of odd sizes are what they are.
          if (lgm::detail::is_narrow(each.format)) CHECK(calls.without_tensor_cores == 0);
          if (each.precision == precision::tf32 && apart == 0 && sizes.dims % 8 == 0 &&
              sizes.classes % 8 == 0)
            CHECK(calls.without_tensor_cores == 0);
        }
      call_at<double>(shape, precision::highest, number_format::full, 0);
      CHECK(calls.wrong == "");
    }
  CHECK(calls.products > 1000);
}

TEST_CASE_TEMPLATE("the product that is asked for is that of rows", T, float, double) {
  support::generator random(3);
  std::vector<unsigned char> memory(1 << 12);
  const lgm::cuda_context context;
  for (int n = 0; n < 200; ++n) {
    calls = {};
    calls.computes = true;
    const std::int64_t m = 1 + random.below(9), columns = 1 + random.below(9), k = 1 + random.below(9);
    const bool transpose_a = random.chance(0.5), transpose_b = random.chance(0.5);
    const std::int64_t lda = (transpose_a ? m : k) + random.below(3),
                       ldb = (transpose_b ? k : columns) + random.below(3), ldc = columns + random.below(3);
    const auto numbers = [&](std::int64_t count) {
      std::vector<T> v(static_cast<std::size_t>(count));
      for (T& x : v) x = static_cast<T>(random.uniform(-1, 1));
      return v;
    };
    const std::vector<T> a = numbers((transpose_a ? k : m) * lda),
                         b = numbers((transpose_b ? columns : k) * ldb);
    std::vector<T> c = numbers(m * ldc), expected = c;
    const T alpha = static_cast<T>(random.uniform(-1, 1)), beta = random.chance(0.5) ? T(0) : T(0.5);
    const std::size_t offset = static_cast<std::size_t>(random.below(200));
    const lgm::workspace scratch = calls.scratch = {memory.data() + offset, memory.size() - offset};
    CHECK(lgm::detail::cuda_product<T>(context, scratch)
              .enqueue(number_format::full, transpose_a, transpose_b, m, columns, k, alpha, a.data(), lda,
                       b.data(), ldb, beta, c.data(), ldc) == CUBLAS_STATUS_SUCCESS);
    support::multiply_plainly(number_format::full, transpose_a, transpose_b, m, columns, k, alpha, a.data(),
                              lda, b.data(), ldb, beta, expected.data(), ldc);
    CHECK(calls.wrong == "");
    CHECK(calls.products == 1);
    for (std::size_t i = 0; i < c.size(); ++i)
      CHECK(std::abs(c[i] - expected[i]) <= 32 * std::numeric_limits<T>::epsilon());
  }
}

TEST_CASE("a product that cannot be enqueued says why, and none is enqueued after the first failure") {
  float a[4] = {}, b[4] = {}, c[4] = {};
  std::vector<unsigned char> memory(1 << 10);
  const lgm::cuda_context context;
  const auto enqueue = [&] {
    return lgm::detail::cuda_product<float>(context, {memory.data(), memory.size()})
        .enqueue(number_format::full, false, false, 2, 2, 2, 1, a, 2, b, 2, 0, c, 2);
  };
  calls = {};
  calls.heuristic = CUBLAS_STATUS_NOT_SUPPORTED;
  CHECK(enqueue() == CUBLAS_STATUS_NOT_SUPPORTED);
  CHECK(calls.products == 0);
  calls = {};
  calls.algorithms = 0;
  CHECK(enqueue() == CUBLAS_STATUS_NOT_SUPPORTED);
  CHECK(calls.products == 0);
  calls = {};
  calls.scratch = {memory.data(), memory.size()};
  calls.product = CUBLAS_STATUS_EXECUTION_FAILED;
  CHECK(enqueue() == CUBLAS_STATUS_EXECUTION_FAILED);
  CHECK(calls.wrong == "");
}
