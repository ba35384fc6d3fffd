"""A classifier without batch norm, as a user would add one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from classifiers.networks import NetworkConfig


@dataclass(frozen=True, kw_only=True)
class Plain(NetworkConfig):
    """A convolution, pooling, the linear layer."""

    def stages(self, channels: int, classes: int) -> list[nn.Module]:
        width = max(1, round(64 * self.width))
        first = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())
        return [first, nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), nn.Linear(4 * width, classes)]
