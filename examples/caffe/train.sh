#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# usage: train.sh GPU NET [OPTION...]
# Trains NET/solver.prototxt in the current folder and keeps the log in NET/logs. Options go to `caffe train`: -snapshot FILE, ...
# GPU is a device's number, or several ("0,1"); a solver with solver_mode: CPU uses none. CAFFE is Caffe's program.
set -euo pipefail
if (($# < 2)); then
  sed -n '3,5s/^# //p' "$0" >&2
  exit 2
fi
gpu=$1 net=$2
shift 2

solver=$net/solver.prototxt
mkdir -p "$net/logs"
# Snapshots go to a folder that Caffe does not make.
prefix=$(sed -n 's/^ *snapshot_prefix: *"\([^"]*\)".*/\1/p' "$solver")
if [[ -n $prefix ]]; then mkdir -p "$(dirname "$prefix")"; fi

device=(-gpu "$gpu")
if grep -q '^ *solver_mode: *CPU' "$solver"; then device=(); fi
log=$net/logs/${net##*/}_$(date +%Y-%m-%d_%H-%M-%S).log
echo "Logging output to $log"
"${CAFFE:-../../build/tools/caffe}" train "${device[@]}" -solver "$solver" "$@" 2>&1 | tee "$log"
