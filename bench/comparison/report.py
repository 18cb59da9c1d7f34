# SPDX-License-Identifier: MIT
"""What was measured, as tables in Markdown, and held against the targets."""

import math
import statistics

try:
    from tabulate import tabulate
except ImportError:  # the check of a build does without
    tabulate = None

from comparison.contenders import BLASES, CONTENDERS
from comparison.problem import Shape

# Of the project's targets; a shape is at least as large as another where its products are.
MEDIUM, LARGE, LARGEST = Shape(256, 100, 384), Shape(2048, 10000, 512), Shape(1024, 100000, 512)


class Results:
    """Access to the medians and ratios of compare.json's contents."""

    def __init__(self, raw):
        self.raw = raw
        self.shapes = list(raw["shapes"])
        self.names = list(raw["contenders"])

    def entry(self, name, shape):
        return self.raw["shapes"][shape].get(name)

    def samples(self, name, shape):
        entry = self.entry(name, shape)
        return entry["samples"] if entry and not entry["failure"] else {}

    def seconds(self, name, shape):
        values = list(self.samples(name, shape).values())
        return statistics.median(values) if values else None

    def ratio(self, name, other, shape):
        """The median, over the rounds that both took part in, of the one's time over the other's; None without any."""
        mine, others = self.samples(name, shape), self.samples(other, shape)
        values = [mine[n] / others[n] for n in mine if n in others]
        return statistics.median(values) if values else None

    def ratios(self, name, other, shapes=None):
        pairs = ((shape, self.ratio(name, other, shape)) for shape in (self.shapes if shapes is None else shapes))
        return {shape: ratio for shape, ratio in pairs if ratio is not None}

    def since(self, shape, until=None):
        return [s for s in self.shapes if shape.product <= Shape.parse(s).product <= (until or Shape.parse(s)).product]

    def failure(self, name, shape):
        entry = self.entry(name, shape)
        return entry["failure"] if entry else None


def quartiles(values):
    """Lower quartile, median, upper quartile."""
    values = list(values)
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3


def geometric_mean(values):
    values = list(values)
    return math.exp(statistics.fmean(math.log(v) for v in values)) if values else None


def number(value):
    """Three digits that a reader can take in."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def table(headers, rows):
    if tabulate is not None:
        return tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in [headers, ["---"] * len(headers), *rows])


# ---- tables ----

_STEPS = (
    "softmax",
    "softmax-compiled",
    "expanded",
    "expanded-compiled",
    "broadcast",
    "broadcast-compiled",
    "lgm",
    "lgm-blas",
)
_FLOORS = {"lgm": "products", "lgm-blas": "products-blas", "softmax": "products-torch", "expanded": "products-torch"}
_VARIANTS = ("lgm", "lgm-blas")


def _title(results, name):
    title = CONTENDERS[name].title
    return title.replace("BLAS", BLASES[results.raw["blas"]].title) if results.raw["blas"] else title


def _ratio_row(results, title, name, other, mean_over):
    row = [title]
    for shape in results.shapes:
        failed = results.failure(name, shape) or results.failure(other, shape)
        row.append(
            "does not fit" if failed == "does not fit" else "-" if failed else number(results.ratio(name, other, shape))
        )
    return row + [number(geometric_mean(results.ratios(name, other, mean_over).values()))]


def _present(results, names):
    return [name for name in names if name in results.names]


def _times(results):
    rows = []
    for name in results.names:
        row = [_title(results, name)]
        for shape in results.shapes:
            values = results.samples(name, shape).values()
            if not values:
                row.append(results.failure(name, shape) or "")
                continue
            low, median, high = quartiles(values)
            row.append(f"{number(median * 1e3)} ±{50 * (high - low) / median:.0f}%")
        rows.append(row)
    return table(["milliseconds", *results.shapes], rows)


def _ratio_table(results, what, pairs):
    medium = results.since(MEDIUM)
    rows = [
        _ratio_row(results, f"{_title(results, a)} / {_title(results, b)}", a, b, medium)
        for a, b in pairs
        if a in results.names and b in results.names
    ]
    return table([what, *results.shapes, f"mean from {MEDIUM}"], rows) if rows else ""


def _mebibytes(size):
    # A process's size is not known more closely.
    return number(size / 2**20) if size >= 2**20 else "< 1"


def _memory(results):
    rows = []

    def row(title, name, field):
        cells = []
        for shape in results.shapes:
            size = results.entry(name, shape)[field]
            cells.append(_mebibytes(size) if size is not None else results.failure(name, shape) or "")
        if any(cells):
            rows.append([title, *cells])

    for name in results.names:
        row(_title(results, name), name, "memory")
        if name == "lgm":
            row("lgm's workspace alone", name, "workspace")
    return table(["MiB", *results.shapes], rows)


def _deviations(results):
    rows = []
    for name in results.names:
        worst = {}
        for shape in results.shapes:
            for array, value in (results.entry(name, shape)["deviation"] or {}).items():
                worst[array] = max(worst.get(array, 0), value)
        if worst:
            rows.append(
                [_title(results, name)] + [f"{worst[array]:.0e}" if array in worst else "" for array in _ARRAYS]
            )
    return table(["largest over the shapes", *(_ARRAYS.values())], rows) if rows else ""


_ARRAYS = {
    "loss": "loss",
    "feature": "d features",
    "mean": "d means",
    "log_variance": "d log variances",
    "log_prior": "d log priors",
}


def _moments(results):
    rows = []
    for name in _VARIANTS[:1]:
        row = ["accumulate_moments, GB/s"], ["the same bytes moved, GB/s"]
        for shape in results.shapes:
            traffic = results.raw["moment_bytes"][shape]
            for cells, contender in zip(row, (f"{name}-moments", f"{name}-memory")):
                seconds = results.seconds(contender, shape)
                cells.append(number(traffic / seconds / 1e9) if seconds else "")
        rows += row
    return table(["bandwidth", *results.shapes], rows)


def _gains(results):
    """One thread against all: {contender: {shape: (its gain, its products' gain)}}."""
    found = {}
    for name in _VARIANTS:
        for shape in results.shapes:
            mine = results.ratio(f"{name}-one-thread", name, shape)
            products = results.ratio(f"{name}-products-one-thread", _FLOORS[name], shape)
            if mine and products:
                found.setdefault(name, {})[shape] = mine, products
    return found


def _threads(results):
    rows = []
    for name, gains in _gains(results).items():
        for title, at in ((_title(results, name), 0), ("its products", 1)):
            rows.append([title] + [number(gains[shape][at]) if shape in gains else "" for shape in results.shapes])
    return table([f"{results.raw['machine']['threads']} threads against 1", *results.shapes], rows) if rows else ""


# ---- targets ----


def targets(results):
    """[(what, contender, measured, bound, met)] of every target that this run has the figures for."""
    found = []

    def worst(what, contender, ratios, bound, at_most=True):
        """bound: a number, or one for a shape."""
        if not ratios:
            return
        of = bound if callable(bound) else lambda shape: bound
        shape = max(ratios, key=lambda s: (ratios[s] / of(s)) * (1 if at_most else -1))
        met = ratios[shape] <= of(shape) if at_most else ratios[shape] >= of(shape)
        sign = "<=" if at_most else ">="
        found.append(
            (
                what,
                _title(results, contender),
                f"{number(ratios[shape])} at {shape}",
                f"{sign} {number(of(shape))}",
                met,
            )
        )

    medium = results.since(MEDIUM)
    for name in _present(results, _VARIANTS):
        floor = _FLOORS[name]
        for rival in _present(results, ("softmax", "softmax-compiled")):
            mean = geometric_mean(results.ratios(name, rival, medium).values())
            bound = 0.85 if name == "lgm" else 0.75
            if mean:
                found.append(
                    (
                        f"to {_title(results, rival)}, geometric mean from {MEDIUM} on",
                        _title(results, name),
                        number(mean),
                        f"<= {bound}",
                        mean <= bound,
                    )
                )

            def allowed(shape, floor=floor, rival=rival):
                products = results.ratio(floor, rival, shape) or 0
                return 1.05 * products if products > 1 else 1.0

            worst(
                f"to {_title(results, rival)}, every shape (1.05 of our products where those exceed 1)",
                name,
                results.ratios(name, rival),
                allowed,
            )
        for rival in _present(results, ("expanded", "expanded-compiled")):
            worst(f"to {_title(results, rival)}, every shape", name, results.ratios(name, rival), 1.0)
            worst(
                f"to {_title(results, rival)}, from {LARGE} on",
                name,
                results.ratios(name, rival, results.since(LARGE)),
                0.5,
            )
        worst(
            f"to {CONTENDERS['broadcast'].title}, from {MEDIUM} on",
            name,
            results.ratios(name, "broadcast", medium),
            0.01,
        )
        worst(
            "to its products alone",
            name,
            results.ratios(name, floor, medium),
            lambda shape: 1.3 if shape == str(LARGEST) else 1.15,
        )
        if str(LARGEST) in results.shapes and (size := results.entry(name, str(LARGEST))["workspace"]):
            mebibytes = size / 2**20
            what = f"workspace at {LARGEST}, MiB"
            found.append((what, _title(results, name), number(mebibytes), "<= 64", mebibytes <= 64))
        several = results.since(MEDIUM, LARGE)
        worst(
            "spherical, all gradients, to fixed variances",
            name,
            results.ratios(f"{name}-spherical", name, several),
            1.2,
        )
        worst(
            "diagonal, all gradients, to fixed variances", name, results.ratios(f"{name}-diagonal", name, several), 2.2
        )
        wide = [shape for shape in results.shapes if Shape.parse(shape).dims >= MEDIUM.dims]
        worst(
            f"score to its product, from {MEDIUM.dims} dims on",
            name,
            results.ratios(f"{name}-score", f"{name}-product", wide),
            1.2,
        )
        gains = {
            shape: mine / products
            for shape, (mine, products) in _gains(results).get(name, {}).items()
            if shape in medium
        }
        worst("gain by threads to its products' gain", name, gains, 0.9, at_most=False)
    worst(
        f"accumulate_moments to moving its bytes, from {MEDIUM} on",
        "lgm",
        results.ratios("lgm-moments", "lgm-memory", medium),
        1.15,
    )
    return found


# ---- the report ----


def wrong(raw):
    return [
        f"{name} at {shape}"
        for shape, entries in raw["shapes"].items()
        for name, entry in entries.items()
        if (entry["failure"] or "").startswith("wrong")
    ]


def markdown(raw):
    results = Results(raw)
    m, o = raw["machine"], raw["options"]
    out = [
        "# lgm against PyTorch",
        f"`{raw['command']}`, {raw['date']}",
        f"{m['processor']}, {m['cores']} cores, {m['threads']} threads; {m['system']}; "
        + "; ".join(f"{what}: {version}" for what, version in raw["versions"].items()),
        "One step is forward and backward: the mean loss and its gradients of features and means (softmax: features "
        "and weights, no bias), float. Shapes are samples x classes x dims. Contenders took turns within one run; "
        f"a figure is the median over up to {o['rounds']} turns, after ± half the distance of the quartiles.",
    ]

    def section(title, body, note=""):
        if body:
            out.extend(part for part in (f"## {title}", note, body) if part)

    def pairs(names, others):
        return [(a, b) for a in names for b in others]

    section(
        "Agreement",
        _deviations(results),
        "Largest difference from float64 of what each computes, relative to the array's largest number "
        f"(allowed: {o['tolerance']:g}).",
    )
    section("Time", _times(results))
    section(
        "Against PyTorch", _ratio_table(results, "ratio of times, below 1: lgm is faster", pairs(_VARIANTS, _STEPS[:6]))
    )
    section(
        "Against the products alone",
        _ratio_table(
            results,
            "ratio of times",
            list(_FLOORS.items()) + [("products", "products-torch"), ("products-blas", "products-torch")],
        ),
        "Products are the three matrix products of a step, whole, into memory that is there already: the floor.",
    )
    section(
        "Variances, scores, moments",
        _ratio_table(
            results,
            "ratio of times",
            [
                pair
                for v in _VARIANTS
                for pair in (
                    (f"{v}-spherical", v),
                    (f"{v}-diagonal", v),
                    (f"{v}-filtered", v),
                    (f"{v}-score", f"{v}-product"),
                )
            ]
            + [("lgm-moments", "lgm-memory")],
        ),
        "Spherical, diagonal: all gradients (features, means, log variances, log priors). Filtered: gradient_filter is "
        "2^-14 / classes. Score: all outputs.",
    )
    if "lgm-moments" in results.names:
        section("Moments", _moments(results))
    section("Threads", _threads(results), "How many times as fast as one thread.")
    section(
        "Memory",
        _memory(results),
        "Beyond the inputs, gradients included: lgm's workspace and outputs; the peak of PyTorch's process in a step.",
    )
    if raw["blas_trials"]:
        trials = {
            name: {shape: number(t["seconds"] * 1e3) if t["seconds"] else t["failure"] for shape, t in each.items()}
            for name, each in raw["blas_trials"].items()
        }
        shapes = list(next(iter(trials.values())))
        section(
            "The BLAS libraries at hand",
            table(
                ["milliseconds of a step of lgm", *shapes],
                [
                    [BLASES[name].title + (" (taken)" if name == raw["blas"] else ""), *each.values()]
                    for name, each in trials.items()
                ],
            ),
        )
    failures = [
        [_title(results, name), shape, entry["failure"]]
        for shape in results.shapes
        for name, entry in raw["shapes"][shape].items()
        if entry["failure"]
    ]
    section("What did not run", table(["contender", "shape", "why"], failures) if failures else "")
    goals = [
        [what, who, measured, bound, "yes" if met else "**no**"] for what, who, measured, bound, met in targets(results)
    ]
    section(
        "Targets",
        table(["what", "of", "measured (the worst)", "target", "met"], goals) if goals else "",
        "Set for 2 cores.",
    )
    return "\n\n".join(out) + "\n"
