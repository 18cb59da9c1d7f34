// SPDX-License-Identifier: MIT
// Carries the headers that tests have precompiled.
