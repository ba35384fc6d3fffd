"""Mean and covariance of features, accumulated batch by batch."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor


class Moments:
    """Sums of features [N, d] and of their outer products, in float64; memory does not depend on N.

    They are kept on `device`, or on the CPU for Apple's GPUs, which have no float64.
    """

    def __init__(self, dimension: int, device: torch.device) -> None:
        device = torch.device("cpu") if device.type == "mps" else device
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.sum = torch.zeros(dimension, dtype=torch.float64, device=device)
        self.outer = torch.zeros(dimension, dimension, dtype=torch.float64, device=device)

    def add(self, features: Tensor) -> None:
        """Add rows, floating point [B, d]."""
        x = features.to(self.sum.device).double()
        self.count += len(x)
        self.sum += x.sum(0)
        self.outer.addmm_(x.T, x)

    def over_processes(self, accelerator: Accelerator) -> None:
        """Replace the sums with those over all processes."""
        for name in ("count", "sum", "outer"):
            setattr(self, name, accelerator.reduce(getattr(self, name), "sum"))

    @property
    def mean(self) -> Tensor:
        """The mean, float64 [d] on the CPU."""
        return (self.sum / self.count).cpu()

    @property
    def covariance(self) -> Tensor:
        """The covariance, normalised by N - 1: float64 [d, d] on the CPU."""
        centred = self.outer - torch.outer(self.sum, self.sum) / self.count
        return (centred / (self.count - 1)).cpu()
