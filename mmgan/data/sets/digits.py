"""scikit-learn's handwritten digits: 1,797 grey images of 8x8 from the UCI repository, part of the package."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits
from torch import Tensor

from mmgan.data.config import DataConfig
from mmgan.data.sets._torchvision import tensors

TRAIN = 1500


def load(config: DataConfig) -> tuple[Tensor, Tensor]:
    """1,500 images for `train` and the other 297 for `test`, split at random once and for all."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    rows = order[:TRAIN] if config.split_of("train", "test") == "train" else order[TRAIN:]
    images = np.rint(data.images[rows] * (255 / 16)).astype(np.uint8)  # their levels are 0 to 16
    return tensors(images, data.target[rows])
