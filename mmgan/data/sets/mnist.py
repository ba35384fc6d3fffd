"""MNIST: 60,000 training and 10,000 test grey images of 28x28."""

from __future__ import annotations

from torch import Tensor
from torchvision.datasets import MNIST

from mmgan.data.config import DataConfig
from mmgan.data.sets._torchvision import from_raw, open_set, tensors


def load(config: DataConfig) -> tuple[Tensor, Tensor]:
    data = open_set(from_raw(MNIST), config, train=config.split_of("train", "test") == "train")
    return tensors(data.data, data.targets)
