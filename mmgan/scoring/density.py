"""Density and coverage (Naeem et al. 2020, arXiv:2002.09797)."""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 1000
"""Of one set, whose distances to all of the other are in memory at once."""


def density_coverage(made: Tensor, real: Tensor, neighbours: int = 5) -> dict[str, float]:
    """`density` (Eq. 4) and `coverage` (Eq. 5) of features [M, d] of generated images and [N, d] of real ones.

    The ball of a real image reaches to its `neighbours`-th nearest other real image. Density is how many balls a
    generated image is in, over `neighbours`, and can exceed 1; coverage is the share of balls with one in it.
    Features in float64, with the real ones' mean taken off, keep their distances exact.

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
