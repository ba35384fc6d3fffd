"""The WideResNet of Oliver et al. 2018, as in their code, where it differs from `wideresnet`.

Leaky ReLU of slope 0.1; batch norm with epsilon 0.001 whose running statistics keep 0.999 of themselves a step; a
shortcut starts before batch norm and activation, but for the very first block's, which starts after them; the linear
layer starts as Glorot and Bengio's. Layers to mix at are those of `wideresnet`.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from classifiers.networks import NetworkConfig
from classifiers.networks._preact import Block, features, group
from mmgan.errors import UserError

SLOPE = 0.1


class Unit(Block):
    """A block whose shortcut starts from its input as it is."""

    first = False

    def forward(self, x: Tensor) -> Tensor:
        """The residual added to the shortcut."""
        active = F.leaky_relu(self.norm(x), SLOPE)
        skip = active if self.first else x
        if self.shortcut is not None:
            skip = self.shortcut(skip[:, :, :: self.stride, :: self.stride])
        return self.layers(active) + skip


class First(Unit):
    """A block whose shortcut starts from the activated input."""

    first = True


def stages(config: NetworkConfig, channels: int, classes: int) -> list[nn.Module]:
    """Stem and first group, the second, the third and pooling, the linear layer."""
    n, rest = divmod(config.depth - 4, 6)
    if n < 1 or rest:
        raise UserError("network.depth of oliver must be 6n + 4 (10, 16, 22, 28, ...)")
    widths = [16, *(max(1, round(16 * config.width * 2**i)) for i in range(3))]
    groups = [
        group(Unit, n, before, width, 1 if i == 0 else 2, config.dropout)
        for i, (before, width) in enumerate(pairwise(widths))
    ]
    groups[0][0] = First(widths[0], widths[1], 1, config.dropout)
    stem = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
    pooled = nn.Sequential(groups[2], features(widths[3], config.final_norm))
    row = [nn.Sequential(stem, groups[0]), groups[1], pooled, nn.Linear(widths[3], classes)]
    for module in [module for stage in row for module in stage.modules()]:
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1e-3, 1e-3
        elif isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Sequential):
            for name, child in module.named_children():
                if isinstance(child, nn.ReLU):
                    setattr(module, name, nn.LeakyReLU(SLOPE, inplace=True))
    return row
