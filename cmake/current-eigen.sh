#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Brings a current Eigen, headers alone, into build/eigen5-headers for the preset eigen5. Debian 12 has Eigen 3.4 and
# nothing newer; the Python package eigency carries Eigen 5.0.1 in 3 MB. Does nothing where it is there already.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
version=5.0.1
package='eigency==5.0.1.1 --hash=sha256:5a34a04a6039e067b7fe5ed4b876522fdbab81383b2f9286e94e45e15ae50676'
folder=$root/build/eigen5-headers

if [[ -f $folder/Eigen3Config.cmake ]]; then exit 0; fi
mkdir -p "$root/build"
work=$(mktemp -d "$root/build/eigen5.XXXXXX")
trap 'rm -rf "$work"' EXIT

# One fixed wheel, whatever Python runs here: of what is in it, only headers are used.
echo "$package" >"$work/requirements.txt"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
  --python-version 3.11 --implementation cp --platform manylinux2014_x86_64 --dest "$work" -r "$work/requirements.txt"
python3 -m zipfile -e "$work"/eigency-*.whl "$work/wheel"
headers=$work/wheel/eigency/eigen
grep -q "EIGEN_VERSION_STRING \"$version\"" "$headers/Eigen/Version"

# What Eigen's own package says of itself, its refusal of any other major version included.
cat >"$headers/Eigen3Config.cmake" <<'EOF'
if(NOT TARGET Eigen3::Eigen)
  add_library(Eigen3::Eigen INTERFACE IMPORTED)
  set_target_properties(Eigen3::Eigen PROPERTIES INTERFACE_INCLUDE_DIRECTORIES ${CMAKE_CURRENT_LIST_DIR})
endif()
EOF
cat >"$headers/Eigen3ConfigVersion.cmake" <<EOF
set(PACKAGE_VERSION $version)
if(NOT PACKAGE_FIND_VERSION OR PACKAGE_FIND_VERSION_MAJOR STREQUAL 5)
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
EOF
rm -rf "$folder"
mv "$headers" "$folder"
