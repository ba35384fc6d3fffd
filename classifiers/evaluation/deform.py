"""Test images deformed as in Table 5: rotated, sheared, zoomed."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmgan.engine.randomness import stream

Kind = Literal["rotation", "shear", "zoom"]


class Deformation(NamedTuple):
    """A row of Table 5."""

    kind: Kind
    amount: float
    """Largest angle in degrees; each image's angle is U(-amount, amount). For a zoom, the side of the box, in %."""

    @property
    def title(self) -> str:
        """The deformation in words; for a zoom, what remains visible."""
        if self.kind == "zoom":
            return f"zoom {'in' if self.amount < 100 else 'out'} to {self.amount:g}% of the side"
        return self.name

    @property
    def name(self) -> str:
        """The name in the table, and in files."""
        if self.kind == "zoom":
            return f"zoom {'in' if self.amount < 100 else 'out'} {self.amount:g}%"
        return f"{self.kind} U(-{self.amount:g}, {self.amount:g})"


TABLE_5 = (
    Deformation("rotation", 20),
    Deformation("rotation", 40),
    Deformation("rotation", 60),
    Deformation("rotation", 80),
    Deformation("shear", 28.6),
    Deformation("shear", 57.3),
    Deformation("shear", 114.6),
    Deformation("shear", 143.2),
    Deformation("shear", 171.9),
    Deformation("zoom", 20),
    Deformation("zoom", 40),
    Deformation("zoom", 60),
    Deformation("zoom", 80),
    Deformation("zoom", 120),
    Deformation("zoom", 140),
    Deformation("zoom", 160),
    Deformation("zoom", 180),
)


def matrices(deformation: Deformation, n: int, seed: int) -> Tensor:
    """For each of `n` images the map from an offset (row, column) in the result to one in the image: float32 [n, 2, 2].

    A shear by an angle a is [[1, -sin a], [0, cos a]], as in the code that the authors' deformations come from; the
    paper's angles are 0.5, 1, 2, 2.5 and 3 radians, so a shear by more than a right angle also mirrors.
    """
    if deformation.kind == "zoom":
        return torch.eye(2).expand(n, 2, 2) * deformation.amount / 100
    u = torch.rand(n, generator=stream(seed, f"deform/{deformation.name}", 0))
    a = (2 * u - 1) * math.radians(deformation.amount)
    zero, one = torch.zeros(n), torch.ones(n)
    first = [a.cos(), -a.sin()] if deformation.kind == "rotation" else [one, -a.sin()]
    second = [a.sin(), a.cos()] if deformation.kind == "rotation" else [zero, a.cos()]
    return torch.stack([torch.stack(first, 1), torch.stack(second, 1)], 1)


def deform(x: Tensor, maps: Tensor) -> Tensor:
    """`x` float32 [B, C, R, R] of pixels, read at the offsets from the centre given by `maps` [B, 2, 2].

    Bilinear, black outside; the centre is the pixel grid's, (R - 1) / 2, so rotations by 90 degrees are exact.
    """
    columns_first = maps.flip(1, 2)  # affine_grid's coordinates are (column, row)
    theta = F.pad(columns_first, (0, 1))
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)
