#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# The trainer as a command: bash trainer_cli_test.sh PATH_OF_TRAINER

set -u
# shellcheck source=tests/support/cli.sh
source "$(dirname "$0")/../../../tests/support/cli.sh"

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
  "$program" --data set --out "$out" --epochs 1 --batch 16 "$@" >stdout 2>stderr || fail "$*: $(cat stderr)"
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
"$program" --data set --out a --epochs 2 --threads 2 >/dev/null
"$program" --data set --out b --epochs 2 --threads 2 >/dev/null
diff <(grep -v seconds a/results.json | grep -v share) <(grep -v seconds b/results.json | grep -v share) ||
  fail "two runs differ"

"$program" --help >stdout 2>stderr || fail "--help"
grep -q -- --alpha stdout || fail "--help does not list --alpha"

# ---- saving and resuming ----

# same_report A B: the results of two runs are equal, but for times.
same_report() {
  diff <(grep -v seconds "$1/results.json" | grep -v share) <(grep -v seconds "$2/results.json" | grep -v share)
}
train() { "$program" --data set --batch 16 "$@" >stdout 2>stderr; }

# Stopped after an epoch and resumed, a run ends with the files and the report of one that was not.
for options in '--covariance diagonal' '--covariance spherical --update-mean moments --update-variance moments'; do
  # shellcheck disable=SC2086
  {
    rm -rf straight-models models
    train --out straight --epochs 2 $options --save straight-models || fail "--save: $(cat stderr)"
    train --out first --epochs 1 --lr-epochs 2 $options --save models || fail "--lr-epochs: $(cat stderr)"
    train --out resumed --epochs 2 $options --resume models || fail "--resume: $(cat stderr)"
  }
  grep -q 'L-GM, seed 0: goes on after step 19, with 2 epochs instead of 1' stdout || fail "does not say where it goes on"
  diff -r straight-models models || fail "$options: other models after resuming"
  same_report straight resumed || fail "$options: another report after resuming"
done
[ "$(echo models/*)" = 'models/lgm-seed-0.safetensors models/softmax-seed-0.safetensors' ] || fail "files: $(echo models/*)"

# A run that is done is only reported; a copy elsewhere and another seed may be asked for.
train --out again --epochs 2 $options --resume models --save copied --repeat 2 || fail "done: $(cat stderr)"
diff models/lgm-seed-0.safetensors copied/lgm-seed-0.safetensors || fail "a copy differs"
[ -s copied/softmax-seed-1.safetensors ] || fail "the second seed is not saved"
diff -r straight-models models || fail "--resume wrote although --save names another directory"

train --out again --epochs 2 $options --resume models --threads 31 || fail "other threads: $(cat stderr)"
grep -q 'the last bits will differ: 31 threads now' stdout || fail "does not say that threads differ"

# Signals: the step is finished and saved, and the status says so. Resumed, nothing shows of it.
long=(--head lgm --epochs 40 --covariance diagonal --update-mean moments)
model=lgm-seed-0.safetensors
steps_of() { head -c 4000 "$1/$model" 2>/dev/null | grep -ao '"steps":"[0-9]*"' | tr -dc 0-9; }
train --out straight "${long[@]}" --save long-models || fail "long: $(cat stderr)"
[ "$(steps_of long-models)" = 760 ] || fail "$(steps_of long-models) steps"
for signal in INT TERM; do
  # A shell without job control starts its background jobs with SIGINT ignored.
  env --default-signal=INT,TERM "$program" --data set --batch 16 --out stopped "${long[@]}" --save "stopped-$signal" \
    --save-every 1 >stdout 2>stderr &
  pid=$!
  until [ -n "$(steps_of "stopped-$signal")" ] || ! kill -0 $pid; do sleep 0.01; done
  kill -$signal $pid
  wait $pid
  [ $? = 130 ] || fail "SIG$signal: another status than 130"
  steps=$(steps_of "stopped-$signal")
  [ "$steps" -lt 760 ] || fail "SIG$signal: came too late to test anything"
  grep -q "stopped after step $steps of 760; saved: stopped-$signal/$model" stderr || fail "SIG$signal: $(cat stderr)"
  [ -e stopped/results.json ] && fail "SIG$signal: a report of a run that did not end"
  train --out resumed "${long[@]}" --resume "stopped-$signal" || fail "resume after SIG$signal: $(cat stderr)"
  cmp "stopped-$signal/$model" "long-models/$model" || fail "another model after SIG$signal"
  same_report straight resumed || fail "another report after SIG$signal"
done

# Killed at any moment while it saves after every step, a run leaves a whole file to go on from.
how=--save
kills=0
for pause in 0 0.001 0.002 0.003 0.005 0.007 0.01 0.02; do
  before=$(steps_of killed)
  "$program" --data set --batch 16 --out resumed "${long[@]}" --save-every 1 $how killed >stdout 2>stderr &
  pid=$!
  until [ "$(steps_of killed)" != "$before" ] || ! kill -0 $pid 2>/dev/null; do sleep 0.002; done
  sleep $pause
  kill -KILL $pid 2>/dev/null
  wait $pid 2>/dev/null
  [ $? = 137 ] && kills=$((kills + 1))
  [ -s stderr ] && fail "after a kill: $(cat stderr)"
  how=--resume
done
[ $kills -ge 4 ] || fail "only $kills of the kills met a run that was under way"
train --out resumed "${long[@]}" --resume killed || fail "resume after kills: $(cat stderr)"
diff -r long-models killed || fail "another model after kills"

# A file that cannot be written, as on a full disk, leaves the last one.
cp -r straight-models full
(
  trap '' XFSZ
  ulimit -f 200
  # shellcheck disable=SC2086
  train --out resumed --epochs 3 $options --resume full
) && fail "--resume with a full disk"
grep -q "full/softmax-seed-0.safetensors: File too large" stderr || fail "full disk: $(cat stderr)"
diff -r straight-models full || fail "a full disk cost the old files"

# With plain NumPy: the files hold what they are said to hold, and the models compute what the report says.
python=
for candidate in python3 /usr/bin/python3; do
  if [ -z "$python" ] && $candidate -c 'import numpy' 2>/dev/null; then python=$candidate; fi
done
if [ -n "$python" ]; then
  for covariance in identity spherical diagonal; do
    train --out numpy --epochs 2 --train-limit 100 --dims 3 --covariance $covariance --save numpy-$covariance ||
      fail "numpy: $(cat stderr)"
    $python "$tests/model_numpy.py" set numpy/results.json numpy-$covariance/* || fail "NumPy, $covariance"
  done
elif [ -n "${LGM_TEST_REQUIRES_NUMPY-}" ]; then
  fail "there is no python3 with NumPy (Debian: python3-numpy)"
else
  echo "skipped: no python3 with NumPy (Debian: python3-numpy) to read the model files with"
fi

# What --save and --resume refuse.
rejects 'models/softmax-seed-0.safetensors: exists; --resume models' --data set --save models
rejects 'nowhere/softmax-seed-0.safetensors: no such file' --data set --resume nowhere
rejects '--save-every: needs --save' --data set --save-every 5
rejects 'set/t10k-labels-idx1-ubyte: cannot be created as a directory' --data set --save set/t10k-labels-idx1-ubyte
resume_with() { rejects "$1" --data set --batch 16 --epochs 2 --head lgm $options --resume models "${@:2}"; }
resume_with "models/$model: --dims: '3' now, '2' when it was saved" --dims 3
resume_with "--lambda: '0.2' now" --lambda 0.2
resume_with '--alpha: ' --alpha 0.1
resume_with '--lr: ' --lr 0.002
resume_with '--data or --train-limit: ' --train-limit 200
resume_with '--lr-epochs: 5 now, 2 when' --lr-epochs 5
head -c 100000 "straight-models/$model" >"models/$model"
resume_with "models/$model: truncated: tensor"
cp "straight-models/softmax-seed-0.safetensors" "models/$model"
resume_with "models/$model: --head: 'lgm' now, 'softmax' when"

# Written through links and into pipes: a symbolic link stays what it is, wherever it lies.
mkdir linked real-models
mkfifo linked/results.json
ln -s elsewhere.png linked/features.png
ln -s real-models linked-models
cat linked/results.json >from-pipe &
train --out linked --epochs 1 --head lgm --save linked-models || fail "links: $(cat stderr)"
wait $!
grep -q '"test_accuracy"' from-pipe || fail "results.json, a pipe: $(cat from-pipe)"
[ -p linked/results.json ] || fail "results.json was a pipe"
[ -h linked/features.png ] || fail "features.png was a link"
[ -s linked/elsewhere.png ] || fail "features.png: nothing at the end of the link"
[ -s real-models/$model ] || fail "--save: nothing at the end of the link"

# Models that are none: what the file is instead, or what is wrong with it.
not_files
for each in pointer:'is a Git LFS pointer' page:'is a web page' empty:'is empty'; do
  cp "${each%%:*}" models/$model
  resume_with "models/$model: ${each#*:}"
done
sed 's/"version":"1"/"version":"7"/' "straight-models/$model" >models/$model
resume_with "models/$model: has version '7' of lgm-trainer"
sed 's/"format":"lgm-trainer"/"format":"lgm-drainer"/' "straight-models/$model" >models/$model
resume_with "models/$model: has format 'lgm-drainer'"
cp "straight-models/$model" models/$model
bytes 0 0 192 127 | dd of=models/$model bs=1 conv=notrunc status=none seek=$(($(stat -c %s models/$model) - 4))
resume_with "models/$model: tensor 'network.2.weight' holds values that are not finite"

# ---- rejected options ----

rejects_odd_numbers
for number in nan inf -inf 1e999; do rejects '--alpha' --data set --alpha=$number; done
for number in nan inf; do rejects '--alpha: value' --data set --alpha=value=$number; done

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
rejects '--update-variance' --data set --update-variance moments --covariance identity
rejects '--update-mean' --data set --update-mean off
rejects '--head' --data set --head both-of-them
rejects '--speed' --data set --speed 1
rejects 'net.prototxt: cannot be created' --data set --out net.prototxt

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
rejects 'train-labels-idx1-ubyte: is empty' --data broken
broken && cp pointer broken/train-labels-idx1-ubyte
rejects 'train-labels-idx1-ubyte: is a Git LFS pointer' --data broken
broken && cp page broken/t10k-images-idx3-ubyte
rejects 't10k-images-idx3-ubyte: is a web page' --data broken
broken && printf 'x' >>broken/train-images-idx3-ubyte.gz
rejects 'train-images-idx3-ubyte.gz: trailing bytes after its gzip data' --data broken
broken && { for ((i = 0; i < 300; ++i)); do printf '\x01'; done; } | idx broken/train-labels-idx1-ubyte 300
rejects 'train-labels-idx1-ubyte: all 300 labels that are used are 1: a classifier needs two classes' --data broken
rejects 'train-labels-idx1-ubyte: all 1 labels that are used are 0' --data set --train-limit 1
broken && printf '\x00\x00\x00\x00' | dd of=broken/train-images-idx3-ubyte.gz bs=1 conv=notrunc status=none \
  seek=$(($(stat -c %s broken/train-images-idx3-ubyte.gz) - 8))
rejects 'train-images-idx3-ubyte.gz: corrupt gzip data' --data broken
broken && rm broken/t10k-labels-idx1-ubyte
rejects 't10k-labels-idx1-ubyte: no such file' --data broken

finish
