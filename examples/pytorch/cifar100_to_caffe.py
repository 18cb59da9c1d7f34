#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes HDF5 files for Caffe's layer HDF5Data of CIFAR-100's archive cifar-100-python.tar.gz.

    python3 cifar100_to_caffe.py cifar-100-python.tar.gz OUT_DIR --pad 40

OUT_DIR/train.h5 and test.h5 have float [N, 3, height, width] `data`, values 0 to 255 (red, green, blue), and float [N]
`label`, in the archive's order; h5train.txt and h5test.txt, the layer's `source`, name them. With --pad 40 training
images are 40x40: zeros, 4 on each side of the image. Test images stay 32x32.

HDF5Data reads a whole file into memory: of training images of 40x40 that is 0.96 GB. --images-per-file spreads them
over more files; the layer then shuffles the files, and the images within each.
"""

import argparse
import pickle
import sys
import tarfile
from pathlib import Path

import h5py
import numpy as np

from training.cifar100 import read_archive

SIZE = 32
CHUNK = 1000  # images turned into float at a time


def write(path, images, labels, pad):
    """One HDF5 file; images uint8 [N, 3, 32, 32], zeros around them until they are pad x pad."""
    before = (pad - SIZE) // 2
    after = pad - SIZE - before
    part = path.with_suffix(".part")
    with h5py.File(part, "w") as file:
        data = file.create_dataset("data", (len(images), 3, pad, pad), np.float32)
        for begin in range(0, len(images), CHUNK):
            rows = slice(begin, min(begin + CHUNK, len(images)))
            data[rows] = np.pad(images[rows], ((0, 0), (0, 0), (before, after), (before, after)))
        file["label"] = labels.astype(np.float32)
    part.replace(path)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="cifar-100-python.tar.gz, or the folder that it unpacks to")
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument(
        "--pad",
        type=int,
        default=SIZE,
        metavar="SIZE",
        help="height and width of training images with the zeros around them (default: %(default)s, none)",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--fine", dest="labels", action="store_const", const="fine", help="100 classes (default)")
    kind.add_argument("--coarse", dest="labels", action="store_const", const="coarse", help="20 classes")
    parser.add_argument("--images-per-file", type=int, metavar="N", help="default: all in one")
    parser.set_defaults(labels="fine")
    options = parser.parse_args(arguments)
    if options.pad < SIZE:
        parser.error(f"--pad is {options.pad}, and images are {SIZE}x{SIZE}")
    if options.images_per_file is not None and options.images_per_file < 1:
        parser.error("--images-per-file is at least 1")
    options.out = options.out.resolve()
    if len(str(options.out).split()) != 1:
        parser.error(f"HDF5Data takes no file names with spaces: {options.out}")

    options.out.mkdir(parents=True, exist_ok=True)
    for part, pad in (("train", options.pad), ("test", SIZE)):
        images, labels = read_archive(options.archive, part, options.labels)
        step = options.images_per_file or max(1, len(images))
        files = []
        for begin in range(0, len(images), step):
            name = f"{part}.h5" if step >= len(images) else f"{part}_{begin // step}.h5"
            files.append(options.out / name)
            write(files[-1], images[begin : begin + step], labels[begin : begin + step], pad)
        (options.out / f"h5{part}.txt").write_text("".join(f"{file}\n" for file in files))
        print(f"{part}: {len(images)} images of {pad}x{pad}, {', '.join(str(file) for file in files)}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError, pickle.UnpicklingError, tarfile.TarError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
