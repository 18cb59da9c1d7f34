# SPDX-License-Identifier: MIT
import math
from typing import NamedTuple

import torch
import torch.distributed
from torch import Tensor, nn

from . import ops  # noqa: F401
from .moments import Moments
from .schedule import SteppedSchedule


# What the mixture says of each sample, without margin and without labels; [samples] each. The fields are those of
# lgm::score_result (include/lgm/types.hpp says what each is): predicted, posterior, log_density, log_mixture, ...
Score = NamedTuple("Score", [(each.name, Tensor) for each in torch.ops.lgm.score.default._schema.returns])

# So that an exported program that answers a Score can be saved.
torch.utils._pytree._register_namedtuple(Score, serialized_type_name="lgm_torch.Score")


class LGMLoss(nn.Module):
    """The large-margin Gaussian mixture loss: num_classes Gaussians over num_features features, in place of a
    classifier's last linear layer and its softmax.

    alpha            the margin: a number, or a SteppedSchedule that step() follows
    lambda_          the weight of the likelihood term
    covariance       "identity", "spherical" (a variance for each class) or "diagonal" (one for each class and feature)
    learn_prior      whether log_prior is a parameter; otherwise all classes are alike
    reduction        "mean", "sum" or "none"
    ignore_index     samples of this label do not count
    class_weight     [num_classes]
    label_smoothing  of the classification term, in [0, 1]
    init_scale       standard deviation of the normal numbers that the means start from
    seed             what these are drawn with; independent of torch.manual_seed
    dtype            float32 or float64; features may be of any floating type

    Weights, smoothing, ignored labels and means are those of torch.nn.CrossEntropyLoss.
    """

    def __init__(self, num_features, num_classes, *, alpha=0.0, lambda_=0.0, covariance="identity", learn_prior=False,
                 reduction="mean", ignore_index=-100, class_weight=None, label_smoothing=0.0, init_scale=1.0, seed=0,
                 device=None, dtype=None):
        super().__init__()
        if covariance not in ("identity", "spherical", "diagonal"):
            raise ValueError(f"covariance is identity, spherical or diagonal, not {covariance}")
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction is mean, sum or none, not {reduction}")
        self.num_features, self.num_classes, self.covariance = num_features, num_classes, covariance
        self.lambda_, self.reduction, self.ignore_index = lambda_, reduction, ignore_index
        self.label_smoothing, self.init_scale, self.seed = label_smoothing, init_scale, seed
        self.schedule = alpha if isinstance(alpha, SteppedSchedule) else None

        options = {"device": device, "dtype": dtype}
        mean = torch.empty(num_classes, num_features, **options)
        self.mean = nn.Parameter(mean)
        shape = {"identity": None, "spherical": (num_classes,), "diagonal": (num_classes, num_features)}[covariance]
        self.log_variance = None if shape is None else nn.Parameter(torch.empty(shape, **options))
        self.log_prior = nn.Parameter(torch.empty(num_classes, **options)) if learn_prior else None
        if class_weight is not None:
            class_weight = torch.as_tensor(class_weight, device=mean.device, dtype=mean.dtype)
        self.register_buffer("class_weight", class_weight)
        self.register_buffer("iteration", torch.zeros(1, dtype=torch.int64, device=mean.device))
        alpha = alpha(0) if self.schedule else float(alpha)
        if not (alpha >= 0 and math.isfinite(alpha)):
            raise ValueError(f"alpha is {alpha}, and must be a number of at least 0")
        self.register_buffer("alpha", torch.full((1,), alpha, **options))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, seed=None):
        """Draws the means anew; variances become 1, priors equal."""
        seed = self.seed if seed is None else seed
        torch.ops.lgm.initialize_(self.mean, self.log_variance, self.log_prior, seed, self.init_scale)

    def forward(self, features, target, sample_weight=None, normalizer=None):
        """The loss of features [samples, num_features].

        target         labels [samples], or probabilities [samples, num_classes]
        sample_weight  [samples]
        normalizer     [1], what reduction "mean" divides by in place of the weights here; see global_normalizer
        """
        target = self._target(target)
        sample_weight, normalizer = self._constant(sample_weight), self._constant(normalizer)
        # Gradients that will be asked for are made along with the loss.
        differentiated = (features, self.mean, self.log_variance, self.log_prior)
        make = [torch.is_grad_enabled() and t is not None and t.requires_grad for t in differentiated]
        return torch.ops.lgm.loss(
            features, target, self.mean, self.log_variance, self.log_prior, self.alpha.clone(), self.class_weight,
            sample_weight, normalizer, self.lambda_, self.reduction, self.ignore_index, self.label_smoothing, make,
        )[0]

    def logits(self, features, target=None):
        """The logits of every class, [samples, num_classes]; with labels those of the loss, which have the margin."""
        return torch.ops.lgm.logits(
            features, target, self.mean, self.log_variance, self.log_prior, self.alpha.clone(), self.ignore_index
        )

    def score(self, features):
        """A Score; has no gradient."""
        mixture = (None if p is None else p.detach() for p in (self.mean, self.log_variance, self.log_prior))
        return Score(*torch.ops.lgm.score(features.detach(), *mixture))

    @torch.no_grad()
    def step(self):
        """To be called after each training iteration: counts it, and alpha follows the schedule."""
        self.iteration += 1
        if self.schedule is not None:
            self.schedule.write(self.alpha, self.iteration)

    def new_moments(self):
        """Empty Moments of the features of each class."""
        return Moments(self.num_features, self.num_classes, ignore_index=self.ignore_index, device=self.mean.device)

    @torch.no_grad()
    def estimate_(
        self, moments, *, variance_floor=1e-6, shrinkage=0.0, decay=0.0, mean=True, variance=True, prior=True
    ):
        """Sets means, variances and priors, those that are parameters and are asked for, to the moments'. Variances are
        at least variance_floor, drawn to that of all classes together by shrinkage in [0, 1]; decay in [0, 1] is what
        is kept of the present values. Classes without samples keep theirs."""
        torch.ops.lgm.estimate_(
            moments.count, moments.mean, moments.m2, variance_floor, shrinkage, decay,
            self.mean if mean else self.mean.clone(),
            self.log_variance if variance else None,
            self.log_prior if prior else None,
        )

    @torch.no_grad()
    def global_normalizer(self, target, sample_weight=None, group=None):
        """For forward, where batches are spread over the processes of a group and gradients averaged over them
        (DistributedDataParallel): with it they are those of one process that has the whole batch, whatever is ignored
        or weighted where."""
        if target.is_floating_point():
            weight = torch.ones_like(target[:, 0])
        else:
            weight = target != self.ignore_index
            if self.class_weight is not None:
                weight = weight * self.class_weight[target.where(weight, 0)]
        if sample_weight is not None:
            weight = weight * sample_weight
        total = weight.sum(dtype=self.mean.dtype).reshape(1)
        torch.distributed.all_reduce(total, group=group)
        return total / torch.distributed.get_world_size(group)

    def extra_repr(self):
        alpha = self.schedule or f"{self.alpha.item():g}"
        return (f"{self.num_features}, {self.num_classes}, alpha={alpha}, lambda_={self.lambda_:g}, "
                f"covariance={self.covariance}")

    def _target(self, target):
        return self._constant(target) if target.is_floating_point() else target

    def _constant(self, tensor):
        if tensor is None:
            return None
        if tensor.requires_grad:
            raise ValueError("targets and weights have no gradient here: detach them")
        return tensor.to(self.mean.dtype)
