#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds and runs the tests of the preset coverage, then prints which lines and branches of include/ none of them ran.
# Fails below these shares, in percent. clang++ counts in the source, so that a template counts once, however often it was
# instantiated or inlined, and an exception is no branch (gcov differs in all three).
set -euo pipefail

least_lines=97
least_branches=97

cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=$PWD/build/coverage
cmake --preset coverage
cmake --build --preset coverage -j "$(nproc)"
rm -rf "$build/counts"
LLVM_PROFILE_FILE=$build/counts/%p.profraw ctest --preset coverage -j "$(nproc)"

llvm-profdata merge -sparse "$build"/counts/*.profraw -o "$build/counts/all.profdata"
programs=()
for program in "$build"/bin/*; do programs+=(-object "$program"); done
# The first program has no -object before it.
report=("${programs[@]:1}" -instr-profile "$build/counts/all.profdata" -ignore-filename-regex '.*/(tests|examples|bench)/.*|^/usr/.*')

llvm-cov report "${report[@]}" -show-branch-summary
# Lines, and conditions in lines, that were never run or never went one way.
llvm-cov show "${report[@]}" -show-branches=count -show-expansions=false -show-instantiations=false |
  grep -E '^/|^ +[0-9]+\| +0\||Branch \(.*(True: 0|False: 0)' || true
llvm-cov export "${report[@]}" -summary-only |
  python3 -c '
import json, sys
totals = json.load(sys.stdin)["data"][0]["totals"]
low = False
for what, least in ("lines", float(sys.argv[1])), ("branches", float(sys.argv[2])):
    percent = totals[what]["percent"]
    low = low or percent < least
    covered, count = totals[what]["covered"], totals[what]["count"]
    print(f"{what}: {percent:.1f} % ({covered} of {count}), at least {least:g}")
sys.exit(low)' "$least_lines" "$least_branches"
