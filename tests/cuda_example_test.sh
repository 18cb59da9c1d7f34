#!/bin/bash
# SPDX-License-Identifier: MIT
# usage: cuda_example_test.sh PROGRAM
# An example for a CUDA device, started where there is none: one line that says so, and exit code 2. Devices are hidden from
# it, so that the test is the same on every machine.
set -u
program=$1
said=$(CUDA_VISIBLE_DEVICES='' "$program" 2>&1)
code=$?
expected="$(basename "$program"): there is no CUDA device"
if [[ $code != 2 || $said != "$expected" ]]; then
  echo "exit code $code, and not 2 with '$expected': $said"
  exit 1
fi
