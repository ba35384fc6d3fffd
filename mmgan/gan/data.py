"""The real images of a GAN: the training set, its classes, and its batches on the device."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmgan.data import Feed, Images, class_names, load, to_network
from mmgan.engine.randomness import Draws, stream
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig
from mmgan.gan.inputs import Inputs

DIAGNOSED = 256
"""Number of images of each kind used for diagnostics."""


def training_images(config: GANConfig) -> Images:
    """The data set, or a random `data.subset` of its images in their original order.

    Raises UserError for a subset larger than the data set and, if the GAN is conditional, for images without a label or
    classes that the subset lacks.
    """
    (images, labels), size = load(config.data), config.data.subset
    if size is not None and size > len(images):
        raise UserError(f"data.subset {size} is larger than the data set of {len(images)} images")
    rows = torch.randperm(len(images), generator=stream(config.seed, "subset", 0))[:size].sort().values
    found = Images(images, labels) if size is None else Images(images[rows], labels[rows])
    if config.conditional:
        if without := int((labels < 0).sum()):
            raise UserError(f"conditional: {without} of {len(labels)} images of {config.data.name} have no label")
        of = f"the {size} images of data.subset" if size else "the training images"
        there, names = set(found.labels.unique().tolist()), class_names(config.data)
        for label in range(max(int(labels.max()) + 1, len(names))):
            if label not in there:
                name = names[label] if names else label
                raise UserError(f"conditional: {of} have none of class {name}; every class up to the last needs some")
    return found


def inputs_of(config: GANConfig, labels: Tensor) -> Inputs:
    """The inputs of a run's generator, from the labels, int64 [N], of its training images."""
    z_dim = config.generator.z_dim
    if not config.conditional:
        return Inputs(z_dim)
    counts = labels.bincount().tolist()
    names = class_names(config.data) or [str(label) for label in range(len(counts))]
    return Inputs(z_dim, tuple(names), tuple(counts if config.conditional == "matched" else [1] * len(names)))


def held_out(config: GANConfig) -> Images | None:
    """Up to 256 test images, for diagnostics; None if there are none, or if training uses another split than train."""
    if config.data.split != "train":
        return None
    try:
        images, labels = load(replace(config.data, split="test"))
    except UserError:
        return None
    rows = torch.randperm(len(images), generator=stream(config.seed, "held-out", 0))[:DIAGNOSED]
    return Images(images[rows], labels[rows])


class Batches:
    """Batches of real images on a device, each a function of the seed and its number."""

    def __init__(self, config: GANConfig, images: Tensor, draws: Draws, labels: Tensor | None = None) -> None:
        """`images`: uint8 [N, C, R, R]; `labels`: int64 [N]."""
        self.config, self.draws = config, draws
        self.size, self.shape, self.feed = len(images), images.shape[1:], Feed(images, draws.device)
        self.classes = None if labels is None else Feed(labels, draws.device)
        self.diagnosed = torch.randperm(self.size, generator=stream(config.seed, "diagnosed", 0))

    def __call__(self, number: int, batch_size: int, step: str = "") -> Tensor:
        """This process's share of batch `number`, in [-1, 1]; every kind of `step` has separate batches."""
        data, draws = self.config.data, self.draws
        x = self.feed(draws.rows(number, batch_size, self.size, f"{step}epoch"))
        flips = draws.uniform(f"{step}flip", number, batch_size) < 0.5 if data.flip else None
        noise = draws.uniform(f"{step}noise", number, batch_size, *self.shape) if data.dequantise else None
        return to_network(x, flips, noise)

    def labels(self, number: int, batch_size: int, step: str = "") -> Tensor:
        """The labels of the same images, int64 [B] on the device."""
        assert self.classes
        return self.classes(self.draws.rows(number, batch_size, self.size, f"{step}epoch"))

    def some(self, n: int) -> Tensor:
        """`n` unchanged images, always the same: uint8 [n, C, R, R], or fewer if there are fewer."""
        return self.feed(self.diagnosed[:n])

    def labels_of_some(self, n: int) -> Tensor:
        """The labels of the same images, int64 [n] on the device."""
        assert self.classes
        return self.classes(self.diagnosed[:n])

    def by_class(self, classes: int, columns: int) -> Tensor:
        """`columns` images of each class in turn, repeated if there are fewer: uint8 [classes * columns, ...]."""
        labels = self.labels_of_some(self.size).cpu()
        rows = [self.diagnosed[labels == one] for one in range(classes)]
        return self.feed(torch.cat([row.repeat(columns)[:columns] for row in rows]))
