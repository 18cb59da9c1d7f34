#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Times lgm against what one would use in its place, and against its own matrix products.

The first run makes a virtual environment from bench/requirements.txt and builds a shared library, both under build/.
"""

import argparse
import contextlib
import datetime
import fnmatch
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
BUILD = ROOT / "build" / "bench"
VENV = ROOT / "build" / "compare-venv"

SHAPES = "128x10x2 128x10x64 256x100x384 1024x1000x512 4096x1000x2048 2048x10000x512 1024x100000x512".split()
# Where the BLAS libraries compete for being the one that is compared.
PROBE_SHAPES = ("256x100x384", "1024x1000x512")
SMOKE_SHAPES = ("128x10x2", "40x30x20")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shapes", nargs="+", default=SHAPES, metavar="SAMPLESxCLASSESxDIMS", help=f"default: {' '.join(SHAPES)}"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=["*"],
        metavar="NAME",
        help="contenders, * and ? allowed (see --list); default: all",
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--rounds", type=int, default=9, help="every contender takes its turn in each (default: 9)")
    parser.add_argument("--seconds", type=float, default=0.1, help="of one turn, at least one step (default: 0.1)")
    parser.add_argument(
        "--budget",
        type=float,
        default=20,
        help="seconds for one contender at one shape; slow ones have fewer turns (default: 20)",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=180,
        help="seconds for a contender's first step, compiling included, before it is given up (default: 180)",
    )
    parser.add_argument(
        "--memory-limit",
        type=float,
        default=8,
        metavar="GIB",
        help="of the broadcast contenders, beyond their inputs (default: 8)",
    )
    parser.add_argument(
        "--blas",
        metavar="NAME",
        help="the BLAS of the contenders on BLAS, or none; default: the fastest at hand (see --list)",
    )
    parser.add_argument(
        "--separation", type=float, default=8, help="of the classes: the mean difference of two logits (default: 8)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "build" / "compare",
        metavar="DIR",
        help="where JSON, report and plots go (default: build/compare)",
    )
    parser.add_argument("--library", type=Path, help="a compiled liblgm_compare.so, instead of building one")
    parser.add_argument("--cuda-library", type=Path, help="the same of liblgm_compare_cuda.so")
    parser.add_argument(
        "--this-python",
        action="store_true",
        help="run with the Python and packages that are here (PyTorch, NumPy), and make no environment",
    )
    parser.add_argument("--no-check", action="store_true", help="do not compare losses and gradients first")
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="a few milliseconds of lgm alone, with this Python and its NumPy: does it work?",
    )
    parser.add_argument("--list", action="store_true", help="name the contenders and the BLAS libraries, and stop")
    options = parser.parse_args()
    for text in options.shapes:
        parts = text.split("x")
        if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
            parser.error(f"{text} is no shape; one looks like 1024x1000x512")
    if options.smoke:
        options.shapes, options.rounds, options.seconds, options.budget = SMOKE_SHAPES, 2, 0.001, 1
    return options


def say(text):
    print(text, file=sys.stderr, flush=True)


def progress(steps, title):
    """A bar on a terminal, a line elsewhere."""
    try:
        from tqdm import tqdm
    except ImportError:
        return steps
    if not sys.stderr.isatty():
        say(title)
    return tqdm(steps, desc=title, leave=False, disable=None)


# ---- what a run needs ----


def enter_environment():
    """Runs this program again in its own virtual environment, which is made where it is not there or out of date."""
    requirements = (FOLDER / "requirements.txt").read_bytes()
    stamp, python = VENV / "requirements.md5", VENV / "bin" / "python"
    wanted = hashlib.md5(requirements).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        say(f"Making {VENV} (PyTorch among others: some minutes and gigabytes)")
        shutil.rmtree(VENV, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "-r", FOLDER / "requirements.txt"], check=True)
        stamp.write_text(wanted)
    if Path(sys.prefix).resolve() != VENV.resolve():
        os.execv(python, [python, __file__, *sys.argv[1:]])


def build_library(cuda=False):
    """The shared library of the host's driver, or the CUDA driver's."""
    folder, name = (BUILD.with_name("bench-cuda"), "lgm_compare_cuda") if cuda else (BUILD, "lgm_compare")
    log = folder / "compare.log"
    folder.mkdir(parents=True, exist_ok=True)
    commands = [["cmake", "--build", folder, "--target", name]]
    if not (folder / "CMakeCache.txt").exists():
        say(f"Building in {folder}")
        wanted = {"CMAKE_BUILD_TYPE": "Release", "LGM_BUILD_TESTS": "OFF", "LGM_BUILD_EXAMPLES": "OFF"}
        wanted["LGM_BUILD_BENCHMARKS"] = "ON"
        if cuda:
            wanted.update(LGM_CUDA="ON", CMAKE_CUDA_ARCHITECTURES="native")
        commands.insert(
            0, ["cmake", "-S", ROOT, "-B", folder, *(f"-D{name}={value}" for name, value in wanted.items())]
        )
    with open(log, "w") as out:
        for command in commands:
            if subprocess.run(command, stdout=out, stderr=subprocess.STDOUT).returncode != 0:
                sys.exit(f"{log.read_text()}\ncompare: the library could not be built")
    return folder / "bench" / f"lib{name}.so"


def machine(threads):
    info = {
        "threads": threads,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
    }
    with contextlib.suppress(OSError):
        lines = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
        info["processor"] = next((v.strip() for k, v in lines.items() if k.strip() == "model name"), info["processor"])
    with contextlib.suppress(OSError):
        kib = int(Path("/proc/meminfo").read_text().split()[1])
        info["memory_gib"] = round(kib / 2**20, 1)
    return info


# ---- workers ----


class Workers:
    """The worker processes: one for each of PyTorch's contenders, one for lgm on each kind of products."""

    def __init__(self, options, library, cuda_library, log):
        self.options, self.library, self.cuda_library, self.log = options, library, cuda_library, log
        self.all = {}

    def blas(self, name):
        """The worker of lgm on a BLAS; None: on its own products."""
        from comparison.contenders import BLASES

        engine = {"kind": "lgm", "library": str(self.library), "blas": name}
        return self._worker(f"lgm {name}", engine, BLASES[name].environment if name else {})

    def of(self, name, contender, blas):
        if contender.engine == "eigen":
            return self.blas(None)
        if contender.engine == "blas":
            return self.blas(blas)
        if contender.engine == "cuda":
            # One process for all: they share a device.
            return self._worker("cuda", {"kind": "cuda", "library": str(self.cuda_library)}, {})
        engine = {"kind": "torch"}
        if contender.limited:
            engine["memory_limit"] = int(self.options.memory_limit * 2**30)
        # What a compiler makes is kept for the next run.
        return self._worker(name, engine, {"TORCHINDUCTOR_CACHE_DIR": str(VENV / "compiled")})

    def _worker(self, key, engine, environment):
        from comparison.worker import Worker

        if key not in self.all:
            threads = str(self.options.threads)
            # Waiting threads spin for a moment and then sleep: the default of every runtime, and the best both for a
            # step that goes from one parallel loop to the next and for a worker that waits for its turn.
            common = {
                "OMP_NUM_THREADS": threads,
                "OPENBLAS_NUM_THREADS": threads,
                "BLIS_NUM_THREADS": threads,
                "MKL_NUM_THREADS": threads,
                "OMP_WAIT_POLICY": None,
                "GOMP_SPINCOUNT": None,
                "OMP_PROC_BIND": None,
                "OMP_DYNAMIC": None,
            }
            self.all[key] = Worker(engine, {**common, **environment}, self.log)
        return self.all[key]

    def stop(self):
        for worker in self.all.values():
            worker.finish()
        for worker in self.all.values():
            worker.stop(patience=2)


@contextlib.contextmanager
def stored(data):
    """A folder with the arrays of a problem, for workers to load."""
    import numpy

    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as folder:
        for name, array in data.items():
            numpy.save(os.path.join(folder, name), array)
        yield folder


# ---- measuring ----


class Turn:
    """One contender at one shape."""

    def __init__(self, name, worker, options):
        self.name, self.worker, self.options = name, worker, options
        self.failure, self.estimate, self.deviation = None, None, None
        self.memory, self.workspace = None, None  # bytes
        self.samples = {}  # of each round that it took part in: the median of its steps, seconds

    def attempt(self, **command):
        """The worker's answer; None, and why, where there is none."""
        from comparison.worker import WorkerError

        try:
            return self.worker.ask(name=self.name, **command)
        except WorkerError as e:
            self.failure = str(e)
            return None

    def prepare(self, folder):
        from comparison.worker import WorkerError

        try:
            if self.worker.loaded != folder:
                self.versions = self.worker.ask(do="load", folder=folder)
                self.worker.loaded = folder
        except WorkerError as e:
            self.failure = str(e)
            return
        answer = self.attempt(do="prepare", threads=self.options.threads, patience=self.options.patience)
        if answer is not None:
            self.estimate, self.memory, self.workspace = answer["seconds"], answer["memory"], answer["workspace"]

    def rounds(self):
        o = self.options
        return min(o.rounds, max(1, int(o.budget / max(self.estimate, o.seconds))))

    def takes_part(self, n):
        """Those with few rounds have them spread over all, the last among them."""
        mine, all_rounds = self.rounds(), self.options.rounds
        return (n + 1) * mine // all_rounds > n * mine // all_rounds

    def run(self, n):
        # What others left in the caches is not this contender's fault.
        warm = 0 if self.estimate > 0.3 else 1 + int(0.1 * self.options.seconds / self.estimate)
        times = max(1, round(self.options.seconds / self.estimate))
        answer = self.attempt(do="run", warm=warm, times=min(times, 100000))
        if answer is not None:
            steps = sorted(answer["seconds"])
            self.samples[n] = steps[len(steps) // 2]
            # The first steps may have been disturbed.
            self.estimate = min(self.estimate, self.samples[n])


# Seconds that are longer than threads spin after their last work: OpenBLAS's own 2^26 ticks, those of OpenMP less.
SETTLE = 0.04


def measure(turns, rounds, title):
    order, last = random.Random(1), None
    for n in progress(range(rounds), title):
        turns_now = [turn for turn in turns if turn.failure is None and turn.takes_part(n)]
        order.shuffle(turns_now)
        for turn in turns_now:
            if last is not turn.worker:
                time.sleep(SETTLE)
            last = turn.worker
            turn.run(n)


def choose_blas(options, workers):
    """The BLAS with the fastest step at hand, and what each took."""
    import numpy

    from comparison import problem
    from comparison.contenders import BLASES

    found = [name for name, blas in BLASES.items() if blas.find()]
    trials = {name: {} for name in found}
    for text in PROBE_SHAPES:
        data = problem.make(problem.Shape.parse(text), options.separation)
        reference = problem.lgm_reference(data)
        with stored(data) as folder:
            turns = {name: Turn("lgm-blas", workers.blas(name), options) for name in found}
            for turn in turns.values():
                turn.worker.start()
            for turn in turns.values():
                turn.prepare(folder)
                check(turn, reference, folder, allowed(None, reference))
            measure(list(turns.values()), options.rounds, f"choosing a BLAS, {text}: rounds")
        for name, turn in turns.items():
            # The least disturbed turn: what is chosen by chance would be compared all along.
            seconds = min(turn.samples.values()) if turn.failure is None else None
            trials[name][text] = {"seconds": seconds, "failure": turn.failure}
    good = [name for name in found if all(t["seconds"] is not None for t in trials[name].values())]
    mean = lambda name: float(numpy.mean([numpy.log(t["seconds"]) for t in trials[name].values()]))
    best = min(good, key=mean, default=None)
    for name in found:
        if name != best:
            workers.blas(name).stop()
    return best, trials


# ---- checking ----

# The largest difference from float64, over the largest number of the array. Float's own rounding stays well within, and
# so does the cancellation of the expanded form at these problems.
TOLERANCE = 2e-3


def allowed(mode, reference, apart=1):
    """{array: its largest deviation}, on the host or in a mode of CUDA's, with classes so many deviations apart."""
    if mode is None:
        return dict.fromkeys(reference, TOLERANCE)
    loss, gradient = mode.tolerance(apart)
    # A mode's loss is allowed an absolute difference.
    return {**dict.fromkeys(reference, gradient), "loss": loss / (abs(reference["loss"]) or 1)}


def check(turn, reference, folder, tolerance):
    import numpy

    from comparison.problem import deviation

    if turn.failure is not None:
        return
    file = os.path.join(folder, "..", f"lgm-compare-{os.getpid()}.npz")
    try:
        if turn.attempt(do="outputs", file=file) is None:
            return
        with numpy.load(file) as computed:
            turn.deviation = deviation(computed, reference)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file)
    # Not a number is no deviation that max would find.
    wrong = {array: value for array, value in turn.deviation.items() if not value <= tolerance[array]}
    if wrong:
        turn.failure = "wrong: " + ", ".join(f"{array} off by {value:.1e}" for array, value in wrong.items())


# Multiply-adds of a product from which on only fixed variances and softmax are checked: the others take minutes.
CHECK_ALL = 2e10


def references(shape, data, wanted):
    """wanted: contenders' `expected`, the answer's keys."""
    from comparison import problem

    found = {}
    for form, features in wanted:
        given = {**data, "features": problem.bfloat16(data["features"])} if features == "bfloat16" else data
        if form == "softmax":
            found[form, features] = problem.softmax_reference(given)
        elif form == "fixed" or shape.product < CHECK_ALL:
            found[form, features] = problem.lgm_reference(given, form)
    return found


# ---- the program ----


def main():
    options = arguments()
    if not options.smoke and not options.this_python:
        enter_environment()
    # So that it ends the workers and clears its files then too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.path.insert(0, str(FOLDER))
    from comparison import contenders, cuda, problem, report

    chosen = {
        name: c
        for name, c in contenders.CONTENDERS.items()
        if any(fnmatch.fnmatch(name, pattern) for pattern in options.only)
    }
    if options.smoke:
        chosen = {name: c for name, c in chosen.items() if c.engine == "eigen"}
    elif any(c.engine == "cuda" for c in chosen.values()):
        offered = lambda c: c.engine != "cuda" or (cuda.available() and c.make.is_offered())
        chosen = {name: c for name, c in chosen.items() if offered(c)}
    if options.list:
        for name, contender in chosen.items():
            print(f"{name:28}{contender.title}")
        for name, blas in contenders.BLASES.items():
            print(f"--blas {name:21}{blas.title}: {blas.find() or f'not at hand ({blas.source})'}")
        return
    if not chosen:
        sys.exit("compare: no contender has such a name; --list names them")

    wants = {c.engine for c in chosen.values()}
    library = options.library or (build_library() if wants & {"eigen", "blas"} else None)
    cuda_library = options.cuda_library or (build_library(cuda=True) if "cuda" in wants else None)
    options.out.mkdir(parents=True, exist_ok=True)
    result = {
        "command": " ".join(["bench/compare.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(options.threads),
        "versions": {},
        "blas": None,
        "blas_trials": {},
        "options": {
            "rounds": options.rounds,
            "seconds": options.seconds,
            "separation": options.separation,
            "alpha": problem.ALPHA,
            "lambda": problem.LAMBDA,
            "tolerance": TOLERANCE,
            "memory_limit_gib": options.memory_limit,
        },
        "contenders": {},
        "moment_bytes": {},
        "shapes": {},
    }

    with open(options.out / "workers.log", "w") as log:
        workers = Workers(options, library and library.resolve(), cuda_library and cuda_library.resolve(), log)
        try:
            if any(c.engine == "blas" for c in chosen.values()):
                if options.blas is None:
                    result["blas"], result["blas_trials"] = choose_blas(options, workers)
                elif options.blas != "none":
                    result["blas"] = options.blas
                if result["blas"] is None:
                    chosen = {name: c for name, c in chosen.items() if c.engine != "blas"}
            result["contenders"] = {name: c.title for name, c in chosen.items()}
            for text in options.shapes:
                result["shapes"][text] = compare(text, chosen, options, workers, result)
        finally:
            workers.stop()

    (options.out / "compare.json").write_text(json.dumps(result, indent=1) + "\n")
    text = report.markdown(result)
    (options.out / "compare.md").write_text(text)
    print(text)
    written = [options.out / "compare.md", options.out / "compare.json"]
    # The plots are of the host's contenders.
    if not options.smoke and any(c.engine != "cuda" for c in chosen.values()):
        from comparison import plots

        written += plots.draw(result, options.out)
    say("Written: " + " ".join(map(str, written)))
    failures = report.wrong(result)
    if failures:
        sys.exit("compare: losses or gradients are wrong: " + ", ".join(failures))


def compare(text, chosen, options, workers, result):
    from comparison import problem, report

    shape = problem.Shape.parse(text)
    data = problem.make(shape, options.separation)
    result["moment_bytes"][text] = problem.moment_bytes(data)
    turns = [Turn(name, workers.of(name, c, result["blas"]), options) for name, c in chosen.items()]
    for turn in turns:
        turn.worker.start()
    wanted = set() if options.no_check else {c.expected for c in chosen.values() if c.reference}
    if wanted:
        say(f"{text}: losses and gradients in float64")
    expected = references(shape, data, wanted)
    apart = problem.apart(shape, options.separation)
    with stored(data) as folder:
        del data
        for turn in progress(turns, f"{text}: first steps and checks"):
            turn.prepare(folder)
            result["versions"].update(getattr(turn, "versions", {}))
            contender = chosen[turn.name]
            reference = expected.get(contender.expected)
            if reference is not None:
                check(turn, reference, folder, allowed(contender.mode, reference, apart))
    del expected, reference
    measure(turns, options.rounds, f"{text}: rounds")
    for worker in {turn.worker for turn in turns}:
        worker.loaded = None
    return {
        turn.name: {
            "seconds": report.quartiles(turn.samples.values()),
            "samples": turn.samples,
            "failure": turn.failure,
            "memory": turn.memory,
            "workspace": turn.workspace,
            "deviation": turn.deviation,
        }
        for turn in turns
    }


if __name__ == "__main__":
    main()
