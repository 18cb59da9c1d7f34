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

// Writes a text file; throws if that fails.
inline void write_file(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) throw std::runtime_error(path.string() + ": cannot be written");
}

// Draws directory/NAME.png with a script that is left beside it as NAME.gnuplot and may name the directory's
// files.
inline void draw_picture(const std::filesystem::path& directory, const std::string& name, int width,
                         int height, const std::string& script) {
  const std::filesystem::path picture = directory / (name + ".png");
  const std::string whole = fmt::format(
      "# Run in this directory: gnuplot {0}.gnuplot\n"
      "set encoding utf8\n"
      "set terminal pngcairo noenhanced size {1},{2} font 'DejaVu Sans,12' background rgb 'white'\n"
      "set output '{0}.png'\n{3}unset output\n",
      name, width, height, script);
  write_file(directory / (name + ".gnuplot"), whole);
  std::error_code ignored;
  std::filesystem::remove(picture, ignored);

  // A locale that every system has: in the plain one gnuplot warns that it knows no degree sign.
  std::FILE* pipe = popen("LC_ALL=C.UTF-8 gnuplot", "w");
  if (pipe == nullptr) throw std::runtime_error("gnuplot: cannot be started");
  fmt::print(pipe, "cd {}\n{}", quoted(directory.string()), whole);
  const bool succeeded = pclose(pipe) == 0;
  if (!succeeded || std::filesystem::file_size(picture, ignored) == 0 || ignored) {
    throw std::runtime_error(picture.string() + ": gnuplot could not draw it");
  }
}

}  // namespace trainer
