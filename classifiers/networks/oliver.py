"""The WideResNet of Oliver et al. 2018, as in their code, where it differs from `WideResNet`.

Leaky ReLU of slope 0.1; batch norm with epsilon 0.001 and running statistics with decay 0.999 per step; a shortcut
starts before batch norm and activation, except in the very first block, where it starts after them; the linear layer
is initialised as by Glorot and Bengio. Layers to mix at are those of `WideResNet`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from classifiers.networks import NetworkConfig
from classifiers.networks._preact import Block, row


class Unit(Block):
    """A block with their activation and batch norm, whose shortcut starts from the unchanged input."""

    @staticmethod
    def norm_relu(channels: int) -> tuple[nn.Module, nn.Module]:
        """Batch norm, then leaky ReLU."""
        return nn.BatchNorm2d(channels, eps=1e-3, momentum=1e-3), nn.LeakyReLU(0.1, inplace=True)

    def _skip(self, x: Tensor, active: Tensor) -> Tensor:  # noqa: ARG002
        return self._project(x)


class First(Unit):
    """A block whose shortcut starts from the activated input."""

    def _skip(self, x: Tensor, active: Tensor) -> Tensor:  # noqa: ARG002
        return self._project(active)


@dataclass(frozen=True, kw_only=True)
class Oliver(NetworkConfig):
    """Oliver et al.'s WideResNet, with 16, 32 and 64 channels; theirs has a width of 2."""

    depth: int = 28
    """Layers: 6n + 4 (10, 16, 22, 28, ...)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 10 <= self.depth <= 1010 or (self.depth - 4) % 6:
            raise ValueError(f"network.depth must be 6n + 4 (10, 16, 22, 28, ...), at most 1010, not {self.depth}")

    def stages(self, channels: int, classes: int) -> list[nn.Module]:
        """The stem with the first group, the second, the third with pooling, and the linear layer."""
        made = row(self, Unit, 16, ((self.depth - 4) // 6,) * 3, 16, channels, classes)
        made[0].set_submodule("1.0", First(16, max(1, round(16 * self.width)), 1, self.dropout))
        nn.init.xavier_normal_(made[-1].get_parameter("weight"))
        nn.init.zeros_(made[-1].get_parameter("bias"))
        return made
