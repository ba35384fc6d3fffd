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
    """What is compared by squared differences."""

    def check(self, config: ClassifierConfig) -> None:
        """Two views of an image must differ."""
        data = config.data
        if not (data.pad or data.flip or data.noise or data.cutout or config.network.dropout):
            raise ValueError("ssl PiModel compares random views; set data.pad, flip, noise or cutout, network.dropout")

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of `pi_model`."""
        return {"unsupervised": pi_model(batch.f, batch.x, batch.again(), self.compare)}


def pi_model(f: Forward, x: Tensor, again: Tensor, compare: Compare) -> Tensor:
    """Squared difference of predictions for two views of the same images, of which `again` gets no gradient.

    In expectation its gradient is half of Laine & Aila's, who let both views have it.
    """
    return squared_difference(f(x), predictions(f, again, compare), compare)
