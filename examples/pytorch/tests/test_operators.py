# SPDX-License-Identifier: MIT
"""PyTorch's own checks of each operator: schema, registration of its gradient, traces with fixed and dynamic sizes."""
import itertools

import pytest
import torch
from plain import COVARIANCES, near, problem


def arguments(covariance, soft=False, reduction="mean", make=(False,) * 4):
    features, target, *parameters = problem(covariance, covariance == "diagonal", soft, samples=6, classes=4, dims=3)
    dtype = features.dtype
    return (features, target, *parameters, torch.full((1,), 0.3, dtype=dtype), torch.rand(4, dtype=dtype),
            torch.rand(6, dtype=dtype), None, 0.1, reduction, -100, 0.1, list(make))


def detached(values):
    return tuple(value.detach() if isinstance(value, torch.Tensor) else value for value in values)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("soft", [False, True])
def test_loss(covariance, soft):
    everything, some = (True, True, covariance != "identity", covariance == "diagonal"), (False, True, False, False)
    for reduction, make in itertools.product(("mean", "none"), ((False,) * 4, some, everything)):
        values = arguments(covariance, soft, reduction, make)
        torch.library.opcheck(torch.ops.lgm.loss.default, values)
        values = detached(values)
        loss, *made = torch.ops.lgm.loss(*values)
        for needs in (everything, some):
            call = (torch.full_like(loss, 2), *made, *values, list(needs))
            torch.library.opcheck(torch.ops.lgm.loss_backward.default, call)
            # Scaled or made anew, the gradients are the same, and are there where they are needed.
            none = arguments(covariance, soft, reduction)[-1]
            anew = torch.ops.lgm.loss_backward(*call[:-2], none, list(needs))
            for need, gradient, expected in zip(needs, torch.ops.lgm.loss_backward(*call), anew, strict=True):
                assert (gradient.numel() > 0) == need
                near(gradient, expected, 1e-14)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_logits(covariance):
    features, target, *parameters, alpha = arguments(covariance)[:6]
    for labels in (None, target):
        values = (features, labels, *parameters, alpha, -100)
        torch.library.opcheck(torch.ops.lgm.logits.default, values)
        values = detached(values)
        upstream = torch.randn(6, 4, dtype=features.dtype)
        torch.library.opcheck(torch.ops.lgm.logits_backward.default, (upstream, *values, [True] * 4))


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_score(covariance):
    features, _, *parameters = detached(arguments(covariance)[:5])
    torch.library.opcheck(torch.ops.lgm.score.default, (features, *parameters))


def test_16_bit_features():
    features, *rest = detached(arguments("diagonal", make=(True,) * 4))
    rest = [value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value for value in rest]
    half = features.bfloat16().requires_grad_()
    torch.library.opcheck(torch.ops.lgm.loss.default, (half, *rest))


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_what_is_written(covariance):
    features, target, mean, log_variance, log_prior, *_ = detached(arguments(covariance))
    torch.library.opcheck(torch.ops.lgm.initialize_.default, (mean, log_variance, log_prior, 3, 0.5))
    schedule = ("ramp", 0.1, 100, 1.0, 0.0, 0.3)
    torch.library.opcheck(torch.ops.lgm.schedule_.default, (torch.zeros(1), torch.tensor([50]), *schedule))

    def moments():
        return torch.zeros(4, dtype=torch.float64), *(torch.zeros(4, 3, dtype=torch.float64) for _ in range(3))

    values = (features, target, torch.ones(6, dtype=torch.float64), -100)
    torch.library.opcheck(torch.ops.lgm.accumulate_moments_.default, (*values, *moments()))
    filled = moments()
    torch.ops.lgm.accumulate_moments_(*values, *filled)
    torch.library.opcheck(torch.ops.lgm.merge_moments_.default, (*filled, *moments()))
    parameters = (mean, log_variance, log_prior)
    torch.library.opcheck(torch.ops.lgm.estimate_.default, (*filled[:3], 1e-6, 0.1, 0.0, *parameters))
