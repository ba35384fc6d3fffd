"""DCGAN (Radford et al. 2016, arXiv:1511.06434), for images of 8, 16, 32, 64, ... pixels.

Strided 4x4 convolutions between a 4x4 map and the image, without biases if a norm follows; weights ~ N(0, 0.02).
The discriminator has no batch norm, which would make a mixed row depend on more than its two rows; spectral
normalisation takes its place.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from mmgan.gan.networks import DiscriminatorConfig, GeneratorConfig, check_positive
from mmgan.gan.networks._spectral import normalise
from mmgan.gan.networks.conditional import ConditionalNorm, Projection
from mmgan.mixup import Mixable

STD = 0.02
"""Initial standard deviation of all weights."""


@dataclass(frozen=True, kw_only=True)
class DCGANGenerator(GeneratorConfig):
    """The DCGAN generator's size."""

    width: int = 64
    """Channels of the last hidden map; each earlier map has twice as many as the next."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("generator", width=self.width)

    def build(self, resolution: int, channels: int, classes: int = 0) -> nn.Module:
        """The network, for images of 8, 16, 32, ... pixels."""
        return Generator(resolution, channels, self, classes)


@dataclass(frozen=True, kw_only=True)
class DCGANDiscriminator(DiscriminatorConfig):
    """The DCGAN discriminator's size and variants."""

    width: int = 64
    """Channels of the first hidden map; each later map has twice as many as the one before."""
    slope: float = 0.2
    """Slope of the leaky ReLUs for negative values, in [0, 1)."""
    spectral_norm: bool = True
    """Whether weights are spectrally normalised."""

    def __post_init__(self) -> None:
        check_positive("discriminator", width=self.width)
        if not 0 <= self.slope < 1:
            raise ValueError(f"discriminator.slope must be in [0, 1), not {self.slope}")

    def build(self, resolution: int, channels: int, classes: int = 0) -> nn.Module:
        """The network, for images of 8, 16, 32, ... pixels; layer k is the output of its module `down{k}`."""
        n = _doublings(resolution)
        widths = [channels, *(self.width * 2**i for i in range(n))]
        blocks = [(f"down{k}", _down(widths[k - 1], widths[k], self.slope)) for k in range(1, n + 1)]
        if classes:  # its last layer is linear in the remaining map of 4 x 4 pixels
            head: list[tuple[str, nn.Module]] = [("flatten", nn.Flatten())]
        else:
            head = [("logit", nn.Conv2d(widths[n], 1, 4, bias=False)), ("flatten", nn.Flatten(0))]
        network: nn.Module = Mixable(nn.Sequential(OrderedDict([*blocks, *head])), [name for name, _ in blocks])
        if classes:
            network = Projection(network, 16 * widths[n], classes)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.normal_(layer.weight, 0, STD)
                if self.spectral_norm:
                    normalise(layer)
        return network


class Generator(nn.Module):
    """Latents [N, z_dim], followed by class vectors, to images [N, channels, resolution, resolution] in [-1, 1].

    If there are classes, the norms are conditional, except the last one if there are several.
    """

    def __init__(self, resolution: int, channels: int, config: DCGANGenerator, classes: int = 0) -> None:
        super().__init__()
        n = _doublings(resolution)
        self.z_dim = config.z_dim
        widths = [config.width * 2**i for i in reversed(range(n))]
        layers: list[nn.Module] = [*_up(config.z_dim, widths[0], classes, stride=1, padding=0)]
        for k, (before, after) in enumerate(pairwise(widths), 2):
            layers += _up(before, after, classes if k < n else 0, stride=2, padding=1)
        last = nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1)
        self.layers = nn.Sequential(*layers, last, nn.Tanh())
        for layer in self.layers:
            if isinstance(layer, nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, 0, STD)

    def forward(self, z: Tensor) -> Tensor:
        """Images from latents followed by class vectors."""
        h, y = z[:, : self.z_dim, None, None], z[:, self.z_dim :]
        for layer in self.layers:
            h = layer(h, y) if isinstance(layer, ConditionalNorm) else layer(h)
        return h


def _doublings(resolution: int) -> int:
    """How many times a map of 4 pixels is doubled."""
    n = resolution.bit_length() - 3
    if n < 1 or resolution != 4 * 2**n:
        raise ValueError(f"no DCGAN for {resolution} pixels; use 8, 16, 32, 64 or another power of 2")
    return n


def _up(before: int, after: int, classes: int, stride: int, padding: int) -> list[nn.Module]:
    convolution = nn.ConvTranspose2d(before, after, 4, stride=stride, padding=padding, bias=False)
    norm = ConditionalNorm(after, classes) if classes else nn.BatchNorm2d(after)
    return [convolution, norm, nn.ReLU()]


def _down(before: int, after: int, slope: float) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(slope))
