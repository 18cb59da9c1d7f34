# SPDX-License-Identifier: MIT
"""Writes detection_metrics.json, next to this file: what scikit-learn says of scores with and without ties.

The committed file says which scikit-learn made it. The expected calibration error, which it has not, is NumPy's, bin by
bin.
"""
import argparse
import json
import pathlib
import random

import numpy as np
import sklearn
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score, roc_curve


def measured(inside, outside):
    """Inside is told by a high score."""
    labels = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
    scores = np.r_[inside, outside]
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    thresholds = [*np.unique(scores), scores.max() + 1]
    return {
        "inside": inside,
        "outside": outside,
        "auroc": roc_auc_score(labels, scores),
        "fpr_at_95_tpr": fpr[np.argmax(tpr >= 0.95)],
        "aupr_in": average_precision_score(labels, scores),
        "aupr_out": average_precision_score(1 - labels, -scores),
        "accuracy": max(balanced_accuracy_score(labels, scores >= threshold) for threshold in thresholds),
        "fpr": fpr.tolist(),
        "tpr": tpr.tolist(),
    }


def calibration(confidence, correct, bins):
    """The expected calibration error, bin by bin."""
    confidence, correct = np.array(confidence), np.array(correct)
    error = 0.0
    for i in range(bins):
        low = confidence > i / bins if i > 0 else confidence >= 0
        chosen = low & (confidence <= (i + 1) / bins)
        if chosen.any():
            error += chosen.mean() * abs(correct[chosen].mean() - confidence[chosen].mean())
    return {"confidence": confidence.tolist(), "correct": correct.tolist(), "bins": bins, "error": error}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?", type=pathlib.Path, default=pathlib.Path(__file__).with_suffix(".json"))
    path = parser.parse_args().output
    rng = random.Random(20240607)

    def normal(count, mean, digits=6):
        """Rounded: the fewer digits, the more ties."""
        return [round(rng.gauss(mean, 1), digits) for _ in range(count)]

    pairs = [
        ([1.0], [0.0]),
        ([0.0], [1.0]),
        ([0.5], [0.5]),
        ([0.5], [0.5, 0.5, 0.5]),
        ([1.0, 1.0, 1.0], [1.0]),
        ([2.0, 3.0], [1.0, 2.0]),
        ([3.0, 4.0, 5.0], [0.0, 1.0, 2.0]),
        ([0.0, 1.0, 2.0], [3.0, 4.0, 5.0]),
        ([-1e300, 0.0, 1e300], [-1e-300, 0.0, 1e-300]),
    ]
    for inside, outside, digits in [
        (40, 40, 6),
        (40, 40, 1),
        (40, 40, 0),
        (100, 3, 6),
        (3, 100, 1),
        (1, 60, 1),
        (60, 1, 0),
        (20, 30, 1),  # 19 of 20 are 95% exactly
        (19, 30, 1),
        (21, 30, 1),
        (100, 100, 1),
    ]:
        for distance in (2.5, 1.0, 0.0, -1.0):
            pairs.append((normal(inside, distance, digits), normal(outside, 0, digits)))
    cases = [measured(inside, outside) for inside, outside in pairs]

    calibrations = []
    for count, bins in [(1, 15), (10, 15), (200, 15), (200, 10), (50, 1)]:
        confidence = [round(rng.random(), 6) for _ in range(count)]
        calibrations.append(calibration(confidence, [rng.random() < c for c in confidence], bins))
    calibrations.append(calibration([0.0, 1.0, 1.0, 0.5], [False, True, False, True], 15))
    # On the bounds of bins, in numbers that have no rounding error: they belong to the bin below.
    calibrations.append(calibration([i / 8 for i in range(9)], [i % 3 == 0 for i in range(9)], 8))

    lines = [",\n".join(json.dumps(entry, allow_nan=False) for entry in part) for part in (cases, calibrations)]
    version = json.dumps(sklearn.__version__)
    path.write_text('{"scikit-learn": %s, "cases": [\n%s\n], "calibrations": [\n%s\n]}\n' % (version, *lines))


if __name__ == "__main__":
    main()
