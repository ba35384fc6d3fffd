"""The extractors that scripts can name; here mmgan and classifiers meet."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from classifiers.load import load_extractor
from mmgan.errors import UserError
from mmgan.scoring import Extractor, inception


def extractor(name: Literal["inception", "classifier"], weights: Path | None) -> Extractor:
    """torch-fidelity's Inception (`weights` a file, or None), or the classifier of the run folder `weights`."""
    if name == "inception":
        return inception(weights)
    if weights is None:
        raise UserError("the extractor classifier needs --weights, the run folder of scripts/train_cls.py")
    network = load_extractor(weights)
    shape = (network.channels, network.resolution, network.resolution)
    return Extractor("classifier", network, "pixels to [0, 1], no resizing", shape)
