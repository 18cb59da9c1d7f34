// SPDX-License-Identifier: MIT
#include "model_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "descriptor.hpp"
#include "input_file.hpp"
#include "output_file.hpp"

namespace trainer {

namespace {

constexpr std::size_t length_bytes = 8;
constexpr std::size_t header_alignment = 8;

struct element_name {
  element type;
  const char* name;
  std::uint64_t bytes;
};
constexpr element_name element_names[] = {
    {element::f32, "F32", 4}, {element::f64, "F64", 8}, {element::i64, "I64", 8}};

const element_name& named(element type) {
  return *std::find_if(std::begin(element_names), std::end(element_names),
                       [&](const element_name& each) { return each.type == type; });
}

[[noreturn]] void fail(const std::string& reason) { throw std::runtime_error(reason); }

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size() && i < 8; ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + (shape.size() > 8 ? ", ...]" : "]");
}

// A tensor as the header describes it.
struct entry {
  std::string name;
  std::optional<element> type;
  std::optional<std::vector<std::uint64_t>> shape, offsets;
};

// Takes the header's JSON event by event. Whatever is not the layout of a header stops it at once, so that
// neither nesting nor repetition costs memory.
class header_reader : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::map<std::string, std::string> metadata;
  std::vector<entry> entries;

  bool key(string_t& name) override {
    switch (place_) {
      case place::top:
        if (name == "__metadata__") {
          if (has_metadata_) fail("__metadata__ is there twice");
          has_metadata_ = true;
          next_ = place::metadata;
        } else {
          entries.push_back({name, {}, {}, {}});
          next_ = place::tensor;
        }
        return true;
      case place::metadata:
      case place::tensor: field_ = name; return true;
      case place::outside:
      case place::list: break;
    }
    unexpected();
  }

  bool start_object(std::size_t) override {
    if (place_ == place::outside) {
      place_ = place::top;
    } else if (place_ == place::top) {
      place_ = next_;
    } else {
      unexpected();
    }
    return true;
  }

  bool end_object() override {
    if (place_ == place::tensor) {
      const entry& done = entries.back();
      if (!done.type || !done.shape || !done.offsets) {
        fail("tensor " + printable(done.name) + ": needs dtype, shape and data_offsets");
      }
    }
    place_ = place_ == place::top ? place::outside : place::top;
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == place::metadata) {
      if (!metadata.emplace(field_, value).second) fail("__metadata__ has " + printable(field_) + " twice");
      return true;
    }
    if (place_ != place::tensor || field_ != "dtype") unexpected();
    entry& now = entries.back();
    if (now.type) fail("tensor " + printable(now.name) + ": dtype is there twice");
    for (const element_name& each : element_names) {
      if (value == each.name) now.type = each.type;
    }
    if (!now.type)
      fail("tensor " + printable(now.name) + ": dtype " + printable(value) + " is not F32, F64 or I64");
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != place::tensor || (field_ != "shape" && field_ != "data_offsets")) unexpected();
    auto& list = field_ == "shape" ? entries.back().shape : entries.back().offsets;
    if (list) fail("tensor " + printable(entries.back().name) + ": " + field_ + " is there twice");
    list.emplace();
    place_ = place::list;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != place::list) unexpected();
    (field_ == "shape" ? entries.back().shape : entries.back().offsets)->push_back(value);
    return true;
  }

  bool end_array() override {
    place_ = place::tensor;
    return true;
  }

  bool null() override { unexpected(); }
  bool boolean(bool) override { unexpected(); }
  bool number_integer(number_integer_t) override { unexpected(); }
  bool number_float(number_float_t, const string_t&) override { unexpected(); }
  bool binary(binary_t&) override { unexpected(); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    fail("the header is not valid JSON");
  }

 private:
  enum class place { outside, top, metadata, tensor, list };

  [[noreturn]] void unexpected() const {
    if (place_ == place::metadata) fail("__metadata__: " + printable(field_) + " is not a string");
    if (place_ == place::tensor || place_ == place::list) {
      fail("tensor " + printable(entries.back().name) + ": " + printable(field_) + " is not as it should be");
    }
    fail("the header is not an object of tensors");
  }

  place place_ = place::outside, next_ = place::tensor;
  std::string field_;
  bool has_metadata_ = false;
};

// Bytes of a tensor; nothing if that is more than 64 bits can count.
std::optional<std::uint64_t> bytes_of(const std::vector<std::uint64_t>& shape, std::uint64_t element_bytes) {
  std::uint64_t bytes = element_bytes;
  for (const std::uint64_t size : shape) {
    if (size > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return std::nullopt;
    if (size != 0 && bytes > std::numeric_limits<std::uint64_t>::max() / size) return std::nullopt;
    bytes *= size;
  }
  return bytes;
}

[[noreturn]] void fail_file(const std::filesystem::path& path) {
  fail(path.string() + ": " + std::strerror(errno));
}

template <class T>
bool all_finite(const std::string& data) {
  for (std::size_t at = 0; at < data.size(); at += sizeof(T)) {
    if (!std::isfinite(detail::little_endian<T>(data.data() + at))) return false;
  }
  return true;
}

void require_finite(const model_file& model) {
  for (const auto& [name, tensor] : model.tensors) {
    const bool is_finite = tensor.type == element::f32   ? all_finite<float>(tensor.data)
                           : tensor.type == element::f64 ? all_finite<double>(tensor.data)
                                                         : true;
    if (!is_finite) fail("tensor " + printable(name) + " holds values that are not finite");
  }
}

}  // namespace

std::string printable(std::string_view text) {
  constexpr std::size_t longest = 100;
  std::string result = "'";
  for (const char c : text.substr(0, longest)) result += c >= ' ' && c <= '~' ? c : '?';
  return result + (text.size() > longest ? "...'" : "'");
}

const model_tensor& model_file::find(const std::string& name, element type,
                                     const std::vector<std::int64_t>& shape) const {
  const auto found = tensors.find(name);
  if (found == tensors.end()) fail("has no tensor '" + name + "'");
  const model_tensor& tensor = found->second;
  if (tensor.type != type || tensor.shape != shape) {
    fail(fmt::format("tensor '{}' is {} {}, not {} {}", name, named(tensor.type).name,
                     shape_text(tensor.shape), named(type).name, shape_text(shape)));
  }
  return tensor;
}

model_file read_model(std::string_view bytes) {
  if (bytes.size() < length_bytes) fail("truncated: no header");
  const auto header_bytes = detail::little_endian<std::uint64_t>(bytes.data());
  if (header_bytes > bytes.size() - length_bytes) {
    fail(fmt::format("truncated, or not a model file: a header of {} bytes in a file of {}", header_bytes,
                     bytes.size()));
  }
  const std::string_view text = bytes.substr(length_bytes, static_cast<std::size_t>(header_bytes));
  const std::string_view data = bytes.substr(length_bytes + text.size());
  if (text.empty() || text.front() != '{') fail("the header is not an object of tensors");

  header_reader header;
  nlohmann::json::sax_parse(text.begin(), text.end(), &header);

  // In the order of the data, every tensor begins where the last one ended.
  model_file model;
  model.metadata = std::move(header.metadata);
  for (const entry& each : header.entries) {
    if (each.offsets->size() != 2 || (*each.offsets)[0] > (*each.offsets)[1]) {
      fail("tensor " + printable(each.name) + ": data_offsets are not a begin and an end");
    }
  }
  std::sort(header.entries.begin(), header.entries.end(),
            [](const entry& a, const entry& b) { return *a.offsets < *b.offsets; });
  std::uint64_t end = 0;
  for (entry& each : header.entries) {
    const std::uint64_t tensor_begin = (*each.offsets)[0], tensor_end = (*each.offsets)[1];
    if (tensor_begin != end) {
      fail("tensor " + printable(each.name) + ": " +
           (tensor_begin < end ? "overlaps the one before" : "leaves a gap after the one before"));
    }
    if (tensor_end > data.size()) {
      fail(fmt::format("truncated: tensor {} ends at byte {} of {}", printable(each.name), tensor_end,
                       data.size()));
    }
    end = tensor_end;
    if (bytes_of(*each.shape, named(*each.type).bytes) != tensor_end - tensor_begin) {
      fail("tensor " + printable(each.name) + ": data_offsets do not fit its shape");
    }
    model_tensor tensor{*each.type, {each.shape->begin(), each.shape->end()}, {}};
    tensor.data = data.substr(static_cast<std::size_t>(tensor_begin),
                              static_cast<std::size_t>(tensor_end - tensor_begin));
    if (!model.tensors.emplace(each.name, std::move(tensor)).second) {
      fail("tensor " + printable(each.name) + ": is there twice");
    }
  }
  if (end != data.size()) fail(fmt::format("{} trailing bytes after the tensors", data.size() - end));
  return model;
}

std::string model_bytes(const model_file& model) {
  nlohmann::ordered_json header;
  header["__metadata__"] = model.metadata;
  std::uint64_t end = 0;
  for (const auto& [name, tensor] : model.tensors) {
    const std::uint64_t begin = end;
    end += tensor.data.size();
    header[name] = {
        {"dtype", named(tensor.type).name}, {"shape", tensor.shape}, {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  text.append((header_alignment - text.size() % header_alignment) % header_alignment, ' ');

  std::string bytes;
  bytes.reserve(length_bytes + text.size() + static_cast<std::size_t>(end));
  detail::append_little_endian(bytes, static_cast<std::uint64_t>(text.size()));
  bytes += text;
  for (const auto& named_tensor : model.tensors) bytes += named_tensor.second.data;
  return bytes;
}

model_file load_model(const std::filesystem::path& path) {
  descriptor file(
      open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // does not wait for a pipe's writer
  struct stat about {};
  if (file.number() < 0 || fstat(file.number(), &about) != 0) fail_file(path);
  if (!S_ISREG(about.st_mode)) fail(path.string() + ": is not a file");
  std::string bytes(static_cast<std::size_t>(about.st_size), '\0');
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = read(file.number(), bytes.data() + done, bytes.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_file(path);
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  bytes.resize(done);
  if (const char* const reason = mistaken_file(bytes)) fail(path.string() + ": " + reason);
  try {
    model_file model = read_model(bytes);
    require_finite(model);
    return model;
  } catch (const std::runtime_error& error) {
    fail(path.string() + ": " + error.what());
  }
}

void save_model(const std::filesystem::path& path, const model_file& model) {
  write_file(path, model_bytes(model));
}

void require_format(const model_file& model, std::initializer_list<std::string_view> formats) {
  constexpr std::string_view known_version = "1";
  const auto text_of = [&](const std::string& name) -> const std::string& {
    const auto found = model.metadata.find(name);
    if (found == model.metadata.end()) fail("__metadata__ has no '" + name + "'");
    return found->second;
  };
  const std::string& format = text_of("format");
  if (std::find(formats.begin(), formats.end(), format) == formats.end()) {
    std::string expected;
    for (const std::string_view each : formats)
      expected += (expected.empty() ? "" : " or ") + std::string(each);
    fail("has format " + printable(format) + ", not " + expected);
  }
  const std::string& version = text_of("version");
  if (version != known_version) {
    fail("has version " + printable(version) + " of " + format + ", and only " + std::string(known_version) +
         " is known");
  }
}

}  // namespace trainer
