"""Fashion-MNIST: 60,000 training and 10,000 test grey images of 28x28, from `root` or a Linux package."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from torch import Tensor
from torchvision.datasets import FashionMNIST

from mmgan.data.config import DataConfig
from mmgan.data.sets._torchvision import from_raw, open_set, tensors

SYSTEM = Path("/usr/share/datasets/fashion-mnist")
"""The folder of Debian's package dataset-fashion-mnist."""


def load(config: DataConfig) -> tuple[Tensor, Tensor]:
    """The files in `root` if there are any, otherwise the system's."""
    train = config.split_of("train", "test") == "train"
    there = (Path(config.root) / "FashionMNIST" / "raw").is_dir()
    if SYSTEM.is_dir() and not there and not config.download:
        name = "train" if train else "t10k"
        return tensors(_idx(SYSTEM / f"{name}-images-idx3-ubyte.gz"), _idx(SYSTEM / f"{name}-labels-idx1-ubyte.gz"))
    data = open_set(from_raw(FashionMNIST), config, train=train)
    return tensors(data.data, data.targets)


def _idx(file: Path) -> np.ndarray:
    """An array of bytes in the IDX format: its number of dimensions in byte 3, then its shape, then the values."""
    content = gzip.decompress(file.read_bytes())
    shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape).copy()
