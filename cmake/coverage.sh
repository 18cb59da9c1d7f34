#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds and runs the tests of the preset coverage, then prints which lines and branches of include/ none of them ran.
# Fails below these shares, in percent. Branches that only an exception takes do not count: nothing here throws.
set -euo pipefail

least_lines=97
least_branches=97

cd "$(dirname "${BASH_SOURCE[0]}")/.."
cmake --preset coverage
cmake --build --preset coverage -j "$(nproc)"
find build/coverage -name '*.gcda' -delete
ctest --preset coverage -j "$(nproc)"

report=(gcovr --root . --object-directory build/coverage --filter include/lgm/ -j "$(nproc)"
        --exclude-throw-branches --exclude-unreachable-branches)
mkdir -p build/ci
"${report[@]}" --json build/ci/coverage.json
report=(gcovr --root . --add-tracefile build/ci/coverage.json --filter include/lgm/)
"${report[@]}" --branches
"${report[@]}" --print-summary --fail-under-line "$least_lines" --fail-under-branch "$least_branches"
