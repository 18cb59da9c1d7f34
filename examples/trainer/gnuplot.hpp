// SPDX-License-Identifier: MIT
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <system_error>

#include "output_file.hpp"

namespace trainer {

// Throws if there is no gnuplot to draw with.
inline void require_gnuplot() {
  if (std::system("gnuplot --version >/dev/null 2>&1") != 0) {
    throw std::runtime_error("gnuplot: not found; Debian and Ubuntu have it in the package gnuplot-nox");
  }
}

namespace detail {

// Ten colours that stay apart for colour-blind eyes (M. Petroff, "Accessible color sequences", 2021). More
// classes begin again.
inline std::uint32_t class_colour(std::int64_t k) {
  constexpr std::uint32_t colours[] = {0x3f90da, 0xffa90e, 0xbd1f01, 0x94a4a2, 0x832db6,
                                       0xa96b59, 0xe76300, 0xb9ac70, 0x717581, 0x92dadd};
  return colours[static_cast<std::size_t>(k) % std::size(colours)];
}

}  // namespace detail

// A string as gnuplot's scripts write it: in single quotes, a quote within doubled.
inline std::string quoted(const std::string& text) {
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? std::string("''") : std::string(1, c);
  return result + "'";
}

// Draws directory/NAME.png with a script that is left beside it as NAME.gnuplot and may name the directory's
// files.
inline void draw_picture(const std::filesystem::path& directory, const std::string& name, int width,
                         int height, const std::string& script) {
  const std::filesystem::path picture = directory / (name + ".png");
  const std::filesystem::path drawn = directory / (name + ".png.drawn");
  const auto whole = [&](const std::string& output) {
    return fmt::format(
        "# Run in this directory: gnuplot {0}.gnuplot\n"
        "set encoding utf8\n"
        "set terminal pngcairo noenhanced size {1},{2} font 'DejaVu Sans,12' background rgb 'white'\n"
        "set output {3}\n{4}unset output\n",
        name, width, height, quoted(output), script);
  };
  write_file(directory / (name + ".gnuplot"), whole(name + ".png"));
  std::error_code ignored;
  std::filesystem::remove(drawn, ignored);

  // A locale that every system has: in the plain one gnuplot warns that it knows no degree sign.
  std::FILE* pipe = popen("LC_ALL=C.UTF-8 gnuplot", "w");
  if (pipe == nullptr) throw std::runtime_error("gnuplot: cannot be started");
  fmt::print(pipe, "cd {}\n{}", quoted(directory.string()), whole(drawn.filename().string()));
  const bool succeeded = pclose(pipe) == 0;
  std::ifstream file(drawn, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  std::filesystem::remove(drawn, ignored);
  if (!succeeded || bytes.empty()) {
    throw std::runtime_error(picture.string() + ": gnuplot could not draw it");
  }
  write_file(picture, bytes);
}

}  // namespace trainer
