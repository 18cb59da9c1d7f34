// SPDX-License-Identifier: MIT
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

// What the fuzz targets share.

namespace fuzz {

// A property that does not hold ends the run, as a sanitizer's report does.
inline void require(bool holds, const std::string& property) {
  if (holds) return;
  std::fprintf(stderr, "property does not hold: %s\n", property.c_str());
  std::abort();
}

// The readers of the trainer say what is wrong with an input in one line of a bounded length.
inline void require_message(const std::string& message) {
  require(!message.empty() && message.size() < 400, "the message is of a reasonable length: " + message);
  for (const char c : message)
    require(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f, "the message is one line: " + message);
}

}  // namespace fuzz
