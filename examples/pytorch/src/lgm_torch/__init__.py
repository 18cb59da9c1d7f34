# SPDX-License-Identifier: MIT
"""The large-margin Gaussian mixture loss as a PyTorch module: see LGMLoss."""
from .loss import LGMLoss, Score
from .moments import Moments
from .schedule import SteppedSchedule

__all__ = ["LGMLoss", "Moments", "Score", "SteppedSchedule"]
