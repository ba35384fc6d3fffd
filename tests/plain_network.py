"""Networks without batch norm, as a user would add them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from classifiers.networks import NetworkConfig
from mmgan.gan.networks import GeneratorConfig


@dataclass(frozen=True, kw_only=True)
class Plain(NetworkConfig):
    """A classifier: a convolution, pooling, the linear layer."""

    def stages(self, channels: int, classes: int) -> list[nn.Module]:
        width = max(1, round(64 * self.width))
        first = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())
        return [first, nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), nn.Linear(4 * width, classes)]


@dataclass(frozen=True, kw_only=True)
class PlainGenerator(GeneratorConfig):
    """Two linear layers."""

    width: int = 8
    """Hidden units."""

    def build(self, resolution: int, channels: int) -> nn.Module:  # type: ignore[override]  # no classes
        image = (channels, resolution, resolution)
        layers = nn.Linear(self.z_dim, self.width), nn.ReLU(), nn.Linear(self.width, channels * resolution**2)
        return nn.Sequential(*layers, nn.Tanh(), nn.Unflatten(1, image))
