# SPDX-License-Identifier: MIT
"""Holds kernels to their budgets of registers, stack, spills and shared memory.

usage: cuda_resources.py record REPORTS COMMAND...     runs a compiler (with -Xptxas=-v) and keeps what it says in the folder
                                                       REPORTS, in a file with the name of its -o
       cuda_resources.py check REPORTS BUDGETS.json

check fails where a kernel uses more than the budget whose name is part of the kernel's allows (bytes, but for registers), where
a kernel has no budget, and where a budget has no kernel. A budget called NAME<double> goes before NAME.
Registers count on the architectures below alone: others give the same code up to forty more, without a spill.
"""

import json
import pathlib
import re
import subprocess
import sys

REGISTERS_OF = ("sm_80", "sm_86", "sm_89", "sm_90")


def record(reports, command):
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    folder, output = pathlib.Path(reports), pathlib.Path(command[command.index("-o") + 1])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{output.name}.txt").write_text(done.stderr, encoding="utf-8")
    # What is not ptxas's report is for whoever reads the build.
    ours = re.compile(r"ptxas info|bytes stack frame|Function properties|^$")
    sys.stderr.writelines(line + "\n" for line in done.stderr.splitlines() if not ours.search(line))
    return done.returncode


def kernels(reports):
    """Name, architecture and use of every kernel in the reports."""
    for report in sorted(pathlib.Path(reports).glob("*.txt")):
        name = arch = None
        use = {}
        for line in report.read_text(encoding="utf-8").splitlines():
            if found := re.search(r"Compiling entry function '(\S+)' for '(\S+)'", line):
                name, arch = found[1], found[2]
            elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
                use = {"stack": int(found[1]), "spills": int(found[2]) + int(found[3])}
            elif name and (found := re.search(r"Used (\d+) registers", line)):
                use["registers"] = int(found[1])
                shared = re.search(r"(\d+) bytes smem", line)
                use["shared"] = int(shared[1]) if shared else 0
                yield name, arch, use
                name = None


def mangled(budget):
    """What is in the names of a budget's kernels. They begin with their length, which tells one that ends like another apart."""
    name, _, argument = budget.partition("<")
    return f"{len(name)}{name}{'IdE' if argument else ''}"


def check(reports, budget_file):
    with open(budget_file, encoding="utf-8") as file:
        budgets = json.load(file)
    matched, failed, count = set(), False, 0
    for name, arch, use in kernels(reports):
        count += 1
        budget = max((b for b in budgets if mangled(b) in name), key=len, default=None)
        if budget is None:
            print(f"no budget for {name}: {use}")
            failed = True
            continue
        matched.add(budget)
        for what, amount in use.items():
            if what == "registers" and arch not in REGISTERS_OF:
                continue
            if amount > budgets[budget].get(what, 0):
                print(f"{name} ({arch}): {amount} {what}, and the budget is {budgets[budget].get(what, 0)}")
                failed = True
    for budget in set(budgets) - matched:
        print(f"no kernel is called {budget}")
        failed = True
    print(f"{count} kernels, {len(budgets)} budgets")
    return 1 if failed or count == 0 else 0


if __name__ == "__main__":
    if len(sys.argv) > 3 and sys.argv[1] == "record":
        sys.exit(record(sys.argv[2], sys.argv[3:]))
    if len(sys.argv) == 4 and sys.argv[1] == "check":
        sys.exit(check(sys.argv[2], sys.argv[3]))
    sys.exit(__doc__)
