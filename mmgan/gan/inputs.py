"""What a generator is given: latents and, where it is conditional, class vectors, by number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mmgan.engine.randomness import stream
from mmgan.errors import UserError

BLOCK = 1024
"""Latents, and labels, are drawn in blocks of so many, each from its own stream."""


@dataclass(frozen=True)
class Inputs:
    """Latents z ~ N(0, I) and, behind them, one-hot class vectors.

    Input i depends on the seed and on i alone.

    >>> inputs = Inputs(z_dim=4, names=("cat", "dog"), weights=(10, 30))
    >>> inputs(seed=0, start=0, stop=3).shape
    torch.Size([3, 6])
    >>> inputs.labels(seed=0, start=0, stop=3, among=["dog"])
    tensor([1, 1, 1])
    """

    z_dim: int
    names: tuple[str, ...] = ()
    """Of the classes; none where the generator is not conditional."""
    weights: tuple[int, ...] = ()
    """By which labels are drawn, as those of fakes are in training: 1 for each class, or its training images."""

    def __call__(self, seed: int, start: int, stop: int, among: Sequence[str | int] = ()) -> Tensor:
        """Inputs number `start` to `stop` - 1 of a seed: float32 [stop - start, z_dim + C] on the CPU.

        `among` names the classes that are drawn from; none: all. Raises UserError for one that there is not.
        """
        z = self.latents(seed, start, stop)
        if not self.names and not among:
            return z
        return self.of(z, self.labels(seed, start, stop, among))

    def latents(self, seed: int, start: int, stop: int) -> Tensor:
        """Their latents: float32 [stop - start, z_dim]."""
        return _blocks(lambda g: torch.randn(BLOCK, self.z_dim, generator=g), seed, "sample", start, stop)

    def labels(self, seed: int, start: int, stop: int, among: Sequence[str | int] = ()) -> Tensor:
        """Their labels: int64 [stop - start]."""
        return _blocks(partial(self._drawn, among=self.numbers(among)), seed, "sample labels", start, stop)

    def numbers(self, among: Sequence[str | int] = ()) -> list[int]:
        """The labels of the classes that are named, all for none; raises UserError for one that there is not."""
        if isinstance(among, str | int):
            raise UserError(f"classes is a list, [{among}], not {among}")
        if among and not self.names:
            raise UserError("classes: this run is not conditional, so it has none to choose from")
        known = ", ".join(self.names[:20]) + (", ..." if len(self.names) > 20 else "")
        for one in among:
            if str(one) not in self.names:
                raise UserError(f"classes: there is no class {one}; this run has {known}")
        return [self.names.index(str(one)) for one in among] or list(range(len(self.names)))

    def of(self, z: Tensor, labels: Tensor) -> Tensor:
        """Latents [N, z_dim] and their labels, int64 [N], as a generator takes them."""
        return torch.cat([z, self.vectors(labels)], 1) if self.names else z

    def vectors(self, labels: Tensor) -> Tensor:
        """One-hot class vectors: float32 [N, C]."""
        return F.one_hot(labels, len(self.names)).float()

    @property
    def drawn(self) -> str:
        """How labels are drawn, in words: part of a score's stamp."""
        return "uniform" if set(self.weights) == {1} else "by the shares of the classes in the training images"

    def standing(self, seed: int, batches: int, size: int) -> Tensor:
        """Inputs in batches, always the same: float32 [batches, size, z_dim + C]."""
        z = torch.randn(batches, size, self.z_dim, generator=stream(seed, "standing", 0))
        if not self.names:
            return z
        labels = self._drawn(stream(seed, "standing labels", 0), self.numbers(), batches * size)
        return torch.cat([z, self.vectors(labels).reshape(batches, size, -1)], 2)

    def rows(self, seed: int, columns: int, among: Sequence[str | int] = ()) -> Tensor:
        """Inputs of a grid with a row per class, the latents of a column the same: [classes * columns, z_dim + C]."""
        numbers = torch.tensor(self.numbers(among))
        z = self.latents(seed, 0, columns).repeat(len(numbers), 1)
        return self.of(z, numbers.repeat_interleave(columns))

    def _drawn(self, generator: Generator, among: list[int], size: int = BLOCK) -> Tensor:
        shares = torch.tensor(self.weights, dtype=torch.float64)[among]
        return torch.tensor(among)[torch.multinomial(shares, size, replacement=True, generator=generator)]


def _blocks(draw: Callable[[Generator], Tensor], seed: int, purpose: str, start: int, stop: int) -> Tensor:
    """Rows `start` to `stop` - 1 of what is drawn block by block."""
    blocks = range(start // BLOCK, (stop - 1) // BLOCK + 1)
    rows = torch.cat([draw(stream(seed, purpose, block)) for block in blocks])
    return rows[start - blocks[0] * BLOCK :][: stop - start]
