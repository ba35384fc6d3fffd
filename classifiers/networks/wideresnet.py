"""WideResNet (Zagoruyko & Komodakis 2016): a 3x3 convolution to 16 channels, three groups of n blocks.

Layers to mix at: 0 the input, 1 and 2 the outputs of the first two groups, 3 the features.

Its depth is 6n + 4, counting the three 1x1 shortcuts. The paper's "WideResNet20-10" is no such number; counted as
He et al. count, without the shortcuts, it is 6n + 2 with n = 3, the network otherwise called WRN-22-10. Both depths
make that network here.
"""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from classifiers.networks import NetworkConfig
from classifiers.networks._preact import Block, features, group
from mmgan.errors import UserError


def stages(config: NetworkConfig, channels: int, classes: int) -> list[nn.Module]:
    """Stem and first group, the second, the third and pooling, the linear layer."""
    n, rest = divmod(config.depth - 2, 6)
    if n < 1 or rest not in (0, 2):
        raise UserError("network.depth of wideresnet must be 6n + 4 (10, 16, 22, 28, ...), or 6n + 2")
    widths = [16, *(max(1, round(16 * config.width * 2**i)) for i in range(3))]
    groups: list[nn.Module] = [
        group(Block, n, before, width, 1 if i == 0 else 2, config.dropout)
        for i, (before, width) in enumerate(pairwise(widths))
    ]
    stem = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
    pooled = nn.Sequential(groups[2], features(widths[3], config.final_norm))
    return [nn.Sequential(stem, groups[0]), groups[1], pooled, nn.Linear(widths[3], classes)]
