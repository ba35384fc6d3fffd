"""Generators and discriminators, one family per file. Each is a class of options with a `build` method.

Files added to this folder are imported automatically, so their classes become values of the options `generator` and
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

        With `classes`, a parameter that families without conditional networks may omit, its inputs are latents and
        class vectors, [N, z_dim + classes]. Raises ValueError for an unsupported size.
        """


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig(ABC):
    """A discriminator's options."""

    @abstractmethod
    def build(self, resolution: int, channels: int, classes: int = 0) -> nn.Module:
        """A network from images [N, channels, resolution, resolution] in [-1, 1] to logits [N].

        With `classes`, a parameter that families without conditional networks may omit, it is a
        `conditional.Projection`. To be mixed, the network, or the features of a projection, must be `Staged` or
        `Mixable`. Training calls only `forward`, so that it works under DDP and autocast. Raises ValueError for an
        unsupported size.
        """


def check_positive(section: str, **values: float) -> None:
    """Raise ValueError, naming the option, if a value is not positive."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{section}.{name} must be positive, not {value}")


modules.import_all(__name__)
