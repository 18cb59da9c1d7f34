# SPDX-License-Identifier: MIT
"""Builds the operators. Environment variables:

LGM_INCLUDE    lgm's include folder; without it ../../include, that of the repository this folder is part of
EIGEN_INCLUDE  Eigen's; without it /usr/include/eigen3
LGM_CUDA       1 or 0: with or without the operators for CUDA; without it as torch.cuda.is_available() says
LGM_CXXFLAGS   what the compiler optimises for; without it this machine: cmake/native-flags of lgm's repository says how
"""
import os
import shlex
import subprocess
from pathlib import Path

import torch
from setuptools import setup
from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension, include_paths

folder = Path(__file__).resolve().parent
repository = folder.parent.parent


def include(variable, default, header):
    path = Path(os.environ.get(variable) or default)
    if not (path / header).is_file():
        raise SystemExit(f"{path} has no {header}: set {variable} to the folder that has it")
    return str(path)


lgm = include("LGM_INCLUDE", repository / "include", "lgm/lgm.hpp")
eigen = include("EIGEN_INCLUDE", "/usr/include/eigen3", "Eigen/Core")
cuda = os.environ.get("LGM_CUDA") or str(int(torch.cuda.is_available()))
if cuda == "1" and not (torch.version.cuda and CUDA_HOME):
    raise SystemExit("CUDA is asked for: it needs a PyTorch that is built for it, and nvcc")

optimised = os.environ.get("LGM_CXXFLAGS")
native_flags = Path(lgm).parent / "cmake" / "native-flags"
if optimised is None and native_flags.is_file():
    command = [native_flags, *shlex.split(os.environ.get("CXX", "g++")), "-isystem", eigen]
    optimised = subprocess.run(command, check=True, capture_output=True, text=True).stdout
elif optimised is None:
    optimised = "-march=native"
# OpenMP's threads are those of ATen.
flags = ["-O3", "-DNDEBUG", *shlex.split(optimised), "-fopenmp", "-fvisibility=hidden"]
# Without debug information, which Python's own flags ask for: a third of the time, and 24 of 25 MB.
flags += ["-g0"]
# Without others' warnings: -isystem, and what g++ 12 says of its own AVX-512 header.
flags += ["-Wall", "-Wextra", "-Wno-uninitialized", "-Wno-maybe-uninitialized"]
flags += [f"-isystem{path}" for path in (eigen, *include_paths("cuda" if cuda == "1" else "cpu"))]
extension = (CUDAExtension if cuda == "1" else CppExtension)(
    "lgm_torch._C",
    ["csrc/cpu.cpp"] + (["csrc/cuda.cu"] if cuda == "1" else []),
    include_dirs=[lgm],
    extra_compile_args={"cxx": flags, "nvcc": ["-O3", "-DNDEBUG"]},
    libraries=["cublasLt"] if cuda == "1" else [],
    # It holds operators alone, and no Python: it is loaded by torch.ops.load_library.
    py_limited_api=True,
)

# Nothing is built in this folder where it is part of the repository.
build = repository / "build" / "examples" / "pytorch" / "pip"
options = {"bdist_wheel": {"py_limited_api": "cp39"}}
if (repository / "include" / "lgm").is_dir():
    build.mkdir(parents=True, exist_ok=True)
    options |= {"build": {"build_base": str(build)}, "egg_info": {"egg_base": str(build)}}

setup(ext_modules=[extension], cmdclass={"build_ext": BuildExtension}, options=options)
