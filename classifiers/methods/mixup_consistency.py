"""Semi-supervised Manifold Mixup, Algorithm 1 of the paper; with layers [0] Input Mixup, Algorithm 3."""

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
    """How unlabelled images are mixed; the other section of this name is for labelled ones."""
    compare: Compare = "probabilities"
    """What is mixed and compared by squared differences; logits, not normalised, in the authors' code."""

    @property
    def rule(self) -> ClassifierRule:
        """Its rule."""
        return self.mixup

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of `interpolation`."""
        return {"unsupervised": interpolation(batch.f, batch.x, batch.plans, self.compare)}


def interpolation(f: Forward, x: Tensor, plans: Plans, compare: Compare) -> Tensor:
    """L_US of Algorithm 1, lines 7-9, and of Algorithm 3 with a plan at layer 0.

    Algorithm 3 prints the labelled batch's targets in its line 10; read as the unlabelled one's.
    """
    logits, targets = f(x, plans, predictions(f, x, compare))
    return squared_difference(logits, targets, compare)
