"""Images that occur more than once, in one set or in both."""

from __future__ import annotations

import hashlib
from functools import cache

import torch
from accelerate.utils import gather_object
from torch import Tensor

from mmgan.scoring.source import Draw

BATCH = 1024
"""Images whose fingerprints are computed at a time."""


def fingerprints(images: Tensor) -> Tensor:
    """int64 [N] on the images' device: equal for equal images, and for different ones with a probability below 2^-56.

    They are sums of the bytes, uint8 [N, C, H, W], each times a random 64-bit number, modulo 2^64.

    Examples:
        >>> x = torch.arange(8, dtype=torch.uint8).reshape(2, 1, 2, 2)
        >>> a, b, c = fingerprints(torch.cat([x, x[:1]])).tolist()
        >>> a == c, a == b
        (True, False)
    """
    flat = images.flatten(1)
    return (flat.long() * _factors(flat.shape[1], flat.device)).sum(1)


@cache
def _factors(n: int, device: torch.device) -> Tensor:
    limits = torch.iinfo(torch.int64)
    return torch.randint(limits.min, limits.max, (n,), generator=torch.Generator().manual_seed(0)).to(device)


class Remembered:
    """A source of images by number, 0 to n - 1, that stores the fingerprints of those it has made."""

    def __init__(self, draw: Draw, n: int, device: torch.device) -> None:
        self.draw = draw
        self.kept = torch.zeros(n, dtype=torch.int64, device=device)
        self.made = torch.zeros(n, dtype=torch.bool)

    def __call__(self, start: int, stop: int) -> Tensor:
        """Images `start` to `stop` - 1, uint8 [stop - start, C, H, W]."""
        images = self.draw(start, stop)
        self.kept[start:stop] = fingerprints(images)[: len(self.kept[start:stop])]
        self.made[start:stop] = True
        return images

    def of_all(self) -> Tensor:
        """Fingerprints of all images, gathered from all processes: int64 [n] on the CPU."""
        found = torch.zeros(len(self.kept), dtype=torch.int64)
        for kept, made in gather_object([(self.kept.cpu(), self.made)]):
            found[made] = kept[made]
        return found


def fingerprints_of(draw: Draw, n: int) -> Tensor:
    """Fingerprints of images 0 to n - 1: int64 [n] on the CPU."""
    return torch.cat([fingerprints(draw(i, min(i + BATCH, n))).cpu() for i in range(0, n, BATCH)])


def digest(found: Tensor) -> str:
    """SHA-256 of fingerprints, in order: identifies the scored images regardless of their source."""
    return hashlib.sha256(found.numpy().tobytes()).hexdigest()


def duplicates(made: Tensor, real: Tensor) -> dict[str, int]:
    """The numbers of repeated images, given by their fingerprints, int64 [M] and [N].

    `fake` and `real` count images that repeat an earlier one in their set, `both` those in the first set that also
    occur in the second.
    """
    unlike = [len(found.unique()) for found in (made, real)]
    return {
        "fake": len(made) - unlike[0],
        "real": len(real) - unlike[1],
        "both": int(torch.isin(made, real).sum()),
    }
