# SPDX-License-Identifier: MIT
"""LFW's protocol for pairs of faces, View 2: same person or not, by a threshold that is chosen on nine folds and tried
on the tenth."""

from pathlib import Path
from typing import NamedTuple

import numpy as np


class Folds(NamedTuple):
    first: np.ndarray  # [folds, pairs] indices of images
    second: np.ndarray
    same: np.ndarray  # bool: both of one person


class Accuracy(NamedTuple):
    mean: float  # over the folds
    standard_error: float  # of that mean
    folds: list  # accuracy of each
    thresholds: list  # that each was tried with


class PairsError(ValueError):
    pass


def read_pairs(path):
    """Folds, and the names of the images that they index: "Name/Name_0001.jpg".

    pairs.txt begins with the number of folds and of pairs of each kind in a fold, separated by a tab; every fold has
    first its pairs of one person, "name number number", then those of two, "name number name number".
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise PairsError(f"there is no {path}") from None
    while lines and not lines[-1].strip():
        lines.pop()

    def wrong(line, message):
        return PairsError(f"{path}:{line + 1}: {message}")

    def number(text, line):
        if not (text.isascii() and text.isdigit() and int(text) > 0):
            raise wrong(line, f"{text!r} is no number of at least 1")
        return int(text)

    head = lines[0].split() if lines else []
    if len(head) != 2:
        raise wrong(0, "the first line must be the number of folds, and of pairs of each kind in a fold")
    folds, pairs = (number(text, 0) for text in head)
    if folds < 2:
        raise wrong(0, "one fold leaves nothing to choose a threshold on")
    if len(lines) != 1 + 2 * folds * pairs:
        raise PairsError(
            f"{path} has {len(lines) - 1} pairs; {folds} folds of {pairs} of each kind are {2 * folds * pairs}"
        )
    images = {}

    def index(name, text, line):
        image = f"{name}/{name}_{number(text, line):04d}.jpg"
        return images.setdefault(image, len(images))

    first, second = np.empty((2, folds, 2 * pairs), np.int64)
    for line in range(1, len(lines)):
        fold, pair = divmod(line - 1, 2 * pairs)
        parts = lines[line].split("\t") if "\t" in lines[line] else lines[line].split()
        parts = [part.strip() for part in parts]
        if pair < pairs:
            if len(parts) != 3:
                raise wrong(line, "a pair of one person must be: name, number, number")
            (name, a, b), other = parts, parts[0]
        else:
            if len(parts) != 4:
                raise wrong(line, "a pair of two persons must be: name, number, name, number")
            name, a, other, b = parts
            if name == other:
                raise wrong(line, f"a pair of two persons has {name} twice")
        if "/" in name + other or not name or not other:
            raise wrong(line, "a name is the name of a folder")
        first[fold, pair], second[fold, pair] = index(name, a, line), index(other, b, line)
    same = np.tile(np.arange(2 * pairs) < pairs, (folds, 1))
    return Folds(first, second, same), list(images)


def similarities(features, folds, metric):
    """[folds, pairs]: how alike the features [images, dims] of each pair are: metric "cosine", of the angle between
    them, or "euclidean", minus their distance."""
    features = np.asarray(features, np.float64)
    if metric == "cosine":
        length = np.linalg.norm(features, axis=1, keepdims=True)
        features = features / np.where(length > 0, length, 1)
        return (features[folds.first] * features[folds.second]).sum(-1)
    if metric == "euclidean":
        return -np.linalg.norm(features[folds.first] - features[folds.second], axis=-1)
    raise ValueError(f"metric is cosine or euclidean, not {metric}")


def best_threshold(similarity, same):
    """The threshold t with the most right answers "same where similarity > t": in the middle between two neighbouring
    similarities, or infinite; of several, the middle one."""
    order = np.argsort(similarity, kind="stable")
    values, same = similarity[order], same[order]
    # With a threshold just above the first n values, these n are called different.
    right = np.concatenate([[0], np.cumsum(~same)]) + np.concatenate([[0], np.cumsum(same[::-1])])[::-1]
    edges = np.concatenate([[-np.inf], values, [np.inf]])
    allowed = edges[:-1] < edges[1:]  # equal similarities are not told apart
    best = np.flatnonzero(allowed & (right == right[allowed].max()))
    below = best[(len(best) - 1) // 2]
    low, high = edges[below], edges[below + 1]
    if np.isinf(low) or np.isinf(high):
        return float(low if np.isinf(low) else high)
    middle = low + (high - low) / 2
    return float(middle if middle < high else low)  # of two neighbouring numbers: "> low" says the same


def accuracy(similarity, same):
    """Accuracy of similarity [folds, pairs]; every fold with the threshold that is best on the others."""
    similarity, same = np.asarray(similarity, np.float64), np.asarray(same, bool)
    if similarity.shape != same.shape or similarity.ndim != 2 or len(same) < 2:
        raise ValueError(
            f"similarity and same must be [folds, pairs], two folds or more, not {similarity.shape}, {same.shape}"
        )
    if not np.isfinite(similarity).all():
        raise ValueError("similarities must be finite")
    thresholds, right = [], []
    for fold in range(len(same)):
        others = np.arange(len(same)) != fold
        thresholds.append(best_threshold(similarity[others].ravel(), same[others].ravel()))
        right.append(float(((similarity[fold] > thresholds[-1]) == same[fold]).mean()))
    return Accuracy(float(np.mean(right)), float(np.std(right, ddof=1) / np.sqrt(len(right))), right, thresholds)
