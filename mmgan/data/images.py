"""Finding and loading an image set."""

from __future__ import annotations

import importlib
import pkgutil
from typing import NamedTuple

from torch import Tensor
from torchvision.transforms.v2.functional import resize

from mmgan.data import sets
from mmgan.data.config import DataConfig
from mmgan.errors import UserError


class Images(NamedTuple):
    """An image set in memory, or mapped into it."""

    images: Tensor
    """uint8 [N, C, R, R], C = 1 or 3."""
    labels: Tensor
    """int64 [N]; -1 for an image without one."""


def data_sets() -> list[str]:
    """Names of the data sets there are: the files of mmgan/data/sets."""
    return sorted(m.name for m in pkgutil.iter_modules(sets.__path__) if not m.name.startswith("_"))


def load(config: DataConfig) -> Images:
    """The images `config` asks for; raises UserError, saying what to do, where they cannot be had."""
    if "." not in config.name and config.name not in data_sets():
        raise UserError(f"no data set {config.name!r}; data.name can be {', '.join(data_sets())} or package.module")
    try:
        module = importlib.import_module(config.name if "." in config.name else f"{sets.__name__}.{config.name}")
        load_set = module.load
    except (ModuleNotFoundError, AttributeError, TypeError) as error:
        raise UserError(f"cannot import the data set {config.name!r}: {error}") from error
    images, labels = load_set(config)
    height, width = images.shape[-2:]
    if config.resolution and (height, width) != (config.resolution, config.resolution):
        images = resize(images, [config.resolution, config.resolution], antialias=True)
    elif height != width:
        raise UserError(f"images of {config.name} are {width}x{height}; set data.resolution to make them square")
    return Images(images, labels)
