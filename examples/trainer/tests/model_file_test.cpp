// SPDX-License-Identifier: MIT

// The file that the trainer saves a training in: its bytes, hostile ones, and how it gets to disk.

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <new>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <vector>

#include "model_file.hpp"
#include "support/files.hpp"

// Bytes asked of the heap while reading; replaced here because a broken file must not make the reader ask for
// more than the file's size suggests.
namespace {
std::atomic<bool> counting{false};
std::atomic<std::size_t> bytes_asked{0};
}  // namespace

// Not inlined: g++ 12 warns of mismatched pairs where it sees into one of them only.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (counting) bytes_asked += bytes;
  if (void* const memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace {

namespace fs = std::filesystem;
using lgm_test::contains;
using lgm_test::error_of;
using lgm_test::read_bytes;
using lgm_test::temporary_directory;
using lgm_test::write_bytes;
using trainer::model_file;

// A file's bytes from its header and data.
std::string file_of(const std::string& header, const std::string& data = "") {
  std::string bytes;
  for (std::size_t i = 0; i < 8; ++i) bytes += static_cast<char>(header.size() >> 8 * i & 0xff);
  return bytes + header + data;
}

// Reads and says what is wrong; never asks for much more memory than the bytes take.
std::string reading_error(const std::string& bytes) {
  std::string text = "nothing was thrown";
  bytes_asked = 0;
  counting = true;
  try {
    const model_file model = trainer::read_model(bytes);
  } catch (const std::runtime_error& error) {
    text = error.what();
  }
  counting = false;
  CHECK_MESSAGE(bytes_asked < 64 * bytes.size() + 65536, text << " in " << bytes.substr(0, 100));
  for (const char c : text) CHECK_MESSAGE((c >= ' ' && c <= '~'), text);
  CHECK_MESSAGE(text.size() < 300, text);
  return text;
}

model_file small_model() {
  model_file model;
  model.metadata = {{"format", "lgm-trainer"}, {"a \"quoted\" key\n", "\xc3\xa9 and a backslash \\"}};
  const float floats[] = {1.5f,
                          -0.0f,
                          std::numeric_limits<float>::infinity(),
                          std::nanf("7"),
                          std::numeric_limits<float>::denorm_min(),
                          -3e38f};
  const double doubles[] = {0.1, -std::numeric_limits<double>::max()};
  const std::int64_t integers[] = {std::numeric_limits<std::int64_t>::min(), -1,
                                   std::numeric_limits<std::int64_t>::max()};
  model.put("b.floats", {2, 3}, floats);
  model.put("a.doubles", {2}, doubles);
  model.put("c.integers", {3, 1}, integers);
  model.put("scalar", {}, floats);
  model.put("none", {4, 0}, floats);
  return model;
}

}  // namespace

TEST_CASE("model file: the bytes are safetensors'") {
  model_file model;
  model.metadata = {{"k", "v"}};
  const float one = 1;
  const std::int64_t numbers[] = {-2, 258};
  model.put("x", {1}, &one);
  model.put("y", {2, 1}, numbers);
  // One space fills the header up to 136 bytes.
  const std::string header =
      R"({"__metadata__":{"k":"v"},"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
      R"("y":{"dtype":"I64","shape":[2,1],"data_offsets":[4,20]}})";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  const std::string data(
      "\x00\x00\x80\x3f"
      "\xfe\xff\xff\xff\xff\xff\xff\xff"
      "\x02\x01\x00\x00\x00\x00\x00\x00",
      20);
  CHECK(trainer::model_bytes(model) == file_of(padded, data));
}

TEST_CASE("model file: what was written is read, bit by bit") {
  const model_file model = small_model();
  const std::string bytes = trainer::model_bytes(model);
  const model_file read = trainer::read_model(bytes);
  CHECK(read.metadata == model.metadata);
  REQUIRE(read.tensors.size() == model.tensors.size());
  for (const auto& each : model.tensors) {
    CAPTURE(each.first);
    const trainer::model_tensor& tensor = each.second;
    CHECK(read.find(each.first, tensor.type, tensor.shape).data == tensor.data);
  }
  CHECK(trainer::model_bytes(read) == bytes);

  float floats[6];
  read.get("b.floats", {2, 3}, floats);
  CHECK(floats[0] == 1.5f);
  CHECK(std::signbit(floats[1]));
  CHECK(std::isnan(floats[3]));
  double doubles[2];
  read.get("a.doubles", {2}, doubles);
  CHECK(doubles[0] == 0.1);
  std::int64_t integers[3];
  read.get("c.integers", {3, 1}, integers);
  CHECK(integers[0] == std::numeric_limits<std::int64_t>::min());
  CHECK(integers[1] == -1);
  float scalar = 0;
  read.get("scalar", {}, &scalar);
  CHECK(scalar == 1.5f);

  CHECK(contains(error_of([&] { read.get("b.floats", {3, 2}, floats); }), "'b.floats' is F32 [2, 3]"));
  CHECK(contains(error_of([&] { read.get("b.floats", {6}, floats); }), "not F32 [6]"));
  CHECK(contains(error_of([&] { read.get("a.doubles", {2}, floats); }), "F64 [2], not F32 [2]"));
  CHECK(contains(error_of([&] { read.get("missing", {2}, floats); }), "no tensor 'missing'"));
}

TEST_CASE("model file: the order of the header does not matter, spaces do not either") {
  const std::string data(8, 'x');
  const model_file read =
      trainer::read_model(file_of("{ \"z\" :{\"data_offsets\":[0,4],\"shape\":[],\"dtype\":\"F32\"},\n"
                                  "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}   ",
                                  data));
  CHECK(read.tensors.size() == 2);
  CHECK(read.metadata.empty());
  CHECK(trainer::read_model(file_of("{}")).tensors.empty());
}

TEST_CASE("model file: what is wrong is said") {
  const auto header_error = [](const std::string& header, std::size_t data = 0) {
    return reading_error(file_of(header, std::string(data, 'x')));
  };
  const auto tensor = [](const std::string& fields) { return "{\"t\":{" + fields + "}}"; };
  const auto good = [](const std::string& name, int begin, int end) {
    return "\"" + name + "\":{\"dtype\":\"F32\",\"shape\":[" + std::to_string((end - begin) / 4) +
           "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(end) + "]}";
  };
  CHECK(header_error("{" + good("t", 0, 4) + "}", 4) == "nothing was thrown");

  // Sizes that the file does not have.
  CHECK(contains(reading_error(""), "truncated"));
  CHECK(contains(reading_error("\x02\x00\x00\x00"), "truncated"));
  CHECK(contains(reading_error(file_of("{}").substr(0, 9)), "truncated"));
  CHECK(contains(reading_error(std::string(8, '\xff') + "{}"), "header of 18446744073709551615 bytes"));
  CHECK(contains(reading_error(std::string("\xf9\xff\xff\xff\xff\xff\xff\xff{}", 10)), "truncated"));
  CHECK(contains(header_error("{" + good("t", 0, 8) + "}", 4), "truncated: tensor 't' ends at byte 8 of 4"));
  CHECK(contains(header_error("{" + good("t", 0, 8) + "}", 9), "1 trailing bytes"));
  CHECK(contains(header_error("{}", 1), "1 trailing bytes"));

  // Headers that are none.
  for (const char* header :
       {"{", "{}}", "{} {}", "{\"t\":", "{\"t\":}", "{\"\xff\":1}", "{'t':1}", "{\"t\":nan}"}) {
    CAPTURE(header);
    CHECK(contains(header_error(header), "not valid JSON"));
  }
  for (const char* header : {"", " {}", "[]", "1", "null", "{\"t\":1}", "{\"t\":[]}", "{\"t\":null}",
                             "{\"__metadata__\":\"x\"}"}) {
    CAPTURE(header);
    CHECK(contains(header_error(header), "not an object of tensors"));
  }
  CHECK(contains(header_error("{\"__metadata__\":{\"a\":1}}"), "__metadata__: 'a' is not a string"));
  CHECK(contains(header_error("{\"__metadata__\":{\"a\":{}}}"), "__metadata__: 'a' is not a string"));
  CHECK(contains(header_error("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}"), "'a' twice"));
  CHECK(contains(header_error("{\"__metadata__\":{},\"__metadata__\":{}}"), "twice"));

  // Tensors that are none.
  const std::string type = "\"dtype\":\"F32\"", shape = "\"shape\":[1]", offsets = "\"data_offsets\":[0,4]";
  CHECK(contains(header_error(tensor(""), 4), "needs dtype, shape and data_offsets"));
  CHECK(contains(header_error(tensor(type + "," + shape), 4), "needs dtype"));
  CHECK(contains(header_error(tensor(type + "," + offsets), 4), "needs dtype"));
  CHECK(contains(header_error(tensor(shape + "," + offsets), 4), "needs dtype"));
  for (const std::string& field : {type, shape, offsets}) {
    CHECK(contains(header_error(tensor(type + "," + shape + "," + offsets + "," + field), 4), "twice"));
  }
  for (const char* field : {"\"dtype\":4", "\"dtype\":null", "\"dtype\":[]", "\"dtype\":{}", "\"shape\":4",
                            "\"shape\":[-1]", "\"shape\":[1.0]", "\"shape\":[\"1\"]", "\"shape\":[[1]]",
                            "\"shape\":[{}]", "\"shape\":[true]", "\"shape\":[18446744073709551616]",
                            "\"data_offsets\":\"0\"", "\"size\":4", "\"size\":[4]", "\"size\":\"4\""}) {
    CAPTURE(field);
    CHECK(contains(header_error(tensor(field), 4), "is not as it should be"));
  }
  CHECK(contains(header_error(tensor("\"dtype\":\"BF16\""), 4), "dtype 'BF16' is not F32, F64 or I64"));

  // Offsets and shapes that do not fit each other.
  const auto sized = [&](const std::string& sizes, const std::string& range) {
    return header_error(tensor(type + ",\"shape\":" + sizes + ",\"data_offsets\":" + range), 8);
  };
  CHECK(sized("[2]", "[0,8]") == "nothing was thrown");
  CHECK(contains(sized("[1]", "[0,8]"), "do not fit its shape"));
  CHECK(contains(sized("[3]", "[0,8]"), "do not fit its shape"));
  CHECK(contains(sized("[2,0]", "[0,8]"), "do not fit its shape"));
  CHECK(contains(sized("[2]", "[8,0]"), "not a begin and an end"));
  CHECK(contains(sized("[2]", "[0]"), "not a begin and an end"));
  CHECK(contains(sized("[2]", "[0,4,8]"), "not a begin and an end"));
  CHECK(contains(sized("[2]", "[]"), "not a begin and an end"));
  CHECK(contains(sized("[1]", "[4,8]"), "leaves a gap"));
  CHECK(contains(sized("[2]", "[0,18446744073709551615]"), "truncated"));
  // 2^62 + 2 elements of 4 bytes are 8 bytes, counted in 64 bits.
  CHECK(contains(sized("[4611686018427387906]", "[0,8]"), "do not fit its shape"));
  CHECK(contains(sized("[4294967296,4294967296,2]", "[0,8]"), "do not fit its shape"));
  CHECK(contains(sized("[0,9223372036854775808]", "[0,0]"), "do not fit its shape"));
  const auto two = [&](const std::string& a, const std::string& b) {
    return header_error("{" + a + "," + b + "}", 12);
  };
  CHECK(two(good("a", 8, 12), good("b", 0, 8)) == "nothing was thrown");
  CHECK(contains(two(good("a", 0, 8), good("b", 4, 12)), "'b': overlaps"));
  CHECK(contains(two(good("a", 0, 12), good("b", 0, 12)), "overlaps"));
  CHECK(contains(two(good("a", 0, 4), good("b", 8, 12)), "'b': leaves a gap"));
  CHECK(contains(two(good("a", 0, 8), good("a", 8, 12)), "'a': is there twice"));
}

TEST_CASE("model file: headers made to cost memory or depth do not") {
  const std::size_t length = 1 << 20;
  const auto repeated = [&](const std::string& part) {
    std::string text;
    while (text.size() < length) text += part;
    return text;
  };
  reading_error(file_of("{\"t\":" + repeated("[")));
  reading_error(file_of(repeated("{\"t\":")));
  reading_error(file_of("{\"__metadata__\":" + repeated("{\"a\":")));
  reading_error(file_of("{\"t\":{\"shape\":[" + repeated("0,")));
  reading_error(file_of("{" + repeated("\"\":{},")));
  reading_error(file_of("{" + repeated("\"\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},") +
                        "\"a\":{}}"));
  reading_error(file_of("{\"" + repeated("\n")));
  CHECK(contains(reading_error(file_of("{\"" + repeated("n") + "\":1}")), "tensors"));
  CHECK(contains(
      reading_error(file_of("{\"" + repeated("n") + "\":{\"dtype\":\"" + repeated("\\n") + "\"}}")), "...'"));
  std::string metadata = "{\"__metadata__\":{";
  for (int i = 0; i < 50000; ++i) metadata += "\"" + std::to_string(i) + "\":\"\",";
  CHECK(reading_error(file_of(metadata + "\"x\":\"\"}}")) == "nothing was thrown");
}

TEST_CASE("model file: any byte changed or cut off is an error or a whole model, never more") {
  const std::string good = trainer::model_bytes(small_model());
  const auto consistent = [](const std::string& bytes) {
    try {
      const model_file model = trainer::read_model(bytes);
      // What was accepted survives another round.
      const std::string again = trainer::model_bytes(model);
      const model_file same = trainer::read_model(again);
      return same.metadata == model.metadata && trainer::model_bytes(same) == again;
    } catch (const std::runtime_error&) {
      return true;
    }
  };
  for (std::size_t at = 0; at < good.size(); ++at) {
    CAPTURE(at);
    CHECK_THROWS_AS(trainer::read_model(std::string_view(good).substr(0, at)), std::runtime_error);
    for (const int flip : {0x01, 0x02, 0x10, 0x80, 0xff}) {
      std::string changed = good;
      changed[at] = static_cast<char>(changed[at] ^ flip);
      CHECK(consistent(changed));
    }
  }
  std::mt19937 random(3);
  for (int round = 0; round < 3000; ++round) {
    std::string changed = good;
    const unsigned changes = 1 + random() % 4;
    for (unsigned i = 0; i < changes; ++i) {
      const std::size_t at = random() % changed.size(), from = random() % changed.size();
      switch (random() % 3) {
        case 0: changed[at] = "0123456789[]{},:\" -e"[random() % 20]; break;
        case 1: changed.erase(at, random() % 8); break;
        default: changed.insert(at, changed.substr(from, random() % 40)); break;
      }
    }
    CAPTURE(round);
    REQUIRE(consistent(changed));
  }
}

TEST_CASE("saving replaces the file in one piece") {
  const temporary_directory directory;
  const fs::path path = directory / "model.safetensors", old = directory / "old";
  model_file small, large;
  const std::vector<float> values(300000, 1.0f);
  small.put("x", {1}, values.data());
  large.put("x", {300000}, values.data());
  trainer::save_model(path, small);
  // Another name of the old content keeps it: nothing is written into a file that is there.
  fs::create_hard_link(path, old);
  trainer::save_model(path, large);
  CHECK(read_bytes(old) == trainer::model_bytes(small));
  CHECK(read_bytes(path) == trainer::model_bytes(large));
  CHECK(trainer::load_model(path).tensors.at("x").shape == std::vector<std::int64_t>{300000});

  // Whoever reads while it is replaced gets the one or the other.
  std::atomic<bool> done{false};
  std::thread writer([&] {
    for (int i = 0; i < 100; ++i) trainer::save_model(path, i % 2 == 0 ? small : large);
    done = true;
  });
  int reads = 0;
  bool whole = true;
  while (!done || reads == 0) {
    const auto size = trainer::load_model(path).tensors.at("x").data.size();
    whole = whole && (size == 4 || size == 1200000);
    ++reads;
  }
  writer.join();
  CHECK(whole);

  int files = 0;
  for (const auto& each : fs::directory_iterator(directory.path())) {
    files += 1;
    CHECK((each.path() == path || each.path() == old));
  }
  CHECK(files == 2);
}

TEST_CASE("files that cannot be written or read are named with the reason") {
  const temporary_directory directory;
  const model_file model = small_model();
  CHECK(contains(error_of([&] { trainer::save_model(directory / "no/model", model); }), "no/model: No such"));
  fs::create_directory(directory / "folder");
  write_bytes(directory / "folder" / "inside", "");
  CHECK(contains(error_of([&] { trainer::save_model(directory / "folder", model); }),
                 "folder: Is a directory"));
  CHECK(!fs::exists(directory / "folder.part"));

  CHECK(contains(error_of([&] { trainer::load_model(directory / "none"); }), "none: No such file"));
  CHECK(contains(error_of([&] { trainer::load_model(directory / "folder"); }), "folder: is not a file"));
  REQUIRE(mkfifo((directory / "pipe").c_str(), 0600) == 0);
  CHECK(contains(error_of([&] { trainer::load_model(directory / "pipe"); }), "pipe: is not a file"));
  write_bytes(directory / "short", "{}");
  CHECK(contains(error_of([&] { trainer::load_model(directory / "short"); }), "short: truncated"));
  write_bytes(directory / "empty", "");
  CHECK(contains(error_of([&] { trainer::load_model(directory / "empty"); }), "empty: is empty"));
  write_bytes(directory / "pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n");
  CHECK(contains(error_of([&] { trainer::load_model(directory / "pointer"); }),
                 "pointer: is a Git LFS pointer"));
  write_bytes(directory / "page", "<!DOCTYPE html>\n<title>404</title>\n");
  CHECK(contains(error_of([&] { trainer::load_model(directory / "page"); }), "page: is a web page"));
}

TEST_CASE("models with values that are not finite are not loaded") {
  const temporary_directory directory;
  const fs::path path = directory / "model";
  const auto error_with = [&](const auto value) {
    model_file model;
    const std::decay_t<decltype(value)> values[] = {0, 1, value};
    const float good = 1;
    model.put("a", {1}, &good);
    model.put("b", {3}, values);
    trainer::save_model(path, model);
    return error_of([&] { trainer::load_model(path); });
  };
  CHECK(error_with(1.0f) == "nothing was thrown");
  CHECK(error_with(std::numeric_limits<float>::max()) == "nothing was thrown");
  CHECK(error_with(std::int64_t{-1}) == "nothing was thrown");  // whose bits would be NaN
  for (const float value : {std::nanf(""), -std::nanf(""), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()}) {
    CHECK(contains(error_with(value), "model: tensor 'b' holds values that are not finite"));
    CHECK(contains(error_with(static_cast<double>(value)), "tensor 'b' holds values that are not finite"));
  }
}

TEST_CASE("models: format and version are those that are known") {
  model_file model;
  const auto error = [&] {
    return error_of([&] { trainer::require_format(model, {"lgm-trainer", "lgm-detector"}); });
  };
  CHECK(error() == "__metadata__ has no 'format'");
  model.metadata["format"] = "lgm-trainer";
  CHECK(error() == "__metadata__ has no 'version'");
  for (const char* version : {"1", "2", "", "1.0", "01", "one\n"}) {
    model.metadata["version"] = version;
    if (std::string(version) == "1")
      CHECK(error() == "nothing was thrown");
    else
      CHECK(contains(error(), "of lgm-trainer, and only 1 is known"));
  }
  model.metadata["version"] = "1";
  model.metadata["format"] = "pt";
  CHECK(error() == "has format 'pt', not lgm-trainer or lgm-detector");
}
