// SPDX-License-Identifier: MIT
#include "model_file.hpp"

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "support.hpp"

// Saved models: any bytes give a model that can be used and saved again, or one line that says why not.

namespace {

using trainer::element;
using trainer::model_file;
using trainer::model_tensor;

bool same(const model_tensor& a, const model_tensor& b) {
  return a.type == b.type && a.shape == b.shape && a.data == b.data;
}
bool same(const model_file& a, const model_file& b) {
  return a.metadata == b.metadata && a.tensors.size() == b.tensors.size() &&
         std::equal(a.tensors.begin(), a.tensors.end(), b.tensors.begin(), [](const auto& x, const auto& y) {
           return x.first == y.first && same(x.second, y.second);
         });
}

std::size_t bytes_of(element type) { return type == element::f32 ? 4 : 8; }

// Takes the tensor's values out of the model and puts them into another.
template <class T>
void copy_values(const model_file& from, const std::string& name, model_file& to) {
  const model_tensor& tensor = from.tensors.at(name);
  std::vector<T> values(tensor.data.size() / sizeof(T));
  from.get(name, tensor.shape, values.data());
  to.put(name, tensor.shape, values.data());

  std::vector<std::int64_t> other = tensor.shape;
  other.push_back(1);
  try {
    from.get(name, other, values.data());
    fuzz::require(false, "a tensor of another shape is an error");
  } catch (const std::runtime_error&) {
  }
}

void check(const std::string& bytes) {
  // Of exactly this length, so that reading beyond it shows.
  const std::vector<char> content(bytes.begin(), bytes.end());
  model_file model;
  try {
    model = trainer::read_model(std::string_view(content.data(), content.size()));
  } catch (const std::runtime_error& error) {
    fuzz::require_message(error.what());
    return;
  }

  std::size_t total = 0;
  model_file copied;
  copied.metadata = model.metadata;
  for (const auto& [name, tensor] : model.tensors) {
    unsigned __int128 count = 1;
    for (const std::int64_t size : tensor.shape) {
      fuzz::require(size >= 0, "no size is negative");
      count = count * static_cast<std::uint64_t>(size) % (static_cast<unsigned __int128>(1) << 64);
    }
    fuzz::require(count * bytes_of(tensor.type) == tensor.data.size(),
                  "a tensor has as many bytes as its shape says");
    total += tensor.data.size();
    switch (tensor.type) {
      case element::f32: copy_values<float>(model, name, copied); break;
      case element::f64: copy_values<double>(model, name, copied); break;
      case element::i64: copy_values<std::int64_t>(model, name, copied); break;
    }
  }
  fuzz::require(
      8 + static_cast<std::uint64_t>(trainer::detail::little_endian<std::int64_t>(content.data())) + total ==
          content.size(),
      "every byte of the file is the header's or one tensor's");
  fuzz::require(same(copied, model), "values that are taken out and put in again are the same");

  const std::string written = trainer::model_bytes(model);
  fuzz::require(written.size() >= 8 && (written.size() - total) % 8 == 0, "the tensors begin aligned");
  const model_file again = trainer::read_model(written);
  fuzz::require(same(again, model), "a model that is written and read again is the same");
  fuzz::require(trainer::model_bytes(again) == written, "and its bytes are the same");
}

}  // namespace

// A byte that says whether the rest is the file, or a header without its length, and how many bytes follow that.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const unsigned following = data[0];
  const std::string rest(data + 1, data + size);
  if (following == 255) {
    check(rest);
    return 0;
  }
  std::string bytes;
  trainer::detail::append_little_endian(bytes, std::int64_t{static_cast<std::int64_t>(rest.size())});
  bytes += rest;
  for (unsigned i = 0; i < following; ++i) bytes += static_cast<char>(i * 37);
  check(bytes);
  return 0;
}
