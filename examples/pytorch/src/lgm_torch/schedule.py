# SPDX-License-Identifier: MIT
from dataclasses import dataclass

import torch

from . import ops  # noqa: F401


@dataclass(frozen=True)
class SteppedSchedule:
    """A number as a function of the iteration t, clamped to [min, max]; n = floor(t / step).

    policy: "constant" (value), "step_up" (value * gamma^n), "add_up" (value + gamma * n) or "ramp" (linear from value
    at t = 0 to max at t = step, then max).
    """

    policy: str = "constant"
    value: float = 0.0
    step: int = 1000
    gamma: float = 1.0
    min: float = 0.0
    max: float = 1.0

    def __post_init__(self):
        if self.policy not in ("constant", "step_up", "add_up", "ramp"):
            raise ValueError(f"policy is constant, step_up, add_up or ramp, not {self.policy}")
        if self.step < 1:
            raise ValueError(f"step is {self.step}, and must be positive")

    def write(self, out, iteration):
        """Into the tensor out [1], on its device; iteration is an int64 tensor [1] there."""
        torch.ops.lgm.schedule_(
            out, iteration, self.policy, self.value, self.step, self.gamma, self.min, self.max
        )

    def __call__(self, iteration):
        out = torch.empty(1, dtype=torch.float64)
        self.write(out, torch.tensor([iteration]))
        return out.item()
