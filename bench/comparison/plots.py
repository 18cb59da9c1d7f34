# SPDX-License-Identifier: MIT
"""The two plots: times relative to softmax by shape, and times against size with the floor."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from comparison.problem import Shape
from comparison.report import Results, _title, number

# Okabe and Ito's colours, which differ for all kinds of eyes, and markers for print without colour.
_LOOKS = {
    "softmax": ("#E69F00", "o"),
    "softmax-compiled": ("#F0E442", "v"),
    "expanded": ("#56B4E9", "s"),
    "expanded-compiled": ("#0072B2", "D"),
    "broadcast": ("#999999", "^"),
    "broadcast-compiled": ("#666666", "P"),
    "lgm": ("#D55E00", "X"),
    "lgm-blas": ("#009E73", "p"),
}
_STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}


def _caption(figure, results):
    m = results.raw["machine"]
    figure.text(
        0.005,
        0.005,
        f"{m['processor']}, {m['threads']} threads, float, forward + backward; medians; {results.raw['date'][:10]}",
        fontsize=7,
        color="#555555",
    )


def _plain_numbers(axes, digits):
    """Ticks of a logarithmic axis at these digits of each decade, as 0.5 rather than a power of ten."""
    axes.yaxis.set_major_locator(LogLocator(subs=digits))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _legend_on_top(axes):
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.01), ncols=3, borderaxespad=0, fontsize=9)


def ratios(results, file):
    base = "softmax"
    names = [n for n in _LOOKS if n in results.names and n != base and results.ratios(n, base)]
    if not names:
        return None
    figure, axes = plt.subplots(figsize=(10, 5), layout="constrained")
    width = 0.85 / len(names)
    for i, name in enumerate(names):
        found = results.ratios(name, base)
        places = [results.shapes.index(shape) + (i - (len(names) - 1) / 2) * width for shape in found]
        bars = axes.bar(
            places,
            [v - 1 for v in found.values()],
            width,
            bottom=1,
            color=_LOOKS[name][0],
            edgecolor="white",
            linewidth=0.5,
            label=_title(results, name),
        )
        axes.bar_label(bars, [number(v) for v in found.values()], fontsize=6.5, rotation=90, padding=2)
        for place, shape in enumerate(results.shapes):
            if results.failure(name, shape) == "does not fit":
                at = place + (i - (len(names) - 1) / 2) * width
                axes.text(at, 1.06, "does not fit", rotation=90, fontsize=6.5, color=_LOOKS[name][0], ha="center")
    axes.axhline(1, color="black", linewidth=1)
    axes.set_yscale("log")
    _plain_numbers(axes, (1, 2, 5))
    axes.margins(y=0.12)
    axes.grid(axis="x", visible=False)
    axes.set_xticks(range(len(results.shapes)), results.shapes, fontsize=8)
    axes.set_xlabel("samples x classes x dims")
    axes.set_ylabel(f"time / time of {_title(results, base)}\n(below 1: faster)")
    _legend_on_top(axes)
    return _save(figure, results, file)


def times(results, file):
    names = [n for n in _LOOKS if n in results.names]
    floors = [n for n in ("products", "products-blas") if n in results.names]
    if not names or len(results.shapes) < 2:
        return None
    figure, axes = plt.subplots(figsize=(10, 6), layout="constrained")
    shapes = sorted(results.shapes, key=lambda s: Shape.parse(s).product)

    def curve(name, **look):
        points = [(Shape.parse(s).product, results.seconds(name, s)) for s in shapes]
        points = [(x, 1e3 * y) for x, y in points if y]
        if points:
            axes.plot(*zip(*points), label=_title(results, name), **look)

    for name, style in zip(floors, ("--", ":")):
        curve(name, color="black", linestyle=style, linewidth=1.2, zorder=1)
    for name in names:
        colour, marker = _LOOKS[name]
        curve(
            name, color=colour, marker=marker, markersize=6, linewidth=1.4, markeredgecolor="white", markeredgewidth=0.5
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_numbers(axes, (1,))
    axes.set_xlabel("samples x classes x dims (multiply-adds of one product)")
    axes.set_ylabel("milliseconds of a step")
    # The shapes' names along the bottom; neighbours that are close take turns above each other.
    last, level = None, 0
    for shape in shapes:
        x = Shape.parse(shape).product
        level = (level + 1) % 3 if last is not None and x / last < 30 else 0
        axes.annotate(
            shape,
            (x, 0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4 + 10 * level),
            textcoords="offset points",
            fontsize=7,
            color="#555555",
            ha="center",
        )
        last = x
    low, high = axes.get_ylim()
    axes.set_ylim(low / (high / low) ** 0.12, high)
    _legend_on_top(axes)
    return _save(figure, results, file)


def _save(figure, results, file):
    _caption(figure, results)
    figure.get_layout_engine().set(rect=(0, 0.025, 1, 0.975))
    figure.savefig(file, dpi=150)
    plt.close(figure)
    return file


def draw(raw, folder):
    """The files that were drawn."""
    results = Results(raw)
    with plt.rc_context(_STYLE):
        drawn = [ratios(results, folder / "ratios.png"), times(results, folder / "times.png")]
    return [file for file in drawn if file is not None]
