// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <string_view>

namespace trainer {

// Writes all files of these programs: models, tables, scripts and pictures.
//
// A regular file is replaced in one piece: whenever the process ends or the machine stops, the path has the old content or the
// new one. A symbolic link stays, and the file that it names is written. Whatever else is there, as a pipe or a device, is written
// into. Throws std::runtime_error, "FILE: reason", if that fails.
void write_file(const std::filesystem::path& path, std::string_view bytes);

}  // namespace trainer
