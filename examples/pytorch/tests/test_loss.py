# SPDX-License-Identifier: MIT
"""LGMLoss against the plain formula, against finite differences, and at the edges."""
import copy
import io
import itertools
import math

import plain
import pytest
import torch
from plain import COVARIANCES, head_of, near, problem
from torch.autograd import gradcheck

from lgm_torch import LGMLoss, SteppedSchedule

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.0, 1.5, 0.25, 3.0], dtype=torch.float64)


def values_and_gradients(loss, *leaves):
    leaves = [leaf for leaf in leaves if leaf is not None]
    upstream = torch.linspace(0.5, 2, max(loss.numel(), 1), dtype=loss.dtype).reshape(loss.shape)
    return loss.detach(), *torch.autograd.grad(loss, leaves, upstream)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("soft", [False, True])
def test_agrees_with_the_formula(dtype, covariance, soft):
    for prior, reduction, weighted, smoothing in itertools.product(
        [False, True], ["mean", "sum", "none"], [False, True], [0.0, 0.2]
    ):
        features, target, *parameters = problem(covariance, prior, soft, dtype=dtype)
        options = {"alpha": 0.3, "lambda_": 0.1, "reduction": reduction, "label_smoothing": smoothing}
        if weighted:
            options["class_weight"] = WEIGHTS.to(dtype)
        sample_weight = torch.linspace(0, 2, len(features), dtype=dtype) if weighted else None
        head = head_of(*parameters, **options)
        loss = head(features, target, sample_weight)
        assert loss.dtype == dtype

        exact = [None if t is None else t.detach().double().requires_grad_() for t in (features, *parameters)]
        exact_target = target.double() if soft else target
        if weighted:
            options["class_weight"] = WEIGHTS
            options["sample_weight"] = sample_weight.double()
        expected = plain.loss(exact[0], exact_target, *exact[1:], **options)
        mine = values_and_gradients(loss, features, head.mean, head.log_variance, head.log_prior)
        for a, b in zip(mine, values_and_gradients(expected, *exact), strict=True):
            near(a, b, TOLERANCE[dtype])


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_threads(covariance):
    """A problem that is large enough to be spread over ATen's threads."""
    features, target, *parameters = problem(covariance, True, samples=400, classes=150, dims=64)
    head = head_of(*parameters, lambda_=0.1)
    leaves = [features, *(parameter for parameter in parameters if parameter is not None)]
    expected = values_and_gradients(plain.loss(features, target, *parameters, lambda_=0.1), *leaves)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            mine = values_and_gradients(head(features, target), features, *head.parameters())
            again = values_and_gradients(head(features, target), features, *head.parameters())
            for a, b, c in zip(mine, again, expected, strict=True):
                assert torch.equal(a, b)
                near(a, c, 1e-12)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("soft", [False, True])
def test_gradcheck(covariance, soft):
    for reduction in ("mean", "none"):
        features, target, *parameters = problem(covariance, True, soft, samples=5, classes=4, dims=3)
        head = head_of(*parameters, alpha=0.4, lambda_=0.2, reduction=reduction, label_smoothing=0.1,
                       class_weight=[0.5, 1, 2, 0.25])
        weight = torch.tensor([1.0, 0.5, 2.0, 0.0, 1.0], dtype=torch.float64)
        names = [name for name, _ in head.named_parameters()]

        def loss(x, *values):
            return torch.func.functional_call(head, dict(zip(names, values)), (x, target, weight))

        def logits(x, *values):
            with torch.nn.utils.stateless._reparametrize_module(head, dict(zip(names, values))):
                return head.logits(x, None if soft else target)

        assert gradcheck(loss, (features, *head.parameters()))
        assert gradcheck(logits, (features, *head.parameters()))


def test_is_cross_entropy_of_its_logits():
    features, target, mean, *_ = problem()
    options = {"class_weight": WEIGHTS, "label_smoothing": 0.1}
    head = head_of(mean, **options)
    expected = torch.nn.functional.cross_entropy(head.logits(features), target, weight=WEIGHTS, label_smoothing=0.1)
    near(head(features, target), expected, 1e-12)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_logits(covariance):
    features, target, *parameters = problem(covariance, True)
    head = head_of(*parameters, alpha=0.3)
    one_hot = torch.nn.functional.one_hot(target.clamp(min=0), 7).double() * (target >= 0)[:, None]
    for labels, probabilities in ((None, None), (target, one_hot)):
        mine = head.logits(features, labels)
        expected = plain.logits(features, probabilities, *parameters, alpha=0.3)
        a = values_and_gradients(mine, features, *head.parameters())
        b = values_and_gradients(expected, features, *[p for p in parameters if p is not None])
        for one, other in zip(a, b, strict=True):
            near(one, other, 1e-12)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_score(covariance):
    features, _, *parameters = problem(covariance, True)
    score = head_of(*parameters, alpha=0.3).score(features)
    d, h = plain.distances(features, parameters[0], parameters[1])
    density = -d - h - features.shape[1] / 2 * math.log(2 * math.pi)
    joint = parameters[2] + density
    best = joint.argmax(1)
    rows = torch.arange(len(features))
    assert torch.equal(score.predicted, best) and not score.posterior.requires_grad
    near(score.posterior, joint.softmax(1)[rows, best], 1e-12)
    near(score.log_density, density[rows, best], 1e-12)
    near(score.log_mixture, (parameters[2].log_softmax(0) + density).logsumexp(1), 1e-12)
    near(score.squared_mahalanobis, 2 * d[rows, best], 1e-12)
    near(score.nearest_squared_mahalanobis, 2 * d.min(1).values, 1e-12)
    log_posterior = joint.log_softmax(1)
    near(score.entropy, -(log_posterior.exp() * log_posterior).sum(1), 1e-12)
    assert len(score) == 7


def test_rows_of_any_stride():
    features, target, mean, *_ = problem()
    x = features.detach()
    head = head_of(mean, lambda_=0.1)
    views = {
        "columns of a larger matrix": torch.cat([x, x], 1)[:, :5],
        "every other row": torch.stack([x, -x], 1).flatten(0, 1)[::2],
        "transposed": x.t().contiguous().t(),
        "broken rows": torch.stack([x, -x], 2).flatten(1)[:, ::2],
        "one row again and again": x[:1].expand(13, 5),
    }
    for name, view in views.items():
        results = []
        for features in (view.detach(), view.clone(memory_format=torch.contiguous_format)):
            features.requires_grad_()
            loss = head(features, target)
            results.append((loss, *torch.autograd.grad(loss, [features, head.mean]), *head.score(features)))
        for a, b in zip(*results, strict=True):
            assert torch.equal(a, b), name
    wide = torch.rand(13, 21, dtype=torch.float64)
    for soft in (wide[:, 7:14], wide[:, ::3], wide[:7, :13].t()):
        assert torch.equal(head(x, soft), head(x, soft.contiguous()))


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_labels_of_other_types(dtype):
    features, target, mean, *_ = problem()
    target = target.clamp(min=0)
    head = head_of(mean)
    assert torch.equal(head(features, target), head(features, target.to(dtype)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_features_of_other_types(dtype):
    features, target, mean, *_ = problem(dtype=torch.float32)
    head = head_of(mean, lambda_=0.1)
    x = features.detach().to(dtype).requires_grad_()
    single = x.detach().float().requires_grad_()
    loss, expected = head(x, target), head(single, target)
    assert loss.dtype == torch.float32 and torch.equal(loss, expected)
    gradient, expected = torch.autograd.grad(loss, x)[0], torch.autograd.grad(expected, single)[0]
    assert gradient.dtype == dtype and torch.equal(gradient, expected.to(dtype))


def test_ignored_samples_do_no_harm():
    features, target, mean, *_ = problem()
    x = features.detach().clone()
    x[target == -100] = math.nan
    x.requires_grad_()
    head = head_of(mean, lambda_=0.1)
    loss = head(x, target)
    near(loss, head(features, target), 1e-15)
    gradient = torch.autograd.grad(loss, x)[0]
    assert not gradient[target == -100].any() and gradient.isfinite().all()
    head = head_of(mean, ignore_index=3)
    some = target.where(target != -100, 3)
    near(head(features, some), plain.loss(features, some, mean, ignore_index=3), 1e-12)


@pytest.mark.parametrize("samples", [0, 4])
def test_nothing_to_learn_from(samples):
    """No samples, or all of them ignored."""
    for reduction, expected in (("mean", math.nan), ("sum", 0.0), ("none", 0.0)):
        head = LGMLoss(5, 7, reduction=reduction, covariance="diagonal", learn_prior=True)
        features = torch.randn(samples, 5, requires_grad=True)
        loss = head(features, torch.full((samples,), -100))
        assert loss.shape == ((samples,) if reduction == "none" else ())
        torch.testing.assert_close(loss, torch.full_like(loss, expected), equal_nan=True)
        loss.sum().backward()
        for tensor in (features, *head.parameters()):
            assert not tensor.grad.any() and tensor.grad.shape == tensor.shape
        assert all(len(value) == samples for value in head.score(features))


def test_refusals():
    features, target, mean, *_ = problem()
    head = head_of(mean)
    weight = torch.ones(13, requires_grad=True)
    refused = [
        (IndexError, "label is outside", lambda: head(features, target.clamp(min=0) + 7)),
        (IndexError, "label is outside", lambda: head.logits(features, target.clamp(min=0) - 1)),
        (ValueError, "features have shape", lambda: head(features[:, :3], target)),
        (ValueError, "features have shape", lambda: head(features[0], target)),
        (ValueError, "target has shape", lambda: head(features, target[:3])),
        (ValueError, "target has shape", lambda: head(features, features.detach())),
        (TypeError, "expected labels", lambda: head(features, target > 3)),
        (TypeError, "expected floating", lambda: head(target[:, None].expand(13, 5), target)),
        (TypeError, "not probabilities", lambda: head.logits(features, torch.rand(13, 7).double())),
        (TypeError, "float32 or float64", lambda: copy.deepcopy(head).half()(features, target)),
        (ValueError, "sample_weight has shape", lambda: head(features, target, torch.ones(3))),
        (ValueError, "no gradient", lambda: head(features, target, weight)),
        (ValueError, "alpha", lambda: LGMLoss(5, 7, alpha=-1)),
        (ValueError, "alpha", lambda: LGMLoss(5, 7, alpha=math.nan)),
        (ValueError, "lambda", lambda: head_of(mean, lambda_=-0.1)(features, target)),
        (ValueError, "label_smoothing", lambda: head_of(mean, label_smoothing=2)(features, target)),
        (ValueError, "covariance", lambda: LGMLoss(5, 7, covariance="full")),
        (ValueError, "reduction", lambda: LGMLoss(5, 7, reduction="average")),
        (ValueError, "policy", lambda: SteppedSchedule("cosine")),
        (ValueError, "step", lambda: SteppedSchedule("step_up", step=0)),
    ]
    for kind, message, call in refused:
        with pytest.raises(kind, match=message):
            call()
    head.alpha.fill_(-1)
    with pytest.raises(ValueError, match="alpha"):
        head(features, target)


def test_no_second_derivative():
    features, target, mean, *_ = problem()
    head = head_of(mean)
    for value in (head(features, target), head.logits(features).sum()):
        gradient = torch.autograd.grad(value, features, create_graph=True)[0]
        with pytest.raises(NotImplementedError, match="no second derivative"):
            gradient.sum().backward()


def test_schedule():
    schedule = SteppedSchedule("step_up", value=0.1, step=10, gamma=2.0, max=0.5)
    assert [schedule(t) for t in (0, 9, 10, 20, 30)] == pytest.approx([0.1, 0.1, 0.2, 0.4, 0.5], abs=1e-15)
    ramp = SteppedSchedule("ramp", value=0.1, step=4, max=0.3)
    assert [ramp(t) for t in (0, 1, 4, 9)] == pytest.approx([0.1, 0.15, 0.3, 0.3], abs=1e-15)
    assert SteppedSchedule("add_up", value=0.1, step=2, gamma=0.05)(5) == pytest.approx(0.2, abs=1e-15)
    assert SteppedSchedule(value=0.7)(1000) == 0.7

    features, target, mean, *_ = problem()
    head = head_of(mean, alpha=schedule)
    for iteration in range(25):
        near(head(features, target), plain.loss(features, target, mean, alpha=schedule(iteration)), 1e-12)
        head.step()
    # A step between forward and backward does not change what is differentiated.
    loss = head(features, target)
    expected = torch.autograd.grad(head(features, target), features)[0]
    head.iteration.fill_(29)
    head.step()
    assert head.alpha.item() == 0.5
    assert torch.equal(torch.autograd.grad(loss, features)[0], expected)


def test_state_dict():
    def head(seed):
        return LGMLoss(5, 7, alpha=SteppedSchedule("add_up", gamma=0.1, step=2), covariance="spherical",
                       learn_prior=True, class_weight=WEIGHTS, seed=seed)

    trained, restored = head(1), head(2)
    optimizer = torch.optim.SGD(trained.parameters(), 0.1)
    features, target = torch.randn(13, 5), torch.randint(7, (13,))
    for _ in range(5):
        optimizer.zero_grad()
        trained(features, target).backward()
        optimizer.step()
        trained.step()
    assert not torch.equal(trained(features, target), restored(features, target))
    file = io.BytesIO()
    torch.save(trained.state_dict(), file)
    file.seek(0)
    restored.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(3):
        assert torch.equal(trained(features, target), restored(features, target))
        for each in (trained, restored):
            each.step()
    assert restored.alpha.item() == pytest.approx(0.4) and restored.iteration.item() == 8
    assert set(trained.state_dict()) == {"mean", "log_variance", "log_prior", "class_weight", "iteration", "alpha"}


def test_initialisation():
    one, same, other = LGMLoss(300, 200, seed=3), LGMLoss(300, 200, seed=3), LGMLoss(300, 200, seed=4)
    assert torch.equal(one.mean, same.mean) and not torch.equal(one.mean, other.mean)
    other.reset_parameters(3)
    assert torch.equal(one.mean, other.mean)
    wide = LGMLoss(300, 200, init_scale=2.5, covariance="diagonal", learn_prior=True)
    assert wide.mean.std().item() == pytest.approx(2.5, rel=0.02) and abs(wide.mean.mean().item()) < 0.05
    assert not wide.log_variance.any() and wide.log_prior[0].item() == pytest.approx(-math.log(200))


def test_learns():
    torch.manual_seed(0)
    target = torch.randint(4, (256,))
    features = torch.randn(4, 8)[target] * 3 + torch.randn(256, 8)
    head = LGMLoss(8, 4, alpha=0.1, lambda_=0.01, covariance="diagonal", learn_prior=True)
    optimizer = torch.optim.Adam(head.parameters(), 0.1)
    for _ in range(100):
        optimizer.zero_grad()
        loss = head(features, target)
        loss.backward()
        optimizer.step()
    assert (head.score(features).predicted == target).float().mean() > 0.95


def test_moments():
    torch.manual_seed(0)
    features = 1e6 + torch.randn(500, 5, dtype=torch.float64) * torch.arange(1.0, 6, dtype=torch.float64)
    labels = torch.randint(6, (500,))  # class 6 has no samples
    labels[::50] = -100
    for covariance in COVARIANCES:
        head = LGMLoss(5, 7, covariance=covariance, learn_prior=True, dtype=torch.float64)
        before = copy.deepcopy(head)
        moments, other = head.new_moments(), head.new_moments()
        for start in range(0, 300, 10):
            moments.update(features[start:start + 10], labels[start:start + 10])
        other.update(features[300:], labels[300:])
        moments.merge(other)
        head.estimate_(moments)
        for k in range(6):
            of_class = features[labels == k]
            centred = of_class - of_class.mean(0)
            variance = ((centred - centred.mean(0)) ** 2).mean(0)
            assert moments.count[k] == len(of_class)
            near(head.mean[k], of_class.mean(0), 1e-12)
            if covariance == "diagonal":
                near(head.log_variance[k], variance.log(), 1e-12)
            if covariance == "spherical":
                near(head.log_variance[k], variance.mean().log(), 1e-12)
            near(head.log_prior[k], (torch.tensor(len(of_class)) / moments.count.sum()).log(), 1e-12)
        for name, parameter in head.named_parameters():
            assert torch.equal(parameter[6], getattr(before, name)[6])

        again = copy.deepcopy(before)
        again.estimate_(moments, mean=False, prior=False, decay=0.5)
        assert torch.equal(again.mean, before.mean) and torch.equal(again.log_prior, before.log_prior)
        if covariance != "identity":
            near(again.log_variance.exp(), (1 + head.log_variance.exp()) / 2, 1e-12)
            again.estimate_(moments, variance_floor=1e6)
            near(again.log_variance[:6], torch.full_like(again.log_variance[:6], 1e6).log(), 1e-12)
    with pytest.raises(IndexError, match="label is outside"):
        moments.update(features, labels + 7)
    weighted = head.new_moments()
    weighted.update(features.float(), labels, (labels < 3).float())
    assert torch.equal(weighted.count, torch.where(torch.arange(7) < 3, moments.count, 0))
