# SPDX-License-Identifier: MIT
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

import train_layouts
from training.cifar100 import read_archive

SCRIPT = train_layouts.EXAMPLE / "cifar100_to_caffe.py"


def run(*arguments, right=True):
    done = subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True)
    assert (done.returncode == 0) == right, done.stderr
    return done.stdout if right else done.stderr


def contents(listing):
    data, labels = [], []
    for name in listing.read_text().split("\n")[:-1]:
        assert os.path.isabs(name)
        with h5py.File(name) as file:
            assert file["data"].dtype == np.float32 and file["label"].dtype == np.float32
            assert file["data"].shape[:1] == file["label"].shape
            data.append(file["data"][:])
            labels.append(file["label"][:])
    return np.concatenate(data), np.concatenate(labels)


@pytest.fixture
def archive(tmp_path):
    kept = {}
    path = train_layouts.cifar100(tmp_path, 13, 7, lambda part, content: kept.update({part: content}))
    return path, kept


def test_padded(archive, tmp_path):
    path, kept = archive
    run(path, tmp_path / "out", "--pad", 40)
    data, labels = contents(tmp_path / "out" / "h5train.txt")
    assert data.shape == (13, 3, 40, 40)
    images = kept["train"][b"data"].reshape(-1, 3, 32, 32)
    assert (data[:, :, 4:36, 4:36] == images).all()
    data[:, :, 4:36, 4:36] = 0
    assert (data == 0).all()
    assert labels.tolist() == kept["train"][b"fine_labels"]
    data, labels = contents(tmp_path / "out" / "h5test.txt")
    assert (data == kept["test"][b"data"].reshape(-1, 3, 32, 32)).all() and data.shape == (7, 3, 32, 32)
    assert labels.tolist() == kept["test"][b"fine_labels"]
    assert not list((tmp_path / "out").glob("*.part"))


def test_plain_coarse_in_parts(archive, tmp_path):
    path, kept = archive
    run(path, tmp_path, "--coarse", "--images-per-file", 5)
    for part, files in (("train", 3), ("test", 2)):
        assert len((tmp_path / f"h5{part}.txt").read_text().split()) == files
        data, labels = contents(tmp_path / f"h5{part}.txt")
        assert (data == kept[part][b"data"].reshape(-1, 3, 32, 32)).all()
        assert labels.tolist() == kept[part][b"coarse_labels"]


def test_more_images_than_a_chunk(tmp_path):
    kept = {}
    path = train_layouts.cifar100(tmp_path, 1003, 1, lambda part, content: kept.update({part: content}))
    run(path, tmp_path, "--pad", 33)
    data, _ = contents(tmp_path / "h5train.txt")
    assert (data[:, :, :32, :32] == kept["train"][b"data"].reshape(-1, 3, 32, 32)).all()
    assert (data[:, :, 32] == 0).all() and (data[:, :, :, 32] == 0).all()


def test_unpacked_folder(archive, tmp_path):
    path, kept = archive
    import tarfile

    with tarfile.open(path) as tar:
        tar.extractall(tmp_path, filter="data")
    images, labels = read_archive(tmp_path / "cifar-100-python", "test")
    assert (images.reshape(7, -1) == kept["test"][b"data"]).all() and labels.tolist() == kept["test"][b"fine_labels"]


def test_refusals(archive, tmp_path):
    path, _ = archive
    assert "--pad is 31" in run(path, tmp_path, "--pad", 31, right=False)
    assert "at least 1" in run(path, tmp_path, "--images-per-file", 0, right=False)
    assert "with spaces" in run(path, tmp_path / "two words", right=False)
    error = run(tmp_path / "none.tar.gz", tmp_path, right=False)
    assert "none.tar.gz" in error and "Traceback" not in error
    (tmp_path / "text.tar.gz").write_text("no archive")
    error = run(tmp_path / "text.tar.gz", tmp_path, right=False)
    assert error.startswith("cifar100_to_caffe.py: ") and "Traceback" not in error


class Harmful:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update({b"fine_labels": Harmful()}), "asks for posix.system"),
        (lambda content: content.update({b"fine_labels": [100] * 2}), "not all in 0 to 99"),
        (lambda content: content.update({b"fine_labels": [1]}), "label for each"),
        (lambda content: content.update({b"data": np.zeros((2, 3071), np.uint8)}), "not uint8"),
        (lambda content: content.pop(b"fine_labels"), "no fine_labels"),
    ],
)
def test_wrong_archives(change, message, tmp_path):
    path = train_layouts.cifar100(tmp_path, 2, 2, lambda part, content: change(content))
    error = run(path, tmp_path, right=False)
    assert message in error and "Traceback" not in error
