#!/bin/bash
# SPDX-License-Identifier: MIT
# usage: gpu_check_test.sh GPU_CHECK
# tests/gpu_check without a GPU: what it says then; and, with a stand-in for nvidia-smi and without running anything, the
# form of its JSON, and that it goes on where it stopped.
set -eu
check=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() {
  echo "$1"
  exit 1
}
# As a machine without the driver: no nvidia-smi but ours, which finds none.
mkdir "$folder/bin"
printf '#!/bin/sh\nexit 9\n' > "$folder/bin/nvidia-smi"
chmod +x "$folder/bin/nvidia-smi"
export PATH="$folder/bin:$PATH"

code=0
said=$("$check" --state "$folder/none" 2>&1) || code=$?
[[ $code == 2 && $said == "gpu_check: there is no NVIDIA GPU here (nvidia-smi answers none)" ]] ||
  fail "without a GPU: exit code $code, $said"
[[ ! -e $folder/none ]] || fail "without a GPU a state was written"

printf '#!/bin/sh\necho "NVIDIA Test 100, 1.2, 100 MHz, 200 MHz, 300 MHz, 400 MHz, 5 MiB, 6 W, 7, 9.0"\n' \
  > "$folder/bin/nvidia-smi"
run() { "$check" --dry-run --state "$folder/state" --out "$folder/out" --build "$folder/build" "$@" 2> "$folder/log"; }
count() { grep -c ': dry run' "$folder/log" || true; }

run --stages 2
[[ $(count) == 2 ]] || fail "--stages 2 ran $(count) stages"
run
first=$(count)
[[ $first -gt 5 ]] || fail "the second call ran $first stages"
run
[[ $(count) == 0 ]] || fail "a third call ran $(count) stages again"
run --again
[[ $(count) == $((first + 2)) ]] || fail "--again ran $(count) stages of $((first + 2))"

python3 - "$folder/out/gpu_check.json" << 'PYTHON'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    result = json.load(file)
assert result["gpu"]["name"] == "NVIDIA Test 100" and result["gpu"]["clocks.max.sm"] == "200 MHz", result["gpu"]
assert {"gpu", "gpu_after", "cuda", "date", "commit", "stages"} <= set(result), list(result)
stages = result["stages"]
assert list(stages)[:2] == ["configure", "build lgm_compiled_cuda"], list(stages)
for name, stage in stages.items():
    assert {"result", "seconds", "tail", "date"} <= set(stage), (name, stage)
    assert stage["result"] in ("dry run", "not run"), (name, stage)
    assert "why" in stage or stage["result"] == "dry run", (name, stage)
# No images were given.
assert stages["cuda_trainer"]["result"] == "not run", stages["cuda_trainer"]
PYTHON
