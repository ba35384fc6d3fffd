"""Generators and discriminators, one file a family. A file added here is a value of the option `network`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from torch import nn

from mmgan import modules
from mmgan.errors import UserError

if TYPE_CHECKING:
    from mmgan.gan.config import GANConfig


def build(config: GANConfig, resolution: int, channels: int) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator for images of `resolution` pixels; raises UserError where there are none."""
    name = config.network
    module = modules.find(sys.modules[__name__], name, "network")
    if not (hasattr(module, "Generator") and hasattr(module, "Discriminator")):
        raise UserError(f"network {name!r} must have a Generator and a Discriminator")
    try:
        generator = module.Generator(resolution, channels, config.generator)
        discriminator = module.Discriminator(resolution, channels, config.discriminator)
    except ValueError as error:
        raise UserError(f"network {name}: {error}") from error
    if config.mixup:
        depth = getattr(discriminator, "depth", None)
        if depth is None:
            raise UserError(f"network {name}: to be mixed, its discriminator must be Staged or Mixable")
        if max(config.mixup.layers) >= depth:
            layers = list(config.mixup.layers)
            raise UserError(f"mixup.layers {layers}: the discriminator has layers 0 (its input) to {depth - 1}")
    return generator, discriminator
