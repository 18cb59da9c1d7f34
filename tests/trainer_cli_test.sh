#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# The trainer as a command: bash trainer_cli_test.sh PATH_OF_TRAINER

set -u
# The plainest locale, as on a bare machine.
export LC_ALL=C
trainer=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failures=0

fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# rejects WORDS ARGUMENT...: the trainer stops with an error of one line that holds the words, and says nothing else.
rejects() {
  local words=$1
  shift
  if "$trainer" --out "${out:-rejected}" "$@" >stdout 2>stderr; then fail "accepted: $*"; fi
  [ "$(wc -l <stderr)" = 1 ] || fail "not one line on stderr: $*: $(cat stderr)"
  grep -qF -- "$words" stderr || fail "'$words' missing: $*: $(cat stderr)"
  [ -s stdout ] && fail "wrote to stdout: $*"
}

# idx FILE SIZE...: a header for unsigned bytes, followed by what comes from stdin.
idx() {
  local file=$1 size
  shift
  {
    printf '\x00\x00\x08'"\\x0$#"
    for size in "$@"; do
      printf "\\x$(printf %02x $((size >> 24 & 255)))\\x$(printf %02x $((size >> 16 & 255)))"
      printf "\\x$(printf %02x $((size >> 8 & 255)))\\x$(printf %02x $((size & 255)))"
    done
    cat
  } >"$file"
}

# A set of 5 x 4 images: 300 for training, 60 for testing, 3 classes, each with its own bright row.
make_set() {
  mkdir -p "$1"
  local part count i
  for part in train:300 t10k:60; do
    count=${part#*:}
    for ((i = 0; i < count; ++i)); do
      case $((i % 3)) in
        0) printf '\xff\xf0\xe0\xff\x02\x01\x00\x03\x00\x00\x04\x00\x01\x00\x00\x02\x00\x00\x00\x00' ;;
        1) printf '\x00\x00\x03\x00\x02\x01\x00\x03\xff\xe0\xff\xf0\x01\x00\x00\x02\x00\x00\x00\x05' ;;
        2) printf '\x00\x00\x03\x00\x02\x01\x00\x03\x00\x00\x07\x00\x01\x00\x00\x02\xf0\xff\xff\xe0' ;;
      esac
    done | idx "$1/${part%:*}-images-idx3-ubyte" "$count" 5 4
    for ((i = 0; i < count; ++i)); do printf "\\x0$((i % 3))"; done | idx "$1/${part%:*}-labels-idx1-ubyte" "$count"
  done
}

make_set set
gzip -k set/train-images-idx3-ubyte && rm set/train-images-idx3-ubyte

# ---- runs ----

run() {
  local out=$1
  shift
  "$trainer" --data set --out "$out" --epochs 1 --batch 16 "$@" >stdout 2>stderr || fail "$*: $(cat stderr)"
  local file
  for file in features.png likelihood.png results.json; do
    [ -s "$out/$file" ] || fail "$*: no $file"
  done
  [ -s stderr ] && fail "$*: wrote to stderr: $(cat stderr)"
  grep -q $'\r' stdout && fail "$*: carriage returns in piped output"
}

run both --repeat 2 --train-limit 200
grep -q 'softmax epoch 1/1' stdout || fail "no line for softmax's epoch"
grep -q 'L-GM epoch 1/1' stdout || fail "no line for L-GM's epoch"
grep -q 'standard error' stdout || fail "no spread over two seeds"
grep -q '"train_images": 200' both/results.json || fail "--train-limit not kept"
run "a directory's \"name\"" --head lgm --covariance diagonal --dims 5 --alpha policy=ramp,max=0.5,step=10
grep -q softmax stdout && fail "softmax trained without being asked for"
run line --head lgm --covariance spherical --dims 1 --threads 1
run one --head softmax --dims 3
cat >net.prototxt <<'END'
layer { class_distance_param { margin_mul { policy: STEPUP value: 0.1 step: 5000 gamma: 2 max: 0.3 } } }
END
run block --head lgm --alpha net.prototxt

# The same seed and threads give the same results.
"$trainer" --data set --out a --epochs 2 --threads 2 >/dev/null
"$trainer" --data set --out b --epochs 2 --threads 2 >/dev/null
diff <(grep -v seconds a/results.json | grep -v share) <(grep -v seconds b/results.json | grep -v share) ||
  fail "two runs differ"

"$trainer" --help >stdout 2>stderr || fail "--help"
grep -q -- --alpha stdout || fail "--help does not list --alpha"

# ---- rejected options ----

rejects 'step: must be positive' --data set --alpha policy=stepup,value=0.1,step=0
rejects "'speed'" --data set --alpha speed=1
rejects 'not a number' --data set --alpha value=much
rejects 'neither a number' --data set --alpha no-such-file
rejects '--lambda' --data set --lambda -1
rejects '--lr' --data set --lr 0
rejects '--lr' --data set --lr fast
rejects '--epochs' --data set --epochs 0
rejects '--dims' --data set --dims 2.5
rejects '--covariance' --data set --covariance round
rejects '--update-variance' --data set --update-variance on --covariance identity
rejects '--head' --data set --head both-of-them
rejects '--speed' --data set --speed 1
out=net.prototxt rejects 'net.prototxt: cannot be created' --data set

# ---- rejected files ----

rejects 'nowhere/train-images-idx3-ubyte: no such file' --data nowhere

broken() {
  rm -rf broken
  cp -r set broken
}
broken && head -c 100 set/train-images-idx3-ubyte.gz >broken/train-images-idx3-ubyte.gz
rejects 'train-images-idx3-ubyte.gz: truncated' --data broken
broken && head -c 1000 set/t10k-images-idx3-ubyte >broken/t10k-images-idx3-ubyte
rejects 't10k-images-idx3-ubyte: truncated' --data broken
broken && cp set/t10k-labels-idx1-ubyte broken/t10k-images-idx3-ubyte
rejects 't10k-images-idx3-ubyte: wrong magic' --data broken
broken && printf 'x' >>broken/t10k-labels-idx1-ubyte
rejects 't10k-labels-idx1-ubyte: trailing bytes' --data broken
broken && cp set/train-labels-idx1-ubyte broken/t10k-labels-idx1-ubyte
rejects 't10k-labels-idx1-ubyte: 300 labels for the 60 images' --data broken
broken && { for ((i = 0; i < 60; ++i)); do printf '\x03'; done; } | idx broken/t10k-labels-idx1-ubyte 60
rejects 't10k-labels-idx1-ubyte: label 3' --data broken
broken && : >broken/train-labels-idx1-ubyte
rejects 'train-labels-idx1-ubyte: truncated' --data broken
broken && printf '\x00\x00\x00\x00' | dd of=broken/train-images-idx3-ubyte.gz bs=1 conv=notrunc status=none \
  seek=$(($(stat -c %s broken/train-images-idx3-ubyte.gz) - 8))
rejects 'train-images-idx3-ubyte.gz: corrupt gzip data' --data broken
broken && rm broken/t10k-labels-idx1-ubyte
rejects 't10k-labels-idx1-ubyte: no such file' --data broken

[ "$failures" = 0 ] && echo "all passed"
exit $((failures > 0))
