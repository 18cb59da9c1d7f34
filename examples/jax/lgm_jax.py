# SPDX-License-Identifier: MIT
"""The L-GM head in JAX, on the CPU: what the handlers of lgm_jax.cpp compute, as functions that can be differentiated,
compiled (jit) and mapped (vmap, one element after another).

    import lgm_jax
    lgm_jax.load("liblgm_jax.so")
    loss = lgm_jax.loss(features, labels, mean, alpha=0.3, lambda_=0.1)

features [samples, dims], labels [samples] whole numbers in [0, classes) (-100: ignored), mean [classes, dims]; log_variance
None (variances of 1), [classes] or [classes, dims]; log_prior None (all classes alike) or [classes]. float32, or float64
where JAX has it on.
"""
import ctypes
import functools

import jax
import jax.numpy as jnp
import numpy as np


_scores = ()  # the names of score's values, but for predicted


def load(library):
    """Registers the handlers of a compiled lgm_jax.cpp."""
    global _scores
    handlers = ctypes.cdll.LoadLibrary(library)
    handlers.lgm_score_names.restype = ctypes.c_char_p
    _scores = tuple(handlers.lgm_score_names().decode().split(","))
    for function in ("forward", "backward", "score"):
        for dtype in ("float32", "float64"):
            name = f"lgm_{function}_{dtype}"
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(handlers, name)), platform="cpu")


def _call(function, results, *arrays, **attributes):
    # vmap calls the handler for one element after another: a batch of mixtures is no one matrix product.
    call = jax.ffi.ffi_call(f"lgm_{function}_{arrays[0].dtype}", results, vmap_method="sequential")
    return call(*arrays, **attributes)


def _prepared(features, mean, log_variance, log_prior):
    """Arrays of one type, checked; those that are not there without elements."""
    features, mean = jnp.asarray(features), jnp.asarray(mean)
    if features.dtype not in (jnp.float32, jnp.float64):
        raise TypeError(f"features are float32 or float64, not {features.dtype}")
    if features.ndim != 2 or mean.ndim != 2 or features.shape[1] != mean.shape[1]:
        raise ValueError(f"features [samples, dims] and mean [classes, dims] are of {features.shape} and {mean.shape}")
    none = jnp.zeros((0,), features.dtype)
    log_variance = none if log_variance is None else jnp.asarray(log_variance)
    log_prior = none if log_prior is None else jnp.asarray(log_prior)
    if log_variance.size and log_variance.shape not in (mean.shape[:1], mean.shape):
        raise ValueError(f"log_variance is [classes] or [classes, dims], not {log_variance.shape}")
    if log_prior.size and log_prior.shape != mean.shape[:1]:
        raise ValueError(f"log_prior is [classes], not {log_prior.shape}")
    for name, array in (("mean", mean), ("log_variance", log_variance), ("log_prior", log_prior)):
        if array.dtype != features.dtype:
            raise TypeError(f"{name} is {array.dtype}, and features are {features.dtype}")
    return features, mean, log_variance, log_prior


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _loss(lambda_, of_batch, features, labels, mean, log_variance, log_prior, alpha):
    return _forward(lambda_, of_batch, features, labels, mean, log_variance, log_prior, alpha)[0]


def _forward(lambda_, of_batch, *arrays):
    features = arrays[0]
    samples = features.shape[0]
    loss, row_state = _call(
        "forward",
        (
            jax.ShapeDtypeStruct(() if of_batch else (samples,), features.dtype),
            jax.ShapeDtypeStruct((samples, 2), features.dtype),
        ),
        *arrays,
        **{"lambda": np.float64(lambda_), "mean": np.int64(of_batch)},
    )
    return loss, (arrays, row_state)


def _backward(lambda_, of_batch, kept, upstream):
    arrays, row_state = kept
    features, labels, mean, log_variance, log_prior, alpha = arrays
    gradients = _call(
        "backward",
        tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (features, mean, log_variance, log_prior)),
        *arrays,
        row_state,
        upstream,
        **{"lambda": np.float64(lambda_), "mean": np.int64(of_batch)},
    )
    of_labels = np.zeros(labels.shape, jax.dtypes.float0)
    # The margin is a setting: a loss is not made smaller by it.
    return gradients[0], of_labels, *gradients[1:], jnp.zeros_like(alpha)


_loss.defvjp(_forward, _backward)


def loss(features, labels, mean, log_variance=None, log_prior=None, *, alpha=0.0, lambda_=0.0, reduction="mean"):
    """The loss: a number, or with reduction "none" one for each sample. alpha may change from step to step without compiling
    anew; lambda_ and reduction are fixed when it is compiled."""
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction is mean or none, not {reduction}")
    features, *parameters = _prepared(features, mean, log_variance, log_prior)
    labels = jnp.asarray(labels)
    if labels.shape != features.shape[:1] or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels are whole numbers [samples], not {labels.dtype} of {labels.shape}")
    alpha = jax.lax.stop_gradient(jnp.asarray(alpha, features.dtype))
    return _loss(float(lambda_), reduction == "mean", features, labels.astype(jnp.int32), *parameters, alpha)


def score(features, mean, log_variance=None, log_prior=None):
    """What the mixture says of each sample: a dict of all scores of lgm::score_result, [samples] each: predicted (class),
    posterior, log_density (of the predicted class), log_mixture (log p(x)), ... Not differentiated."""
    arrays = _prepared(features, mean, log_variance, log_prior)
    samples, dtype = arrays[0].shape[0], arrays[0].dtype
    types = (jax.ShapeDtypeStruct((samples,), jnp.int32), jax.ShapeDtypeStruct((len(_scores), samples), dtype))
    predicted, values = _call("score", types, *arrays)
    return {"predicted": predicted, **dict(zip(_scores, values))}
