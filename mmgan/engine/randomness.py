"""Randomness as a function of (seed, purpose, number) over the global batch.

Streams have no state: there is nothing to save, an evaluation in between disturbs nothing, and any number of processes
draws the same numbers, of which each takes its share.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch
from torch import Generator, Tensor


def stream(seed: int, purpose: str, number: int, device: torch.device | str = "cpu") -> Generator:
    """A generator on `device` for one purpose and number (of a batch, for example), independent of all others."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{number}".encode(), digest_size=8).digest()
    return Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


def whole_numbers(u: Tensor, n: int) -> Tensor:
    """Whole numbers from 0 to `n` - 1, uniform if `u` is U(0, 1): int64, with the shape of `u`."""
    return (u * n).long().clamp(max=n - 1)  # rounding can give n


class Draws:
    """The random numbers of a run, drawn for global batches; every method returns this process's share of them."""

    def __init__(self, seed: int, rank: int, world: int, device: torch.device) -> None:
        self.seed, self.rank, self.world, self.device = seed, rank, world, device

    def uniform(self, purpose: str, number: int, *shape: int) -> Tensor:
        """U(0, 1) on the device: float32, `shape` with its first dimension divided by the number of processes."""
        return self._share(torch.rand(shape, device=self.device, generator=self._on_device(purpose, number)))

    def normal(self, purpose: str, number: int, *shape: int) -> Tensor:
        """N(0, 1) on the device: float32, `shape` with its first dimension divided by the number of processes."""
        return self._share(torch.randn(shape, device=self.device, generator=self._on_device(purpose, number)))

    def rows(self, number: int, batch_size: int, size: int, purpose: str = "epoch") -> Tensor:
        """Rows of a data set of `size` that form batch `number`: int64 on the CPU, each once per epoch."""
        return self._share(batch_rows(self.seed, number, batch_size, size, purpose))

    def _share(self, batch: Tensor) -> Tensor:
        return batch.chunk(self.world)[self.rank]

    def _on_device(self, purpose: str, number: int) -> Generator:
        return stream(self.seed, purpose, number, self.device)


def batch_rows(seed: int, number: int, batch_size: int, size: int, purpose: str = "epoch") -> Tensor:
    """Rows of a data set of `size` that form the global batch `number`: int64 [batch_size] on the CPU.

    Batches are consecutive slices of an endless sequence of epochs, each a new permutation; no row is dropped.
    """
    start, stop = number * batch_size, (number + 1) * batch_size
    epochs = range(start // size, (stop - 1) // size + 1)
    return torch.cat([_epoch(seed, purpose, e, size)[max(start - e * size, 0) : stop - e * size] for e in epochs])


@lru_cache(maxsize=4)
def _epoch(seed: int, purpose: str, epoch: int, size: int) -> Tensor:
    return torch.randperm(size, generator=stream(seed, purpose, epoch))
