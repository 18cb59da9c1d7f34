# SPDX-License-Identifier: MIT
"""usage: npy_numpy.py DIRECTORY

Writes .npy and .npz files with NumPy, for npy_test.cpp to read: arrays [5, 3] and [5] whose values are -7, -6, ... (from 0
where there is no sign; 0, 1, 0, ... where they are booleans), of every dtype that the detector reads (with an F before it in
Fortran order), in every version of the format; and what it must refuse.
"""
import gzip
import pathlib
import sys

import numpy as np

directory = pathlib.Path(sys.argv[1])
for dtype in ("f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1 >f2 >f8 >i2 >u4 Ff4 Fi8 F>f4").split():
    values = np.arange(15) % 2 if dtype == "b1" else np.arange(15) - (0 if "u" in dtype else 7)
    for version in (1, 2, 3):
        for name, array in (("matrix", values.reshape(5, 3)), ("vector", values[:5])):
            with open(directory / f"{name}-{dtype}-{version}.npy", "wb") as file:
                array = array.astype(dtype.strip("F"), order="F" if dtype[0] == "F" else "C")
                np.lib.format.write_array(file, array, version=(version, 0))
np.save(directory / "plain.npy", np.arange(24, dtype=np.float32).reshape(4, 2, 3) / 8)
with gzip.open(directory / "plain.npy.gz", "wb") as file:
    file.write((directory / "plain.npy").read_bytes())
arrays = {"features": np.load(directory / "plain.npy"), "labels": np.arange(4)}
np.savez(directory / "stored.npz", **arrays)
np.savez_compressed(directory / "packed.npz", **arrays)
np.save(directory / "complex.npy", np.ones((3, 2), np.complex64))
np.save(directory / "text.npy", np.array(["a", "bc"]))
np.save(directory / "object.npy", np.array([{}, "a"], dtype=object), allow_pickle=True)
np.save(directory / "structured.npy", np.zeros(3, [("a", "<f4"), ("b", "<i4", (2,))]))
np.save(directory / "scalar.npy", np.float32(1))
np.save(directory / "empty.npy", np.ones((0, 2), np.float32))
