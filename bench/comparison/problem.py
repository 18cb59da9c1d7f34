# SPDX-License-Identifier: MIT
"""The problem that all contenders compute, and its answer in float64."""

import dataclasses

import numpy as np

ALPHA, LAMBDA = 0.1, 0.1


@dataclasses.dataclass(frozen=True)
class Shape:
    samples: int
    classes: int
    dims: int

    @classmethod
    def parse(cls, text):
        return cls(*(int(part) for part in text.split("x")))

    def __str__(self):
        return f"{self.samples}x{self.classes}x{self.dims}"

    @property
    def product(self):
        """Multiply-adds of one matrix product."""
        return self.samples * self.classes * self.dims


def make(shape, separation, seed=1):
    """Classes whose means are apart by sqrt(2 * separation) standard deviations, and samples of them.

    The target's logit is then ahead of another by `separation` on average, with twice that as its variance, in any
    number of dimensions: 8 is a model that has learnt something; at 100 most competitors' weights are below float's
    rounding.
    """
    random = np.random.default_rng(seed)
    return arrays(
        shape,
        separation,
        normal=lambda *size: random.standard_normal(size, dtype=np.float32),
        below=lambda limit, count: random.integers(0, limit, count),
    )


def arrays(shape, separation, normal, below):
    """Of NumPy or of PyTorch: normal(*size) answers float32 normal numbers, below(limit, count) integers of [0, limit)."""
    n, c, d = shape.samples, shape.classes, shape.dims
    mean = normal(c, d) * (separation / d) ** 0.5
    labels = below(c, n)
    return {
        "mean": mean,
        "labels": labels,
        "features": mean[labels] + normal(n, d),
        "spherical": 0.2 * normal(c),
        "diagonal": 0.2 * normal(c, d),
        "log_prior": 0.2 * normal(c) - float(np.log(c)),
    }


def moment_bytes(data):
    """What accumulate_moments has to move: features in, means and squares of the classes that occur in and out."""
    return data["features"].nbytes + 4 * len(np.unique(data["labels"])) * data["mean"].shape[1] * 4


def _rows(data, step=256):
    """Blocks of samples, so that no [samples, classes] array is whole in memory."""
    x, z = data["features"], data["labels"]
    for begin in range(0, len(z), step):
        rows = slice(begin, begin + step)
        yield rows, x[rows].astype(np.float64), z[rows]


def _weights(logits, z):
    """Losses of a block, and the gradient of their sum."""
    logits -= logits.max(axis=1, keepdims=True)
    at = np.arange(len(z)), z
    target = logits[at].copy()
    np.exp(logits, out=logits)
    total = logits.sum(axis=1)
    logits /= total[:, None]
    # p - 1 of the target without its cancellation
    logits[at] = 0
    logits[at] = -logits.sum(axis=1)
    return (np.log(total) - target).sum(), logits


def softmax_reference(data):
    """Linear layer without a bias, cross entropy, mean over samples: x w^T, and its gradients."""
    w = data["mean"].astype(np.float64)
    n = len(data["labels"])
    loss, dx, dw = 0.0, np.empty(data["features"].shape), np.zeros_like(w)
    for rows, x, z in _rows(data):
        part, g = _weights(x @ w.T, z)
        loss += part / n
        dx[rows] = g @ w / n
        dw += g.T @ x / n
    return {"loss": loss, "feature": dx, "mean": dw}


def lgm_reference(data, form="fixed"):
    """L-GM with uniform priors where variances are fixed; see the README for its equations."""
    mean = data["mean"].astype(np.float64)
    c, d = mean.shape
    n = len(data["labels"])
    log_variance = np.zeros((c, d))
    if form != "fixed":
        log_variance += data[form].astype(np.float64).reshape(c, -1)
    bias = -0.5 * log_variance.sum(axis=1)
    likelihood_bias = -bias
    bias = bias + (data["log_prior"].astype(np.float64) if form != "fixed" else -np.log(c))
    inverse = np.exp(-log_variance)
    loss, dx = 0.0, np.empty(data["features"].shape)
    w_x, w_xx, w_sum, g_sum, miss = np.zeros((c, d)), np.zeros((c, d)), np.zeros(c), np.zeros(c), np.zeros(c)
    for rows, x, z in _rows(data):
        at = np.arange(len(z)), z
        # Centred on nothing: float64 has the digits to spare.
        distance = 0.5 * ((x * x) @ inverse.T - 2 * x @ (inverse * mean).T + (inverse * mean * mean).sum(axis=1))
        logits = bias - distance
        logits[at] -= ALPHA * distance[at]
        part, g = _weights(logits, z)
        loss += (part + LAMBDA * (distance[at] + likelihood_bias[z]).sum()) / n
        w = -g
        w[at] = -g[at] * (1 + ALPHA) + LAMBDA
        dx[rows] = (w @ inverse * x - w @ (inverse * mean)) / n
        w_x += w.T @ x
        if form != "fixed":
            w_xx += w.T @ (x * x)
        w_sum += w.sum(axis=0)
        g_sum += g.sum(axis=0)
        miss += LAMBDA * np.bincount(z, minlength=c)
    answer = {"loss": loss, "feature": dx, "mean": -inverse * (w_x - w_sum[:, None] * mean) / n}
    if form != "fixed":
        squares = w_xx - 2 * mean * w_x + w_sum[:, None] * mean * mean
        each = 0.5 * ((miss - g_sum)[:, None] - inverse * squares) / n
        answer["log_variance"] = each if form == "diagonal" else each.sum(axis=1)
        answer["log_prior"] = g_sum / n
    return answer


def bfloat16(values):
    """float32 numbers rounded to what bfloat16 holds, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def apart(shape, separation):
    """Deviations in each dimension between the means of two classes."""
    return (2 * separation / shape.dims) ** 0.5


def deviation(computed, reference):
    """The largest difference of each array over the largest number in it."""
    found = {}
    for name, expected in reference.items():
        scale = float(np.abs(expected).max()) or 1.0
        found[name] = float(np.abs(np.asarray(computed[name], dtype=np.float64) - expected).max()) / scale
    return found
