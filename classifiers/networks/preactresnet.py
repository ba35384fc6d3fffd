"""PreActResNet for small images (He et al. 2016, "Identity Mappings"): a 3x3 convolution, four groups, no max pooling.

Layers to mix at: 0 the input, 1 to 3 the outputs of the first three groups (the paper's resblocks), 4 the features.
"""

from __future__ import annotations

from torch import nn

from classifiers.networks import NetworkConfig
from classifiers.networks._preact import Block, Bottleneck, features, group
from mmgan.errors import UserError

BLOCKS = {
    18: (Block, (2, 2, 2, 2)),
    34: (Block, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


def stages(config: NetworkConfig, channels: int, classes: int) -> list[nn.Module]:
    """Stem and first group, the second, the third, the fourth and pooling, the linear layer."""
    if config.depth not in BLOCKS:
        raise UserError(f"network.depth of preactresnet must be one of {', '.join(map(str, BLOCKS))}")
    block, sizes = BLOCKS[config.depth]
    widths = [max(1, round(64 * config.width * 2**i)) for i in range(4)]
    before = [widths[0], *(width * block.expansion for width in widths[:3])]
    groups: list[nn.Module] = [
        group(block, n, b, width, 1 if i == 0 else 2, config.dropout)
        for i, (n, b, width) in enumerate(zip(sizes, before, widths, strict=True))
    ]
    last = widths[3] * block.expansion
    stem = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
    pooled = nn.Sequential(groups[3], features(last, config.final_norm))
    return [nn.Sequential(stem, groups[0]), groups[1], groups[2], pooled, nn.Linear(last, classes)]
