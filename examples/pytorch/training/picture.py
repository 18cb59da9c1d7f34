# SPDX-License-Identifier: MIT
"""The picture of 2-D features."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

POINTS = 2000  # of a head, so that the classes can be told apart


def draw(path, panels, classes):
    """panels: for each head its title, features [samples, 2], labels [samples], crosses [classes, 2], what they are."""
    figure, axes = plt.subplots(1, len(panels), figsize=(5.6 * len(panels), 5.6), squeeze=False, layout="constrained")
    colours = plt.get_cmap("tab10" if len(classes) <= 10 else "tab20")
    for axis, (title, features, labels, crosses, crosses_are) in zip(axes[0], panels):
        # In a random order: no class hides another.
        shown = np.random.default_rng(0).permutation(len(labels))[:POINTS]
        axis.scatter(*features[shown].T, s=5, c=colours(labels[shown] % colours.N), alpha=0.6, linewidths=0)
        axis.scatter(*crosses.T, s=110, marker="X", c="white", edgecolors="black", linewidths=1.2)
        # The few that are far away must not make the rest small.
        low, high = np.percentile(features, [0.2, 99.8], axis=0)
        low, high = np.minimum(low, crosses.min(0)), np.maximum(high, crosses.max(0))
        middle, half = (low + high) / 2, 0.54 * (high - low).max() + 1e-9
        axis.set(
            title=title,
            xlabel=f"feature 1 (crosses: {crosses_are})",
            ylabel="feature 2",
            aspect="equal",
            xlim=(middle[0] - half, middle[0] + half),
            ylim=(middle[1] - half, middle[1] + half),
        )
        axis.grid(alpha=0.25)
    handles = [
        plt.Line2D([], [], marker="o", linestyle="", color=colours(k % colours.N), label=name)
        for k, name in enumerate(classes)
    ]
    if len(classes) <= 20:
        figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, dpi=100)
    plt.close(figure)
