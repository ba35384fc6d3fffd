"""STL-10: 5,000 training, 8,000 test and 100,000 unlabelled colour images of 96x96 (GANs usually use them at 48)."""

from __future__ import annotations

from torch import Tensor
from torchvision.datasets import STL10

from mmgan.data.config import DataConfig
from mmgan.data.sets._torchvision import open_set, tensors


def load(config: DataConfig) -> tuple[Tensor, Tensor]:
    data = open_set(STL10, config, split=config.split_of("train", "test", "unlabeled", "train+unlabeled"))
    return tensors(data.data, data.labels)
