# SPDX-License-Identifier: MIT
import itertools

import numpy as np
import pytest

import train_layouts
from training.pairs import PairsError, accuracy, best_threshold, read_pairs, similarities

SMALL = "2\t1\nA_B\t1\t2\nA_B\t1\tC\t4\nC\t10\t4\nC\t4\tDe_la_E\t1\n"


def write(tmp_path, text):
    path = tmp_path / "pairs.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_both_kinds_of_lines(tmp_path):
    folds, images = read_pairs(write(tmp_path, SMALL))
    assert images == [
        "A_B/A_B_0001.jpg",
        "A_B/A_B_0002.jpg",
        "C/C_0004.jpg",
        "C/C_0010.jpg",
        "De_la_E/De_la_E_0001.jpg",
    ]
    assert folds.first.tolist() == [[0, 0], [3, 2]]
    assert folds.second.tolist() == [[1, 2], [2, 4]]
    assert folds.same.tolist() == [[True, False], [True, False]]


def test_spaces_line_ends_and_empty_lines_at_the_end(tmp_path):
    plain = read_pairs(write(tmp_path, SMALL))
    for text in (SMALL.replace("\t", " "), SMALL.replace("\n", "\r\n"), SMALL + "\n\n", SMALL.rstrip("\n")):
        folds, images = read_pairs(write(tmp_path, text))
        assert images == plain[1]
        assert all((a == b).all() for a, b in zip(folds, plain[0]))


def test_real_size(tmp_path):
    folds, images = read_pairs(write(tmp_path, train_layouts.pairs_text(10, 300)))
    assert folds.first.shape == folds.second.shape == folds.same.shape == (10, 600)
    assert folds.same.sum(1).tolist() == [300] * 10
    names = [image.split("/")[0] for image in images]
    for a, b, same in zip(folds.first.ravel(), folds.second.ravel(), folds.same.ravel()):
        assert (names[a] == names[b]) == same


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: the first line"),
        ("10\n", ":1: the first line"),
        ("ten\t300\n", ":1: 'ten' is no number"),
        ("1\t1\nA\t1\t2\nA\t1\tC\t4\n", ":1: one fold"),
        (SMALL + "A\t1\t2\n", "has 5 pairs; 2 folds of 1 of each kind are 4"),
        (SMALL.replace("2\t1\nA_B", "3\t1\nA_B"), "has 4 pairs; 3 folds"),
        (SMALL.replace("A_B\t1\t2", "A_B\t1\tC\t2"), ":2: a pair of one person"),
        (SMALL.replace("A_B\t1\tC\t4", "A_B\t1\t4"), ":3: a pair of two persons"),
        (SMALL.replace("A_B\t1\tC\t4", "A_B\t1\tA_B\t4"), "has A_B twice"),
        (SMALL.replace("C\t10\t4", "C\tx\t4"), ":4: 'x' is no number"),
        (SMALL.replace("C\t10\t4", "C\t0\t4"), ":4: '0' is no number"),
        (SMALL.replace("C\t10\t4", "C\t-1\t4"), ":4: '-1' is no number"),
        (SMALL.replace("C\t10\t4", "../C\t10\t4"), ":4: a name is"),
        (SMALL.replace("C\t10\t4\n", "\n"), ":4: a pair of one person"),
    ],
)
def test_malformed(text, message, tmp_path):
    with pytest.raises(PairsError, match="pairs.txt") as error:
        read_pairs(write(tmp_path, text))
    assert message in str(error.value)


def test_no_file(tmp_path):
    with pytest.raises(PairsError, match="there is no"):
        read_pairs(tmp_path / "pairs.txt")


def test_similarities(tmp_path):
    folds, _ = read_pairs(write(tmp_path, SMALL))
    features = np.array([[1, 0], [3, 4], [0, 2], [-2, 0], [0, 0]], np.float32)
    assert similarities(features, folds, "cosine") == pytest.approx(np.array([[0.6, 0], [0, 0]]))
    assert similarities(features, folds, "euclidean") == pytest.approx(
        -np.array([[np.sqrt(20), np.sqrt(5)], [np.sqrt(8), 2]])
    )
    with pytest.raises(ValueError, match="metric"):
        similarities(features, folds, "angle")


def test_threshold_by_hand():
    yes, no = True, False
    # All of one person are more alike than all of two: between 2 and 5.
    assert best_threshold(np.array([5.0, 1, 7, 2]), np.array([yes, no, yes, no])) == 3.5
    # Only equal ones: told apart they cannot be; all the same person, or none.
    assert best_threshold(np.array([1.0, 1, 1]), np.array([yes, yes, no])) == -np.inf
    assert best_threshold(np.array([1.0, 1, 1]), np.array([yes, no, no])) == np.inf
    # Neighbouring numbers have no middle.
    low = 1.0
    high = np.nextafter(low, 2)
    at = best_threshold(np.array([low, high]), np.array([no, yes]))
    assert not low > at and high > at


def test_threshold_against_every_threshold():
    random = np.random.default_rng(0)
    for _ in range(200):
        count = int(random.integers(1, 9))
        similarity = random.integers(0, 5, count).astype(float)  # with equal ones
        same = random.random(count) < 0.5
        best = max(((similarity > t) == same).sum() for t in [-np.inf, *similarity, np.inf])
        assert ((similarity > best_threshold(similarity, same)) == same).sum() == best


def test_accuracy_by_hand():
    same = np.tile([True, False], (3, 1))
    perfect = accuracy([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]], same)
    assert perfect.mean == 1 and perfect.standard_error == 0 and perfect.folds == [1, 1, 1]
    assert perfect.thresholds == pytest.approx([0.5, 0.5, 0.5])
    # The last fold's similarities are larger by 10. Its threshold is the others': both its pairs pass for one person.
    moved = accuracy([[0.9, 0.1], [0.8, 0.2], [10.7, 10.3]], same)
    assert moved.thresholds[2] == pytest.approx(0.5) and moved.folds[2] == 0.5
    for fold, others in ((0, [0.8, 0.2, 10.7, 10.3]), (1, [0.9, 0.1, 10.7, 10.3])):
        assert moved.thresholds[fold] == best_threshold(np.array(others), same[:2].ravel())
    errors = np.array(moved.folds)
    assert moved.mean == pytest.approx(errors.mean())
    assert moved.standard_error == pytest.approx(np.sqrt(((errors - errors.mean()) ** 2).sum() / 2 / 3))


def test_the_tested_fold_has_no_say():
    """Whatever the pairs of a fold are, its threshold stays."""
    random = np.random.default_rng(1)
    similarity, same = random.normal(size=(4, 10)), np.tile(np.arange(10) < 5, (4, 1))
    before = accuracy(similarity, same)
    for fold, scale in itertools.product(range(4), (-3, 100)):
        changed = similarity.copy()
        changed[fold] *= scale
        assert accuracy(changed, same).thresholds[fold] == before.thresholds[fold]


def test_accuracy_refuses():
    same = np.tile([True, False], (2, 1))
    with pytest.raises(ValueError, match="finite"):
        accuracy([[0.9, np.nan], [1, 0]], same)
    with pytest.raises(ValueError, match="two folds"):
        accuracy([[0.9, 0.1]], same[:1])
