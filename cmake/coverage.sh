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
# Lines that never ran, and conditions that went one way alone in every instantiation.
llvm-cov show "${report[@]}" -show-branches=count -show-expansions=false -show-instantiations=false |
  awk '/^\// { file = $0; sub(/^.*\/include\//, "", file); sub(/:$/, "", file) }
       /^ +[0-9]+\| +0\|/ { print file ":" $0 }
       /Branch \(/ {
         where = file ":" substr($0, index($0, "(") + 1, index($0, ")") - index($0, "(") - 1)
         if (!(where in seen)) order[++count] = where
         seen[where] = 1
         if ($0 !~ /True: 0,/) held[where] = 1
         if ($0 !~ /False: 0\]/) failed[where] = 1
       }
       END {
         for (i = 1; i <= count; ++i) {
           if (!(order[i] in held)) print order[i] ": never true"
           if (!(order[i] in failed)) print order[i] ": never false"
         }
       }'
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
