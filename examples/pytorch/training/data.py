# SPDX-License-Identifier: MIT
"""The kinds of data sets, each in the layout in which it is given away:

idx       train-images-idx3-ubyte, train-labels-idx1-ubyte and the two of t10k, also .gz: MNIST, Fashion-MNIST
cifar100  cifar-100-python.tar.gz, or its unpacked folder cifar-100-python
folders   train/CLASS/*.jpg and val/CLASS/*.jpg: ImageNet
faces     train/IDENTITY/*.jpg; for the test lfw/NAME/NAME_0001.jpg and pairs.txt
"""

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import default_loader
from torchvision.transforms import v2

from .cifar100 import read_archive
from .pairs import read_pairs


class DataError(ValueError):
    pass


class Images(Dataset):
    """Images in memory: uint8 [N, channels, height, width] and labels."""

    def __init__(self, images, labels, transform):
        self.images, self.labels, self.transform = torch.from_numpy(images), labels.tolist(), transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(self.images[index]), self.labels[index]


class Files(Dataset):
    """Images in files, without labels."""

    def __init__(self, paths, transform):
        self.paths, self.transform = paths, transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return self.transform(default_loader(self.paths[index])), index


class Sets(NamedTuple):
    train: Dataset
    train_plain: Dataset  # the training images as test images are given
    test: Dataset
    classes: list  # names
    folds: object = None  # faces: of pairs of test images; see pairs.py


def transforms(data, train):
    """From an image of PIL or a tensor uint8 to a float tensor."""
    steps = []
    if data.size:
        steps.append(v2.Resize(data.size, antialias=True))
    if train:
        if data.random_resized_crop:
            steps.append(v2.RandomResizedCrop(data.random_resized_crop, antialias=True))
        if data.crop:
            steps.append(v2.RandomCrop(data.crop, padding=data.pad))
        if data.mirror:
            steps.append(v2.RandomHorizontalFlip())
    else:
        if data.resize:
            steps.append(v2.Resize(data.resize, antialias=True))
        if data.center_crop:
            steps.append(v2.CenterCrop(data.center_crop))
    return v2.Compose([*steps, v2.PILToTensor(), v2.ToDtype(torch.float32), v2.Normalize(data.mean, data.std)])


def read_idx(path):
    """An array of unsigned bytes in MNIST's file format, also compressed."""
    path = Path(path)
    compressed = path.with_name(path.name + ".gz")
    if path.exists():
        content = path.read_bytes()
    elif compressed.exists():
        try:
            content = gzip.decompress(compressed.read_bytes())
        except (EOFError, gzip.BadGzipFile) as error:
            raise DataError(f"{compressed}: {error}") from None
    else:
        raise DataError(f"there is no {path}, and no {compressed.name}")
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(f"{path} is no IDX file of unsigned bytes")
    header = 4 + 4 * content[3]
    shape = [int(n) for n in np.frombuffer(content[4:header], ">i4")]
    if len(content) != header + np.prod(shape, dtype=np.int64):
        raise DataError(f"{path} has not the length that its header says")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()


def _idx(folder, part):
    images, labels = read_idx(folder / f"{part}-images-idx3-ubyte"), read_idx(folder / f"{part}-labels-idx1-ubyte")
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise DataError(f"{folder}: images of {part} are {images.shape}, labels {labels.shape}")
    return images[:, None], labels.astype(np.int64)


def _in_memory(folder, data):
    if data.kind == "idx":
        train, test = _idx(folder, "train"), _idx(folder, "t10k")
    else:
        found = [
            p
            for p in (folder, folder / "cifar-100-python.tar.gz", folder / "cifar-100-python")
            if p.is_file() or (p / "train").is_file()
        ]
        if not found:
            raise DataError(f"{folder} has no cifar-100-python.tar.gz")
        train, test = (read_archive(found[0], part) for part in ("train", "test"))
    count = 100 if data.kind == "cifar100" else int(max(train[1].max(initial=0), test[1].max(initial=0))) + 1
    plain = transforms(data, train=False)
    names = data.classes or [str(k) for k in range(count)]
    if len(names) < count:
        raise DataError(f"data.classes has {len(names)} names, and there are {count} classes")
    return Sets(Images(*train, transforms(data, train=True)), Images(*train, plain), Images(*test, plain), names)


def _folders(folder, data):
    try:
        train, plain = (ImageFolder(folder / "train", transforms(data, train)) for train in (True, False))
        if data.kind == "faces":
            return _faces(folder, data, train, plain)
        # Labels are those of train's folders, also where val lacks one of them.
        test = ImageFolder(folder / "val", transforms(data, train=False), allow_empty=True)
    except FileNotFoundError as error:
        raise DataError(str(error)) from None
    unknown = set(test.classes) - set(train.classes)
    if unknown:
        raise DataError(f"{folder}/val has classes that train lacks: {', '.join(sorted(unknown)[:5])}")
    test.samples = [(path, train.class_to_idx[test.classes[label]]) for path, label in test.samples]
    test.targets = [label for _, label in test.samples]
    return Sets(train, plain, test, train.classes)


def _faces(folder, data, train, plain):
    folds, names = read_pairs(folder / "pairs.txt")
    paths = [folder / "lfw" / name for name in names]
    for path in paths:
        if not path.is_file():
            raise DataError(f"pairs.txt names {path.name}, and there is no {path}")
    return Sets(train, plain, Files(paths, transforms(data, train=False)), train.classes, folds)


def load(recipe, folder=None):
    """The Sets of a recipe; folder: in place of data.folder."""
    data = recipe.data
    if not (folder or data.folder):
        raise DataError(f"{recipe.name} has no folder for its data: name it with --data")
    folder = Path(folder or data.folder)
    if not folder.exists():
        raise DataError(f"there is no {folder}: name the folder of the data with --data")
    sets = (_in_memory if data.kind in ("idx", "cifar100") else _folders)(folder, data)
    if data.limit:
        few = [Subset(one, range(min(data.limit, len(one)))) for one in sets[:3]]
        sets = sets._replace(train=few[0], train_plain=few[1], **({} if sets.folds else {"test": few[2]}))
    if not len(sets.train) or not len(sets.test):
        raise DataError(f"{folder} has {len(sets.train)} training images and {len(sets.test)} test images")
    return sets


def batches(dataset, batch, workers, generator=None, device="cpu"):
    """A DataLoader; with a generator shuffled by it, and only whole batches if there is one."""
    return DataLoader(
        dataset,
        batch,
        shuffle=generator is not None,
        generator=generator,
        num_workers=workers,
        drop_last=generator is not None and len(dataset) >= batch,
        pin_memory=device != "cpu",
    )
