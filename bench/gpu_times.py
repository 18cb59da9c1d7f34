#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Times one training step of lgm's CUDA driver and of the heads that one would use in its place, as many as fit into --budget
seconds: compare.py's contenders on a CUDA device, in one process, on arrays made there, without its checks of their results.

Of each: `events`, by the device's clock with the second-level cache emptied before every step; `replay`, the same of the step
captured as a CUDA graph; `host`, for how long a call keeps the host. Medians, in seconds. --kernels asks PyTorch's profiler
which kernels a step of lgm's takes its time in, instead. --variants times lgm's steps alone, in several builds of the library
(bench/variants.txt), in turn: `events` of each.

Writes JSON after every shape, and goes on with the next where one does not fit or fails. Exit code 77: no PyTorch with a device.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

# The most telling first. Those that only bfloat16's heads are built for have only those.
SHAPES = (
    "4096x1000x2048 1024x100000x512 128x10x64 4096x128256x4096 256x100x384 2048x10000x512 8192x131072x4096 "
    "1024x1000x512 4097x10x64 16384x10x512 16384x248320x2048"
).split()
BFLOAT16_ONLY = 2e12  # multiply-adds of a product
COMPILED = ("4096x1000x2048", "128x10x64")  # a compilation takes longer than all else
PROFILED = ("4096x1000x2048", "1024x100000x512", "128x10x64", "4096x128256x4096", "16384x10x512")

CONTENDERS = """
cuda-lgm cuda-softmax cuda-lgm-tf32 cuda-softmax-tf32 cuda-lgm-bf16-fast cuda-softmax-bf16 cuda-lgm-bf16
cuda-softmax-bf16-autocast cuda-products cuda-products-tf32 cuda-products-bf16 cuda-liger-bf16 cuda-liger cuda-linear-ce-bf16
cuda-linear-ce cuda-lgm-split-tf32 cuda-lgm-diagonal cuda-lgm-spherical cuda-softmax-compiled cuda-softmax-compiled-bf16
""".split()
VARIED = ("4096x1000x2048", "1024x100000x512", "16384x10x512", "256x100x384", "4096x128256x4096")
VARIED_MODES = ("cuda-lgm", "cuda-lgm-tf32", "cuda-lgm-bf16-fast", "cuda-lgm-diagonal")
ROUNDS = 5
PROFILED_MODES = ("cuda-lgm", "cuda-lgm-bf16-fast", "cuda-lgm-diagonal")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", metavar="FILE", help="liblgm_compare_cuda.so")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="for the JSON")
    parser.add_argument("--shapes", nargs="+", metavar="SAMPLESxCLASSESxDIMS", help=f"default: {' '.join(SHAPES)}")
    parser.add_argument("--budget", type=float, default=120, help="seconds for all (default: 120)")
    parser.add_argument("--kernels", action="store_true", help="the kernels of lgm's steps instead")
    parser.add_argument("--variants", nargs="+", metavar="FILE", help="liblgm_variant_NAME.so: these instead of --library")
    o = parser.parse_args()
    if not o.library and not o.variants:
        parser.error("--library or --variants")
    return o


def make(torch, shape):
    """problem.make's arrays, made on the device."""
    from comparison import problem

    random = torch.Generator("cuda").manual_seed(1)
    return problem.arrays(
        shape,
        separation=8,
        normal=lambda *size: torch.randn(size, generator=random, device="cuda"),
        below=lambda limit, count: torch.randint(limit, (count,), generator=random, device="cuda"),
    )


def captured(torch, contender):
    """A function that replays a step of the contender as a graph."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # what a first step allocates and loads there
        contender.use_current_stream()
        contender.step()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream):
        contender.step()
    contender.use_current_stream()
    return graph.replay


def attempt(what, into, name):
    """Puts what() into `into`, or why there is none."""
    try:
        into[name] = what()
    except Exception as failure:
        lines = str(failure).strip().splitlines() or [""]
        into.setdefault("failures", {})[name] = f"{type(failure).__name__}: {lines[0][:200]}"


def times_of(torch, engine, contender):
    answer = {}

    def median(step):
        first = engine.seconds(step, 3)[-1]
        return statistics.median(engine.seconds(step, max(3, min(50, int(0.1 / max(first, 1e-6))))))

    def host():
        found = []
        for _ in range(20):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            contender.step()
            found.append(time.perf_counter() - begin)
        torch.cuda.synchronize()
        return statistics.median(found)

    contender.prepare()
    attempt(lambda: median(contender.step), answer, "events")
    if "events" in answer and answer["events"] < 0.05:
        attempt(host, answer, "host")
        attempt(lambda: median(captured(torch, contender)), answer, "replay")
    return answer


def kernels_of(torch, contender):
    """[name, seconds a step, calls a step], the slowest first."""
    from torch.profiler import ProfilerActivity, profile

    steps = 5
    contender.prepare()
    contender.step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        for _ in range(steps):
            contender.step()
        torch.cuda.synchronize()
    rows = [(e.key, e.self_device_time_total / 1e6 / steps, e.count / steps) for e in found.key_averages()]
    return {"kernels": sorted((row for row in rows if row[1] > 0), key=lambda row: -row[1])[:20]}


def variants_of(engines, known, data, end):
    """{variant: {"events": seconds, "loss": as it computes it}} of one contender, the variants in turn."""
    answer, made, times = {name: {} for name in engines}, {}, {}
    for turn in range(1 + ROUNDS):
        for name, engine in engines.items():
            if "failures" in answer[name] or time.monotonic() > end:
                continue
            try:
                if turn == 0:
                    made[name], times[name] = known.made(engine, data, 1), []
                else:
                    made[name].prepare()
                    times[name] += engine.seconds(made[name].step, 1 + 3)[1:]
            except Exception as failure:
                answer[name]["failures"] = {"step" if turn else "made": f"{type(failure).__name__}: {str(failure)[:200]}"}
    for name, found in times.items():
        if found and "failures" not in answer[name]:
            answer[name] = {"events": statistics.median(found), "loss": float(made[name].out["loss"])}
    return answer


def main():
    o = arguments()
    end = time.monotonic() + o.budget
    try:
        import torch

        has_device = torch.cuda.is_available()
    except ImportError:
        has_device = False
    if not has_device:
        print("skipped: this Python has no PyTorch with a device")
        return 77
    from comparison import cuda, problem
    from comparison.contenders import CONTENDERS as KNOWN

    files = o.variants or [o.library]
    engines = {Path(file).stem.removeprefix("liblgm_variant_"): cuda.CudaEngine(file) for file in sorted(files)}
    engine = next(iter(engines.values()))
    offered = [name for name in CONTENDERS if KNOWN[name].make.is_offered()]
    result = {"versions": engine.versions(), "budget": o.budget, "shapes": {}}
    names, shapes = (VARIED_MODES, VARIED) if o.variants else (PROFILED_MODES, PROFILED) if o.kernels else (offered, SHAPES)

    def measured(known, data):
        if o.variants:
            return variants_of(engines, known, data, end)
        contender = known.made(engine, data, 1)
        return kernels_of(torch, contender) if o.kernels else times_of(torch, engine, contender)

    for text in o.shapes or shapes:
        shape = problem.Shape.parse(text)
        result["shapes"][text] = found = {}
        try:
            data = make(torch, shape)
        except Exception as failure:
            found["failures"] = {"arrays": str(failure)[:200]}
            continue
        for name in names:
            mode = KNOWN[name].mode
            if shape.product > BFLOAT16_ONLY and mode.features != "bfloat16":
                continue
            if "compiled" in name and text not in COMPILED:
                continue
            # A compilation is not begun where it would not come to its end.
            if time.monotonic() > end - (25 if "compiled" in name else 0):
                found.setdefault("failures", {})[name] = "no time left"
                continue
            try:
                found[name] = measured(KNOWN[name], data)
            except Exception as failure:
                found[name] = {"failures": {"made": f"{type(failure).__name__}: {str(failure)[:200]}"}}
            gc.collect()
            torch.cuda.empty_cache()
        del data
        o.out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"{text}: {len(found)} contenders, {max(0, end - time.monotonic()):.0f} s left", flush=True)
    o.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
