"""Pseudo-labels (Lee 2013)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from classifiers.methods import Batch, SemiSupervised
from classifiers.supervised import Forward


@dataclass(frozen=True, kw_only=True)
class PseudoLabel(SemiSupervised):
    """Pseudo-labels (Lee 2013)."""

    threshold: float = 0.95
    """Learn only from images whose most probable class has a probability above this, in [0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.threshold < 1:
            raise ValueError(f"ssl.threshold must be in [0, 1), not {self.threshold}")

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of `pseudo_label`."""
        return {"unsupervised": pseudo_label(batch.f, batch.x, self.threshold)}


def pseudo_label(f: Forward, x: Tensor, threshold: float) -> Tensor:
    """Cross entropy to the most probable class where it is more probable than `threshold`, else 0; mean over rows."""
    logits = f(x)
    p, label = logits.detach().softmax(1).max(1)
    return (F.cross_entropy(logits, label, reduction="none") * (p > threshold)).mean()
