#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a step of the CUDA driver costs, found without a GPU: launches, products, bytes, blocks, occupancy; and a time made of
them, which is predicted, not measured.

bench/device_cost runs the driver on the host, a few blocks of each kernel in fibres as a GPU has threads, and meters what they load
and store. Of a kernel there are
  bytes      what reaches the device's memory, every array once at the most
  requested  what its warps ask of the caches, in sectors of 32 bytes: an array that is read seven times counts seven times
  loads      the most by one thread, for one task
  warps      of an SM at a time, by the kernel's budget of registers and shared memory (tests/cuda_resources.json)

The time of a kernel is a launch and the longest of four: its bytes, what it requests, its arithmetic, and its waves of blocks, in
which the loads of a thread follow each other, some at a time. Products take their arithmetic or their bytes. MODEL has the
assumptions, all about one H100 SXM.

usage: bench/device_cost.py [SHAPE[:MODE]...] [--kernels]    a table; of every kernel
       bench/device_cost.py --check                          against bench/device_cost.json: no more launches, products and bytes
       bench/device_cost.py --update                         writes that file anew
"""

import argparse
import json
import math
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "bench" / "device_cost.json"
PROGRAM = ROOT / "build" / "gcc" / "bin" / "lgm_device_cost"
TILE_BYTES = 6 << 30  # cuda_context's own
LIMIT = 0.01  # growth of bytes that is no failure

MODEL = {
    "multiprocessors": 132,
    "registers": 65536,  # of a multiprocessor, in steps of 256 a warp
    "shared bytes": 228 << 10,
    "threads": 2048,
    "blocks": 32,
    "bytes/s": 0.80 * 3.35e12,
    "requested bytes/s": 0.80 * 5.5e12,
    "operations/s": 0.60 * 66.9e12,
    "product operations/s": {"float": 0.75 * 66.9e12, "tf32": 0.75 * 494e12, "bfloat16": 0.75 * 989e12},
    "launch s": 2.5e-6,
    "load s": 0.6e-6,  # from the device's memory
    "loads at a time": 8,
}
BYTES = {"float": 4, "tf32": 4, "bfloat16": 2}

SHAPES = (
    "128x10x64 4097x10x64 16384x10x512 256x100x384 1024x1000x512 4096x1000x2048 2048x10000x512 1024x100000x512 "
    "4096x128256x4096 8192x131072x4096 16384x248320x2048"
).split()
MODES = ("cuda-lgm", "cuda-lgm-tf32", "cuda-lgm-split-tf32", "cuda-lgm-bf16", "cuda-lgm-bf16-fast", "cuda-lgm-spherical", "cuda-lgm-diagonal")
# As bench/gpu_times.py; and a diagonal covariance's kernels take as long to meter as their work is long.
BFLOAT16_ONLY, DIAGONAL = 2e12, 1e10


def cases():
    for shape in SHAPES:
        size = math.prod(map(int, shape.split("x")))
        for mode in MODES:
            if (size <= BFLOAT16_ONLY or "bf16" in mode) and (size <= DIAGONAL or mode != "cuda-lgm-diagonal"):
                yield f"{shape}:{mode}"


def is_quick(name):
    """Whether --check takes the case: all of them take minutes, these one."""
    shape, mode = name.split(":")
    if mode in ("cuda-lgm", "cuda-lgm-bf16-fast"):
        return math.prod(map(int, shape.split("x"))) <= 2.2e12
    return name == "16384x10x512:cuda-lgm-diagonal" or (shape == "4096x1000x2048" and mode != "cuda-lgm-diagonal")


def counted(program, names):
    """What the program was compiled by, and what it says of each case, by name."""
    command = [str(program), str(TILE_BYTES), *names]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"device_cost.py: {program} failed")
    first, *found = map(json.loads, done.stdout.splitlines())
    return first["compiler"], {f"{case['shape']}:{case['mode']}": case for case in found}


# ---- the model ----


def warps_of(kernel, budgets):
    """Of a multiprocessor, at a time."""
    use = budgets[kernel["name"]]
    warps = kernel["threads"] // 32
    registers = math.ceil(use["registers"] * 32 / 256) * 256 * warps
    blocks = min(MODEL["registers"] // registers, MODEL["threads"] // kernel["threads"], MODEL["blocks"])
    if use.get("shared"):
        blocks = min(blocks, MODEL["shared bytes"] // (use["shared"] + 1024))
    return blocks * warps


def kernel_times(kernel, budgets):
    """Seconds of one launch, by what it waits for."""
    blocks_at_once = MODEL["multiprocessors"] * warps_of(kernel, budgets) // (kernel["threads"] // 32)
    waves = math.ceil(kernel["blocks"] / blocks_at_once)
    return {
        "memory": kernel["bytes"] / MODEL["bytes/s"],
        "caches": kernel["requested"] / MODEL["requested bytes/s"],
        "arithmetic": kernel["operations"] / MODEL["operations/s"],
        "waiting": waves * kernel["loads"] * MODEL["load s"] / MODEL["loads at a time"],
    }


def kernel_time(kernel, budgets):
    return MODEL["launch s"] + max(kernel_times(kernel, budgets).values())


def product_time(m, n, k, form, adds):
    operations = 2 * m * n * k / MODEL["product operations/s"][form]
    moved = (m * k + n * k) * BYTES[form] + m * n * 4 * (2 if adds else 1)
    return MODEL["launch s"] + max(operations, moved / MODEL["bytes/s"])


def ideal(shape, form):
    """Three products: a step cannot take less."""
    s, c, d = map(int, shape.split("x"))
    return sum(product_time(m, n, k, form, False) for m, n, k in ((s, c, d), (s, d, c), (c, d, s)))


def summary(case, budgets):
    s, c, d = map(int, case["shape"].split("x"))
    kernels, products = case["kernels"], case["products"]
    of_products = sum(p["calls"] * product_time(p["m"], p["n"], p["k"], p["format"], p["adds"]) for p in products)
    of_kernels = sum(k["launches"] * kernel_time(k, budgets) for k in kernels)
    return {
        "launches": sum(k["launches"] for k in kernels),
        "products": sum(p["calls"] for p in products),
        "product size": round(sum(p["calls"] * p["m"] * p["n"] * p["k"] for p in products) / (s * c * d), 3),
        "bytes": round(sum(k["launches"] * k["bytes"] for k in kernels)),
        "requested": round(sum(k["launches"] * k["requested"] for k in kernels)),
        "workspace": case["workspace"],
        "predicted s": float(f"{of_products + of_kernels:.4g}"),
        "predicted s of products": float(f"{of_products:.4g}"),
    }


# ---- the tables ----


def time_text(seconds):
    return f"{seconds * 1e6:.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def print_table(found, budgets):
    print(f"{'shape':20} {'mode':20} {'launches':>12} {'products':>8} {'kernels GB':>10} {'asked GB':>9} {'workspace':>9} "
          f"{'predicted':>10} {'of it products':>14} {'three products':>14}")  # fmt: skip
    for case in found.values():
        s = summary(case, budgets)
        form = "bfloat16" if "bf16" in case["mode"] else "tf32" if "tf32" in case["mode"] else "float"
        print(f"{case['shape']:20} {case['mode']:20} {s['launches']:6} +{s['products']:4} {s['product size']:8.3g} "
              f"{s['bytes'] / 1e9:10.3f} {s['requested'] / 1e9:9.3f} {s['workspace'] >> 20:5} MiB "
              f"{time_text(s['predicted s']):>10} {time_text(s['predicted s of products']):>14} "
              f"{time_text(ideal(case['shape'], form)):>14}")  # fmt: skip


def print_kernels(found, budgets):
    for name, case in found.items():
        print(f"\n{name}, tiles of {case['tile_rows']} x {case['tile_classes']}; all launches of a kernel together, as the longest is\n")
        print(f"{'kernel':26} {'launches':>8} {'blocks':>7} {'threads':>7} {'warps':>5} {'MB':>9} {'asked MB':>9} {'loads':>6} "
              f"{'predicted':>10}  most of it")  # fmt: skip
        rows = {}
        for k in case["kernels"]:
            rows.setdefault(k["name"], []).append(k)
        total = {name: sum(k["launches"] * kernel_time(k, budgets) for k in of) for name, of in rows.items()}
        for kernel in sorted(rows, key=lambda name: -total[name]):
            longest = max(rows[kernel], key=lambda k: kernel_time(k, budgets))
            times = kernel_times(longest, budgets)
            most = max(times, key=times.get)
            launches = sum(k["launches"] for k in rows[kernel])
            moved, asked = (sum(k["launches"] * k[what] for k in rows[kernel]) / 1e6 for what in ("bytes", "requested"))
            print(f"{kernel:26} {launches:8} {longest['blocks']:7} {longest['threads']:7} {warps_of(longest, budgets):5} "
                  f"{moved:9.2f} {asked:9.2f} {longest['loads']:6} {time_text(total[kernel]):>10}  "
                  f"{most if times[most] > MODEL['launch s'] else 'launch'}")  # fmt: skip
        for p in case["products"]:
            seconds = p["calls"] * product_time(p["m"], p["n"], p["k"], p["format"], p["adds"])
            print(f"{'product':26} {p['calls']:8} {p['m']:>7} x {p['n']} x {p['k']}, {p['format']}: {time_text(seconds)}")


def check(now, committed, same_compiler):
    """Prints what has grown or is new; whether nothing has."""
    good = True
    exact = ("launches", "products", "product size")
    if not same_compiler:
        print("note: bytes are not compared: they depend on the compiler, which is another one")
    for name, figures in now.items():
        if name not in committed:
            print(f"failed: {name} is not in {FIGURES.name}; --update writes it")
            good = False
            continue
        for what in exact + (("bytes", "requested") if same_compiler else ()):
            before, after = committed[name][what], figures[what]
            limit = before if what in exact else before * (1 + LIMIT)
            if after > limit:
                print(f"failed: {name}: {what} {before} -> {after}")
                good = False
            elif after < before * (1 - LIMIT):
                print(f"note: {name}: {what} {before} -> {after}; --update writes it")
    print(f"{len(now)} cases compared")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="SHAPE[:MODE]", help="default: all; without a mode all of a shape's")
    parser.add_argument("--kernels", action="store_true", help="what each kernel costs")
    parser.add_argument("--check", action="store_true", help="compare with bench/device_cost.json")
    parser.add_argument("--update", action="store_true", help="write bench/device_cost.json")
    parser.add_argument("--program", type=Path, default=PROGRAM, help="default: build/gcc/bin/lgm_device_cost")
    o = parser.parse_args()
    if not o.program.exists():
        sys.exit("device_cost.py: first: cmake --preset gcc && cmake --build --preset gcc --target lgm_device_cost")
    budgets = json.loads((ROOT / "tests" / "cuda_resources.json").read_text(encoding="utf-8"))
    known = list(cases())
    names = []
    for text in o.cases:
        if not re.fullmatch(rf"\d+x\d+x\d+(:({'|'.join(MODES)}))?", text):
            parser.error(f"not SHAPE[:MODE]: {text}")
        names += [text] if ":" in text else [f"{text}:{mode}" for mode in MODES]
    if o.check and not names:
        names = [name for name in json.loads(FIGURES.read_text(encoding="utf-8"))["cases"] if is_quick(name)]
    compiler, found = counted(o.program, names or known)
    now = {name: summary(case, budgets) for name, case in found.items()}
    if o.check:
        committed = json.loads(FIGURES.read_text(encoding="utf-8"))
        return 0 if check(now, committed["cases"], compiler == committed["compiler"]) else 1
    if o.update:
        figures = {"compiler": compiler, "model": MODEL, "cases": now}
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        print(f"written: {FIGURES.relative_to(ROOT)}, {len(now)} cases")
        return 0
    (print_kernels if o.kernels else print_table)(found, budgets)
    return 0


if __name__ == "__main__":
    sys.exit(main())
