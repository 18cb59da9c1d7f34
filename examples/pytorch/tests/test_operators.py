# SPDX-License-Identifier: MIT
"""PyTorch's own checks of each operator: schema, registration of its gradient, traces with fixed and with dynamic sizes."""
import pytest
import torch
from plain import COVARIANCES, problem


def arguments(covariance, soft=False, reduction="mean"):
    features, target, *parameters = problem(covariance, covariance == "diagonal", soft, samples=6, classes=4, dims=3)
    dtype = features.dtype
    return (features, target, *parameters, torch.full((1,), 0.3, dtype=dtype), torch.rand(4, dtype=dtype),
            torch.rand(6, dtype=dtype), None, 0.1, reduction, -100, 0.1)


def detached(values):
    return tuple(value.detach() if isinstance(value, torch.Tensor) else value for value in values)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("soft", [False, True])
def test_loss(covariance, soft):
    for reduction in ("mean", "none"):
        values = arguments(covariance, soft, reduction)
        torch.library.opcheck(torch.ops.lgm.loss.default, values)
        values = detached(values)
        loss, row_state = torch.ops.lgm.loss(*values)
        for needs in ([True] * 4, [False, True, False, False]):
            torch.library.opcheck(
                torch.ops.lgm.loss_backward.default, (torch.ones_like(loss), row_state, *values, needs)
            )


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
    features, *rest = detached(arguments("diagonal"))
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
