"""PreActResNet for small images (He et al. 2016, "Identity Mappings"): a 3x3 convolution, four groups, no max pooling.

Layers to mix at: 0 the input, 1 to 3 the outputs of the first three groups (the paper's resblocks), 4 the features.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from classifiers.networks import NetworkConfig
from classifiers.networks._preact import Block, Bottleneck, row

BLOCKS = {
    18: (Block, (2, 2, 2, 2)),
    34: (Block, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


@dataclass(frozen=True, kw_only=True)
class PreActResNet(NetworkConfig):
    """PreActResNet, with 64, 128, 256 and 512 channels, and four times these after a bottleneck."""

    depth: int = 18
    """Layers: 18, 34, 50 or 152."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth not in BLOCKS:
            raise ValueError(f"network.depth must be one of {', '.join(map(str, BLOCKS))}, not {self.depth}")

    def stages(self, channels: int, classes: int) -> list[nn.Module]:
        """The stem with the first group, the second, the third, the fourth with pooling, and the linear layer."""
        block, sizes = BLOCKS[self.depth]
        stem = max(1, round(64 * self.width))
        return row(self, block, stem, sizes, 64, channels, classes)
