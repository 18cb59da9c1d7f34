# SPDX-License-Identifier: MIT
"""usage: test_lgm_jax.py LIBRARY

The head against the same formula in plain JAX: values and gradients, compiled and mapped; and what is wrong.
"""
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np

import lgm_jax

jax.config.update("jax_enable_x64", True)
SAMPLES, CLASSES, DIMS = 13, 7, 5


def plain_loss(features, labels, mean, log_variance=None, log_prior=None, *, alpha, lambda_, reduction="mean"):
    """eq:loss as it is written."""
    precision = jnp.ones((), mean.dtype) if log_variance is None else jnp.exp(-log_variance)
    precision = jnp.broadcast_to(precision if jnp.ndim(precision) != 1 else precision[:, None], mean.shape)
    distance = ((features[:, None] - mean[None]) ** 2 * precision[None]).sum(2) / 2
    half_log_det = -jnp.log(precision).sum(1) / 2
    log_prior = -math.log(CLASSES) if log_prior is None else log_prior
    target = jax.nn.one_hot(labels, CLASSES, dtype=features.dtype)
    logits = log_prior - half_log_det - (1 + alpha * target) * distance
    counts = labels >= 0
    classification = jax.nn.logsumexp(logits, 1) - (target * logits).sum(1)
    likelihood = (target * (distance + half_log_det)).sum(1)
    losses = jnp.where(counts, classification + lambda_ * likelihood, 0)
    return losses.sum() / counts.sum().astype(losses.dtype) if reduction == "mean" else losses


def problem(dtype, variances, priors):
    random = np.random.default_rng(1)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape), dtype)
    labels = jnp.asarray(random.integers(0, CLASSES, SAMPLES)).at[3].set(-100)
    shape = {"none": None, "spherical": (CLASSES,), "diagonal": (CLASSES, DIMS)}[variances]
    return (
        draw(SAMPLES, DIMS),
        labels,
        draw(CLASSES, DIMS),
        None if shape is None else 0.3 * draw(*shape),
        draw(CLASSES) if priors else None,
    )


def near(a, b, tolerance):
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape and a.dtype == b.dtype, (a.shape, b.shape, a.dtype, b.dtype)
    assert np.abs(a - b).max(initial=0) <= tolerance * (1 + np.abs(b).max(initial=0)), np.abs(a - b).max()


def check_gradients():
    for dtype, tolerance in ((jnp.float64, 1e-12), (jnp.float32, 1e-5)):
        for variances in ("none", "spherical", "diagonal"):
            for priors in (False, True):
                for reduction in ("mean", "none"):
                    features, labels, *parameters = problem(dtype, variances, priors)
                    weight = jnp.linspace(0.5, 2, SAMPLES, dtype=dtype) if reduction == "none" else dtype(1.5)
                    options = dict(alpha=0.3, lambda_=0.1, reduction=reduction)

                    def total(function, x, p):
                        return (weight * function(x, labels, *p, **options)).sum()

                    for function in (total, jax.jit(total, static_argnums=0)):
                        mine = jax.value_and_grad(function, (1, 2))(lgm_jax.loss, features, parameters)
                        plain = jax.value_and_grad(function, (1, 2))(plain_loss, features, parameters)
                        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(plain), strict=True):
                            near(a, b, tolerance)


def check_schedule():
    """One compiled step takes every margin."""
    features, labels, mean, *_ = problem(jnp.float64, "none", False)
    compiled = 0

    @jax.jit
    def step(alpha):
        nonlocal compiled
        compiled += 1
        return lgm_jax.loss(features, labels, mean, alpha=alpha)

    for alpha in (0.0, 0.1, 0.4):
        near(step(alpha), plain_loss(features, labels, mean, alpha=alpha, lambda_=0.0), 1e-12)
    assert compiled == 1


def check_vmap():
    features, labels, mean, *_ = problem(jnp.float64, "none", False)
    batches = jnp.stack([features, features + 1, 2 * features])
    options = dict(alpha=0.2, lambda_=0.1)
    mine = jax.vmap(jax.grad(lambda x: lgm_jax.loss(x, labels, mean, **options)))(batches)
    plain = jax.vmap(jax.grad(lambda x: plain_loss(x, labels, mean, **options)))(batches)
    near(mine, plain, 1e-12)


def check_score():
    features, _, mean, log_variance, log_prior = problem(jnp.float64, "diagonal", True)
    scores = jax.jit(lgm_jax.score)(features, mean, log_variance, log_prior)
    distance = ((features[:, None] - mean[None]) ** 2 * jnp.exp(-log_variance)[None]).sum(2) / 2
    density = -distance - log_variance.sum(1) / 2 - DIMS / 2 * math.log(2 * math.pi)
    best = (log_prior + density).argmax(1)
    rows = jnp.arange(SAMPLES)
    assert (scores["predicted"] == best).all()
    near(scores["log_density"], density[rows, best], 1e-12)
    near(scores["squared_mahalanobis"], 2 * distance[rows, best], 1e-12)
    near(scores["posterior"], jax.nn.softmax(log_prior + density)[rows, best], 1e-12)
    prior = jax.nn.log_softmax(log_prior)
    near(scores["log_mixture"], jax.nn.logsumexp(prior + density, 1), 1e-12)
    near(scores["nearest_squared_mahalanobis"], 2 * distance.min(1), 1e-12)
    log_posterior = jax.nn.log_softmax(log_prior + density)
    near(scores["entropy"], -(jnp.exp(log_posterior) * log_posterior).sum(1), 1e-12)
    assert len(scores) == 7


def check_refusals():
    features, labels, mean, *_ = problem(jnp.float64, "none", False)
    refused = [
        (ValueError, lambda: lgm_jax.loss(features[:, :3], labels, mean)),
        (ValueError, lambda: lgm_jax.loss(features, labels[:3], mean)),
        (ValueError, lambda: lgm_jax.loss(features, labels.astype(float), mean)),
        (ValueError, lambda: lgm_jax.loss(features, labels, mean, mean[:2])),
        (ValueError, lambda: lgm_jax.loss(features, labels, mean, reduction="sum")),
        (TypeError, lambda: lgm_jax.loss(features, labels, mean.astype(jnp.float32))),
        (TypeError, lambda: lgm_jax.loss(features.astype(jnp.bfloat16), labels, mean)),
    ]
    for kind, call in refused:
        try:
            call()
        except kind:
            continue
        raise AssertionError(f"no {kind.__name__}")
    try:
        jax.block_until_ready(lgm_jax.loss(features, labels.at[0].set(CLASSES), mean))
    except Exception as error:
        assert "label is outside" in str(error), error
    else:
        raise AssertionError("a label beyond the classes was taken")


if __name__ == "__main__":
    lgm_jax.load(sys.argv[1])
    for check in (check_gradients, check_schedule, check_vmap, check_score, check_refusals):
        check()
    print("all passed")
