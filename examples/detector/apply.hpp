// SPDX-License-Identifier: MIT
#pragma once

#include "options.hpp"

namespace detector {

void apply(const apply_options& chosen);

}  // namespace detector
