"""Density and coverage (Naeem et al. 2020, arXiv:2002.09797)."""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 1000
"""Rows of one set whose distances to all rows of the other are in memory at a time."""


def density_coverage(made: Tensor, real: Tensor, neighbours: int = 5) -> dict[str, float]:
    """`density` (Eq. 4) and `coverage` (Eq. 5) of features [M, d] of generated images and [N, d] of real ones.

    The ball around a real image reaches its `neighbours`-th nearest other real image. Density is the number of balls
    that contain a generated image, averaged over generated images and divided by `neighbours`; it can exceed 1.
    Coverage is the fraction of balls that contain at least one. Features should be float64 with the real mean
    subtracted, so that distances are accurate.

    Examples:
        >>> line = torch.arange(10.0, dtype=torch.float64)[:, None]
        >>> density_coverage(line + 0.1, line, neighbours=1)
        {'density': 1.9, 'coverage': 1.0}
    """
    radii = torch.cat([torch.cdist(rows, real).kthvalue(neighbours + 1).values for rows in real.split(ROWS)])
    inside, nearest = 0, torch.full_like(radii, torch.inf)
    for rows in made.split(ROWS):
        distances = torch.cdist(rows, real)
        inside += int((distances < radii).sum())
        nearest = torch.minimum(nearest, distances.amin(0))
    return {"density": inside / (neighbours * len(made)), "coverage": (nearest < radii).double().mean().item()}
