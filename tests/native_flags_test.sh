#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# usage: native_flags_test.sh NATIVE_FLAGS CXX
# Which flags NATIVE_FLAGS prints for compilers and an Eigen that do not take all of a processor's instructions.
set -euo pipefail

native_flags=$1 cxx=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/Eigen"

# What native-flags compiles of Eigen, refused where MACRO is defined.
eigen_without() {
  cat >"$work/Eigen/Core" <<END
#ifdef $1
#error "not with $1"
#endif
namespace Eigen {
constexpr int Dynamic = -1;
template <class T, int Rows, int Columns>
struct Array {
  Array exp() const { return *this; }
  Array log() const { return *this; }
  Array operator+(const Array&) const { return *this; }
};
}
END
}

# expect PROCESSOR MACRO FLAGS: without MACRO, the flags for PROCESSOR are FLAGS.
expect() {
  local flags
  eigen_without "$2"
  flags=$(LGM_PROCESSOR=$1 "$native_flags" "$cxx" -isystem "$work")
  if [[ ${flags% -DLGM_NATIVE_PROCESSOR=*} != "$3" ]]; then
    echo "$1 without $2: \"$flags\", not \"$3\"" >&2
    exit 1
  fi
}

tune=
macros=$("$cxx" -dM -E -x c++ /dev/null)
if [[ $macros == *__x86_64__* ]]; then
  if [[ $macros != *__clang__* ]]; then tune=" -mtune=generic"; fi
  for processor in sapphirerapids icelake-server znver3 haswell x86-64; do
    expect "$processor" NOTHING "-march=$processor$tune"
  done
  expect sapphirerapids __AVX512FP16__ "-march=sapphirerapids -mno-avx512fp16$tune"
  expect icelake-server __AVX512FP16__ "-march=icelake-server$tune"
  expect sapphirerapids __AVX512F__ "-march=sapphirerapids -mno-avx512f$tune"
fi
expect native NOTHING "-march=native$tune"
expect no-such-processor NOTHING ""

# No flags help where there is no Eigen.
eigen_without __cplusplus
if flags=$("$native_flags" "$cxx" -isystem "$work" 2>"$work/log"); then
  echo "without Eigen: \"$flags\"" >&2
  exit 1
fi
grep -q "not with __cplusplus" "$work/log"
echo "all passed"
