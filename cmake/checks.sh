# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# The stages of `cmake/bootstrap.sh test --all` that are more than building and testing a preset. Sourced there; each runs in
# the repository's root, prints a line that begins with "skipped:" where it cannot run, and returns false if it fails.

# How many processes a stage may have at a time.
jobs=$(nproc)

# Other versions lay the same code out differently, and find other faults.
clang_tools_version=14

# clang_tool NAME: the command for clang-format or clang-tidy of that version; false where there is none.
clang_tool() {
  local tool
  for tool in "$1-$clang_tools_version" "$1"; do
    if command -v "$tool" >/dev/null && [[ $("$tool" --version) == *"version $clang_tools_version."* ]]; then
      echo "$tool"
      return 0
    fi
  done
  return 1
}

# missing VARIABLE WHAT: a stage's answer where something is missing: a line, and a failure where the environment's
# VARIABLE is 1, which says that this machine has it.
missing() {
  if [[ ${!1-} == 1 ]]; then
    echo "failed: $2, and $1=1 asks for it"
    return 1
  fi
  echo "skipped: $2"
}

check_format() {
  local tool options
  # Where git is, and this is its work tree; names that a command would take for its options.
  if options=$(git ls-files 2>/dev/null | grep -E '(^|/)-'); then
    echo "failed: tracked names begin with '-': $options"
    return 1
  fi
  if ! tool=$(clang_tool clang-format); then
    missing LGM_REQUIRE_CLANG_TOOLS "there is no clang-format $clang_tools_version here"
    return
  fi
  find include tests examples bench -type f \( -name '*.hpp' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu' \) -print0 |
    xargs -0 -n 8 -P "$jobs" "$tool" --dry-run --Werror
}

# What .clang-tidy names, in a few files that between them include and use every header. The sources of a target are one file
# for it (a unity build), so that what they share is read once: half of the time.
check_tidy() {
  local tool sources
  if ! tool=$(clang_tool clang-tidy); then
    missing LGM_REQUIRE_CLANG_TOOLS "there is no clang-tidy $clang_tools_version here"
    return
  fi
  cmake --preset clang -B build/tidy -DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=0 \
    -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON || return
  # One of those that are alike. Without the package that it needs, an example is not built either.
  sources=$(grep -lE "\"$PWD/(examples/.*|tests/(support|two_units_test)/.*|tests/(group|hooks)_test)\.cpp\"" \
    build/tidy/*/CMakeFiles/*/Unity/*.cxx | xargs md5sum | sort -u -k 1,1 | cut -d ' ' -f 3)
  echo "$sources"
  xargs -n 1 -P "$jobs" "$tool" --quiet -p build/tidy <<<"$sources"
}

# A file of each kind; each example in a framework does the same with its own (LGM_OTHER_PROCESSORS).
check_processors() {
  local eigen=/usr/include/eigen3
  cmake/other-processors g++ -isystem "$eigen" -- -std=c++17 -Wall -Wextra -Wconversion -Werror -I include -I bench \
    -I examples/trainer -isystem "$eigen" tests/two_units_test/serial_unit.cpp bench/forward.cpp examples/trainer/heads.cpp
}

# build_preset PRESET [what else to say to the configuration...]
build_preset() { cmake --preset "$@" && cmake --build --preset "$1" -j "$jobs"; }
build_and_test() { build_preset "$@" && ctest --preset "$1" -j "$jobs"; }

check_cuda() {
  local compiler
  compiler=$(command -v nvcc || ls "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" 2>/dev/null) || {
    missing LGM_REQUIRE_CUDA "there is no nvcc here"
    return
  }
  # Without optimization of what is for the host, and is checked elsewhere: nvcc's -O says nothing of device code.
  CUDACXX=$compiler build_and_test cuda -DCMAKE_CXX_FLAGS_RELEASE='-O0 -DNDEBUG' -DCMAKE_CUDA_FLAGS_RELEASE='-O0 -DNDEBUG'
}

check_eigen5() {
  cmake/current-eigen.sh || {
    missing LGM_REQUIRE_EIGEN5 "Eigen 5 could not be downloaded"
    return
  }
  build_and_test eigen5
}

check_tsan() {
  # ThreadSanitizer of GCC 12 does not find its way where the kernel moves memory about much.
  local fixed=()
  if setarch -R true 2>/dev/null; then fixed=(setarch -R); fi
  build_preset tsan && "${fixed[@]}" ctest --preset tsan
}

check_docs() {
  if ! command -v doxygen >/dev/null; then
    echo "skipped: there is no doxygen here"
    return
  fi
  cmake --preset gcc && cmake --build --preset gcc --target lgm_docs
}

# The tensors of PyTorch as DLPack lends them, in the environment of its example; NumPy's are a test of every preset.
check_dlpack() {
  local python=build/python/bin/python library=build/ci/liblgm_dlpack_calls.so
  "$python" -c 'import torch' &&
    g++ -std=c++17 -O1 -shared -fPIC -I include -isystem /usr/include/eigen3 tests/dlpack_calls.cpp -o "$library" &&
    "$python" tests/dlpack_python.py "$library"
}

# Prints "skipped:" itself.
check_regress() { bench/regress; }
