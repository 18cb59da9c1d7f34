# SPDX-License-Identifier: MIT
"""Writes torch_cross_entropy.json, next to this file: losses and gradients that PyTorch computes in float64.

The committed file was made with PyTorch 2.15.0 on a CPU. Another version or processor may change last digits.

Two kinds of case share the problems:

linear   torch.nn.functional.cross_entropy of torch.nn.functional.linear(x, weight, bias). A mixture with the means
         mu_k = weight_k, unit variances, the log prior bias_k + |mu_k|^2 / 2, no margin and no likelihood has these
         logits less |x|^2 / 2, which the softmax does not see. So the losses, dL/dx and dL/dbias are the mixture's, and
         as dl_k/dmu_k = x - mu_k, its dL/dmu_k is dL/dweight_k - dL/dbias_k mu_k.
mixture  the large-margin Gaussian mixture loss, written elementwise; the gradients are automatic.

All inputs but label_smoothing 0.1 have so few bits that float holds them, and bias_k + |mu_k|^2 / 2, exactly. What is not
a number is null.
"""

import argparse
import itertools
import json
import math
import pathlib
import random

import torch
from torch.nn.functional import cross_entropy, linear, one_hot

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)


COVARIANCES = ("identity", "spherical", "diagonal")
REDUCTIONS = ("mean", "sum", "none")


def draw(rng, low, high, *shape):
    """Multiples of 1/64 in [low, high], nested as the shape says."""
    if not shape:
        return math.floor((low + (high - low) * rng.random()) * 64 + 0.5) / 64
    return [draw(rng, low, high, *shape[1:]) for _ in range(shape[0])]


def make_problem(rng, samples, classes, dims):
    labels = [int(rng.random() * classes) for _ in range(samples)]
    labels[1], labels[4] = 1, 0
    probabilities = []
    for _ in range(samples):
        cuts = sorted([0, 1024] + [int(1025 * rng.random()) for _ in range(classes - 1)])
        probabilities.append([(high - low) / 1024 for low, high in zip(cuts, cuts[1:])])
    probabilities[0] = [1.0] + [0.0] * (classes - 1)
    probabilities[2] = [1.5 * q for q in probabilities[2]]  # need not add up to 1
    class_weight = draw(rng, 0.25, 3, classes)
    sample_weight = draw(rng, 0.25, 3, samples)
    class_weight[0] = 0.0  # a label's class and all of a row of probabilities
    sample_weight[3] = 0.0
    mean = draw(rng, -1.5, 1.5, classes, dims)
    return {
        "samples": samples,
        "classes": classes,
        "dims": dims,
        "features": [[m + draw(rng, -1, 1) for m in mean[z]] for z in labels],
        "mean": mean,
        "bias": draw(rng, -1, 1, classes),
        "log_variance": {
            "identity": [],
            "spherical": draw(rng, -0.75, 0.75, classes),
            "diagonal": draw(rng, -0.75, 0.75, classes, dims),
        },
        "class_weight": class_weight,
        "sample_weight": sample_weight,
        "upstream": draw(rng, -2, 2, samples),
        "targets": {
            "labels": labels,
            "some ignored": [-100 if i % 3 == 0 else z for i, z in enumerate(labels)],
            "all ignored": [-100] * samples,
            "a class ignored": labels,
            "probabilities": probabilities,
        },
    }


TARGETS = ("labels", "some ignored", "all ignored", "a class ignored", "probabilities")


def start(**options):
    """A case without results yet. The class that "a class ignored" ignores is class 1."""
    return {**options, "ignore_label": 1 if options["targets"] == "a class ignored" else -100}


def targets_of(problem, case):
    """Labels or probabilities, and for each sample 1 where it counts, 0 where it is ignored."""
    targets = torch.tensor(problem["targets"][case["targets"]])
    if targets.is_floating_point():
        return targets, torch.ones(problem["samples"])
    return targets, (targets != case["ignore_label"]).double()


def count(case, targets, counted, logits):
    """How many samples count, and for how many of them the largest logit without margin is the target's."""

    def largest(rows):
        top = rows.topk(2).values
        assert (top[:, 0] - top[:, 1] > 1e-6).all(), "a tie: choose another seed"
        return rows.argmax(dim=1)

    aims = largest(targets) if targets.is_floating_point() else targets
    case["counted"] = int(counted.sum())
    case["correct"] = int(((largest(logits) == aims) * counted).sum())


def packed(tensor):
    return [None if math.isnan(v) else v for v in tensor.detach().flatten().tolist()]


def backward(problem, case, loss):
    upstream = torch.tensor(problem["upstream"])
    loss.backward(upstream if case["reduction"] == "none" else upstream[0])


def run_linear(problem, case):
    x = torch.tensor(problem["features"], requires_grad=True)
    weight = torch.tensor(problem["mean"], requires_grad=True)
    bias = torch.tensor(problem["bias"], requires_grad=True)
    targets, counted = targets_of(problem, case)
    logits = linear(x, weight, bias)
    arguments = {"label_smoothing": case["label_smoothing"], "reduction": case["reduction"]}
    if case["class_weight"]:
        arguments["weight"] = torch.tensor(problem["class_weight"])
    if not targets.is_floating_point():
        arguments["ignore_index"] = case["ignore_label"]
    loss = cross_entropy(logits, targets, **arguments)
    backward(problem, case, loss)
    count(case, targets, counted, logits)
    case["total"] = packed(loss)
    case["gradients"] = {"feature": packed(x.grad), "weight": packed(weight.grad), "bias": packed(bias.grad)}


def run_mixture(problem, case):
    x = torch.tensor(problem["features"], requires_grad=True)
    mean = torch.tensor(problem["mean"], requires_grad=True)
    log_prior = torch.tensor(problem["bias"], requires_grad=True)
    log_variance = torch.tensor(problem["log_variance"][case["covariance"]], requires_grad=True)
    classes, dims = problem["classes"], problem["dims"]
    alpha, lambda_, smoothing = case["alpha"], case["lambda"], case["label_smoothing"]
    targets, counted = targets_of(problem, case)
    hard = not targets.is_floating_point()
    q = one_hot(torch.where(counted > 0, targets, 0), classes) * counted[:, None] if hard else targets
    w = torch.tensor(problem["class_weight"]) if case["class_weight"] else torch.ones(classes)
    s = counted * (torch.tensor(problem["sample_weight"]) if case["sample_weight"] else 1)

    # Every class's variances in each dimension.
    full = {
        "identity": lambda: torch.zeros(classes, dims),
        "spherical": lambda: log_variance[:, None].expand(classes, dims),
        "diagonal": lambda: log_variance,
    }[case["covariance"]]()
    d = ((x[:, None, :] - mean[None, :, :]) ** 2 / full.exp()[None, :, :]).sum(dim=2) / 2  # eq:distance
    h = full.sum(dim=1) / 2  # eq:log_det
    logits = log_prior - h - (1 + alpha * q) * d  # eq:logit
    evidence = logits.logsumexp(dim=1)
    coefficients = s[:, None] * w * ((1 - smoothing) * q + smoothing / classes)
    classification = (coefficients * (evidence[:, None] - logits)).sum(dim=1)  # eq:classification
    likelihood = (s[:, None] * w * q * (d + h)).sum(dim=1)  # eq:likelihood
    total = classification + lambda_ * likelihood  # eq:loss
    divisor = (s[:, None] * w * q).sum() if hard else s.sum()
    if case["normalizer"] is not None:
        divisor = case["normalizer"]
    reduce = {
        "mean": lambda loss: loss.sum() / divisor,
        "sum": lambda loss: loss.sum(),
        "none": lambda loss: loss,
    }[case["reduction"]]
    backward(problem, case, reduce(total))
    count(case, targets, counted, log_prior - h - d)
    case["total"] = packed(reduce(total))
    case["classification"] = packed(reduce(classification))
    case["likelihood"] = packed(reduce(likelihood))
    case["log_evidence"] = packed(evidence * counted)
    gradients = {"feature": packed(x.grad), "mean": packed(mean.grad), "log_prior": packed(log_prior.grad)}
    if case["covariance"] != "identity":
        gradients["log_variance"] = packed(log_variance.grad)
    case["gradients"] = gradients


def linear_cases(problems):
    """All options together on the small problem, a few on the wide one."""
    chosen = [(0, *options) for options in itertools.product(TARGETS, (False, True), (0.0, 0.1, 1.0), REDUCTIONS)]
    for targets in ("some ignored", "probabilities"):
        chosen += [(1, targets, True, 0.1, "mean"), (1, targets, False, 0.0, "none")]
    for n, targets, class_weight, smoothing, reduction in chosen:
        case = start(
            kind="linear",
            problem=n,
            targets=targets,
            class_weight=class_weight,
            label_smoothing=smoothing,
            reduction=reduction,
        )
        run_linear(problems[n], case)
        yield case


def mixture_cases(rng, problems):
    """Covariances, kinds of target, weights and smoothing together, each with the three reductions in turn."""

    def pick(*choices):
        return choices[int(rng.random() * len(choices))]

    grid = itertools.product(COVARIANCES, (False, True), (False, True), (False, True), (0.0, 0.1))
    chosen = [(0, *options) for options in grid]
    chosen += [(1, *options) for options in itertools.product(COVARIANCES, (False, True), (True,), (True,), (0.1,))]
    for turn, (n, covariance, soft, class_weight, sample_weight, smoothing) in enumerate(chosen):
        margin = pick((0.25, 0.125), (0.5, 0.25), (1.0, 0.0), (0.0, 0.5))
        # 16 cases a covariance: what is in turn for one of them is not for the next.
        reduction = REDUCTIONS[turn % 3]
        case = start(
            kind="mixture",
            problem=n,
            covariance=covariance,
            targets="probabilities" if soft else pick("labels", "some ignored", "a class ignored"),
            alpha=margin[0],
            **{"lambda": margin[1]},
            class_weight=class_weight,
            sample_weight=sample_weight,
            label_smoothing=smoothing,
            reduction=reduction,
            normalizer=2.75 if reduction == "mean" and smoothing > 0 else None,
        )
        run_mixture(problems[n], case)
        yield case


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?", type=pathlib.Path, default=pathlib.Path(__file__).with_suffix(".json"))
    path = parser.parse_args().output
    rng = random.Random(20180614)
    problems = [make_problem(rng, 5, 4, 3), make_problem(rng, 7, 19, 5)]
    cases = list(linear_cases(problems)) + list(mixture_cases(rng, problems))
    lines = [",\n".join(json.dumps(entry, allow_nan=False) for entry in part) for part in (problems, cases)]
    version = json.dumps(torch.__version__.split("+")[0])
    path.write_text('{"torch": %s, "problems": [\n%s\n], "cases": [\n%s\n]}\n' % (version, *lines))


if __name__ == "__main__":
    main()
