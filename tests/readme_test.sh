#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# usage: readme_test.sh ROOT [FIRST]: the first block of C++ in README.md is examples/first.cpp; the other blocks of C++ in
# READMEs are what examples compile between their markers; every file that a README links to is there; and CITATION.cff has the
# library's version. FIRST: the program of examples/first.cpp, which prints what README.md says.
set -euo pipefail
first=${2:+$(realpath "$2")}
cd "$1"

# block FILE N [LANGUAGE]: the Nth fenced block of that language in a file; without one, of no language.
block() {
  awk -v n="$2" -v fence="\`\`\`${3-}" '
    inside && /^```$/ { inside = 0; next }
    inside { if (wanted) print; next }
    /^```/ { inside = 1; wanted = $0 == fence && ++count == n }' "$1"
}
# shown FILE: what a README shows of it: what it has between its markers, less the indentation; where it has none, all of it but
# the licence and the empty line after that.
shown() {
  if grep -q '\[readme\]' "$1"; then
    sed -n '/\[readme\]/,/\[\/readme\]/p' "$1" | sed '/readme\]/d; s/^  //'
  else
    sed '1,2d' "$1"
  fi
}
# blocks FILE EXAMPLE...: the blocks of C++ in a file show those examples, in that order.
blocks() {
  local file=$1 n=0 example
  shift
  [[ $(grep -c '^```cpp$' "$file") == "$#" ]] || { echo "$file has not $# blocks of C++"; return 1; }
  for example in "$@"; do
    n=$((n + 1))
    [[ -n $(block "$file" "$n" cpp) ]]
    diff <(block "$file" "$n" cpp) <(shown "examples/$example.cpp")
  done
}
blocks README.md first
blocks include/lgm/README.md minimal shards blas
if [[ -n $first ]]; then diff <(block README.md 1) <("$first"); fi

missing=0
for readme in README.md bench/README.md include/lgm/README.md examples/*/README.md; do
  # Outside of code, which may look alike; without links to elsewhere, or within the file.
  links=$(awk '/^```/ { inside = !inside; next } !inside { gsub(/`[^`]*`/, ""); print }' "$readme" |
            grep -oE '\]\([^):#]+[)#]' || true)
  for file in $(tr -d '])(#' <<<"$links" | sort -u); do
    if [[ ! -e $(dirname "$readme")/$file ]]; then
      echo "$readme links to $file, which is not there"
      missing=1
    fi
  done
done

version=$(sed -nE 's/^#define LGM_VERSION_(MAJOR|MINOR|PATCH) //p' include/lgm/config.hpp | paste -sd .)
if ! grep -qx "version: $version" CITATION.cff; then
  echo "CITATION.cff is not of version $version"
  missing=1
fi
exit $missing
