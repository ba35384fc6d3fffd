"""Random views of images, which make up a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from classifiers.augment import cutout, shift_and_flip
from classifiers.config import ClassifierData
from classifiers.networks import normalise_of
from mmgan.data import Feed
from mmgan.engine.randomness import Draws, whole_numbers
from mmgan.mixup import Staged


class Views:
    """Images as `config` augments them, in the space of a network's layer 0, on its device."""

    def __init__(self, images: Tensor, config: ClassifierData, network: Staged, device: torch.device) -> None:
        """`images` uint8 [N, C, R, R]; `network` is on `device`."""
        self.config, self.pixels = config, images.shape[-1]
        self.feed, self.preprocess = Feed(images, device), network.preprocess
        self.fill = normalise_of(network).mean.flatten()

    @torch.no_grad()
    def __call__(self, rows: Tensor, draws: Draws, number: int) -> Tensor:
        """This process's images `rows`, augmented by `draws` for batch `number`: float32 [B, C, R, R]."""
        config = self.config
        size = len(rows) * draws.world
        x = self.feed(rows).float() / 255
        if self.preprocess is not None:
            x = self.preprocess(x)
        shifts = whole_numbers(draws.uniform("shift", number, size, 2), 2 * config.pad + 1) if config.pad else None
        flips = draws.uniform("flip", number, size) < 0.5 if config.flip else None
        x = shift_and_flip(x, shifts, config.pad, flips, config.border == "reflect")
        if config.cutout:
            centres = whole_numbers(draws.uniform("cutout", number, size, 2), self.pixels)
            x = cutout(x, centres, config.cutout, self.fill)
        if config.noise:
            x = x + config.noise * draws.normal("noise", number, size, *x.shape[1:])
        return x
