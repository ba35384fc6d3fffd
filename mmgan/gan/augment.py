"""DiffAugment (Zhao et al. 2020, arXiv:2006.10738): differentiable augmentation of a discriminator's input.

It is applied to real rows and fakes, in both steps, before any mixing: at every layer, augmented images are mixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from mmgan.engine.randomness import whole_numbers

Kind = Literal["colour", "translation", "cutout"]
SHIFT, CUT = 0.125, 0.5
"""Largest translation, and side of the cut-out square, relative to the side of the image."""


@dataclass(frozen=True)
class DiffAugment:
    """Any of colour, translation and cutout, always applied in that order (Zhao et al. 2020).

    Examples:
        >>> import torch
        >>> from mmgan import DiffAugment
        >>> rule = DiffAugment(kinds=("translation",))
        >>> rule.draw(4)(torch.ones(4, 1, 8, 8)).shape
        torch.Size([4, 1, 8, 8])
    """

    kinds: Sequence[Kind] = ("colour", "translation", "cutout")
    """colour: brightness, saturation and contrast; translation: shifts by up to an eighth; cutout: a square of half the
    side, set to 0."""

    def __post_init__(self) -> None:
        if not self.kinds or not set(self.kinds) <= set(get_args(Kind)) or len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"augment.kinds must be distinct and among {get_args(Kind)}, not {list(self.kinds)}")

    def draw(self, rows: int, generator: Generator | None = None) -> Augmentation:
        """Augmentations of `rows` images, drawn independently, on the CPU; they depend only on `generator`."""
        return Augmentation(tuple(self.kinds), torch.rand(rows, 7, generator=generator))


@dataclass(frozen=True, eq=False)
class Augmentation:
    """The drawn augmentations, one per row of `u`."""

    kinds: tuple[Kind, ...]
    u: Tensor
    """U(0, 1), float32 [N, 7]: brightness, saturation, contrast, two for the shift, two for the square's centre."""

    def __call__(self, x: Tensor) -> Tensor:
        """Augment images [N, C, H, W] in [-1, 1]; pixels from outside the image are 0."""
        u = self.u.to(x.dtype)
        if "colour" in self.kinds:
            x = colour(x, *(u[:, i, None, None, None] for i in range(3)))
        if "translation" in self.kinds:
            x = translated(x, u[:, 3], u[:, 4])
        if "cutout" in self.kinds:
            x = cut_out(x, u[:, 5], u[:, 6])
        return x

    def to(self, device: torch.device | str) -> Augmentation:
        """The same with its tensor on `device`."""
        return replace(self, u=self.u.to(device, non_blocking=True))

    def share(self, rank: int, world: int, sections: int = 2) -> Augmentation:
        """The part of process `rank` of `world`: its share of each of the equal `sections` of the rows."""
        parts = [section.chunk(world)[rank] for section in self.u.chunk(sections)]
        return replace(self, u=torch.cat(parts))


def colour(x: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Add U(-1/2, 1/2), multiply deviations from the mean over channels by U(0, 2), those from the mean by U(1/2, 3/2).

    `x` is [N, C, H, W], the others U(0, 1), [N, 1, 1, 1].
    """
    x = x + (brightness - 0.5)
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * (2 * saturation) + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (contrast + 0.5) + mean


def translated(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """`x` [N, C, H, W] shifted by whole pixels, uniform in -s to s from U(0, 1) `down`, `right` [N], filled with 0."""
    for axis, u in ((2, down), (3, right)):
        side = x.shape[axis]
        most = int(SHIFT * side + 0.5)
        shift = whole_numbers(u, 2 * most + 1) - most
        place = torch.arange(side, device=x.device) - shift[:, None]
        shape = [len(x), 1, side, 1] if axis == 2 else [len(x), 1, 1, side]
        inside = ((place >= 0) & (place < side)).reshape(shape)
        x = x.gather(axis, place.clamp(0, side - 1).reshape(shape).expand_as(x)) * inside
    return x


def cut_out(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """`x` [N, C, H, W] with a square of half its side set to 0, its centre uniform over the image from U(0, 1) [N]."""
    hit = []
    for side, u in ((x.shape[2], down), (x.shape[3], right)):
        cut = int(CUT * side + 0.5)
        middle = whole_numbers(u, side + 1 - cut % 2)
        place = torch.arange(side, device=x.device) - (middle - cut // 2)[:, None]
        hit.append((place >= 0) & (place < cut))
    return x * ~(hit[0][:, None, :, None] & hit[1][:, None, None, :])
