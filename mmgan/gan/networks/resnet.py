"""The residual networks of Miyato et al. (2018, arXiv:1802.05957), for images of twenty sizes, 8 to 224.

At 32x32 with the default options these are exactly their CIFAR-10 networks (Table 4), and at 128x128 with `table:
imagenet` and widths of 64 those for ImageNet (Table 6), whose conditional versions are Miyato & Koyama's (2018).
For other sizes the same blocks are stacked: the generator doubles a map of 4 to 7 pixels up to the image size; the
discriminator halves the image, at least once, until the map is at most 8 pixels wide, followed by two blocks without
resampling; or, in `imagenet`, until it is at most 7 wide, followed by one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan.gan.networks import DiscriminatorConfig, GeneratorConfig, check_positive
from mmgan.gan.networks._fused import conv_pool, upsample_conv
from mmgan.gan.networks._spectral import normalise
from mmgan.gan.networks.conditional import ConditionalNorm, Projection
from mmgan.mixup import Staged

Table = Literal["cifar10", "imagenet"]
TABLES: dict[Table, tuple[int, int, int]] = {"cifar10": (8, 2, 1), "imagenet": (7, 1, 2)}
"""For the discriminator: the widest map that is not halved, blocks without resampling, and growth of channels."""


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
    table: Table = "cifar10"
    """cifar10: `width` channels everywhere; imagenet: `width` after the last block, twice as many after each earlier
    one, and as many before the first block as after it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("generator", width=self.width, gain=self.gain, shortcut_gain=self.shortcut_gain)
        if self.table == "imagenet" and not self.shortcut_conv:
            raise ValueError("generator.table imagenet changes the number of channels, so it needs shortcut_conv")

    def build(self, resolution: int, channels: int, classes: int = 0) -> Generator:
        """The network, for image sizes of 4 to 7 pixels doubled one to five times."""
        return Generator(resolution, channels, self, classes)


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
    """Weights to normalise: all; main: all except the shortcuts', as in one version of the official code; or none."""
    power_iterations: int = 1
    """Power iterations of the spectral norm per training pass, 1 to 1000 (the official code runs one in each of its
    passes)."""
    table: Table = "cifar10"
    """cifar10: `width` channels everywhere; imagenet: `width` in the first block, and twice as many in each later one
    that halves the map."""

    def __post_init__(self) -> None:
        check_positive("discriminator", width=self.width, power_iterations=self.power_iterations)
        check_positive("discriminator", gain=self.gain, shortcut_gain=self.shortcut_gain)
        if self.power_iterations > 1000:
            said = f"must be at most 1000, not {self.power_iterations}: every training pass runs all of them"
            raise ValueError(f"discriminator.power_iterations {said}")

    def build(self, resolution: int, channels: int, classes: int = 0) -> nn.Module:
        """The network, for image sizes of 4 to 7 pixels doubled one to five times."""
        if not classes:
            return Discriminator(resolution, channels, self)
        features = Discriminator(resolution, channels, self, head=False)
        network = Projection(features, features.width, classes)
        if self.spectral_norm != "none":
            normalise(network.linear, self.power_iterations)
            normalise(network.embedding, self.power_iterations)
        return network


class Generator(nn.Module):
    """Latents [N, z_dim], followed by class vectors, to images [N, channels, resolution, resolution] in [-1, 1].

    If there are classes, the norms of the blocks are conditional.
    """

    def __init__(self, resolution: int, channels: int, config: ResNetGenerator, classes: int = 0) -> None:
        super().__init__()
        doublings = _doublings(resolution)
        self.z_dim, self.bottom = config.z_dim, resolution // 2**doublings
        *widths, last = [config.width] * (doublings + 1)
        if config.table == "imagenet":
            tapered = [last * 2**i for i in reversed(range(doublings))]
            widths = [tapered[0], *tapered[:-1]]
        self.width = widths[0]
        self.linear = _glorot(nn.Linear(config.z_dim, self.width * self.bottom**2), 1.0)
        blocks = (_Up(before, after, config, classes) for before, after in pairwise([*widths, last]))
        self.blocks = nn.Sequential(*blocks)
        self.norm = _batch_norm(last)
        self.image = _glorot(nn.Conv2d(last, channels, 3, padding=1), 1.0)

    def forward(self, z: Tensor) -> Tensor:
        """Images from latents followed by class vectors."""
        h, y = self.linear(z[:, : self.z_dim]), z[:, self.z_dim :]
        h = h.reshape(-1, self.width, self.bottom, self.bottom).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h, y)
        return self.image(F.relu_(self.norm(h))).tanh()


class Discriminator(Staged):
    """Images [N, channels, resolution, resolution] to logits [N].

    Layer 0 is the input and layer k the output of residual block k: layers 0, 1, 2 are the paper's `input`, `h1`, `h2`.
    Without its `head` it returns the features [N, `width`] that the head is linear in.
    """

    def __init__(self, resolution: int, channels: int, config: ResNetDiscriminator, head: bool = True) -> None:
        _doublings(resolution)
        blocks: list[nn.Module] = [_First(channels, config)]
        size, width, (smallest, plain, growth) = resolution // 2, config.width, TABLES[config.table]
        while size > smallest:
            blocks.append(_Down(width, growth * width, config))
            size, width = size // 2, growth * width
        blocks += [_Plain(width, config) for _ in range(plain)]
        super().__init__(*blocks, _Head(width, config) if head else _Pool(config.pool))
        self.width = width
        for name, layer in list(self.named_modules()):
            wanted = config.spectral_norm == "all" or (config.spectral_norm == "main" and "shortcut" not in name)
            if isinstance(layer, nn.Conv2d | nn.Linear) and wanted:
                normalise(layer, config.power_iterations)


def _doublings(resolution: int) -> int:
    """How many times the generator doubles its first map of 4 to 7 pixels."""
    sizes = {bottom * 2**n: n for n in range(1, 6) for bottom in range(4, 8)}
    if resolution not in sizes:
        there = ", ".join(map(str, sorted(sizes)))
        raise ValueError(f"no ResNet for {resolution} pixels; use one of {there}; DCGAN supports powers of 2")
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


EPS = 2e-5
"""Epsilon of batch norm: the default of the authors' framework."""


def _batch_norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=EPS)


def _norm(width: int, classes: int) -> nn.Module:
    return ConditionalNorm(width, classes, EPS) if classes else _batch_norm(width)


class _Up(nn.Module):
    """Generator block: batch norm, ReLU, doubling, 3x3, batch norm, ReLU, 3x3.

    The 1x1 shortcut runs before nearest-neighbour upsampling, with which it commutes.
    """

    def __init__(self, before: int, after: int, config: ResNetGenerator, classes: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(before, classes), _norm(after, classes)
        self.conv1, self.conv2 = _conv3(before, after, config.gain), _conv3(after, after, config.gain)
        self.shortcut = _conv1(before, after, config.shortcut_gain) if config.shortcut_conv else nn.Identity()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        given = (y,) if isinstance(self.norm1, ConditionalNorm) else ()
        h = upsample_conv(F.relu_(self.norm1(x, *given)), self.conv1.weight, self.conv1.bias)
        h = self.conv2(F.relu_(self.norm2(h, *given)))
        return F.interpolate(self.shortcut(x), scale_factor=2).add_(h)


class _First(nn.Module):
    """The discriminator's first block: 3x3, ReLU, 3x3, halving; its shortcut halves, then 1x1."""

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

    def __init__(self, before: int, after: int, config: ResNetDiscriminator) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv3(before, before, config.gain), _conv3(before, after, config.gain)
        self.shortcut = _conv1(before, after, config.shortcut_gain)

    def forward(self, x: Tensor) -> Tensor:
        h = conv_pool(F.relu_(self.conv1(F.relu(x))), self.conv2.weight, self.conv2.bias)
        return h + self.shortcut(F.avg_pool2d(x, 2))


class _Plain(nn.Module):
    """Discriminator block without resampling: ReLU, 3x3, ReLU, 3x3; the shortcut is the identity."""

    def __init__(self, width: int, config: ResNetDiscriminator) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv3(width, width, config.gain), _conv3(width, width, config.gain)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu_(self.conv1(F.relu(x))))


class _Pool(nn.Module):
    """ReLU, global pooling."""

    def __init__(self, pool: Literal["sum", "mean"]) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(x)
        return h.sum((2, 3)) if self.pool == "sum" else h.mean((2, 3))


class _Head(_Pool):
    """ReLU, global pooling, linear without bias."""

    def __init__(self, width: int, config: ResNetDiscriminator) -> None:
        super().__init__(config.pool)
        self.linear = _glorot(nn.Linear(width, 1, bias=False), 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(super().forward(x)).squeeze(1)
