# SPDX-License-Identifier: MIT
"""The loss as it is written, in plain PyTorch: what the tests hold the operators against."""
import math

import torch

COVARIANCES = ("identity", "spherical", "diagonal")


def distances(features, mean, log_variance):
    """Half squared distances [samples, classes] and half log determinants [classes]."""
    samples, dims = features.shape
    if log_variance is None:
        log_variance = torch.zeros_like(mean)
    elif log_variance.dim() == 1:
        log_variance = log_variance[:, None].expand_as(mean)
    difference = features[:, None] - mean[None]
    return (difference**2 * torch.exp(-log_variance)[None]).sum(2) / 2, log_variance.sum(1) / 2


def logits(features, target, mean, log_variance=None, log_prior=None, alpha=0.0):
    """target: probabilities [samples, classes], or None."""
    d, h = distances(features, mean, log_variance)
    margin = 1 if target is None else 1 + alpha * target
    prior = -math.log(len(mean)) if log_prior is None else log_prior
    return prior - h - margin * d


def loss(features, target, mean, log_variance=None, log_prior=None, *, alpha=0.0, lambda_=0.0, reduction="mean",
         ignore_index=-100, class_weight=None, sample_weight=None, label_smoothing=0.0, normalizer=None):
    classes = len(mean)
    by_class = torch.ones(classes).to(mean) if class_weight is None else class_weight
    by_sample = torch.ones(len(features)).to(mean) if sample_weight is None else sample_weight
    if target.is_floating_point():
        total = by_sample
    else:
        counts = target != ignore_index
        labels = target.where(counts, 0)
        features = features.where(counts[:, None], 0)
        by_sample = by_sample.where(counts, 0)
        target = torch.nn.functional.one_hot(labels, classes).to(mean)
        total = by_sample * by_class[labels]
    d, h = distances(features, mean, log_variance)
    l = logits(features, target, mean, log_variance, log_prior, alpha)
    smooth = (1 - label_smoothing) * target + label_smoothing / classes
    classification = -(by_class * smooth * l.log_softmax(1)).sum(1)
    likelihood = (by_class * target * (d + h)).sum(1)
    losses = by_sample * (classification + lambda_ * likelihood)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    return losses.sum() / (total.sum() if normalizer is None else normalizer)


def problem(covariance="identity", prior=False, soft=False, samples=13, classes=7, dims=5, dtype=torch.float64, seed=0):
    """Features, target and parameters, leaves that require gradients but for the target."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    features, mean = draw(samples, dims), draw(classes, dims)
    if soft:
        target = draw(samples, classes).softmax(1)
    else:
        target = torch.randint(classes, (samples,), generator=generator)
        target[samples // 2] = -100
    shape = {"identity": None, "spherical": (classes,), "diagonal": (classes, dims)}[covariance]
    log_variance = None if shape is None else 0.3 * draw(*shape)
    log_prior = draw(classes) if prior else None
    leaves = [None if t is None else t.requires_grad_() for t in (features, mean, log_variance, log_prior)]
    return leaves[0], target, *leaves[1:]


def head_of(mean, log_variance=None, log_prior=None, **options):
    """An LGMLoss with copies of these parameters."""
    from lgm_torch import LGMLoss

    covariance = COVARIANCES[0 if log_variance is None else log_variance.dim()]
    head = LGMLoss(mean.shape[1], mean.shape[0], covariance=covariance, learn_prior=log_prior is not None,
                   dtype=mean.dtype, **options)
    with torch.no_grad():
        for name, value in (("mean", mean), ("log_variance", log_variance), ("log_prior", log_prior)):
            if value is not None:
                getattr(head, name).copy_(value)
    return head


def near(a, b, tolerance):
    """Equal but for tolerance, relative to the largest value."""
    assert a.shape == b.shape, (a.shape, b.shape)
    bound = tolerance * (1 + b.abs().max().item() if b.numel() else 0)
    torch.testing.assert_close(a, b, rtol=0, atol=bound, check_dtype=False)
