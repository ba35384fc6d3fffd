"""Pre-activation blocks (He et al. 2016), of which both families are made."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3x3 convolutions, each after batch norm and ReLU; the shortcut is the input, or 1x1 where shapes differ."""

    expansion = 1

    def __init__(self, before: int, channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        after = channels * self.expansion
        self.stride = stride
        self.norm = nn.BatchNorm2d(before)
        self.shortcut = nn.Conv2d(before, after, 1, bias=False) if stride > 1 or before != after else None
        self.layers = self._layers(before, channels, stride, dropout)

    def _layers(self, before: int, channels: int, stride: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(before, channels, 3, stride, 1, bias=False),
            *norm_relu(channels),
            *([nn.Dropout(dropout)] if dropout else []),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm(x), inplace=True)
        # A strided 1x1 convolution, in two steps: in one, torch 2.15 on a CPU writes past its memory at 4 channels.
        skip = x if self.shortcut is None else self.shortcut(active[:, :, :: self.stride, :: self.stride])
        return self.layers(active) + skip


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions; the last makes four times the channels."""

    expansion = 4

    def _layers(self, before: int, channels: int, stride: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(before, channels, 1, bias=False),
            *norm_relu(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            *norm_relu(channels),
            *([nn.Dropout(dropout)] if dropout else []),
            nn.Conv2d(channels, channels * self.expansion, 1, bias=False),
        )


def norm_relu(channels: int) -> tuple[nn.Module, nn.Module]:
    """Batch norm, then ReLU."""
    return nn.BatchNorm2d(channels), nn.ReLU(inplace=True)


def group(block: type[Block], n: int, before: int, channels: int, stride: int, dropout: float) -> nn.Sequential:
    """`n` blocks, the first with `stride`; what the paper calls a resblock."""
    first = block(before, channels, stride, dropout)
    after = channels * block.expansion
    return nn.Sequential(first, *(block(after, channels, 1, dropout) for _ in range(n - 1)))


def features(channels: int, final_norm: bool) -> nn.Sequential:
    """From the last group to features [B, channels]: batch norm and ReLU where asked, then the mean over pixels."""
    return nn.Sequential(*(norm_relu(channels) if final_norm else ()), nn.AdaptiveAvgPool2d(1), nn.Flatten())
