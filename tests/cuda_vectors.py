# SPDX-License-Identifier: MIT
"""Fails where a kernel that moves the tile's rows does not load and store them 16 bytes at a time.

usage: cuda_vectors.py FILE...     files of PTX, or objects that have some, not compressed

Only rows are aligned so that the compiler makes such instructions: what else kernels read is structs of 8-byte numbers.
"""

import pathlib
import re
import sys

# What has to be in the files, for float and for double, for groups of a warp and of eight.
KERNELS = ("gather_kernel", "visit_kernel", "logits_kernel", "score_kernel")
HOT = [f"9run_tasksILi{lanes}ENS0_{len(name)}{name}I{number}E" for name in KERNELS for lanes in (32, 256) for number in "fd"]

# Of float and of double, and the same in newer spellings.
VECTOR = r"\.global(?:\.\w+)*\.(?:v4\.[fbu]32|v2\.[fbu]64)\b"


def kernels(text):
    """Name and instructions of every kernel."""
    parts = re.split(r"^\s*(?:\.\w+ )*\.entry (\w+)\(", text, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2]))


def check(text, hot):
    """What is wrong, one line each."""
    found = kernels(text)
    for part in hot:
        code = next((code for name, code in found if part in name), None)
        if code is None:
            yield f"{part}: no such kernel"
            continue
        for what in ("ld", "st"):
            if not re.search(r"\b" + what + VECTOR, code):
                yield f"{part}: no 16-byte {what}.global"


def main(files):
    wrong = list(check("\n".join(pathlib.Path(file).read_text(encoding="latin-1") for file in files), HOT))
    print(f"{len(HOT)} kernels", *wrong, sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
