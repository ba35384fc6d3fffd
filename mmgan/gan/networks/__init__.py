"""Generators and discriminators, one file a family. A file added here is a value of the option `network`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from torch import nn

from mmgan.errors import UserError

if TYPE_CHECKING:
    from mmgan.gan.config import GANConfig


def build(config: GANConfig, resolution: int, channels: int) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator for images of `resolution` pixels; raises UserError where there are none."""
    name = config.network
    known = sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "fused")
    if "." not in name and name not in known:
        raise UserError(f"no network {name!r}; network can be {', '.join(known)} or package.module")
    try:
        module = importlib.import_module(name if "." in name else f"{__name__}.{name}")
        generator = module.Generator(resolution, channels, config.generator)
        discriminator = module.Discriminator(resolution, channels, config.discriminator)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise UserError(f"network {name}: {error}") from error
    if config.mixup:
        depth = getattr(discriminator, "depth", None)
        if depth is None:
            raise UserError(f"network {name}: to be mixed, its discriminator must be Staged or come from mixable")
        if max(config.mixup.layers) >= depth:
            layers = list(config.mixup.layers)
            raise UserError(f"mixup.layers {layers}: the discriminator has layers 0 (its input) to {depth - 1}")
    return generator, discriminator
