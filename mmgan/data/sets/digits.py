"""scikit-learn's handwritten digits: 1,797 grey images of 8x8 from the UCI repository, included in the package.

The file is read without importing scikit-learn, which takes longer than the rest of a small run's start.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from torch import Tensor

from mmgan.data.config import DataConfig
from mmgan.data.sets._torchvision import tensors

TRAIN = 1500


@cache
def _table() -> np.ndarray:
    """The file's rows: 64 grey levels and the label, float64."""
    package = find_spec("sklearn")
    assert package
    assert package.origin
    return np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")


def load(config: DataConfig) -> tuple[Tensor, Tensor]:
    """1,500 images for `train` and the other 297 for `test`, a fixed random split."""
    data = _table()
    order = np.random.default_rng(0).permutation(len(data))
    rows = order[:TRAIN] if config.split_of("train", "test") == "train" else order[TRAIN:]
    images = np.rint(data[rows, :64] * (255 / 16)).astype(np.uint8)  # levels are 0 to 16
    return tensors(images.reshape(-1, 8, 8), data[rows, 64])
