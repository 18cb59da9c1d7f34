// SPDX-License-Identifier: MIT

// How the examples read and write files: what is unpacked, what is taken for something else, what is replaced.

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include "gnuplot.hpp"
#include "input_file.hpp"
#include "output_file.hpp"
#include "support/files.hpp"

namespace {

namespace fs = std::filesystem;
using lgm_test::contains;
using lgm_test::error_of;
using lgm_test::read_bytes;
using lgm_test::temporary_directory;
using lgm_test::write_bytes;
using trainer::write_file;

std::string gzipped(const std::string& content) {
  const temporary_directory directory;
  const gzFile file = gzopen((directory / "a").c_str(), "wb");
  REQUIRE(file != nullptr);
  REQUIRE(gzwrite(file, content.data(), static_cast<unsigned>(content.size())) ==
          static_cast<int>(content.size()));
  REQUIRE(gzclose(file) == Z_OK);
  return read_bytes(directory / "a");
}

// All that an input_file gives, so many bytes at a time.
std::string read_all(const fs::path& path, std::size_t bytes) {
  trainer::input_file file(path);
  std::string all, part(bytes, '\0');
  for (;;) {
    const std::size_t got = file.read(reinterpret_cast<std::uint8_t*>(part.data()), bytes);
    all += part.substr(0, got);
    if (got < bytes) return all;
  }
}

std::string counting(std::size_t length) {
  std::string text;
  for (std::size_t i = 0; i < length; ++i) text += static_cast<char>(i * i / 7 % 251);
  return text;
}

}  // namespace

TEST_CASE("input: bytes are the same plain, gzipped, of several members, in steps of any size") {
  const temporary_directory directory;
  const fs::path path = directory / "a";
  const std::string text = counting(200000);
  const std::string first = text.substr(0, 70001), second = text.substr(70001);
  for (const std::string& content : {text, gzipped(text), gzipped(first) + gzipped(second),
                                     gzipped(first) + gzipped("") + gzipped(second)}) {
    write_bytes(path, content);
    for (const std::size_t step :
         {std::size_t{1}, std::size_t{511}, std::size_t{65536}, text.size(), text.size() + 1}) {
      CHECK((read_all(path, step) == text));
    }
  }
  write_bytes(path, text);
  trainer::input_file file(path);
  CHECK(file.begin(3) == text.substr(0, 3));
  CHECK(file.begin(4000) == text.substr(0, 4000));
  std::string part(5000, '\0');
  CHECK(file.read(reinterpret_cast<std::uint8_t*>(part.data()), part.size()) == part.size());
  CHECK((part == text.substr(0, 5000)));
  // Two bytes of gzip's magic number that are not its begin.
  write_bytes(path, "x\x1f\x8b");
  CHECK(read_all(path, 10) == "x\x1f\x8b");
}

TEST_CASE("input: what follows gzip data is refused, and so is what is cut off") {
  const temporary_directory directory;
  const fs::path path = directory / "a";
  const auto error = [&](const std::string& content) {
    write_bytes(path, content);
    return error_of([&] { read_all(path, 1000); });
  };
  const std::string packed = gzipped(counting(3000));
  CHECK(error(packed) == "nothing was thrown");
  for (const std::string& more : {std::string(1, '\0'), std::string(512, '\0'), std::string("x"),
                                  std::string("\x1f"), std::string("\x1fx"), counting(100)}) {
    CHECK(contains(error(packed + more), "a: trailing bytes after its gzip data"));
    CHECK(contains(error(packed + packed + more), "a: trailing bytes after its gzip data"));
  }
  CHECK(contains(error(packed + "\x1f\x8b"), "a: truncated gzip data"));
  for (std::size_t length = 2; length < packed.size(); length += 1 + length / 10)
    CHECK(contains(error(packed.substr(0, length)), "a: truncated gzip data"));
}

TEST_CASE("input: what lies in the place of a file is named") {
  const temporary_directory directory;
  const fs::path path = directory / "a";
  const auto error = [&](const std::string& content) {
    write_bytes(path, content);
    return error_of([&] { const trainer::input_file file(path); });
  };
  CHECK(contains(error(""), "a: is empty"));
  CHECK(contains(error(gzipped("")), "a: is empty"));
  const std::string pointer =
      "version https://git-lfs.github.com/spec/v1\noid sha256:0123456789\nsize 12345\n";
  CHECK(contains(error(pointer), "a: is a Git LFS pointer"));
  for (const char* page : {"<!DOCTYPE html>\n<html>", "<html lang=en>", "\n\n  <!doctype HTML><p>",
                           "\xef\xbb\xbf<html>", "<?xml version='1.0'?><Error>"}) {
    CAPTURE(page);
    CHECK(contains(error(page), "a: is a web page"));
    CHECK(contains(error(gzipped(page)), "a: is a web page"));
  }
  for (const char* other : {"<", "<htm", "version https://git", "x<html>", "\x93NUMPY"}) {
    CAPTURE(other);
    CHECK(error(other) == "nothing was thrown");
  }
  CHECK(contains(error_of([&] { const trainer::input_file file(directory / "none"); }), "No such file"));
  CHECK(contains(error_of([&] { const trainer::input_file file(directory.path()); }), "Is a directory"));
}

TEST_CASE("output: a regular file is replaced whole and keeps its mode") {
  const temporary_directory directory;
  const fs::path path = directory / "a", old = directory / "old";
  write_file(path, "first");
  CHECK(read_bytes(path) == "first");
  REQUIRE(chmod(path.c_str(), 0640) == 0);
  fs::create_hard_link(path, old);
  write_file(path, "second");
  CHECK(read_bytes(path) == "second");
  CHECK(read_bytes(old) == "first");
  CHECK(fs::status(path).permissions() == fs::perms(0640));
  // What a process that was killed left behind is in nobody's way.
  write_bytes(directory / "a.part", "half");
  write_file(path, "third");
  CHECK(read_bytes(path) == "third");
  CHECK(!fs::exists(directory / "a.part"));
}

TEST_CASE("output: a symbolic link stays, and its target is written") {
  const temporary_directory directory;
  fs::create_directory(directory / "folder");
  const fs::path target = directory / "folder" / "target", link = directory / "link",
                 links = directory / "links";
  fs::create_symlink("folder/target", link);
  fs::create_symlink(link, links);
  for (const fs::path& path : {links, link}) {  // the target is not there yet at first
    write_file(path, path.string());
    CHECK(fs::is_symlink(link));
    CHECK(fs::is_symlink(links));
    CHECK(read_bytes(target) == path.string());
    CHECK(fs::is_regular_file(fs::symlink_status(target)));
  }
  const fs::path circle = directory / "circle";
  fs::create_symlink("circle", circle);
  CHECK(contains(error_of([&] { write_file(circle, "x"); }), "circle: Too many levels"));
  CHECK(fs::is_symlink(circle));
}

TEST_CASE("output: pipes and devices are written into") {
  const temporary_directory directory;
  const fs::path pipe = directory / "pipe", link = directory / "link";
  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  fs::create_symlink("pipe", link);
  const std::string text = counting(300000);
  for (const fs::path& path : {pipe, link}) {
    std::string seen;
    std::thread reader([&] { seen = read_bytes(path); });
    write_file(path, text);
    reader.join();
    CHECK((seen == text));
    CHECK(fs::is_fifo(pipe));
  }
  // Through a link: a writer that replaced the device would replace the link.
  const fs::path full = directory / "full";
  fs::create_symlink("/dev/full", full);
  CHECK(contains(error_of([&] { write_file(full, "x"); }), "full: No space left"));
  CHECK(fs::is_symlink(full));
  CHECK(fs::is_character_file("/dev/full"));
  CHECK(contains(error_of([&] { write_file(directory.path(), "x"); }), "Is a directory"));
  CHECK(contains(error_of([&] { write_file(directory / "no" / "file", "x"); }), "file: No such file"));
}

TEST_CASE("output: a file without a name any more is written into") {
  const temporary_directory directory;
  const fs::path path = directory / "a";
  write_bytes(path, "old content");
  const trainer::descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(file.number() >= 0);
  fs::remove(path);
  const fs::path name = "/proc/self/fd/" + std::to_string(file.number());
  write_file(name, "new");
  CHECK(read_bytes(name) == "new");
  CHECK(fs::is_empty(directory.path()));
}

TEST_CASE("output: a picture goes where its name leads") {
  const temporary_directory directory;
  fs::create_symlink("elsewhere.png", directory / "dot.png");
  trainer::draw_picture(directory.path(), "dot", 200, 100, "plot 0\n");
  CHECK(fs::is_symlink(directory / "dot.png"));
  CHECK(read_bytes(directory / "elsewhere.png").substr(1, 3) == "PNG");
  CHECK(contains(read_bytes(directory / "dot.gnuplot"), "set output 'dot.png'"));
  int files = 0;
  for (const auto& each : fs::directory_iterator(directory.path())) files += each.exists() ? 1 : 0;
  CHECK(files == 3);
  CHECK(contains(error_of([&] { trainer::draw_picture(directory.path(), "no", 200, 100, "plot nothing\n"); }),
                 "no.png: gnuplot could not draw it"));
}
