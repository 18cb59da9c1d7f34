# SPDX-License-Identifier: MIT
"""usage: npy_numpy.py DIRECTORY

Writes .npy files with NumPy, for npy_test.cpp to read: arrays [5, 3] and [5] whose values are -7, -6, ... (from 0 where
there is no sign), of every dtype that the detector reads, in every version of the format; and what it must refuse.
"""
import gzip
import pathlib
import sys

import numpy as np

directory = pathlib.Path(sys.argv[1])
for dtype in ("f4", "f8", "i4", "i8", "u1"):
    values = np.arange(15) - (0 if dtype == "u1" else 7)
    for version in (1, 2, 3):
        for name, array in (("matrix", values.reshape(5, 3)), ("vector", values[:5])):
            with open(directory / f"{name}-{dtype}-{version}.npy", "wb") as file:
                np.lib.format.write_array(file, array.astype(dtype), version=(version, 0))
np.save(directory / "plain.npy", np.arange(24, dtype=np.float32).reshape(4, 2, 3) / 8)
with gzip.open(directory / "plain.npy.gz", "wb") as file:
    file.write((directory / "plain.npy").read_bytes())
np.save(directory / "fortran.npy", np.asfortranarray(np.ones((3, 2), np.float32)))
np.save(directory / "big.npy", np.ones((3, 2), ">f4"))
np.save(directory / "half.npy", np.ones((3, 2), np.float16))
np.save(directory / "bool.npy", np.ones((3, 2), bool))
np.save(directory / "text.npy", np.array(["a", "bc"]))
np.save(directory / "object.npy", np.array([{}, "a"], dtype=object), allow_pickle=True)
np.save(directory / "structured.npy", np.zeros(3, [("a", "<f4"), ("b", "<i4", (2,))]))
np.save(directory / "scalar.npy", np.float32(1))
np.save(directory / "empty.npy", np.ones((0, 2), np.float32))
