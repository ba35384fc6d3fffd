"""Finding and loading an image set."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor

from mmgan import modules
from mmgan.data import sets
from mmgan.data.config import DataConfig
from mmgan.errors import UserError
from mmgan.memory import refuse_more


class Images(NamedTuple):
    """An image set, in memory or memory-mapped."""

    images: Tensor
    """uint8 [N, C, R, R], C = 1 or 3."""
    labels: Tensor
    """int64 [N]; -1 for an image without a label."""

    def labelled(self) -> Images:
        """The images with a label."""
        there = self.labels >= 0
        return self if there.all() else Images(self.images[there], self.labels[there])


def data_sets() -> list[str]:
    """Names of the available data sets: the files in mmgan/data/sets."""
    return modules.names(sets)


def class_names(config: DataConfig) -> list[str]:
    """Names of the classes in the order of their labels; empty if they are only numbered."""
    module = modules.find(sets, config.name)
    return list(module.classes(config)) if hasattr(module, "classes") else []


def load(config: DataConfig, square: bool = True) -> Images:
    """The images that `config` describes; raises UserError, saying what to do, if they are not available.

    With `square`, also raises it if they are not square.
    """
    module = modules.find(sets, config.name)
    if not hasattr(module, "load"):
        raise UserError(f"data.name {config.name!r} has no `load` function")
    images, labels = module.load(config)
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or len(labels) != len(images):
        found = f"{images.dtype} {list(images.shape)} and {len(labels)} labels"
        raise UserError(f"data.name {config.name!r} loads {found}; it must be uint8 [N, 1 or 3, H, W] and N labels")
    height, width = images.shape[-2:]
    if config.resolution:
        needed = len(images) * images.shape[1] * config.resolution**2
        refuse_more(needed, torch.device("cpu"), f"{len(images)} images of this size", "data.resolution")
    if config.resolution and (height, width) != (config.resolution, config.resolution):
        from torchvision.transforms.v2.functional import resize  # noqa: PLC0415  # takes a second to import

        images = resize(images, [config.resolution, config.resolution], antialias=True)
    elif square and height != width:
        raise UserError(f"images of {config.name} are {width}x{height}; set data.resolution to make them square")
    return Images(images, labels)


def fingerprint(images: Tensor) -> str:
    """A hash that identifies an image set, computed from its shape and up to 1,024 images spread evenly over it."""
    rows = torch.linspace(0, len(images) - 1, min(len(images), 1024)).long()
    return hashlib.sha256(repr(images.shape).encode() + images[rows].contiguous().numpy().tobytes()).hexdigest()
