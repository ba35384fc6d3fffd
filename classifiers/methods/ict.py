"""Interpolation Consistency Training (Verma et al. 2019): the successor of Algorithm 1, by the same authors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from classifiers.methods import Batch, Compare, SemiSupervised, predictions, squared_difference
from classifiers.supervised import Forward
from mmgan.mixup import ClassifierMixup, ClassifierRule, Plans


@dataclass(frozen=True, kw_only=True)
class ICT(SemiSupervised):
    """Interpolation Consistency Training (Verma et al. 2019); the teacher is validated and evaluated."""

    weight: float = 100.0
    """The largest weight of the method's loss."""
    ramp_until: float = 0.25
    """Share of the updates, in [0, 1], over which the weight rises to its largest value; 0: it starts there."""
    ramp_from: Literal["zero", "official"] = "official"
    """Where the weight starts: at 0, or at exp(-5) times its largest value, as in the authors' code."""
    mixup: ClassifierRule = field(default_factory=lambda: ClassifierMixup(alpha=1.0, layers=(0,)))
    """How unlabelled images are mixed; the top-level section of this name is for labelled ones."""
    decay: float = 0.999
    """Decay of the teacher's weights per update, in (0, 1); early on, they are the mean of the student's so far."""
    mixed: Compare = "probabilities"
    """The teacher's predictions that are mixed: probabilities, as in the paper, or logits, followed by the softmax, as
    in the authors' code."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.decay < 1:
            raise ValueError(f"ssl.decay must be in (0, 1), not {self.decay}")

    @property
    def rule(self) -> ClassifierRule:
        """The method's mixup rule."""
        return self.mixup

    def teacher_decay(self, number: int) -> float:
        """min(1 - 1 / (t + 1), decay) for update t = `number` + 1: at first the plain mean of all weights so far."""
        return min(1 - 1 / (number + 2), self.decay)

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of `ict`."""
        return {"unsupervised": ict(batch.f, batch.teacher, batch.x, batch.plans, self.mixed)}


def ict(f: Forward, teacher: Forward, x: Tensor, plans: Plans, mixed: Compare) -> Tensor:
    """Mean over rows and classes of (softmax f(Mix(u, u')) - Mix(p(u), p(u')))^2, p the teacher's, without gradient.

    With `mixed` logits the target is the softmax of Mix(teacher(u), teacher(u')).
    """
    logits, targets = f(x, plans, predictions(teacher, x, mixed))
    return squared_difference(logits, targets.softmax(1) if mixed == "logits" else targets, "probabilities")
