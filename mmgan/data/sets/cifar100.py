"""CIFAR-100: 50,000 training and 10,000 test colour images of 32x32."""

from __future__ import annotations

from torch import Tensor
from torchvision.datasets import CIFAR100

from mmgan.data.config import DataConfig
from mmgan.data.sets._torchvision import open_set, tensors


def load(config: DataConfig) -> tuple[Tensor, Tensor]:
    data = open_set(CIFAR100, config, train=config.split_of("train", "test") == "train")
    return tensors(data.data.transpose(0, 3, 1, 2).copy(), data.targets)
