// SPDX-License-Identifier: MIT
#pragma once

// All of the library that runs on a CUDA device: the functions for a cuda_context, and the algorithms that they are made
// of, for kernels of one's own. Nothing here includes Eigen; lgm/lgm.hpp is the host's.

#include <lgm/column.hpp>
#include <lgm/cuda.cuh>
#include <lgm/distance.hpp>
#include <lgm/formula.hpp>
#include <lgm/group.hpp>
#include <lgm/moments.hpp>
#include <lgm/row.hpp>
#include <lgm/schedule.hpp>
#include <lgm/soft_row.hpp>
#include <lgm/types.hpp>
