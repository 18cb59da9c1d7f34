#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# The detector as a command, each of its commands on a tiny set: bash detector_cli_test.sh PATH_OF_DETECTOR

set -u
# shellcheck source=tests/support/cli.sh
source "$(dirname "$0")/../../../tests/support/cli.sh"

# does ARGUMENT...: ends well, and writes nothing to stderr.
does() {
  "$program" "$@" >stdout 2>stderr || fail "$*: $(cat stderr)"
  [ -s stderr ] && fail "$*: wrote to stderr: $(cat stderr)"
}

# npy FILE SHAPE [DESCR]: the same as a .npy file, with the shape and the type as Python writes them.
npy() {
  local header
  printf -v header "%-117s\n" "{'descr': '${3-|u1}', 'fortran_order': False, 'shape': $2, }"
  {
    bytes 147 78 85 77 80 89 1 0 $((${#header} & 255)) $((${#header} >> 8))
    printf '%s' "$header"
    cat
  } >"$1"
}

# images COUNT SEED: 5 x 4 pixels; image i is of class i mod 3, whose row is bright, and no two are quite the same.
images() {
  local i j row
  for ((i = 0; i < $1; ++i)); do
    row=()
    for ((j = 0; j < 20; ++j)); do
      if ((j / 4 == i % 3 * 2)); then
        row+=($((180 + (i * 37 + j * j * 11 + $2 + i * i % 13 * j) % 70)))
      else
        row+=($(((i * 29 + j * 7 + $2 + i * i % 17 * j * j) % 60)))
      fi
    done
    bytes "${row[@]}"
  done
}
labels() {
  local i
  for ((i = 0; i < $1; ++i)); do bytes $((i % 3)); done
}

mkdir set
images 150 1 >train-bytes
images 60 2 >test-bytes
for ((i = 0; i < 60; ++i)); do bytes $((i % 3)) 0 255 $((i * 3)) {1..16}; done >other-bytes
idx set/train-images-idx3-ubyte 150 5 4 <train-bytes
labels 150 | idx set/train-labels-idx1-ubyte 150
idx set/t10k-images-idx3-ubyte 60 5 4 <test-bytes
gzip set/t10k-images-idx3-ubyte
labels 60 | idx set/t10k-labels-idx1-ubyte 60
idx other 60 5 4 <other-bytes
gzip -k other
npy train.npy '(150, 20)' <train-bytes
npy test.npy '(60, 5, 4)' <test-bytes
npy other.npy '(60, 20)' <other-bytes
labels 150 | npy train-labels.npy '(150,)'
labels 60 | npy test-labels.npy '(60,)'

# ---- evaluate ----

tiny=(--data set --dims 4 --epochs 3 --batch 16 --lr 0.01 --threads 2)
does evaluate "${tiny[@]}" --repeat 2 --out trained --save models --outside digits=other.gz --epsilon 8,16 --pgd-steps 2
for file in results.json roc.png histograms.png; do
  [ -s "trained/$file" ] || fail "evaluate: no $file"
done
for words in 'softmax, seed 1: test accuracy' 'log_mixture' 'mahalanobis_nearest' 'gaussian_density' 'digits' 'fgsm-16' \
  'pgd-8' 'ECE' 'standard error' 'loses\|wins\|not clear' '\*'; do
  grep -q -- "$words" stdout || fail "evaluate: does not print '$words'"
done
for words in '"aupr_out"' '"detection_accuracy"' '"expected_calibration_error"' '"accuracy_under_attack"' '"inversion"'; do
  grep -q -- "$words" trained/results.json || fail "evaluate: no $words in results.json"
done
[ "$(echo models/*)" = "$(echo models/{lgm,softmax}-seed-{0,1}.safetensors)" ] || fail "models: $(echo models/*)"

# Loaded, the models give the same numbers.
measures() { sed -n '/"models": {/,$p' "$1/results.json" | grep -v training_seconds; }
does evaluate --data set --models models --out loaded --threads 2 --outside digits=other.npy --epsilon 8,16 --pgd-steps 2
diff <(measures trained) <(measures loaded) || fail "loaded models give other numbers"
[ "$(measures loaded | wc -l)" -gt 100 ] || fail "no numbers to compare"

does evaluate "${tiny[@]}" --repeat 1 --out moments --head lgm --covariance diagonal --update-mean moments \
  --update-variance moments --attacks none --test-limit 30 --save moment-models
grep -q 'softmax' stdout && fail "softmax measured without being asked for"
does evaluate --data set --models moment-models --out moments --attacks fgsm --epsilon 4 --test-limit 30

rejects 'models/softmax-seed-0.safetensors: exists' evaluate "${tiny[@]}" --save models
rejects 'nowhere' evaluate --data set --models nowhere
rejects 'set: has no file HEAD-seed-SEED' evaluate --data set --models set
rejects "models/softmax-seed-0.safetensors: --data or --train-limit" evaluate --data set --train-limit 100 --models models \
  --out loaded
cp -r models one-missing && rm one-missing/lgm-seed-1.safetensors
rejects 'one-missing/lgm-seed-1.safetensors: no such file' evaluate --data set --models one-missing
rejects "'noise' is taken" evaluate --data set --outside noise=other
rejects "'pgd-8' is one of an attack" evaluate --data set --outside pgd-8=other
rejects "'other' is not NAME=FILE" evaluate --data set --outside other
rejects 'set/t10k-labels-idx1-ubyte: rows of 1 number' evaluate --data set --outside x=set/t10k-labels-idx1-ubyte
rejects '--epsilon' evaluate --data set --epsilon 4,4
rejects '--epsilon' evaluate --data set --epsilon 0
rejects '--speed' evaluate --speed 1
rejects 'subcommand' --out x
"$program" --help | grep -q calibrate || fail "--help does not list the commands"
"$program" evaluate --help | grep -q -- --pgd-steps || fail "evaluate --help does not list --pgd-steps"

# ---- features ----

does features --train train.npy --train-labels train-labels.npy --test test.npy --test-labels test-labels.npy \
  --outside other=other.npy --outside again=other --out features
for file in results.json roc.png histograms.png; do
  [ -s "features/$file" ] || fail "features: no $file"
done
for words in '3 classes of 20 features' mahalanobis other again ECE; do
  grep -q -- "$words" stdout || fail "features: does not print '$words'"
done
does features --train train.npy --train-labels train-labels.npy --test test.npy --outside other=other.npy --out features
grep -q ECE stdout && fail "features: a calibration error without labels"
common=(features --train train.npy --train-labels train-labels.npy --out features)
rejects '60 labels for the 150 rows' features --train train.npy --train-labels test-labels.npy --test test.npy \
  --outside other=other.npy
rejects 'labels.npy: rows of 1 number' "${common[@]}" --test test-labels.npy --outside other=other.npy
rejects 'test.npy: rows of 20 numbers, but labels have 1' features --train train.npy --train-labels test.npy \
  --test test.npy --outside other=other.npy
rejects '--outside' "${common[@]}" --test test.npy
rejects 'train-labels.npy: 150 labels for 60 rows' "${common[@]}" --test test.npy --test-labels train-labels.npy \
  --outside other=other.npy

# ---- calibrate and apply ----

# verdicts MODEL INPUT: applies the model; the table goes to the file verdicts.
verdicts() {
  does apply --model "$1" --input "$2"
  mv stdout verdicts
}
rejected() { grep -c reject verdicts; }

for model in softmax:msp softmax:energy softmax:mahalanobis softmax:gaussian_density lgm:log_mixture lgm:log_density \
  lgm:posterior lgm:mahalanobis lgm:mahalanobis_nearest lgm:mahalanobis_predicted; do
  head=${model%:*} score=${model#*:}
  does calibrate --model "models/$head-seed-0.safetensors" --data set --train set --score "$score" --fpr 0.1 --out calibrated
  grep -qF "calibrated: accepts $score >= " stdout || fail "calibrate $model: $(cat stdout)"
  grep -qF 'of 60 held-out rows' stdout || fail "calibrate $model: $(cat stdout)"
  verdicts calibrated set/t10k-images-idx3-ubyte.gz
  [ "$(wc -l <verdicts)" = 61 ] || fail "apply $model: $(wc -l <verdicts) lines"
  [ "$(head -n 1 verdicts)" = "row	class	posterior	$score	verdict" ] || fail "apply $model: $(head -n 1 verdicts)"
  # Ties aside, one in ten of what it was calibrated with.
  [ "$(rejected)" -le 6 ] || fail "$model: $(rejected) of 60 rejected"
  [ "$score" = msp ] || [ "$(rejected)" = 6 ] || fail "$model: $(rejected) of 60 rejected"
  mv verdicts from-idx
  verdicts calibrated test.npy
  diff from-idx verdicts || fail "$model: a .npy file of the same images gives other verdicts"
done

does calibrate --model models/lgm-seed-0.safetensors --data test.npy --out calibrated
grep -q 'accepts log_density' stdout || fail "not L-GM's own score by default: $(cat stdout)"
grep -q 'fewer than 10' stdout || fail "does not say that there are few rows: $(cat stdout)"
# One threshold for all rows, whichever file they are in.
verdicts calibrated test.npy
cp verdicts all
verdicts calibrated other.gz
cat verdicts >>all
awk -F '\t' '$5 == "accept" && (!a++ || $4 < low) { low = $4 } $5 == "reject" && (!r++ || $4 > high) { high = $4 }
  END { exit !(a > 0 && r > 0 && low > high) }' all || fail "no threshold tells accepted rows from rejected ones"
does calibrate --model models/softmax-seed-0.safetensors --data set --out calibrated
grep -q 'accepts msp' stdout || fail "not softmax's own score by default: $(cat stdout)"
# The classes are right, too.
verdicts calibrated test.npy
right=$(awk -F '\t' 'NR > 1 && $2 == $1 % 3' verdicts | wc -l)
[ "$right" -ge 50 ] || fail "only $right of 60 classes are right"

# A calibrated model can be measured and calibrated again.
mkdir again
does calibrate --model models/lgm-seed-0.safetensors --data set --train set --score mahalanobis --out again/lgm-seed-0.safetensors
does calibrate --model again/lgm-seed-0.safetensors --data set --score mahalanobis --fpr 0.5 --out again/lgm-seed-0.safetensors
does evaluate --data set --models again --out loaded --attacks none

# Features of any framework, without a network.
does calibrate --train train.npy --train-labels train-labels.npy --data test.npy --fpr 0.1 --out gaussians
verdicts gaussians test.npy
[ "$(rejected)" = 6 ] || fail "gaussians: $(rejected) of 60 rejected"
verdicts gaussians other.npy
[ "$(rejected)" -ge 50 ] || fail "gaussians: only $(rejected) of 60 others rejected"

# Rows are judged as they come: of a pipe whose end is not there yet, the first ones are printed.
mkfifo pipe
"$program" apply --model gaussians --input pipe >streamed 2>stderr &
exec 9>pipe
{
  npy /dev/stdout '(6000, 20)' </dev/null
  for ((i = 0; i < 40; ++i)); do cat test-bytes; done
} >&9
for ((i = 0; i < 600 && $(wc -l <streamed) < 1000; ++i)); do sleep 0.1; done
[ "$(wc -l <streamed)" -ge 1000 ] || fail "apply waits for the end of its input: $(wc -l <streamed) lines"
exec 9>&-
wait $! && fail "accepted a pipe that ended early"
grep -q 'pipe: truncated' stderr || fail "pipe: $(cat stderr)"

npy many.npy '(60000, 20)' < <(for ((i = 0; i < 1000; ++i)); do cat test-bytes; done)
verdicts gaussians many.npy
[ "$(wc -l <verdicts)" = 60001 ] || fail "many: $(wc -l <verdicts) lines"
"$program" apply --model gaussians --input many.npy 2>stderr | head -n 3 >stdout
[ "$(wc -l <stdout)" = 3 ] || fail "apply | head: $(cat stdout)"
grep -q 'standard output: cannot be written' stderr || fail "apply | head: $(cat stderr)"

# ---- files ----

# Standard input, as it is and gzipped.
verdicts gaussians test.npy
cp verdicts expected
for reader in cat 'gzip -c'; do
  $reader <test.npy | "$program" apply --model gaussians --input - >verdicts 2>stderr || fail "--input -: $(cat stderr)"
  diff expected verdicts || fail "--input -, $reader: other verdicts"
done
"$program" apply --model gaussians --input - </dev/null >stdout 2>stderr && fail "accepted nothing"
grep -q 'standard input: is empty' stderr || fail "--input -: $(cat stderr)"

# --out: a link's target is written, a pipe and a device are written into, and only a regular file is replaced.
gaussians=(calibrate --train train.npy --train-labels train-labels.npy --data test.npy --fpr 0.1)
mkdir elsewhere
ln -s elsewhere/target link
for ((i = 0; i < 2; ++i)); do
  does "${gaussians[@]}" --out link
  [ -h link ] || fail "--out replaced a link"
  cmp gaussians elsewhere/target || fail "--out: another model at the end of a link"
done
mkfifo out-pipe
cat out-pipe >from-pipe &
does "${gaussians[@]}" --out out-pipe
wait $!
[ -p out-pipe ] || fail "--out replaced a pipe"
cmp gaussians from-pipe || fail "--out: another model out of a pipe"
ln -s /dev/full full
rejects 'full: No space left' "${gaussians[@]}" --out full
[ -h full ] || fail "--out replaced a link to a device"
ln gaussians other-name
does "${gaussians[@]}" --out gaussians
[ gaussians -ef other-name ] && fail "--out wrote into a file that was there"

# What lies in the place of a model or of data.
not_files
for each in pointer:'is a Git LFS pointer' page:'is a web page' empty:'is empty'; do
  file=${each%%:*} words=${each#*:}
  rejects "$file: $words" apply --model "$file" --input test.npy
  rejects "$file: $words" apply --model gaussians --input "$file"
  rejects "$file: $words" calibrate --model "$file" --data set --out x
  rejects "$file: $words" calibrate --model models/lgm-seed-0.safetensors --data "$file" --out x
  rejects "$file: $words" calibrate --train train.npy --train-labels "$file" --data test.npy --out x
  rejects "$file: $words" evaluate --data set --outside x="$file"
done
{ cat other.gz && printf x; } >trailing.gz
rejects 'trailing.gz: trailing bytes after its gzip data' evaluate --data set --outside x=trailing.gz

# Models that are not what they seem.
cp gaussians broken
bytes 0 0 192 127 | dd of=broken bs=1 conv=notrunc status=none seek=$(($(stat -c %s broken) - 4))
rejects "broken: tensor 'head.mean' holds values that are not finite" apply --model broken --input test.npy
sed 's/lgm-detector/lgm-detectxr/' gaussians >broken
rejects "broken: has format 'lgm-detectxr', not lgm-trainer or lgm-detector" apply --model broken --input test.npy
sed 's/"version":"1"/"version":"2"/' gaussians >broken
rejects "broken: has version '2' of lgm-detector" apply --model broken --input test.npy
rejects "broken: has version '2' of lgm-detector" calibrate --model broken --data test.npy --out x
mkdir other-version
sed 's/"version":"1"/"version":"2"/' models/lgm-seed-0.safetensors >other-version/lgm-seed-0.safetensors
rejects "has version '2' of lgm-trainer" evaluate --data set --models other-version

# What version 0.1 saved.
old=$tests/../../trainer/tests/golden/saved-0.1
for model in lgm softmax features; do
  input=$old/images/t10k-images-idx3-ubyte
  [ $model = features ] && input=$old/features.npy
  verdicts "$old/deployed/$model.safetensors" "$input"
  paste "$old/deployed/$model.tsv" verdicts | awk -F '\t' '
    function far(a, b) { return (a - b) ^ 2 > 1e-8 * (1 + a ^ 2) }
    NR > 1 && ($1 != $6 || $2 != $7 || far($3, $8) || far($4, $9) || $5 != $10) { print; bad = 1 }
    NR == 1 && ($4 != $9) { bad = 1 }
    END { exit bad || NR < 20 }' || fail "saved by 0.1, $model: other verdicts"
done
mkdir old-models
cp "$old"/models/* old-models
does evaluate --data "$old/images" --models old-models --out loaded --attacks none
does calibrate --model "$old/models/lgm-seed-0.safetensors" --data "$old/images" --train "$old/images" \
  --score mahalanobis --out x

# ---- rows that are far out, odd, or all the same in a column ----

# pairs COUNT ODD: rows of two floats: one that tells three classes apart, and 1; in row 4 ODD, the bytes of another float.
pairs() {
  local i j
  for ((i = 0; i < $1; ++i)); do
    bytes 0 $((i * 53 % 97)) $((i * 37 % 120)) $((65 + i % 3))
    if ((i == 4)); then
      # shellcheck disable=SC2086
      bytes $2
    else
      bytes 0 0 128 63
    fi
  done
}
one='0 0 128 63' nan='0 0 192 127' more='0 0 160 64' huge='236 120 173 224'
pairs 90 "$one" | npy same.npy '(90, 2)' '<f4'
pairs 60 "$more" | npy differs.npy '(60, 2)' '<f4'
pairs 60 "$nan" | npy odd.npy '(60, 2)' '<f4'
pairs 60 "$huge" | npy far.npy '(60, 2)' '<f4'
labels 90 | npy same-labels.npy '(90,)'
labels 60 | npy odd-labels.npy '(60,)'
flat=(--train same.npy --train-labels same-labels.npy)

# A feature that is constant in training is named, and a row that differs gets a density that is one.
"$program" calibrate "${flat[@]}" --data same.npy --fpr 0.1 --out flat >stdout 2>stderr || fail "flat: $(cat stderr)"
grep -q 'same.npy: constant, or all but constant, in these rows: feature 1;' stderr || fail "flat: $(cat stderr)"
verdicts flat differs.npy
awk -F '\t' 'NR > 1 && !($4 > -1e6) { exit 1 }' verdicts || fail "a constant feature: $(sed -n 6p verdicts)"
[ "$(sed -n 6p verdicts | cut -f 5)" = reject ] || fail "a constant feature: $(sed -n 6p verdicts)"
low=$(sed -n 6p verdicts | cut -f 4)
"$program" calibrate "${flat[@]}" --data same.npy --variance-floor 0.1 --out wide >stdout 2>stderr || fail "floor: $(cat stderr)"
verdicts wide differs.npy
awk -F '\t' -v low="$low" 'NR == 6 && !($4 > low + 100) { exit 1 }' verdicts || fail "--variance-floor changes nothing"
rejects '--variance-floor is too small' calibrate "${flat[@]}" --data same.npy --variance-floor 0 --out x

# A finite row beyond a float's squares: no density, the nearest class, no NaN.
verdicts flat far.npy
grep -q nan verdicts && fail "NaN of a finite row: $(grep nan verdicts)"
[ "$(sed -n 6p verdicts | cut -f 1,2,4,5)" = "4	1	-inf	reject" ] || fail "far: $(sed -n 6p verdicts)"

# A row that is not finite is named, and refused or left out; then every column of measures has its numbers.
rejects 'odd.npy: row 4 is not finite; --not-finite skip leaves such rows out' calibrate --train odd.npy \
  --train-labels odd-labels.npy --data same.npy --out x
for sets in '--test odd.npy --test-labels odd-labels.npy --outside o=far.npy' '--test same.npy --outside o=odd.npy'; do
  # shellcheck disable=SC2086
  "$program" features "${flat[@]}" $sets --out odd-out >stdout 2>stderr && fail "accepted a row of NaN: $sets"
  grep -q 'odd.npy: row 4 is not finite; --not-finite skip leaves such rows out' stderr || fail "$sets: $(cat stderr)"
  # shellcheck disable=SC2086
  "$program" features "${flat[@]}" $sets --out odd-out --not-finite skip >stdout 2>stderr || fail "$sets: $(cat stderr)"
  grep -q 'odd.npy: left out 1 of 60 rows, which is not finite: 4$' stderr || fail "$sets: $(cat stderr)"
  sed -n '/"scores"/,$p' odd-out/results.json | grep '"mean"' | grep -q null && fail "$sets: no measures"
done
does calibrate --model flat --data same.npy --out flat
verdicts flat odd.npy
[ "$(sed -n 6p verdicts | cut -f 3-5)" = "nan	nan	reject" ] || fail "a row of NaN: $(sed -n 6p verdicts)"
rejects 'odd.npy: row 4 is not finite' calibrate --model flat --data odd.npy --out x
"$program" calibrate --model flat --data odd.npy --not-finite skip --out flat >stdout 2>stderr || fail "skip: $(cat stderr)"
grep -q 'of 59 held-out rows' stdout || fail "skip: $(cat stdout)"
head -c 128 odd.npy | sed 's/(60, 2)/(1, 2) /' >only.npy
bytes 0 0 192 127 0 0 192 127 >>only.npy
rejects 'only.npy: no row is finite' calibrate --model flat --data only.npy --not-finite skip --out x

rejects 'has no threshold' apply --model models/lgm-seed-0.safetensors --input test.npy
rejects 'needs --train' calibrate --model models/lgm-seed-0.safetensors --data set --score mahalanobis --out x
rejects 'msp: not a score of this model' calibrate --model models/lgm-seed-0.safetensors --data set --score msp --out x
rejects '--score' calibrate --model models/lgm-seed-0.safetensors --data set --score best --out x
for command in evaluate features calibrate apply sweep; do rejects_odd_numbers $command; done
rejects '--epsilon' evaluate --data set --epsilon 4,nan
rejects '--fpr' calibrate --model models/lgm-seed-0.safetensors --data set --fpr 2 --out x
rejects '--model, --train' calibrate --data set --out x
rejects 'train.npy: a file of training data needs --train-labels' calibrate --train train.npy --data test.npy --out x
rejects 'test-labels.npy: rows of 1 number' calibrate --model models/lgm-seed-0.safetensors --data test-labels.npy --out x
rejects 'nowhere/x: No such file' calibrate --model models/lgm-seed-0.safetensors --data set --out nowhere/x
rejects 'test.npy: truncated' apply --model test.npy --input test.npy
rejects 'none: No such file' apply --model calibrated --input none
head -c 500 test.npy >cut.npy
"$program" apply --model calibrated --input cut.npy >stdout 2>stderr && fail "accepted a truncated file"
grep -q 'cut.npy: truncated' stderr || fail "truncated: $(cat stderr)"

# ---- sweep ----

does sweep --data set --epochs 1 --batch 16 --lr 0.01 --repeat 1 --train-limit 60 --test-limit 30 --out swept
for file in sweep.json sweep.png; do
  [ -s "swept/$file" ] || fail "sweep: no $file"
done
for words in 'lambda 0.03' 'alpha 0.1 to 0.3' 'dims 128' 'variance learned, d' 'variance estimated, s'; do
  grep -q -- "$words" stdout || fail "sweep: does not print '$words'"
done

finish
