"""WideResNet (Zagoruyko & Komodakis 2016): a 3x3 convolution to 16 channels, three groups of n blocks.

Layers to mix at: 0 the input, 1 and 2 the outputs of the first two groups, 3 the features.

Its depth is 6n + 4, counting the three 1x1 shortcuts. The paper's "WideResNet20-10" does not fit; counted as by
He et al., without the shortcuts, it is 6n + 2 with n = 3, the network otherwise called WRN-22-10. Both depths give
that network here.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from classifiers.networks import NetworkConfig
from classifiers.networks._preact import Block, row


@dataclass(frozen=True, kw_only=True)
class WideResNet(NetworkConfig):
    """WideResNet, with 16, 32 and 64 channels; a width of 10 and a depth of 28 give WRN-28-10."""

    depth: int = 28
    """Layers: 6n + 4 (10, 16, 22, 28, ...), or 6n + 2 without counting shortcuts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 8 <= self.depth <= 1010 or (self.depth - 2) % 6 not in (0, 2):
            raise ValueError(f"network.depth must be 6n + 4 (10, 16, 22, ...) or 6n + 2, up to 1010, not {self.depth}")

    def stages(self, channels: int, classes: int) -> list[nn.Module]:
        """The stem with the first group, the second, the third with pooling, and the linear layer."""
        return row(self, Block, 16, ((self.depth - 2) // 6,) * 3, 16, channels, classes)
