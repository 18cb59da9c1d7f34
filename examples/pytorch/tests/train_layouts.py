# SPDX-License-Identifier: MIT
"""What tests of the training share: small data sets in the layouts of the large ones, and one thread."""

import gzip
import io
import pickle
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

EXAMPLE = Path(__file__).resolve().parent.parent
if str(EXAMPLE) not in sys.path:
    sys.path.append(str(EXAMPLE))
RECIPES = EXAMPLE / "recipes"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def idx(folder, train=64, test=40, classes=10, size=28, compressed=True):
    """MNIST's files: every class is a bright bar of its own, with noise."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        labels = (np.arange(count) % classes).astype(np.uint8)
        images = random.integers(0, 60, (count, size, size), dtype=np.uint8)
        for image, label in zip(images, labels):
            image[2 + 2 * label : 5 + 2 * label, 3:-3] += 150
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()
            path = folder / (name + ".gz" * compressed)
            path.write_bytes(gzip.compress(content) if compressed else content)
    return folder


def cifar100(folder, train=256, test=20, change=None):
    """cifar-100-python.tar.gz, pickled as the original: protocol 2, Python 2's strings as keys. change(part, content)
    may alter what is pickled."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    archive = folder / "cifar-100-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for part, count in (("train", train), ("test", test)):
            content = {
                b"filenames": [f"image_{i}.png".encode() for i in range(count)],
                b"batch_label": b"batch 1 of 1",
                b"fine_labels": [int(n) for n in random.permutation(count) % 100],
                b"coarse_labels": [int(n) for n in random.permutation(count) % 20],
                b"data": random.integers(0, 256, (count, 3072), dtype=np.uint8),
            }
            if change:
                change(part, content)
            pickled = pickle.dumps(content, protocol=2).replace(b"cnumpy._core.", b"cnumpy.core.")
            member = tarfile.TarInfo(f"cifar-100-python/{part}")
            member.size = len(pickled)
            tar.addfile(member, io.BytesIO(pickled))
    return archive


def jpeg(path, random, size=(80, 72), colour=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = random.integers(0, 120, (*size, 3)) + (random.integers(0, 130, 3) if colour is None else colour)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def folders(folder, classes=("n01440764", "n01443537", "n01484850"), train=2, val=1):
    """ImageNet's folders of JPEG files."""
    random = np.random.default_rng(2)
    for part, count in (("train", train), ("val", val)):
        for name in classes:
            for i in range(count):
                jpeg(folder / part / name / f"{name}_{i}.JPEG", random)
    return folder


NAMES = ["Abel_Pacheco", "Akhmed_Zakayev", "Slobodan_Milosevic", "Zoran_Djindjic"]


def pairs_text(folds, pairs, names=NAMES, images=3):
    """pairs.txt with as many pairs of each kind in each fold."""
    lines = [f"{folds}\t{pairs}"]
    n = 0
    for _ in range(folds):
        for _ in range(pairs):
            lines.append(f"{names[n % len(names)]}\t{n % images + 1}\t{(n + 1) % images + 1}")
            n += 1
        for _ in range(pairs):
            a, b = names[n % len(names)], names[(n + 1 + n // len(names) % (len(names) - 1)) % len(names)]
            lines.append(f"{a}\t{n % images + 1}\t{b}\t{(n * 2) % images + 1}")
            n += 1
    return "\n".join(lines) + "\n"


def faces(folder, identities=3, images=2, folds=10, pairs=3):
    """Identities to train on, and LFW's folders with pairs.txt. Every person has a colour."""
    random = np.random.default_rng(3)
    for person in range(identities):
        for i in range(images):
            jpeg(folder / "train" / f"m.0{person}" / f"{i}.jpg", random, (112, 112))
    for name in NAMES:
        colour = random.integers(0, 130, 3)
        for i in range(3):
            jpeg(folder / "lfw" / name / f"{name}_{i + 1:04d}.jpg", random, (112, 112), colour)
    (folder / "pairs.txt").write_text(pairs_text(folds, pairs))
    return folder
