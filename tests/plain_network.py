"""A classifier without batch norm, as a user would add one."""

from __future__ import annotations

from torch import nn

from classifiers.networks import NetworkConfig


def stages(config: NetworkConfig, channels: int, classes: int) -> list[nn.Module]:
    """A convolution, pooling, the linear layer."""
    width = max(1, round(64 * config.width))
    first = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())
    return [first, nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), nn.Linear(4 * width, classes)]
