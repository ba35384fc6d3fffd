"""Classifiers, one family per file: a class whose fields are its options and whose `stages` builds the modules.

A file added to this folder is imported with the others, so that the option `network` can name its class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from mmgan import modules
from mmgan.mixup import Staged


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(ABC):
    """A network's options."""

    width: float = 1.0
    """Factor on the channels of every layer, except a WideResNet's first convolution, which always has 16."""
    final_norm: bool = True
    """Batch norm and ReLU before pooling, as in the papers; false: none, as in the authors' code."""
    dropout: float = 0.0
    """Probability of dropping an activation before the last convolution of every block."""

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise ValueError(f"network.width must be positive, not {self.width}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"network.dropout must be in [0, 1), not {self.dropout}")

    @abstractmethod
    def stages(self, channels: int, classes: int) -> list[nn.Module]:
        """The sequence of modules that maps images [B, channels, R, R] to logits [B, classes].

        The last one is linear, on features [B, d]. Layers to mix at are 0, the input, and k, the output of module k.
        """


class Normalise(nn.Module):
    """Pixels in [0, 1] to zero mean and unit variance per channel; part of the network, so that eps is in pixels.

    Mixing pixels is the same as mixing normalised ones, because the map is affine.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        """`mean` and `std`: float32 [C]."""
        super().__init__()
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("std", std[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """`x` float32 [B, C, R, R], normalised."""
        return (x - self.mean) / self.std


def build(
    config: NetworkConfig, classes: int, mean: Tensor, std: Tensor, preprocess: nn.Module | None = None
) -> Staged:
    """The classifier of `config` for images float32 [B, C, R, R] in [0, 1] with channel means and deviations [C].

    `preprocess` maps images before anything else, even augmentation; the moments are then those of its output. The
    last stage is the linear one: `f(x, stop=f.depth - 1)` are features [B, d]. Convolutions are initialised as by
    He et al., normal with variance 2 / fan-out.
    """
    first, *rest = config.stages(len(mean), classes)
    network = Staged(nn.Sequential(Normalise(mean, std), first), *rest, preprocess=preprocess)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return network


def normalise_of(network: Staged) -> Normalise:
    """The first module of a network that `build` made."""
    return cast("Normalise", network.get_submodule("stages.0.0"))


def moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of uint8 images [N, C, H, W], in units of [0, 1]: float32 [C]."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.transpose(0, 1)])
    shares = counts.double() / counts.sum(1, keepdim=True)
    mean = shares @ levels
    return mean.float(), (shares @ levels**2 - mean**2).clamp(min=1e-12).sqrt().float()


modules.import_all(__name__)
