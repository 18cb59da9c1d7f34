#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# usage: readme_test.sh ROOT: each block of C++ in the README is what an example compiles between its markers, and every
# file that the README links to is there.
set -euo pipefail
cd "$1"

# block N: the Nth block of C++ in the README. marked FILE: what FILE has between its markers, less the indentation.
block() { awk -v n="$1" '/^```cpp$/ { inside = ++count == n; next } /^```$/ { inside = 0 } inside' README.md; }
marked() { sed -n '/\[readme\]/,/\[\/readme\]/p' "$1" | sed '/readme\]/d; s/^  //'; }
examples=(minimal shards blas)
count=$(grep -c '^```cpp$' README.md)
[[ $count == "${#examples[@]}" ]]
for n in "${!examples[@]}"; do
  compiled=$(marked "examples/${examples[n]}.cpp")
  [[ -n $compiled ]]
  diff <(block $((n + 1))) <(echo "$compiled")
done

missing=0
for file in $(grep -oE '\]\([a-z][^):]*\)' README.md | tr -d '])(' | sort -u); do
  if [[ ! -e $file ]]; then
    echo "README.md links to $file, which is not there"
    missing=1
  fi
done
exit $missing
