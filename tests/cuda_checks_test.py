# SPDX-License-Identifier: MIT
"""That the check of compiled kernels can fail: cuda_resources.py on every kind of use that is over its budget and on what has
none."""

import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest

import cuda_resources


def report(name="17some_other_kernel", registers=32, stack=0, spills=(0, 0), shared=0):
    """What ptxas says of one kernel."""
    smem = f", {shared} bytes smem" if shared else ""
    return (
        f"ptxas info    : Compiling entry function '_Z{name}' for 'sm_90'\n"
        f"ptxas info    : Function properties for _Z{name}\n"
        f"    {stack} bytes stack frame, {spills[0]} bytes spill stores, {spills[1]} bytes spill loads\n"
        f"ptxas info    : Used {registers} registers, used 1 barriers{smem}, 400 bytes cmem[0]\n"
    )


class Resources(unittest.TestCase):
    def answer(self, text, budgets):
        with tempfile.TemporaryDirectory() as folder:
            reports = pathlib.Path(folder) / "reports"
            reports.mkdir()
            (reports / "a.o.txt").write_text(text)
            file = pathlib.Path(folder) / "budgets.json"
            file.write_text(json.dumps(budgets))
            with contextlib.redirect_stdout(io.StringIO()) as said:
                answer = cuda_resources.check(str(reports), str(file))
            return answer, said.getvalue()

    def test_within(self):
        budget = {"some_other_kernel": {"registers": 32, "shared": 64}}
        self.assertEqual(self.answer(report(shared=64), budget)[0], 0)

    def test_over(self):
        budget = {"some_other_kernel": {"registers": 32, "shared": 64}}
        for what, use in (
            ("33 registers", {"registers": 33}),
            ("8 stack", {"stack": 8}),
            ("4 spills", {"spills": (4, 0)}),
            ("4 spills", {"spills": (0, 4)}),
            ("65 shared", {"shared": 65}),
        ):
            answer, said = self.answer(report(**use), budget)
            self.assertEqual(answer, 1)
            self.assertIn(what, said)

    def test_other_architectures(self):
        budget = {"some_other_kernel": {"registers": 32}}
        newer = lambda **use: report(**use).replace("sm_90", "sm_120")
        self.assertEqual(self.answer(newer(registers=40), budget)[0], 0)
        self.assertEqual(self.answer(newer(registers=40, spills=(4, 4)), budget)[0], 1)

    def test_names(self):
        budget = {"some_other_kernel": {"registers": 24}, "some_other_kernel<double>": {"registers": 32, "shared": 64}}
        self.assertEqual(self.answer(report("17some_other_kernelIdE"), budget)[0], 1)  # of another type there is none
        self.assertEqual(self.answer(report("17some_other_kernelIdE") + report("17some_other_kernelIfE", registers=24),
                                     {**budget, "some_other_kernel": {"registers": 24, "shared": 64}})[0], 0)
        budget = {"other_kernel": {"registers": 99}}
        # One that ends like another, a budget without a kernel, and no kernel at all.
        self.assertEqual(self.answer(report(), budget)[0], 1)
        self.assertEqual(self.answer(report("12other_kernel"), {**budget, "gone": {}})[0], 1)
        self.assertEqual(self.answer("", {})[0], 1)

    def test_record(self):
        with tempfile.TemporaryDirectory() as folder:
            said = report().replace("'", "'\\''")
            command = ["sh", "-c", f"printf '%s' '{said}' >&2; exit 3", "compiler", "-o", "here/a.o"]
            self.assertEqual(cuda_resources.record(folder, command), 3)
            found = list(cuda_resources.kernels(folder))
            self.assertEqual([(kernel[0], kernel[2]["registers"]) for kernel in found], [("_Z17some_other_kernel", 32)])


if __name__ == "__main__":
    sys.exit(unittest.main())
