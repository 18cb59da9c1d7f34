# SPDX-License-Identifier: MIT
"""CIFAR-100 as its archive cifar-100-python.tar.gz holds it. Needs NumPy alone."""

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np


class _ArraysOnly(pickle.Unpickler):
    """Loads what NumPy arrays are pickled as, in any version of NumPy and Python, and calls nothing else."""

    _allowed = {
        ("_reconstruct", "multiarray"): np.empty(0).__reduce__()[0],
        ("ndarray", "numpy"): np.ndarray,
        ("dtype", "numpy"): np.dtype,
        ("encode", "_codecs"): lambda text, encoding: text.encode(encoding),  # bytes, in protocol 2
    }

    def find_class(self, module, name):
        found = self._allowed.get((name, module.removeprefix("numpy.core.").removeprefix("numpy._core.")))
        if found is None:
            raise pickle.UnpicklingError(f"the archive asks for {module}.{name}, which no image set needs")
        return found


def read_archive(archive, part, labels="fine"):
    """Images uint8 [N, 3, 32, 32] and labels int64 [N] of part "train" or "test", in the archive's order. archive: the
    .tar.gz, or the folder that it unpacks to. labels: "fine" (100 classes) or "coarse" (20)."""
    archive = Path(archive)
    if archive.is_dir():
        pickled = (archive / part).read_bytes()
    else:
        with tarfile.open(archive) as tar:
            try:
                pickled = tar.extractfile(f"cifar-100-python/{part}").read()
            except KeyError:
                raise ValueError(f"{archive} has no cifar-100-python/{part}") from None
    # The original was pickled by Python 2, and its strings, the keys among them, are bytes.
    content = _ArraysOnly(io.BytesIO(pickled), encoding="bytes").load()
    if not isinstance(content, dict):
        raise ValueError(f"{archive}: {part} is no dictionary")
    content = {key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()}
    for key in ("data", f"{labels}_labels"):
        if key not in content:
            raise ValueError(f"{archive}: {part} has no {key}")
    images, numbers = content["data"], np.asarray(content[f"{labels}_labels"])
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3072:
        raise ValueError(f"{archive}: data of {part} is not uint8 [N, 3072]")
    classes = {"fine": 100, "coarse": 20}[labels]
    if numbers.shape != images.shape[:1] or not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(f"{archive}: {part} has {len(images)} images, and no whole number as label for each")
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < classes:
        raise ValueError(f"{archive}: {labels} labels of {part} are not all in 0 to {classes - 1}")
    return images.reshape(-1, 3, 32, 32), numbers.astype(np.int64)
