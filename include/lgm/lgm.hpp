// SPDX-License-Identifier: MIT
#pragma once

// The library for the host: one include, namespace lgm. See lgm/host.hpp for the functions.

#include <lgm/config.hpp>
#include <lgm/host.hpp>
#include <lgm/schedule.hpp>
#include <lgm/types.hpp>
