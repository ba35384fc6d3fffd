"""The Pi-model (Laine & Aila 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from classifiers.methods import Batch, Compare, SemiSupervised, predictions, squared_difference
from classifiers.supervised import Forward

if TYPE_CHECKING:
    from classifiers.config import ClassifierConfig


@dataclass(frozen=True, kw_only=True)
class PiModel(SemiSupervised):
    """The Pi-model (Laine & Aila 2017)."""

    compare: Compare = "probabilities"
    """Which predictions are compared, by squared differences."""

    def check(self, config: ClassifierConfig) -> None:
        """Raise ValueError if two views of an image cannot differ."""
        data = config.data
        if not (data.pad or data.flip or data.noise or data.cutout or config.network.dropout):
            raise ValueError("ssl PiModel compares random views; set data.pad, flip, noise, cutout or network.dropout")

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of `pi_model`."""
        return {"unsupervised": pi_model(batch.f, batch.x, batch.again(), self.compare)}


def pi_model(f: Forward, x: Tensor, again: Tensor, compare: Compare) -> Tensor:
    """Squared difference between predictions for two views of the same images, with no gradient through `again`.

    In expectation its gradient is half of Laine & Aila's, who let it flow through both views.
    """
    return squared_difference(f(x), predictions(f, again, compare), compare)
