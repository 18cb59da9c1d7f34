# SPDX-License-Identifier: MIT
"""Fails where a function of the row, column, moment, whitening and schedule headers is not called in a kernel of the tests.

usage: kernel_functions.py INCLUDE_DIRECTORY TEST.cu...
"""

import pathlib
import re
import sys

HEADERS = ("distance.hpp", "row.hpp", "soft_row.hpp", "column.hpp", "moments.hpp", "whitening.hpp", "schedule.hpp")
# Called by the others alone.
INTERNAL = {"add_to", "distance_of", "product_distance"}


def functions(header):
    """Names of the functions, constructors and members for host and device; operator() is the type's own name."""
    owner = ""
    for line in header.read_text(encoding="utf-8").splitlines():
        if found := re.match(r"\s*struct (\w+)", line):
            owner = found[1]
        if found := re.search(r"\bLGM_HD\b[^(=]*?\b(operator\(\)|\w+)\(", line):
            yield owner if found[1] == "operator()" else found[1]


def main(include, tests):
    code = "".join(pathlib.Path(test).read_text(encoding="utf-8") for test in tests)
    failed = count = 0
    for name in HEADERS:
        header = pathlib.Path(include) / "lgm" / name
        found = set(functions(header)) - INTERNAL
        if not found:
            print(f"{header}: no functions were found")
            failed = 1
        count += len(found)
        for function in sorted(found):
            if not re.search(rf"\b{function}\b", code):
                print(f"{header}: no test calls {function} in a kernel")
                failed = 1
    print(f"{count} functions")
    return failed


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
