# SPDX-License-Identifier: MIT
"""usage: digits.py OUT [ROWS COLUMNS]

Writes scikit-learn's bundled handwritten digits (1797 images of 8 x 8 pixels), scaled to ROWS x COLUMNS (28 x 28), to an
IDX file of unsigned bytes, gzipped where OUT ends in .gz: an outside set for `detector evaluate --outside digits=OUT`.
Needs NumPy and scikit-learn.
"""
import gzip
import struct
import sys

import numpy as np
from sklearn.datasets import load_digits


def scale(images, size, axis):
    """Bilinear along one axis, pixels taken as little squares: the image's edges stay its edges."""
    old = images.shape[axis]
    at = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    low = np.minimum(at.astype(int), old - 2)
    part = (at - low).reshape([-1 if i == axis else 1 for i in range(images.ndim)])
    return images.take(low, axis) * (1 - part) + images.take(low + 1, axis) * part


def main():
    if len(sys.argv) not in (2, 4):
        sys.exit(__doc__.splitlines()[0])
    path = sys.argv[1]
    rows, columns = map(int, sys.argv[2:]) if len(sys.argv) == 4 else (28, 28)
    images = load_digits().images * (255 / 16)  # their pixels are 0 to 16
    images = np.rint(scale(scale(images, rows, 1), columns, 2)).astype(np.uint8)
    content = struct.pack(">4B3I", 0, 0, 8, 3, *images.shape) + images.tobytes()
    if path.endswith(".gz"):
        content = gzip.compress(content, mtime=0)  # the same bytes every time
    with open(path, "wb") as file:
        file.write(content)
    print(f"{path}: {len(images)} images of {rows} x {columns}")


if __name__ == "__main__":
    main()
