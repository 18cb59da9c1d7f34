# SPDX-License-Identifier: MIT
"""Fails where a kernel in a file of PTX does not load and store rows 16 bytes at a time.

usage: cuda_vectors.py FILE.ptx...

Only rows are aligned so that the compiler makes such instructions: what else kernels read is structs of 8-byte numbers.
"""

import pathlib
import re
import sys

# Of float and of double, and the same in newer spellings.
VECTOR = r"\.global(?:\.\w+)*\.(?:v4\.[fbu]32|v2\.[fbu]64)\b"


def kernels(text):
    """Name and instructions of every kernel."""
    parts = re.split(r"^\s*(?:\.\w+ )*\.entry (\w+)\(", text, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2]))


def check(text):
    """What is wrong, one line each."""
    found = kernels(text)
    if not found:
        yield "there are no kernels"
    for name, code in found:
        for what in ("ld", "st"):
            if not re.search(r"\b" + what + VECTOR, code):
                yield f"{name}: no 16-byte {what}.global"


def main(files):
    failed = 0
    for file in files:
        text = pathlib.Path(file).read_text(encoding="utf-8")
        print(f"{len(kernels(text))} kernels")
        for wrong in check(text):
            print(wrong)
            failed = 1
    return failed


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
