"""The real images of a GAN: which are trained on, and their batches on the device."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmgan.data import Feed, load, to_network
from mmgan.engine.randomness import Draws, stream
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig

DIAGNOSED = 256
"""Images of each kind that diagnostics are of."""


def training_images(config: GANConfig) -> Tensor:
    """uint8 [N, C, R, R]: the data set, or `data.subset` images of it in their order."""
    images, size = load(config.data).images, config.data.subset
    if size is None:
        return images
    if size > len(images):
        raise UserError(f"data.subset {size} is larger than the data set of {len(images)} images")
    return images[torch.randperm(len(images), generator=stream(config.seed, "subset", 0))[:size].sort().values]


def held_out(config: GANConfig) -> Tensor | None:
    """Real images that training does not see, for diagnostics; None where the data set has no other split."""
    if config.data.split != "train":
        return None
    try:
        images = load(replace(config.data, split="test")).images
    except UserError:
        return None
    return images[torch.randperm(len(images), generator=stream(config.seed, "held-out", 0))[:DIAGNOSED]]


class Batches:
    """Batches of real images on a device, each a function of the seed and its number."""

    def __init__(self, config: GANConfig, images: Tensor, draws: Draws) -> None:
        """`images`: uint8 [N, C, R, R]."""
        self.config, self.draws = config, draws
        self.size, self.shape, self.feed = len(images), images.shape[1:], Feed(images, draws.device)

    def __call__(self, number: int, batch_size: int, step: str = "") -> Tensor:
        """The share of this process of batch `number`, in [-1, 1]; every `step` has batches of its own."""
        data, draws = self.config.data, self.draws
        x = self.feed(draws.rows(number, batch_size, self.size, f"{step}epoch"))
        flips = draws.uniform(f"{step}flip", number, batch_size) < 0.5 if data.flip else None
        noise = draws.uniform(f"{step}noise", number, batch_size, *self.shape) if data.dequantise else None
        return to_network(x, flips, noise)

    def some(self, n: int) -> Tensor:
        """`n` images, always the same, as they are: uint8 [n, C, R, R], fewer where there are fewer."""
        return self.feed(torch.randperm(self.size, generator=stream(self.config.seed, "diagnosed", 0))[:n])
