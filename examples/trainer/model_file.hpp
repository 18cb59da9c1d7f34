// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

// The file that a training is saved in: safetensors, which other languages read as well, for example Python
// with safetensors.numpy.load_file. Its bytes:
//
//   8                the length of the header, little-endian
//   that many        the header, a JSON object: the name of each tensor with its dtype, shape and offsets into
//                    the data, and __metadata__, an object of strings; spaces fill it up to a multiple of 8
//   all the rest     the tensors, row-major, little-endian, one right after another
//
// Tensors of one training; float32 unless said. The network has layers L = 0, 1, 2; C classes, D features:
//
//   input.shift, input.scale                 [1]; the network sees (pixel - shift) * scale
//   network.L.weight                         [inputs, outputs]; a layer computes x weight + bias
//   network.L.bias                           [outputs]
//   network.L.slope                          [1], of the PReLU after each layer but the last
//   head.mean                                [C, D]         of the L-GM head
//   head.log_variance                        [C] (spherical) or [C, D] (diagonal)
//   head.weight, head.bias                   [C, D], [C]    of the softmax head; logits are weight x + bias
//   head.moments.count, .mean, .m2           float64 [C], [C, D], [C, D]: class_moments, where parameters follow them
//   adam.first.NAME, adam.second.NAME        the optimiser's moments of each parameter NAME of network and head
//   epoch.loss_sums                          float64 [3]: total, classification and likelihood, summed over the
//                                            samples of the epoch that the training is in
//   epoch.counts                             int64 [2]: of these samples, how many there were, and how many correct
//
// __metadata__ holds format (lgm-trainer), version (1), steps (of the optimiser, from the beginning), and the
// options of the training under their names on the command line; data is a checksum of the training set, and
// threads how many there were, which decides the last bits. Nothing else decides how the training goes on: the order of the images follows from seed and steps. And
// nothing in the file depends on when or how fast it was written, so equal trainings give equal files.

namespace trainer {

enum class element { f32, f64, i64 };

template <class T>
constexpr element element_of() {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, std::int64_t>);
  return std::is_same_v<T, float> ? element::f32 : std::is_same_v<T, double> ? element::f64 : element::i64;
}

struct model_tensor {
  element type = element::f32;
  std::vector<std::int64_t> shape;
  std::string data;  // as in the file
};

struct model_file {
  std::map<std::string, std::string> metadata;
  std::map<std::string, model_tensor> tensors;

  // Adds a tensor; values holds as many elements as the shape says.
  template <class T>
  void put(const std::string& name, const std::vector<std::int64_t>& shape, const T* values);

  // Copies a tensor to values; throws std::runtime_error unless it is there with this type and shape.
  template <class T>
  void get(const std::string& name, const std::vector<std::int64_t>& shape, T* values) const;

  // Throws unless the tensor is there with this type and shape.
  const model_tensor& find(const std::string& name, element type,
                           const std::vector<std::int64_t>& shape) const;
};

// From the bytes of a file, and to them. read_model throws std::runtime_error if they are not a whole and consistent one, with one line
// about what is wrong; allocates no more than a small multiple of the bytes.
model_file read_model(std::string_view bytes);
std::string model_bytes(const model_file& model);

// A text from a file, fit to be shown: in quotes, in one line, not too long.
std::string printable(std::string_view text);

// The same from and to disk; errors begin with the path. load_model refuses values that are not finite; save_model writes as
// write_file does.
model_file load_model(const std::filesystem::path& path);
void save_model(const std::filesystem::path& path, const model_file& model);

// Throws unless __metadata__ has one of these formats, in the version that these programs know.
void require_format(const model_file& model, std::initializer_list<std::string_view> formats);

// ---- implementation of the templates ----

namespace detail {

template <std::size_t Bytes>
using unsigned_of = std::conditional_t<Bytes == 4, std::uint32_t, std::uint64_t>;

// The value's bytes, least significant first, whatever the machine's order.
template <class T>
void append_little_endian(std::string& out, T value) {
  unsigned_of<sizeof(T)> bits;
  std::memcpy(&bits, &value, sizeof(T));
  std::array<char, sizeof(T)> bytes;
  for (std::size_t i = 0; i < sizeof(T); ++i) bytes[i] = static_cast<char>(bits >> 8 * i & 0xff);
  out.append(bytes.data(), bytes.size());
}

template <class T>
T little_endian(const char* bytes) {
  unsigned_of<sizeof(T)> bits = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    bits |= static_cast<unsigned_of<sizeof(T)>>(static_cast<unsigned char>(bytes[i])) << 8 * i;
  }
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace detail

template <class T>
void model_file::put(const std::string& name, const std::vector<std::int64_t>& shape, const T* values) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  model_tensor tensor{element_of<T>(), shape, {}};
  tensor.data.reserve(static_cast<std::size_t>(count) * sizeof(T));
  for (std::int64_t i = 0; i < count; ++i) detail::append_little_endian(tensor.data, values[i]);
  if (!tensors.emplace(name, std::move(tensor)).second) throw std::logic_error(name + ": put twice");
}

template <class T>
void model_file::get(const std::string& name, const std::vector<std::int64_t>& shape, T* values) const {
  const model_tensor& tensor = find(name, element_of<T>(), shape);
  for (std::size_t i = 0; i < tensor.data.size() / sizeof(T); ++i) {
    values[i] = detail::little_endian<T>(tensor.data.data() + i * sizeof(T));
  }
}

}  // namespace trainer
