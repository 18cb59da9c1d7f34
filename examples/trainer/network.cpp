// SPDX-License-Identifier: MIT
#include "network.hpp"

namespace trainer {

template class network<float>;

}  // namespace trainer
