# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# For tests of a program as a command, which source this with the program's path as $1: an empty folder to be in, checks
# that count their failures, and files of bytes. A test ends with `finish`.

# The plainest locale, as on a bare machine.
export LC_ALL=C
program=$(realpath "$1")
tests=$(realpath "$(dirname "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0

fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# rejects WORDS ARGUMENT...: the program stops with an error of one line that holds the words, and says nothing else.
rejects() {
  local words=$1
  shift
  if "$program" "$@" >stdout 2>stderr; then fail "accepted: $*"; fi
  [ "$(wc -l <stderr)" = 1 ] || fail "not one line on stderr: $*: $(cat stderr)"
  grep -qF -- "$words" stderr || fail "'$words' missing: $*: $(cat stderr)"
  [ -s stdout ] && fail "wrote to stdout: $*"
}

# rejects_odd_numbers [COMMAND]: no option that --help lists with a number takes NaN or an infinity.
rejects_odd_numbers() {
  local option number count=0
  for option in $("$program" "$@" --help | grep -oE '^ +--[a-z-]+ (INT|UINT|FLOAT)' | awk '{ print $1 }'); do
    for number in nan -nan inf -inf 1e999 NaN; do rejects "$option: " "$@" "$option=$number"; done
    count=$((count + 1))
  done
  [ "$count" -ge 1 ] || fail "$*: no option with a number"
  echo "$program $*: $count options with a number"
}

# not_files: makes files that are often found in the place of others.
not_files() {
  printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 7\n' 5 >pointer
  printf '<!DOCTYPE html>\n<html><title>Sign in</title></html>\n' >page
  : >empty
}

# bytes NUMBER...: bytes of these values.
bytes() {
  local text
  printf -v text '\\x%x' "$@"
  # shellcheck disable=SC2059
  printf "$text"
}

# idx FILE SIZE...: a header for unsigned bytes, followed by what comes from stdin.
idx() {
  local file=$1 size
  shift
  {
    bytes 0 0 8 $#
    for size in "$@"; do bytes $((size >> 24 & 255)) $((size >> 16 & 255)) $((size >> 8 & 255)) $((size & 255)); done
    cat
  } >"$file"
}

# finish: says how it went, and exits accordingly.
finish() {
  [ "$failures" = 0 ] && echo "all passed"
  exit $((failures > 0))
}
