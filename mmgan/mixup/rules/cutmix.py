"""CutMix (Yun et al. 2019): a box from one row's map is pasted into another's, and targets are mixed by its area."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from ..plans import Plan, select
from ._draws import beta
from .classifier import ClassifierRule
from .discriminator import DiscriminatorRule


@dataclass(frozen=True, eq=False)
class Boxes(Plan):
    """A box of the right row in the left row, for every pair; its size and position are relative to the map."""

    centre: Tensor = field(kw_only=True)
    """Centres of the boxes, row and column in [0, 1): float32 [M, 2]."""

    def inside(self, height: int, width: int) -> Tensor:
        """The pixels of a map inside each pair's box: bool [M, height, width].

        Sides are int(r * size), with r = sqrt(1 - lam), rounded down to even, around int(centre * size), and clipped at
        the border, as in the authors' code.
        """
        r = (1 - self.lam).sqrt()

        def span(size: int, centre: Tensor) -> Tensor:
            half, middle = (r * size).long() // 2, (centre * size).long()
            pixels = torch.arange(size, device=r.device)
            return (pixels >= (middle - half)[:, None]) & (pixels < (middle + half)[:, None])

        return span(height, self.centre[:, 0])[:, :, None] & span(width, self.centre[:, 1])[:, None, :]

    def _states(self, h: Tensor) -> Tensor:
        inside = self.inside(*_map_of(h))
        return torch.where(inside[:, None], select(h, self.right), select(h, self.left))

    def share_of_left(self, h: Tensor) -> Tensor:
        """The actual fraction of the area outside the box, on the map of `h` [N, C, H, W]: [M]."""
        return 1 - self.inside(*_map_of(h)).float().mean((1, 2))


def _map_of(h: Tensor) -> tuple[int, int]:
    if h.ndim != 4:
        raise ValueError(f"CutMix needs states [N, C, H, W], not {list(h.shape)}; choose other mixup.layers")
    return h.shape[2], h.shape[3]


@dataclass(frozen=True, kw_only=True)
class _CutMix:
    """CutMix for both kinds of network."""

    alpha: float = 1.0
    """Strength of mixing, positive: 1 - lam, the area of a box before clipping, ~ Beta(alpha, alpha)."""

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]  # the rule's
        if not self.alpha > 0:
            raise ValueError(f"mixup.alpha must be positive, not {self.alpha}")

    def plan(self, left: Tensor, right: Tensor, generator: Generator | None) -> Plan:
        """One box per pair."""
        lam = beta(self.alpha, left.shape, generator)
        return Boxes(0, left, right, lam, centre=torch.rand(len(left), 2, generator=generator))


@dataclass(frozen=True, kw_only=True)
class ClassifierCutMix(_CutMix, ClassifierRule):
    """CutMix in a classifier, at its input or on the maps of hidden layers.

    Examples:
        >>> from mmgan.mixup import ClassifierCutMix
        >>> (plan,) = ClassifierCutMix().draw(8).plans
        >>> plan.inside(32, 32).shape
        torch.Size([8, 32, 32])
    """


@dataclass(frozen=True, kw_only=True)
class DiscriminatorCutMix(_CutMix, DiscriminatorRule):
    """CutMix in a discriminator instead of the interpolation of Eq. 8; targets are fractions of real area.

    Examples:
        >>> from mmgan.mixup import DiscriminatorCutMix
        >>> len(DiscriminatorCutMix(layers=(0,)).draw(4).plans[0].left)
        12
    """
