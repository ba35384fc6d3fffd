"""A data set of one's own: the digits, half as bright."""

from __future__ import annotations

from torch import Tensor

from mmgan.data import DataConfig
from mmgan.data.sets import digits


def load(config: DataConfig) -> tuple[Tensor, Tensor]:
    images, labels = digits.load(config)
    return images // 2, labels
