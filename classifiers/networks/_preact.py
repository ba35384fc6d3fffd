"""Pre-activation blocks (He et al. 2016), from which all families are built."""

from __future__ import annotations

from torch import Tensor, nn

from classifiers.networks import NetworkConfig


class Block(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU; the shortcut is the input, or 1x1 if shapes differ."""

    expansion = 1

    @staticmethod
    def norm_relu(channels: int) -> tuple[nn.Module, nn.Module]:
        """Batch norm, then ReLU."""
        return nn.BatchNorm2d(channels), nn.ReLU(inplace=True)

    def __init__(self, before: int, channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        after = channels * self.expansion
        self.stride = stride
        self.norm, self.relu = self.norm_relu(before)
        self.shortcut = nn.Conv2d(before, after, 1, bias=False) if stride > 1 or before != after else None
        self.layers = self._layers(before, channels, stride, dropout)

    def _layers(self, before: int, channels: int, stride: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(before, channels, 3, stride, 1, bias=False),
            *self.norm_relu(channels),
            *([nn.Dropout(dropout)] if dropout else []),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu(self.norm(x))
        return self.layers(active) + self._skip(x, active)

    def _skip(self, x: Tensor, active: Tensor) -> Tensor:
        return x if self.shortcut is None else self._project(active)

    def _project(self, h: Tensor) -> Tensor:
        # A strided 1x1 convolution in two steps: in one, torch 2.15 on a CPU writes out of bounds at 4 channels.
        return h if self.shortcut is None else self.shortcut(h[:, :, :: self.stride, :: self.stride])


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions; the last has four times the channels."""

    expansion = 4

    def _layers(self, before: int, channels: int, stride: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(before, channels, 1, bias=False),
            *self.norm_relu(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            *self.norm_relu(channels),
            *([nn.Dropout(dropout)] if dropout else []),
            nn.Conv2d(channels, channels * self.expansion, 1, bias=False),
        )


def group(block: type[Block], n: int, before: int, channels: int, stride: int, dropout: float) -> nn.Sequential:
    """`n` blocks, the first with `stride`; what the paper calls a resblock."""
    first = block(before, channels, stride, dropout)
    after = channels * block.expansion
    return nn.Sequential(first, *(block(after, channels, 1, dropout) for _ in range(n - 1)))


def row(
    config: NetworkConfig, block: type[Block], stem: int, sizes: tuple[int, ...], base: int, channels: int, classes: int
) -> list[nn.Module]:
    """A 3x3 convolution to `stem` channels and groups of `sizes` blocks, of base * width, 2 base * width, ... channels.

    Its modules are the stem with the first group, each further group (the last with batch norm and ReLU, if configured,
    and the mean over pixels), and the linear layer.
    """
    widths = [max(1, round(base * config.width * 2**i)) for i in range(len(sizes))]
    before = [stem, *(width * block.expansion for width in widths)]
    groups: list[nn.Module] = [
        group(block, n, before[i], width, 1 if i == 0 else 2, config.dropout)
        for i, (n, width) in enumerate(zip(sizes, widths, strict=True))
    ]
    first = nn.Sequential(nn.Conv2d(channels, stem, 3, 1, 1, bias=False), groups[0])
    end = block.norm_relu(before[-1]) if config.final_norm else ()
    features = nn.Sequential(*end, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return [first, *groups[1:-1], nn.Sequential(groups[-1], features), nn.Linear(before[-1], classes)]
