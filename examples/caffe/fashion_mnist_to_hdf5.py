#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes Fashion-MNIST (or another image set in MNIST's file format) as Caffe's HDF5Data reads it: float32 [N, 1, 28, 28] `data`,
0 to 255, and float32 [N] `label`, with the lists h5train.txt and h5test.txt."""
import argparse
import gzip
import pathlib

import h5py
import numpy as np


def read_idx(path):
    data = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--data", type=pathlib.Path, default="/usr/share/datasets/fashion-mnist",
                        help="the folder of the four .gz files (default: Debian's package dataset-fashion-mnist)")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images = read_idx(arguments.data / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(arguments.data / f"{prefix}-labels-idx1-ubyte.gz")
        with h5py.File(out / f"{part}.h5", "w") as file:
            file["data"] = images[:, None].astype(np.float32)
            file["label"] = labels.astype(np.float32)
        (out / f"h5{part}.txt").write_text(f"{out / part}.h5\n", encoding="utf-8")


if __name__ == "__main__":
    main()
