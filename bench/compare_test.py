#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""usage: compare_test.py LIBRARY

Checks compare.py with NumPy alone: its references against differences of their own losses, its arithmetic on made-up
times, and a run of some milliseconds with LIBRARY, liblgm_compare.so.
"""

import ctypes
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))

import numpy as np

import compare
from comparison import contenders, cuda, problem, report, worker

LIBRARY = None


class References(unittest.TestCase):
    def check(self, reference, arrays):
        data = problem.make(problem.Shape(5, 4, 3), separation=2)
        data = {name: a.astype(np.float64) if a.dtype == np.float32 else a for name, a in data.items()}
        answer = reference(data)
        for name, gradient in arrays.items():
            for index in np.ndindex(data[name].shape):
                losses = []
                for step in (1e-6, -1e-6):
                    moved = {**data, name: data[name].copy()}
                    moved[name][index] += step
                    losses.append(reference(moved)["loss"])
                self.assertAlmostEqual(answer[gradient][index], (losses[0] - losses[1]) / 2e-6, delta=1e-8)

    def test_softmax(self):
        self.check(problem.softmax_reference, {"features": "feature", "mean": "mean"})

    def test_lgm(self):
        self.check(problem.lgm_reference, {"features": "feature", "mean": "mean"})
        for form in ("spherical", "diagonal"):
            self.check(
                lambda data, form=form: problem.lgm_reference(data, form),
                {"features": "feature", "mean": "mean", form: "log_variance", "log_prior": "log_prior"},
            )

    def test_bfloat16_rounds_to_the_nearest(self):
        # One and its neighbours: 2^-7 apart above it; two ties, to even.
        given = np.array([1, 1 + 2**-9, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 3 * 2**-9, -1 - 3 * 2**-9, 0], np.float32)
        rounded = [1, 1, 1, 1 + 2**-6, 1 + 2**-7, -1 - 2**-7, 0]
        self.assertEqual(problem.bfloat16(given).tolist(), rounded)

    def test_features_of_bfloat16_have_a_reference_of_their_own(self):
        shape = problem.Shape(5, 4, 3)
        data = problem.make(shape, separation=2)
        rounded = {**data, "features": problem.bfloat16(data["features"])}
        found = compare.references(shape, data, {("softmax", "float32"), ("softmax", "bfloat16")})
        self.assertEqual(found["softmax", "float32"]["loss"], problem.softmax_reference(data)["loss"])
        self.assertEqual(found["softmax", "bfloat16"]["loss"], problem.softmax_reference(rounded)["loss"])
        self.assertNotEqual(found["softmax", "float32"]["loss"], found["softmax", "bfloat16"]["loss"])

    def test_a_wrong_number_shows(self):
        right = {"loss": 2.0, "mean": np.array([1.0, 4.0])}
        wrong = {"loss": 2.0, "mean": np.array([1.0, 5.0])}
        self.assertEqual(problem.deviation(wrong, right), {"loss": 0, "mean": 0.25})
        wrong["mean"][0] = np.nan
        self.assertTrue(np.isnan(problem.deviation(wrong, right)["mean"]))


class Rounds(unittest.TestCase):
    def turn(self, estimate, budget=20):
        turn = compare.Turn("lgm", None, SimpleNamespace(rounds=9, seconds=0.1, budget=budget))
        turn.estimate = estimate
        return turn

    def test_slow_contenders_have_fewer_rounds(self):
        for estimate, expected in ((1e-6, 9), (1, 9), (5, 4), (15, 1), (100, 1)):
            taken = [n for n in range(9) if self.turn(estimate).takes_part(n)]
            self.assertEqual(len(taken), expected)
            self.assertEqual(taken[-1], 8)


class Report(unittest.TestCase):
    # A shape, and what each contender took in each round.
    def results(self, times, shape="2048x10000x512"):
        entries = {
            name: {
                "samples": dict(enumerate(samples)),
                "failure": None,
                "memory": 2**20,
                "workspace": 2**20,
                "deviation": None,
            }
            for name, samples in times.items()
        }
        return {
            "command": "",
            "date": "2000-01-01",
            "machine": compare.machine(2),
            "versions": {},
            "blas": None,
            "blas_trials": {},
            "options": {"rounds": 3, "tolerance": 1e-3},
            "contenders": {n: n for n in times},
            "moment_bytes": {shape: 1e6},
            "shapes": {shape: entries},
        }

    def test_ratios_are_those_of_the_same_round(self):
        raw = self.results({"lgm": [1, 2, 30], "softmax": [2, 4, 15]})
        self.assertEqual(report.Results(raw).ratio("lgm", "softmax", "2048x10000x512"), 0.5)

    def test_targets(self):
        raw = self.results({"lgm": [0.8], "softmax": [1.0], "products": [0.75], "expanded": [1.5]})
        met = {what: met for what, _, _, _, met in report.targets(report.Results(raw))}
        self.assertEqual(
            met,
            {
                "to PyTorch softmax, geometric mean from 256x100x384 on": True,
                "to PyTorch softmax, every shape (1.05 of our products where those exceed 1)": True,
                "to PyTorch L-GM expanded, every shape": True,
                "to PyTorch L-GM expanded, from 2048x10000x512 on": False,
                "to its products alone": True,
            },
        )

    def test_what_failed_is_said(self):
        raw = self.results({"lgm": [1], "broadcast": []})
        raw["shapes"]["2048x10000x512"]["broadcast"]["failure"] = "does not fit"
        self.assertIn("does not fit", report.markdown(raw))
        self.assertEqual(report.wrong(raw), [])
        raw["shapes"]["2048x10000x512"]["lgm"]["failure"] = "wrong: off by 1"
        self.assertEqual(report.wrong(raw), ["lgm at 2048x10000x512"])


class Cuda(unittest.TestCase):
    ALL = {name: c for name, c in contenders.CONTENDERS.items() if c.engine == "cuda"}
    PEERS = ("softmax", "softmax-compiled", "linear-ce", "liger")

    def test_every_mode_has_contenders(self):
        wanted = {
            **dict.fromkeys(self.PEERS, ("", "-tf32", "-bf16", "-bf16-autocast")),
            "lgm": ("", "-split-tf32", "-tf32", "-bf16", "-bf16-fast", "-spherical", "-diagonal"),
            "products": ("", "-tf32", "-bf16"),
        }
        names = {f"cuda-{what}{mode}" for what, modes in wanted.items() for mode in modes}
        self.assertEqual(set(self.ALL), names)
        self.assertEqual(len({c.title for c in self.ALL.values()}), len(self.ALL))
        self.assertEqual({c.mode for c in contenders.CONTENDERS.values() if c.engine != "cuda"}, {None})

    def test_peers_are_of_the_same_types_and_precision(self):
        against = {}
        for name, peer in report.cuda_pairs("softmax"):
            against.setdefault(name, set()).add(peer)
            self.assertEqual(self.ALL[name].mode.features, self.ALL[peer].mode.features)
        of_peers = lambda *modes: {f"cuda-{head}{mode}" for head in self.PEERS for mode in modes}
        self.assertEqual(
            against,
            {
                "cuda-lgm": of_peers(""),
                "cuda-lgm-split-tf32": of_peers("", "-tf32"),
                "cuda-lgm-tf32": of_peers("-tf32"),
                "cuda-lgm-bf16": of_peers("-bf16", "-bf16-autocast"),
                "cuda-lgm-bf16-fast": of_peers("-bf16", "-bf16-autocast"),
            },
        )
        floors = {}
        for name, products in report.cuda_pairs(""):
            floors.setdefault(products, set()).add(name)
        self.assertEqual(
            floors,
            {
                "cuda-products": {"cuda-lgm", "cuda-lgm-split-tf32", *of_peers("")},
                "cuda-products-tf32": {"cuda-lgm-split-tf32", "cuda-lgm-tf32", *of_peers("-tf32")},
                "cuda-products-bf16": {"cuda-lgm-bf16", "cuda-lgm-bf16-fast", *of_peers("-bf16", "-bf16-autocast")},
            },
        )

    def test_each_mode_has_its_tolerance(self):
        reference = {"loss": 4.0, "feature": None, "mean": None}
        self.assertEqual(set(compare.allowed(None, reference).values()), {compare.TOLERANCE})
        for mode, loss, gradient in (
            (cuda.FLOAT, 5e-4, 1e-3),
            (cuda.SPLIT_TF32, 5e-4, 1e-3),
            (cuda.TF32, 5e-3, 5e-2),
            (cuda.BFLOAT16, 2e-3, 3e-2),
            (cuda.BFLOAT16_FAST, 5e-2, 3e-1),
            (cuda.BFLOAT16_WEIGHTS, 5e-2, 3e-1),
        ):
            found = compare.allowed(mode, reference, apart=10)
            for array, expected in {"loss": loss / 4, "feature": gradient, "mean": gradient}.items():
                self.assertAlmostEqual(found[array], expected)
        self.assertEqual(compare.allowed(cuda.TF32, reference, apart=0.1)["mean"], 5e-3)

    def test_the_readme_has_the_same_tolerances(self):
        rows = {}
        for line in (FOLDER.parent / "include" / "lgm" / "README.md").read_text().splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if len(cells) == 6 and cells[0].startswith("`"):
                rows[cells[0].split("`")[1], cells[1].strip("`")] = cells[4:]
        for mode, row in (
            (cuda.FLOAT, ("highest", "float (double)")),
            (cuda.SPLIT_TF32, ("split_tf32", "float")),
            (cuda.TF32, ("tf32", "float")),
            (cuda.BFLOAT16, ("highest", "__nv_bfloat16")),
            (cuda.BFLOAT16_FAST, ("fast", "__nv_bfloat16")),
        ):
            loss, gradient = rows[row]
            self.assertEqual(mode.loss, float(loss))
            self.assertEqual(mode.gradient, float(gradient.split()[0]))
            self.assertEqual(mode.rounded_once, gradient.endswith(" s"))

    def test_the_report_does_without_the_host(self):
        raw = Report.results(Report(), {"cuda-lgm": [0.8], "cuda-softmax": [1.0], "cuda-products": [0.75]})
        self.assertIn("lgm, CUDA", report.markdown(raw))

    def test_the_report_compares_each_with_its_peers(self):
        raw = Report.results(
            Report(),
            {
                "cuda-softmax": [4.0],
                "cuda-softmax-bf16": [2.0],
                "cuda-lgm": [3.0],
                "cuda-lgm-tf32": [2.5],
                "cuda-lgm-bf16-fast": [1.0],
                "cuda-lgm-diagonal": [6.0],
                "cuda-products-bf16": [0.8],
            },
        )
        for entry in raw["shapes"]["2048x10000x512"].values():
            entry["deviation"] = {"loss": 1e-5, "mean": 1e-4}
        lines = report.markdown(raw).splitlines()
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        found = {row[0]: row[1] for row in cells if " / " in row[0]}
        self.assertEqual(
            found,
            {
                "lgm, CUDA / PyTorch softmax, CUDA": "0.750",
                "lgm, CUDA, fast bfloat16 / PyTorch softmax, CUDA, bfloat16": "0.500",
                "PyTorch softmax, CUDA, bfloat16 / products, CUDA, bfloat16": "2.50",
                "lgm, CUDA, fast bfloat16 / products, CUDA, bfloat16": "1.25",
                "lgm, diagonal, CUDA / lgm, CUDA": "2.00",
            },
        )
        allowed = {row[0]: row[-1] for row in cells if len(row) == 7}
        self.assertEqual(allowed["lgm, CUDA, TF32"], "0.005, 0.005")
        self.assertEqual(allowed["PyTorch softmax, CUDA, bfloat16"], "0.05, 0.03")

    def test_without_a_device_none_is_offered(self):
        if cuda.available():
            self.skipTest("there is a device")
        done = subprocess.run(
            [sys.executable, FOLDER / "compare.py", "--this-python", "--list"],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        listed = [line.split()[0] for line in done.stdout.splitlines()]
        self.assertIn("lgm", listed)
        self.assertEqual([name for name in listed if name.startswith("cuda")], [])

    def test_the_problem_is_laid_out_as_in_c(self):
        # Three sizes; covariance, precision, type, alpha and lambda, padded; eleven pointers; a size and a stream.
        self.assertEqual(ctypes.sizeof(cuda._Problem), 3 * 8 + 24 + 11 * 8 + 2 * 8)

    def test_every_contender_has_a_step_and_outputs(self):
        for contender in self.ALL.values():
            for part in ("step", "run", "outputs", "memory"):
                self.assertTrue(callable(getattr(contender.make, part)))


class Run(unittest.TestCase):
    def test_a_worker_that_cannot_do_it_says_so(self):
        one = worker.Worker({"kind": "lgm", "library": "/no/such/library"}, {}, subprocess.DEVNULL)
        self.addCleanup(one.stop)
        with self.assertRaisesRegex(worker.WorkerError, "OSError"):
            one.ask(do="load", folder="/")

    def test_smoke(self):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [sys.executable, FOLDER / "compare.py", "--smoke", "--library", LIBRARY, "--out", folder],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            raw = json.loads((Path(folder) / "compare.json").read_text())
        self.assertEqual(list(raw["shapes"]), list(compare.SMOKE_SHAPES))
        for shape, entries in raw["shapes"].items():
            self.assertIn("lgm-diagonal", entries)
            for name, entry in entries.items():
                self.assertIsNone(entry["failure"], f"{name} at {shape}")
                self.assertEqual(len(entry["samples"]), 2)
            self.assertLess(max(entries["lgm"]["deviation"].values()), 1e-4)


if __name__ == "__main__":
    LIBRARY = str(Path(sys.argv.pop(1)).resolve())
    unittest.main()
