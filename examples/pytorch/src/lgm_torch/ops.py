# SPDX-License-Identifier: MIT
"""The operators torch.ops.lgm.*: what the compiled library registers, and what PyTorch needs to trace and to
differentiate them.

features [samples, dims]; target: labels [samples], or probabilities [samples, classes] of the parameters' type; mean
[classes, dims]; log_variance None (variances of 1), [classes] or [classes, dims]; log_prior None (all classes alike) or
[classes]; alpha [1]. Parameters and results are float32 or float64; features of another type are converted, but for
float16 and bfloat16 on CUDA, which are read as they are.
"""
from pathlib import Path

import torch

torch.ops.load_library(next(Path(__file__).parent.glob("_C*.so")))

_FEATURES, _MEAN, _REDUCTION = 0, 2, 10  # where they are among the arguments of loss and logits


def _kept(ctx, inputs):
    """Tensors go where autograd looks after them, the rest beside them."""
    ctx.is_tensor = [isinstance(value, torch.Tensor) for value in inputs]
    ctx.others = [value for value in inputs if not isinstance(value, torch.Tensor)]
    return [value for value in inputs if isinstance(value, torch.Tensor)]


def _arguments(ctx, tensors):
    tensors, others = iter(tensors), iter(ctx.others)
    return [next(tensors) if is_tensor else next(others) for is_tensor in ctx.is_tensor]


def _gradients(ctx, backward, *arguments):
    """Gradients of features, mean, log_variance and log_prior; the other arguments have none."""
    wanted = list(ctx.needs_input_grad)
    needs = [wanted[_FEATURES], *wanted[_MEAN:_MEAN + 3]]
    gradients = [gradient if need else None for gradient, need in zip(backward(*arguments, needs), needs)]
    return gradients[0], None, *gradients[1:], *[None] * (len(wanted) - 5)


def _fake_gradients(arguments, needs, feature_type=None):
    features, _, mean, log_variance, log_prior = arguments[:5]
    types = (feature_type or features.dtype, mean.dtype, mean.dtype, mean.dtype)
    return tuple(
        mean.new_empty(tensor.shape, dtype=dtype) if tensor is not None and need else mean.new_empty((0,))
        for tensor, dtype, need in zip((features, mean, log_variance, log_prior), types, needs)
    )


def _fake_loss(*arguments):
    features, mean, reduction, make = arguments[_FEATURES], arguments[_MEAN], arguments[_REDUCTION], arguments[-1]
    samples, one = features.shape[0], reduction != "none"
    loss, row_state = mean.new_empty(() if one else (samples,)), mean.new_empty((samples, 2))
    return loss, row_state, *_fake_gradients(arguments, make if one else [False] * 4, mean.dtype)


def _keep_loss(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[1:], *_kept(ctx, inputs))


def _loss_backward(ctx, upstream, *_):
    if upstream is None:
        return (None,) * len(ctx.needs_input_grad)
    made, tensors = ctx.saved_tensors[:5], ctx.saved_tensors[5:]
    return _gradients(ctx, torch.ops.lgm.loss_backward, upstream, *made, *_arguments(ctx, tensors))


def _fake_logits(*arguments):
    features, mean = arguments[_FEATURES], arguments[_MEAN]
    return mean.new_empty((features.shape[0], mean.shape[0]))


def _keep_logits(ctx, inputs, output):
    ctx.save_for_backward(*_kept(ctx, inputs))


def _logits_backward(ctx, upstream):
    arguments = _arguments(ctx, ctx.saved_tensors)
    return _gradients(ctx, torch.ops.lgm.logits_backward, upstream, *arguments)


def _fake_score(features, mean, log_variance, log_prior):
    shape = (features.shape[0],)
    return tuple(
        mean.new_empty(shape, dtype=torch.int64) if each.name == "predicted" else mean.new_empty(shape)
        for each in torch.ops.lgm.score.default._schema.returns
    )


def _no_derivative(what):
    def backward(ctx, *_):
        raise NotImplementedError(f"lgm: {what}")

    return backward


torch.library.register_fake("lgm::loss", _fake_loss)
torch.library.register_fake("lgm::loss_backward", lambda *a: _fake_gradients(a[6:], a[-1]))
torch.library.register_fake("lgm::logits", _fake_logits)
torch.library.register_fake("lgm::logits_backward", lambda *a: _fake_gradients(a[1:], a[-1]))
torch.library.register_fake("lgm::score", _fake_score)
for _name in ("initialize_", "schedule_", "accumulate_moments_", "merge_moments_", "estimate_"):
    torch.library.register_fake(f"lgm::{_name}", lambda *arguments: None)

torch.library.register_autograd("lgm::loss", _loss_backward, setup_context=_keep_loss)
torch.library.register_autograd("lgm::logits", _logits_backward, setup_context=_keep_logits)
torch.library.register_autograd("lgm::loss_backward", _no_derivative("the loss has no second derivative"))
torch.library.register_autograd("lgm::logits_backward", _no_derivative("logits have no second derivative"))
torch.library.register_autograd("lgm::score", _no_derivative("scores have no derivative; logits have"))
