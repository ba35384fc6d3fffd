"""Street View House Numbers, cropped: 73,257 training, 26,032 test and 531,131 extra colour images of 32x32."""

from __future__ import annotations

from torch import Tensor
from torchvision.datasets import SVHN

from mmgan.data.config import DataConfig
from mmgan.data.sets._torchvision import open_set, tensors


def load(config: DataConfig) -> tuple[Tensor, Tensor]:
    data = open_set(SVHN, config, split=config.split_of("train", "test", "extra"))
    return tensors(data.data, data.labels)
