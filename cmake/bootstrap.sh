#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# From a fresh Debian or Ubuntu to the demo, to an example in a framework, or to all tests, in one command. See usage below.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
data_package=dataset-fashion-mnist
demo_packages=(g++ cmake ninja-build ccache libeigen3-dev doctest-dev zlib1g-dev libzip-dev libcli11-dev libfmt-dev
               nlohmann-json3-dev gnuplot-nox fonts-dejavu-core "$data_package")
test_packages=(g++ cmake ninja-build ccache libeigen3-dev doctest-dev nlohmann-json3-dev)
all_packages=("${demo_packages[@]}" clang clang-format clang-tidy llvm libclang-rt-dev libomp-dev doxygen
               libbenchmark-dev libopenblas-dev python3-numpy python3-pip valgrind)

# What each folder of examples/ in a framework needs, beyond its requirements.txt.
framework_examples=(jax tensorflow pytorch caffe)
example_packages=(g++ cmake ninja-build ccache libeigen3-dev)
python_packages=(python3 python3-venv python3-pip)
jax_packages=("${python_packages[@]}")
tensorflow_packages=("${python_packages[@]}" doctest-dev nlohmann-json3-dev "$data_package")
pytorch_packages=("${python_packages[@]}" python3-dev "$data_package")
caffe_packages=("${python_packages[@]}" xz-utils libprotobuf-dev protobuf-compiler libgoogle-glog-dev libgflags-dev
                libhdf5-dev libboost-system-dev libboost-thread-dev libboost-filesystem-dev libopenblas-dev
                libgtest-dev "$data_package")

# shellcheck source=cmake/checks.sh
source "$root/cmake/checks.sh"

# What one checkout has compiled serves another in another folder: ccache takes paths in the checkout as relative ones.
# Debug information may then name the folder of the first; nothing here reads it but a person.
export CCACHE_BASEDIR=${CCACHE_BASEDIR-$root} CCACHE_NOHASHDIR=${CCACHE_NOHASHDIR-1}
# What a precompiled header needs of it.
export CCACHE_SLOPPINESS=${CCACHE_SLOPPINESS-pch_defines,time_macros}

usage() {
  cat <<EOF
usage: cmake/bootstrap.sh demo [OPTION...]      build the trainer, train it and name its pictures
       cmake/bootstrap.sh example NAME [ARG...] build the example in a framework and run its tests;
                                                NAME: ${framework_examples[*]}
       cmake/bootstrap.sh test [--all]          build the library's tests with g++ and run them;
                                                --all: every check: format, lint, the other tests, clang++, nvcc,
                                                sanitizers, fuzzing, the examples. What "test" has built is used
                                                again, and what passed on the same files is not run again

All install the Debian or Ubuntu packages that are missing, or print the command that does, and build in build/.
demo hands its options to the trainer: --epochs N, --data DIR, ... (demo --help lists them); pictures and tables go
to --out DIR, build/demo unless said. example puts Python packages into build/python, which the examples share, and
hands its arguments to examples/NAME/check. test --all skips what this machine has no tool for and says so;
LGM_REQUIRE_CUDA=1, LGM_REQUIRE_EIGEN5=1 and LGM_REQUIRE_CLANG_TOOLS=1 make a failure of that.
EOF
}

die() {
  printf 'bootstrap: %s\n' "$*" >&2
  exit 1
}

is_installed() { [[ $(dpkg-query -W -f='${Status}' "$1" 2>/dev/null) == 'install ok installed' ]]; }
apt_knows() { apt-cache policy "$1" 2>/dev/null | grep 'Candidate: [^(]' >/dev/null; }

# install_missing PACKAGE...
install_missing() {
  command -v apt-get dpkg-query >/dev/null ||
    die "this installs through apt; elsewhere install what these packages hold: $*; then: cmake --preset release"

  local package missing=() wanted=() sudo=()
  for package in "$@"; do
    if ! is_installed "$package"; then missing+=("$package"); fi
  done
  ((${#missing[@]})) || return 0

  if ((EUID != 0)); then
    if sudo -n true 2>/dev/null; then sudo=(sudo -n); fi
  fi
  local may_install=$((EUID == 0 || ${#sudo[@]}))
  if ((may_install)); then
    echo "Installing: ${missing[*]}"
    "${sudo[@]}" apt-get update -qq </dev/null
  fi

  # Only the data set may be unknown to a release. Lists that do not know cmake either are no lists yet.
  for package in "${missing[@]}"; do
    if [[ $package == "$data_package" ]] && apt_knows cmake && ! apt_knows "$package"; then
      echo "This release has no package $package: get Fashion-MNIST's or MNIST's four IDX files and add --data DIR." >&2
    else
      wanted+=("$package")
    fi
  done
  ((${#wanted[@]})) || return 0

  local install=(apt-get install -y --no-install-recommends "${wanted[@]}")
  if ((!may_install)); then
    echo "Packages are missing. Install them, then run this again:" >&2
    echo "  sudo apt-get update && sudo ${install[*]}" >&2
    exit 1
  fi
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}" -qq </dev/null
}

demo() {
  local out=$root/build/demo out_option=(--out "$root/build/demo") packages=() package has_data=0 argument previous=
  for argument in "$@"; do
    if [[ $previous == --out ]]; then
      out=$argument out_option=()
    elif [[ $argument == --out=* ]]; then
      out=${argument#--out=} out_option=()
    elif [[ $argument == --data || $argument == --data=* ]]; then
      has_data=1
    fi
    previous=$argument
  done
  for package in "${demo_packages[@]}"; do
    if [[ $package != "$data_package" ]] || ((!has_data)); then packages+=("$package"); fi
  done
  install_missing "${packages[@]}"

  (cd "$root" && cmake --preset release >/dev/null && cmake --build --preset release --target lgm_trainer)

  # In the caller's directory, so that relative paths among the options mean what they say.
  local trainer=$root/build/release/bin/trainer
  mkdir -p "$out"
  touch -d "1 second ago" "$root/build/demo-started"
  "$trainer" "${out_option[@]}" "$@"
  if (($# == 0)); then
    # Two dimensions can be drawn, but squeeze everything together: a density tells more with some more of them.
    printf '\nThe same with 32 dimensions:\n\n'
    "$trainer" --dims 32 --out "$out/dims-32"
  fi

  local pictures
  pictures=$(find "$out" -newer "$root/build/demo-started" -name '*.png' | sort)
  if [[ -n $pictures ]]; then printf '\nPictures:\n%s\n' "$pictures"; fi
}

# example NAME [ARG...]
example() {
  local name=${1-} folder=$root/examples/${1-} packages=${1-}_packages[@]
  [[ " ${framework_examples[*]} " == *" $name "* ]] || die "examples in a framework are: ${framework_examples[*]}"
  shift
  install_missing "${example_packages[@]}" "${!packages}"

  local environment=$root/build/python
  if [[ ! -x $environment/bin/pip ]]; then python3 -m venv "$environment"; fi
  # uv takes half of pip's time for such packages. It does not read pip's settings: where it finds nothing, pip is asked.
  local pip=("$environment/bin/pip" --quiet --disable-pip-version-check install)
  "${pip[@]}" uv && UV_CACHE_DIR=$root/build/uv "$environment/bin/uv" pip install --quiet --compile-bytecode \
    --python "$environment/bin/python" -r "$folder/requirements.txt" || "${pip[@]}" -r "$folder/requirements.txt"
  PYTHON=$environment/bin/python "$folder/check" "$@"
}

# ---- test ----

# Of what the library's tests saw: every file of the checkout, and the programs themselves, which the compiler's settings and the
# packages of this machine went into. One file that differs, and they are run again.
tests_seen() {
  find . \( -path ./build -o -path ./.git \) -prune -o -type f -print0 | sort -z | xargs -0 sha256sum
  ctest --preset gcc -N -L '^library$' | sed -n 's,^ *Test *#[0-9]*: ,build/gcc/bin/,p' | while read -r program; do
    if [[ -f $program ]]; then sha256sum "$program"; fi
  done
}
tests_passed=build/library-tests-passed

test_library() {
  install_missing "${test_packages[@]}"
  cd "$root"
  rm -f "$tests_passed"
  # The examples and the benchmarks wait for --all, and so do the packages that they need.
  cmake --preset gcc -DLGM_BUILD_EXAMPLES=OFF -DLGM_BUILD_BENCHMARKS=OFF >/dev/null
  cmake --build --preset gcc --target lgm_library_tests
  tests_seen >build/library-tests-seen
  ctest --preset gcc -L '^library$' -j "$(nproc)"
  mv build/library-tests-seen "$tests_passed"
}

# The tests of the preset gcc, but for those that have passed as they are.
test_gcc() {
  local left=()
  if [[ -f $tests_passed ]] && tests_seen | cmp -s - "$tests_passed"; then
    echo "note: fewer tests: the library's passed before, with these files and programs"
    left=(-LE '^library$')
  fi
  ctest --preset gcc "${left[@]}" -j "$jobs"
}

# ---- test --all: stages, each with its log in build/ci and its minutes in the table at the end ----

minutes() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }

# stage NAME COMMAND...: runs it and says how it went; false when it failed.
stage() {
  local name=$1 log=$root/build/ci/${1// /-}.log begin=$SECONDS result=ok seconds
  shift
  if ! "$@" >"$log" 2>&1 </dev/null; then
    result=FAILED
  elif grep -q '^skipped' "$log"; then
    result=skipped
  fi
  seconds=$((SECONDS - begin))
  printf '%s %d\n' "$result" "$seconds" >"${log%.log}.result"
  # In one piece: other stages are under way.
  printf '%s\n' "$(
    printf '== %s: %s, %s\n' "$name" "$result" "$(minutes "$seconds")"
    if [[ $result == FAILED ]]; then
      tail -n 60 "$log"
      printf '== %s failed; the whole log: %s\n' "$name" "$log"
    else
      grep -E 'tests passed|^skipped|^note: fewer' "$log" || true
    fi
  )"
  [[ $result != FAILED ]]
}

test_preset() { stage "$1 build" build_preset "$1" && stage "$1 test" ctest --preset "$1" -j "$jobs"; }

# Stages that follow each other, because they share a folder of build/.
chain_gcc() {
  stage 'gcc build' build_preset gcc && stage 'gcc test' test_gcc || true
  stage docs check_docs
}
chain_tidy() { stage tidy check_tidy; }
chain_asan() { test_preset asan; }
chain_fuzz() { test_preset fuzz; }
chain_cuda() { stage cuda check_cuda; }
chain_tsan() { stage tsan check_tsan; }
chain_eigen5() { stage eigen5 check_eigen5; }
chain_processors() { stage processors check_processors; }
chain_regress() { stage regress check_regress; }
# One after another: they share an environment. The README's own command, and one that fails says nothing of the next.
chain_examples() {
  local name
  export CMAKE_BUILD_PARALLEL_LEVEL=$jobs
  for name in "${framework_examples[@]}"; do stage "$name" cmake/bootstrap.sh example "$name" || true; done
  stage dlpack check_dlpack
}

test_all() {
  install_missing "${all_packages[@]}" "${example_packages[@]}" "${jax_packages[@]}" "${tensorflow_packages[@]}" \
    "${pytorch_packages[@]}" "${caffe_packages[@]}"
  cd "$root"
  rm -rf build/ci
  mkdir -p build/ci
  export LGM_TEST_REQUIRES_NUMPY=1 LGM_OTHER_PROCESSORS='sapphirerapids icelake-server znver3 haswell x86-64'

  # Two chains at a time, with half of the processors each: every stage ends with a file that takes long and leaves
  # processors idle, where there is nothing else to do. The longest first.
  local lanes=$(($(nproc) > 1 ? 2 : 1)) chain
  stage format check_format || true
  jobs=$((($(nproc) + lanes - 1) / lanes))
  # A process group for each, so that an interrupt ends all that a chain has started.
  set -m
  trap 'for chain in $(jobs -p); do kill -- "-$chain"; done 2>/dev/null; exit 130' INT TERM
  for chain in asan examples gcc cuda tidy eigen5 fuzz tsan processors regress; do
    while (($(jobs -rp | wc -l) >= lanes)); do wait -n || true; done
    "chain_$chain" &
  done
  wait

  local name result seconds failures=0
  printf '\n%-14s %-7s %8s\n' stage result min:s
  for name in format {gcc,asan,fuzz}-{build,test} tidy tsan cuda processors eigen5 "${framework_examples[@]}" dlpack regress docs; do
    # Tests whose build failed are not run, and what is not run has not passed.
    result='not run' seconds=0
    if [[ -f build/ci/$name.result ]]; then read -r result seconds <"build/ci/$name.result"; fi
    if [[ $result != ok && $result != skipped ]]; then failures=$((failures + 1)); fi
    printf '%-14s %-7s %8s\n' "${name/-/ }" "$result" "$(minutes "$seconds")"
  done
  printf '%-14s %-7s %8s\n' 'all, together' "$( ((failures)) && echo FAILED || echo ok)" "$(minutes "$SECONDS")"
  ((failures == 0))
}

case ${1-} in
  demo)
    shift
    demo "$@"
    ;;
  example)
    shift
    example "$@"
    ;;
  test)
    case ${2-} in
      '') test_library ;;
      --all) test_all ;;
      *)
        usage >&2
        exit 2
        ;;
    esac
    ;;
  -h | --help | help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
