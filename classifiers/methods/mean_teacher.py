"""Mean Teacher (Tarvainen & Valpola 2017)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from classifiers.methods import Batch, Compare, SemiSupervised, predictions, squared_difference
from classifiers.supervised import Forward


@dataclass(frozen=True, kw_only=True)
class MeanTeacher(SemiSupervised):
    """Mean Teacher (Tarvainen & Valpola 2017); the teacher is validated and evaluated."""

    decay: float = 0.95
    """Decay of the teacher's weights per update, in (0, 1); 0.95 is Oliver et al.'s value."""
    compare: Compare = "probabilities"
    """Which predictions are compared, by squared differences."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.decay < 1:
            raise ValueError(f"ssl.decay must be in (0, 1), not {self.decay}")

    def teacher_decay(self, number: int) -> float:  # noqa: ARG002
        """The teacher's decay, the same in every update."""
        return self.decay

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of `mean_teacher`."""
        return {"unsupervised": mean_teacher(batch.f, batch.teacher, batch.x, batch.again(), self.compare)}


def mean_teacher(f: Forward, teacher: Forward, x: Tensor, again: Tensor, compare: Compare) -> Tensor:
    """Squared difference between the student's predictions for `x` and the teacher's for another view."""
    return squared_difference(f(x), predictions(teacher, again, compare), compare)
