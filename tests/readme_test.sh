#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# usage: readme_test.sh ROOT: the README's training loop is the one that examples/minimal.cpp compiles, and every file
# that the README links to is there.
set -euo pipefail
cd "$1"

shown=$(sed -n '/^```cpp$/,/^```$/p' README.md | sed '/^```/d')
compiled=$(sed -n '/\[readme\]/,/\[\/readme\]/p' examples/minimal.cpp | sed '/readme\]/d; s/^  //')
[[ -n $compiled ]]
diff <(echo "$shown") <(echo "$compiled")

missing=0
for file in $(grep -oE '\]\([a-z][^):]*\)' README.md | tr -d '])(' | sort -u); do
  if [[ ! -e $file ]]; then
    echo "README.md links to $file, which is not there"
    missing=1
  fi
done
exit $missing
