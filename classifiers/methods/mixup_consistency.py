"""Semi-supervised Manifold Mixup, Algorithm 1 of the paper; with layers [0], Input Mixup, Algorithm 3."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from classifiers.methods import Batch, Compare, SemiSupervised, predictions, squared_difference
from classifiers.supervised import Forward
from mmgan.mixup import ClassifierMixup, ClassifierRule, Plans


@dataclass(frozen=True, kw_only=True)
class MixupConsistency(SemiSupervised):
    """Mixup of unlabelled images and their predictions (Algorithms 1 and 3)."""

    mixup: ClassifierRule = field(default_factory=ClassifierMixup)
    """How unlabelled images are mixed; the top-level section of this name is for labelled ones."""
    compare: Compare = "probabilities"
    """Which predictions are mixed, and compared by squared differences; unnormalised logits in the authors' code."""

    @property
    def rule(self) -> ClassifierRule:
        """The method's mixup rule."""
        return self.mixup

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of `interpolation`."""
        return {"unsupervised": interpolation(batch.f, batch.x, batch.plans, self.compare)}


def interpolation(f: Forward, x: Tensor, plans: Plans, compare: Compare) -> Tensor:
    """L_US of Algorithm 1, lines 7-9, and of Algorithm 3 with a plan at layer 0.

    Line 10 of Algorithm 3 prints the labelled batch's targets; we read them as the unlabelled batch's.
    """
    logits, targets = f(x, plans, predictions(f, x, compare))
    return squared_difference(logits, targets, compare)
