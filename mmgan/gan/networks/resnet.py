"""The residual networks of Miyato et al. (2018, arXiv:1802.05957), Table 4, for images of 8 to 112 pixels.

At 32x32 with the default widths these are their CIFAR-10 networks exactly. For other sizes the same blocks are
stacked: the generator doubles a 4 to 7 pixel map up to the image; the discriminator halves the image until its map is
at most 8 pixels wide (once at least), and two blocks without resampling follow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan.gan.networks import DiscriminatorConfig, GeneratorConfig, check_positive
from mmgan.gan.networks._fused import conv_pool, upsample_conv
from mmgan.gan.networks._spectral import normalise
from mmgan.mixup import Staged


@dataclass(frozen=True, kw_only=True)
class ResNetGenerator(GeneratorConfig):
    """The ResNet generator's size and variants."""

    width: int = 256
    """Channels of every block."""
    gain: float = math.sqrt(2)
    """Glorot gain of the 3x3 convolutions (Miyato: sqrt 2; the official code: 1)."""
    shortcut_gain: float = 1.0
    """Glorot gain of the 1x1 shortcuts (Miyato: 1; the official code: sqrt 2)."""
    shortcut_conv: bool = True
    """Whether shortcuts have a 1x1 convolution (the official code's have none)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("generator", width=self.width, gain=self.gain, shortcut_gain=self.shortcut_gain)

    def build(self, resolution: int, channels: int) -> Generator:
        """The network, for images of 8 to 112 pixels."""
        return Generator(resolution, channels, self)


@dataclass(frozen=True, kw_only=True)
class ResNetDiscriminator(DiscriminatorConfig):
    """The ResNet discriminator's size and variants."""

    width: int = 128
    """Channels of every block."""
    gain: float = math.sqrt(2)
    """Glorot gain of the 3x3 convolutions (Miyato: sqrt 2; the official code: 1)."""
    shortcut_gain: float = 1.0
    """Glorot gain of the 1x1 shortcuts (Miyato: 1; the official code: sqrt 2)."""
    pool: Literal["sum", "mean"] = "sum"
    """Global pooling before the last layer (the official code's is mean)."""
    spectral_norm: Literal["all", "main", "none"] = "all"
    """Which weights are normalised: all; all but the shortcuts', as in a version of the official code; or none."""
    power_iterations: int = 1
    """Power iterations of the spectral norm in a training pass (the official code runs one for each of its passes)."""

    def __post_init__(self) -> None:
        check_positive("discriminator", width=self.width, power_iterations=self.power_iterations)
        check_positive("discriminator", gain=self.gain, shortcut_gain=self.shortcut_gain)
        if self.power_iterations > 1000:
            said = f"must be at most 1000, not {self.power_iterations}: every pass of training runs all of them"
            raise ValueError(f"discriminator.power_iterations {said}")

    def build(self, resolution: int, channels: int) -> Discriminator:
        """The network, for images of 8 to 112 pixels."""
        return Discriminator(resolution, channels, self)


class Generator(nn.Module):
    """Latents [N, z_dim] to images [N, channels, resolution, resolution] in [-1, 1]."""

    def __init__(self, resolution: int, channels: int, config: ResNetGenerator) -> None:
        super().__init__()
        doublings = _doublings(resolution)
        self.bottom = resolution // 2**doublings
        self.width = config.width
        self.linear = _glorot(nn.Linear(config.z_dim, config.width * self.bottom**2), 1.0)
        self.blocks = nn.Sequential(*(_Up(config) for _ in range(doublings)))
        self.norm = _batch_norm(config.width)
        self.image = _glorot(nn.Conv2d(config.width, channels, 3, padding=1), 1.0)

    def forward(self, z: Tensor) -> Tensor:
        """Images of latents."""
        h = self.linear(z).reshape(-1, self.width, self.bottom, self.bottom)
        h = h.contiguous(memory_format=torch.channels_last)
        return self.image(F.relu_(self.norm(self.blocks(h)))).tanh()


class Discriminator(Staged):
    """Images [N, channels, resolution, resolution] to logits [N].

    Layer 0 is the input and layer k the output of residual block k: layers 0, 1, 2 are the paper's `input`, `h1`, `h2`.
    """

    def __init__(self, resolution: int, channels: int, config: ResNetDiscriminator) -> None:
        _doublings(resolution)
        blocks: list[nn.Module] = [_First(channels, config)]
        size = resolution // 2
        while size > 8:
            blocks.append(_Down(config))
            size //= 2
        blocks += [_Plain(config) for _ in range(2)]
        super().__init__(*blocks, _Head(config))
        for name, layer in list(self.named_modules()):
            wanted = config.spectral_norm == "all" or (config.spectral_norm == "main" and "shortcut" not in name)
            if isinstance(layer, nn.Conv2d | nn.Linear) and wanted:
                normalise(layer, config.power_iterations)


def _doublings(resolution: int) -> int:
    """How often the generator doubles its first map of 4 to 7 pixels."""
    sizes = {bottom * 2**n: n for n in range(1, 5) for bottom in range(4, 8)}
    if resolution not in sizes:
        there = ", ".join(map(str, sorted(sizes)))
        raise ValueError(f"no ResNet for {resolution} pixels; take one of {there}; DCGAN takes powers of 2")
    return sizes[resolution]


L = TypeVar("L", nn.Conv2d, nn.Linear)


def _glorot(layer: L, gain: float) -> L:
    """Glorot uniform weights and zero bias."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _conv3(inputs: int, outputs: int, gain: float) -> nn.Conv2d:
    return _glorot(nn.Conv2d(inputs, outputs, 3, padding=1), gain)


def _conv1(inputs: int, outputs: int, gain: float) -> nn.Conv2d:
    return _glorot(nn.Conv2d(inputs, outputs, 1), gain)


def _batch_norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=2e-5)  # the authors' framework's default


class _Up(nn.Module):
    """Generator block: batch norm, ReLU, doubling, 3x3, batch norm, ReLU, 3x3.

    The 1x1 shortcut runs before its nearest upsampling, with which it commutes.
    """

    def __init__(self, config: ResNetGenerator) -> None:
        super().__init__()
        width = config.width
        self.norm1, self.norm2 = _batch_norm(width), _batch_norm(width)
        self.conv1, self.conv2 = _conv3(width, width, config.gain), _conv3(width, width, config.gain)
        self.shortcut = _conv1(width, width, config.shortcut_gain) if config.shortcut_conv else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = upsample_conv(F.relu_(self.norm1(x)), self.conv1.weight, self.conv1.bias)
        h = self.conv2(F.relu_(self.norm2(h)))
        return F.interpolate(self.shortcut(x), scale_factor=2).add_(h)


class _First(nn.Module):
    """Discriminator's first block: 3x3, ReLU, 3x3, halving; its shortcut halves, then 1x1."""

    def __init__(self, channels: int, config: ResNetDiscriminator) -> None:
        super().__init__()
        width = config.width
        self.conv1, self.conv2 = _conv3(channels, width, config.gain), _conv3(width, width, config.gain)
        self.shortcut = _conv1(channels, width, config.shortcut_gain)

    def forward(self, x: Tensor) -> Tensor:
        h = conv_pool(F.relu_(self.conv1(x)), self.conv2.weight, self.conv2.bias)
        return h + self.shortcut(F.avg_pool2d(x, 2))


class _Down(nn.Module):
    """Discriminator block: ReLU, 3x3, ReLU, 3x3, halving; its 1x1 shortcut runs after the halving, which commutes."""

    def __init__(self, config: ResNetDiscriminator) -> None:
        super().__init__()
        width = config.width
        self.conv1, self.conv2 = _conv3(width, width, config.gain), _conv3(width, width, config.gain)
        self.shortcut = _conv1(width, width, config.shortcut_gain)

    def forward(self, x: Tensor) -> Tensor:
        h = conv_pool(F.relu_(self.conv1(F.relu(x))), self.conv2.weight, self.conv2.bias)
        return h + self.shortcut(F.avg_pool2d(x, 2))


class _Plain(nn.Module):
    """Discriminator block without resampling: ReLU, 3x3, ReLU, 3x3; the shortcut is the identity."""

    def __init__(self, config: ResNetDiscriminator) -> None:
        super().__init__()
        width = config.width
        self.conv1, self.conv2 = _conv3(width, width, config.gain), _conv3(width, width, config.gain)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu_(self.conv1(F.relu(x))))


class _Head(nn.Module):
    """ReLU, global pooling, linear without bias."""

    def __init__(self, config: ResNetDiscriminator) -> None:
        super().__init__()
        self.pool = config.pool
        self.linear = _glorot(nn.Linear(config.width, 1, bias=False), 1.0)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(x)
        h = h.sum((2, 3)) if self.pool == "sum" else h.mean((2, 3))
        return self.linear(h).squeeze(1)
