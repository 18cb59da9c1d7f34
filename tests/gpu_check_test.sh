#!/bin/bash
# SPDX-License-Identifier: MIT
# usage: gpu_check_test.sh GPU_CHECK BUILD
# tests/gpu_check without a GPU: what it says then; a rehearsal with the programs of the folder BUILD; and, with stand-ins for
# them and for nvidia-smi, what it packs and unpacks, its limits, and the files that it leaves.
set -eu
check=$1 programs=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() {
  echo "$1"
  exit 1
}
result() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["stages"][sys.argv[2]]["result"])' "$folder/$1/gpu_check.json" "$2"; }

# As a machine without the driver: no nvidia-smi but ours, which finds none.
mkdir "$folder/path"
printf '#!/bin/sh\nexit 9\n' >"$folder/path/nvidia-smi"
chmod +x "$folder/path/nvidia-smi"
export PATH="$folder/path:$PATH"
code=0
said=$("$check" --out "$folder/none" 2>&1) || code=$?
[[ $code == 2 && $said == "gpu_check: there is no NVIDIA GPU here (nvidia-smi answers none)" ]] ||
  fail "without a GPU: exit code $code, $said"
[[ ! -e $folder/none ]] || fail "without a GPU results were written"

# Every stage, with the programs that a GPU would run.
"$check" --rehearse --build "$programs" --out "$folder/real" 2>"$folder/log" || fail "the rehearsal: $(cat "$folder/log" "$folder/real/log.txt")"
for stage in kernels streams tests times 'kernels of a step' 'large arrays'; do
  [[ $(result real "$stage") == skipped ]] || fail "rehearsed, $stage is $(result real "$stage")"
done
grep -q 'rehearsal without a GPU' "$folder/real/gpu_check.md" || fail "the page does not say that it is of a rehearsal"

# Stand-ins. All are good but for those that a test replaces.
printf '#!/bin/sh\necho "NVIDIA Test 100, 1.2, 100 MHz, 200 MHz, 300 MHz, 400 MHz, 5 MiB, 6 W, 7, 9.0"\n' >"$folder/path/nvidia-smi"
mkdir -p "$folder/build/bin" "$folder/build/bench"
for program in cuda_test kernel_test kernel_functions_test cuda_group_test cuda_stream_test cuda_large_test cuda_suites \
  custom_kernel cuda_trainer lgm_bench_cuda; do
  printf '#!/bin/sh\necho "%s ran with $LGM_TEST_PROBLEMS $*"\n' "$program" >"$folder/build/bin/$program"
  chmod +x "$folder/build/bin/$program"
done
echo library >"$folder/build/bench/liblgm_compare_cuda.so"
"$check" --rehearse --prebuild "$folder/pack" --build "$folder/build" 2>/dev/null || fail "--prebuild failed"
go() {
  code=0
  "$check" --prebuilt "$folder/pack" --build "$folder/unpacked" --out "$folder/$1" "${@:2}" 2>"$folder/log" || code=$?
}

# What a run before has measured is on the page.
mkdir "$folder/good"
echo '{"shapes": {"1x2x3": {"cuda-lgm": {"events": 1e-3}, "cuda-softmax": {"events": 2e-3}}}}' >"$folder/good/times.json"
go good
[[ $code == 0 ]] || fail "exit code $code: $(cat "$folder/log")"
[[ $(result good tests) == good && $(result good streams) == good ]] || fail "tests are $(result good tests)"
grep -q 'cuda_test ran with 40' "$folder/good/log.txt" || fail "cuda_test did not run with 40 problems"
grep -q 'lgm / softmax | 0.50' "$folder/good/gpu_check.md" || fail "no ratio on the page: $(cat "$folder/good/gpu_check.md")"
if grep -q 'rehearsal' "$folder/good/gpu_check.md"; then fail "a run is called a rehearsal"; fi
[[ $(find "$folder/good" -type f | wc -l) -le 8 && -z $(find "$folder/good" -mindepth 2) ]] || fail "too many files to bring back"

# A failure does not end the run, and what a device is there for may not be skipped.
printf '#!/bin/sh\nexit 3\n' >"$folder/build/bin/cuda_stream_test"
printf '#!/bin/sh\nexit 77\n' >"$folder/build/bin/cuda_large_test"
# A stage that takes too long is ended with all that it started, and the rest of the budget is kept to.
printf '#!/bin/sh\nsleep 61 & sleep 61\n' >"$folder/build/bin/cuda_suites"
"$check" --rehearse --prebuild "$folder/pack" --build "$folder/build" 2>/dev/null || fail "--prebuild failed"
begin=$SECONDS
go bad --budget 12
[[ $code == 1 && $((SECONDS - begin)) -le 20 ]] || fail "exit code $code after $((SECONDS - begin)) s"
[[ $(result bad streams) == failed && $(result bad tests) == 'too slow' ]] || fail "$(cat "$folder/log")"
[[ $(result bad 'large arrays') == 'not run' ]] || fail "there was no time left for large arrays: $(cat "$folder/log")"
if pgrep -f 'sleep 61' >/dev/null; then fail "what a stage started goes on after it"; fi
go chosen --only 'large arrays'
[[ $code == 1 && $(result chosen 'large arrays') == failed ]] || fail "large arrays: $(cat "$folder/log")"
if grep -q '==== streams' "$folder/chosen/log.txt"; then fail "--only ran another stage"; fi
go good --only 'large arrays'
[[ $(result good streams) == good && $(result good 'large arrays') == failed ]] || fail "--only forgot the other stages"

# The variants of the driver: packed, unpacked and measured by themselves, and compared on the page.
touch "$folder/build/bench/liblgm_variant_default.so" "$folder/build/bench/liblgm_variant_wide.so"
"$check" --rehearse --variants --prebuild "$folder/pack" --build "$folder/build" 2>/dev/null || fail "--prebuild --variants failed"
mkdir "$folder/varied"
cat >"$folder/varied/variants.json" <<'END'
{"shapes": {"1x2x3": {"cuda-lgm": {"default": {"events": 4e-3, "loss": 1.0}, "wide": {"events": 1e-3, "loss": 1.0},
 "broken": {"events": 2e-3, "loss": 1.5}, "absent": {"failures": {"made": "OSError: no file"}}}}}}
END
rm -r "$folder/unpacked"
go varied --variants
[[ $code == 0 && $(result varied variants) == skipped ]] || fail "variants: $(cat "$folder/log")"
[[ -e $folder/unpacked/bench/liblgm_variant_wide.so && ! -e $folder/unpacked/bin ]] || fail "--variants packs something else"
for row in '| wide | 0.25 |' '| broken | 0.50 \*\*wrong loss\*\* |' '| absent | OSError: no file |'; do
  grep -q "$row" "$folder/varied/gpu_check.md" || fail "no row $row: $(cat "$folder/varied/gpu_check.md")"
done
