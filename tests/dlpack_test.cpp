// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <cstdint>
#include <lgm/dlpack.hpp>
#include <vector>

// DLPack's tensors, made by hand: what is taken, and what each thing that is wrong is called. dlpack_python.py does the same
// with those of NumPy and PyTorch.

namespace {

using lgm::status;
using lgm::tensor_memory;

// A tensor with the fields of DLPack's DLTensor.
struct tensor {
  void* data = nullptr;
  struct {
    int device_type = 1, device_id = 0;
  } device;
  int ndim = 0;
  struct {
    std::uint8_t code = 2, bits = 32;
    std::uint16_t lanes = 1;
  } dtype;
  std::int64_t* shape = nullptr;
  std::int64_t* strides = nullptr;
  std::uint64_t byte_offset = 0;
};

// With arrays of its own.
struct made {
  std::vector<std::int64_t> shape, strides;
  std::vector<float> numbers = std::vector<float>(64);
  tensor t;

  explicit made(std::vector<std::int64_t> the_shape, std::vector<std::int64_t> the_strides = {})
      : shape(std::move(the_shape)), strides(std::move(the_strides)) {
    t.data = numbers.data();
    t.ndim = static_cast<int>(shape.size());
    t.shape = shape.data();
    t.strides = strides.empty() ? nullptr : strides.data();
  }
  status rows(lgm::rows<const float>& out, tensor_memory memory = tensor_memory::host) {
    return lgm::rows_of(t, memory, out);
  }
  status values(std::int64_t size, float*& out) { return lgm::values_of(t, tensor_memory::host, size, out); }
};

}  // namespace

TEST_CASE("a tensor's strides and offset become the pointer and the stride") {
  lgm::rows<const float> x;
  made packed({3, 4});
  REQUIRE(packed.rows(x) == status::success);
  CHECK(x.data == packed.numbers.data());
  CHECK(x.count == 3);
  CHECK(x.length == 4);
  CHECK(x.stride == 4);
  made padded({3, 4}, {7, 1});
  padded.t.byte_offset = 8;
  REQUIRE(padded.rows(x) == status::success);
  CHECK(x.data == padded.numbers.data() + 2);
  CHECK(x.stride == 7);
  // Strides that nobody steps along.
  REQUIRE(made({1, 4}, {0, 1}).rows(x) == status::success);
  CHECK(x.stride == 4);
  REQUIRE(made({3, 1}, {5, 9}).rows(x) == status::success);
  CHECK(x.stride == 5);
  made empty({0, 4}, {1, 1});
  empty.t.data = nullptr;
  REQUIRE(empty.rows(x) == status::success);
  CHECK(x.data == nullptr);
  CHECK(x.count == 0);
  CHECK(x.stride == 4);
}

TEST_CASE("what is wrong has a name, and nothing is written") {
  lgm::rows<const float> x;
  x.count = 77;
  const auto refused = [&](made m, status expected) {
    CHECK(m.rows(x) == expected);
    CHECK(x.count == 77);
  };
  const auto with = [](auto change) {
    made m({3, 4});
    change(m.t);
    return m;
  };
  refused(made({12}), status::wrong_layout);
  refused(made({3, 2, 2}), status::wrong_layout);
  refused(made({3, 4}, {1, 3}), status::wrong_layout);   // transposed
  refused(made({3, 4}, {8, 2}), status::wrong_layout);   // every other number
  refused(made({3, 4}, {0, 1}), status::wrong_layout);   // one row, three times
  refused(made({3, 4}, {-4, 1}), status::wrong_layout);  // backwards
  refused(made({3, 4}, {3, 1}), status::wrong_layout);   // overlapping
  refused(made({3, -1}), status::negative_size);
  refused(with([](tensor& t) { t.dtype.bits = 64; }), status::wrong_type);
  refused(with([](tensor& t) { t.dtype.code = 0; }), status::wrong_type);
  refused(with([](tensor& t) { t.dtype.lanes = 4; }), status::wrong_type);
  refused(with([](tensor& t) { t.device.device_type = 2; }), status::wrong_device);
  refused(with([](tensor& t) { t.data = nullptr; }), status::null_pointer);
}

TEST_CASE("memory that host and device both reach is accepted") {
  lgm::rows<const float> x;
  for (const int device : {3, 13})
    for (const auto memory : {tensor_memory::host, tensor_memory::cuda}) {
      made m({3, 4});
      m.t.device.device_type = device;
      CHECK(m.rows(x, memory) == status::success);
    }
  made host({3, 4}), cuda({3, 4});
  cuda.t.device.device_type = 2;
  CHECK(host.rows(x, tensor_memory::cuda) == status::wrong_device);
  CHECK(cuda.rows(x, tensor_memory::cuda) == status::success);
}

TEST_CASE("a tensor of every supported type is taken, and of no other") {
  const auto takes = [](int code, int bits, auto* pointer) {
    made m({8});
    m.t.dtype.code = static_cast<std::uint8_t>(code);
    m.t.dtype.bits = static_cast<std::uint8_t>(bits);
    return lgm::values_of(m.t, tensor_memory::host, 8, pointer) == status::success;
  };
  struct kind {
    int code, bits;
  };
  const kind kinds[] = {{0, 32}, {0, 64}, {1, 8}, {2, 32}, {2, 64}, {0, 8}, {1, 32}, {2, 16}, {4, 16}};
  for (std::size_t n = 0; n < 9; ++n) {
    CHECK(takes(kinds[n].code, kinds[n].bits, static_cast<std::int32_t*>(nullptr)) == (n == 0));
    CHECK(takes(kinds[n].code, kinds[n].bits, static_cast<const std::int64_t*>(nullptr)) == (n == 1));
    CHECK(takes(kinds[n].code, kinds[n].bits, static_cast<std::uint8_t*>(nullptr)) == (n == 2));
    CHECK(takes(kinds[n].code, kinds[n].bits, static_cast<float*>(nullptr)) == (n == 3));
    CHECK(takes(kinds[n].code, kinds[n].bits, static_cast<double*>(nullptr)) == (n == 4));
  }
}

TEST_CASE("a tensor of any dimensions is an array where its numbers lie next to each other") {
  float* out = nullptr;
  made one({}), packed({2, 3, 2}), strided({2, 3, 2}, {6, 2, 1}), short_rows({1, 6}, {9, 1});
  for (auto& [m, size] :
       {std::pair(&one, 1), std::pair(&packed, 12), std::pair(&strided, 12), std::pair(&short_rows, 6)}) {
    out = nullptr;
    CHECK(m->values(size, out) == status::success);
    CHECK(out == m->numbers.data());
  }
  CHECK(made({2, 3}, {4, 1}).values(6, out) == status::wrong_layout);
  CHECK(made({6}, {2}).values(6, out) == status::wrong_layout);
  CHECK(made({6}).values(5, out) == status::wrong_layout);
  CHECK(made({0, 3}, {4, 1}).values(0, out) == status::success);
}
