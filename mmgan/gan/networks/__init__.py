"""Generators and discriminators, a family a file. Each is a class of its options, which `build` makes the network of.

A file added to this folder is imported with it, so that its classes are values of the options `generator` and
`discriminator`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import nn

from mmgan import modules


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(ABC):
    """A generator's options."""

    z_dim: int = 128
    """Dimension of the latent z ~ N(0, I)."""

    def __post_init__(self) -> None:
        check_positive("generator", z_dim=self.z_dim)

    @abstractmethod
    def build(self, resolution: int, channels: int, classes: int = 0) -> nn.Module:
        """A network from latents [N, z_dim] to images [N, channels, resolution, resolution] in [-1, 1].

        With `classes`, which a family that has no conditional networks need not take, it is given latents and class
        vectors, [N, z_dim + classes]. Raises ValueError for a size that there is no such network for.
        """


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig(ABC):
    """A discriminator's options."""

    @abstractmethod
    def build(self, resolution: int, channels: int, classes: int = 0) -> nn.Module:
        """A network from images [N, channels, resolution, resolution] in [-1, 1] to logits [N].

        With `classes`, which a family that has no conditional networks need not take, a `conditional.Projection`.
        `Staged` or `Mixable`, if it is to be mixed. Nothing but `forward` may be called on it in training, so that it
        works under DDP and autocast. Raises ValueError for a size that there is no such network for.
        """


def check_positive(section: str, **values: float) -> None:
    """Raise ValueError, naming the option, for a value that is not positive."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{section}.{name} must be positive, not {value}")


modules.import_all(__name__)
