# SPDX-License-Identifier: MIT
import torch
import torch.distributed

from . import ops  # noqa: F401


class Moments:
    """Count, mean and sum of squared differences from it (m2) of each class's features, in float64, gathered over
    batches and over the processes of a group. LGMLoss.estimate_ makes parameters of them."""

    def __init__(self, num_features, num_classes, *, ignore_index=-100, device=None):
        def zeros(*shape):
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.ignore_index = ignore_index
        self.count = zeros(num_classes)
        self.mean = zeros(num_classes, num_features)
        self.m2 = zeros(num_classes, num_features)
        self.mean_residual = zeros(num_classes, num_features)  # what rounding left out of the mean

    def _tensors(self):
        return self.count, self.mean, self.m2, self.mean_residual

    @torch.no_grad()
    def update(self, features, labels, sample_weight=None):
        """Adds a batch: features [samples, dims], labels [samples]."""
        if sample_weight is not None:
            sample_weight = sample_weight.to(torch.float64 if features.dtype == torch.float64 else torch.float32)
        torch.ops.lgm.accumulate_moments_(features, labels, sample_weight, self.ignore_index, *self._tensors())

    def merge(self, other):
        """Adds what another has gathered, as if its samples had followed."""
        torch.ops.lgm.merge_moments_(*other._tensors(), *self._tensors())

    def all_reduce(self, group=None):
        """Makes each process's moments those of all, merged in the order of their ranks: the same bits everywhere."""
        gathered = []
        for tensor in self._tensors():
            parts = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size(group))]
            torch.distributed.all_gather(parts, tensor, group=group)
            gathered.append(parts)
        first, *others = zip(*gathered)
        for tensor, part in zip(self._tensors(), first):
            tensor.copy_(part)
        for other in others:
            torch.ops.lgm.merge_moments_(*other, *self._tensors())
