"""A generator's inputs by number: latents and, if it is conditional, class vectors."""

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
"""Number of latents, or labels, in a block; each block is drawn from a separate stream."""


@dataclass(frozen=True)
class Inputs:
    """Latents z ~ N(0, I) followed by one-hot class vectors.

    Input i depends only on the seed and i.

    Examples:
        >>> inputs = Inputs(z_dim=4, names=("cat", "dog"), weights=(10, 30))
        >>> inputs(seed=0, start=0, stop=3).shape
        torch.Size([3, 6])
        >>> inputs.labels(seed=0, start=0, stop=3, among=["dog"])
        tensor([1, 1, 1])
    """

    z_dim: int
    names: tuple[str, ...] = ()
    """Names of the classes; empty if the generator is unconditional."""
    weights: tuple[int, ...] = ()
    """Weights for drawing labels, as for fakes in training: 1 per class, or its number of training images."""

    def __call__(self, seed: int, start: int, stop: int, among: Sequence[str | int] = ()) -> Tensor:
        """Inputs `start` to `stop` - 1 of a seed: float32 [stop - start, z_dim + C] on the CPU.

        `among` names the classes to draw from; empty: all. Raises UserError for an unknown class.
        """
        z = self.latents(seed, start, stop)
        if not self.names and not among:
            return z
        return self.of(z, self.labels(seed, start, stop, among))

    def latents(self, seed: int, start: int, stop: int) -> Tensor:
        """Latents `start` to `stop` - 1 of a seed: float32 [stop - start, z_dim]."""
        return _blocks(lambda g: torch.randn(BLOCK, self.z_dim, generator=g), seed, "sample", start, stop)

    def labels(self, seed: int, start: int, stop: int, among: Sequence[str | int] = ()) -> Tensor:
        """Labels `start` to `stop` - 1 of a seed: int64 [stop - start]."""
        return _blocks(partial(self._drawn, among=self.numbers(among)), seed, "sample labels", start, stop)

    def numbers(self, among: Sequence[str | int] = ()) -> list[int]:
        """The labels of the named classes, or all if none are named; raises UserError for an unknown class."""
        if isinstance(among, str | int):
            raise UserError(f"classes must be a list, [{among}], not {among}")
        if among and not self.names:
            raise UserError("classes: this run is not conditional, so it has none to choose from")
        known = ", ".join(self.names[:20]) + (", ..." if len(self.names) > 20 else "")
        for one in among:
            if str(one) not in self.names:
                raise UserError(f"classes: unknown class {one}; this run has {known}")
        return [self.names.index(str(one)) for one in among] or list(range(len(self.names)))

    def of(self, z: Tensor, labels: Tensor) -> Tensor:
        """Latents [N, z_dim] and labels, int64 [N], as the input of a generator."""
        return torch.cat([z, self.vectors(labels)], 1) if self.names else z

    def vectors(self, labels: Tensor) -> Tensor:
        """One-hot class vectors: float32 [N, C]."""
        return F.one_hot(labels, len(self.names)).float()

    @property
    def drawn(self) -> str:
        """How labels are drawn, as text: part of a score's stamp."""
        return "uniform" if set(self.weights) == {1} else "by the shares of the classes in the training images"

    def standing(self, seed: int, batches: int, size: int) -> Tensor:
        """Fixed inputs in batches: float32 [batches, size, z_dim + C]."""
        z = torch.randn(batches, size, self.z_dim, generator=stream(seed, "standing", 0))
        if not self.names:
            return z
        labels = self._drawn(stream(seed, "standing labels", 0), self.numbers(), batches * size)
        return torch.cat([z, self.vectors(labels).reshape(batches, size, -1)], 2)

    def rows(self, seed: int, columns: int, among: Sequence[str | int] = ()) -> Tensor:
        """Inputs of a grid with one row per class and one latent per column: [classes * columns, z_dim + C]."""
        numbers = torch.tensor(self.numbers(among))
        z = self.latents(seed, 0, columns).repeat(len(numbers), 1)
        return self.of(z, numbers.repeat_interleave(columns))

    def _drawn(self, generator: Generator, among: list[int], size: int = BLOCK) -> Tensor:
        shares = torch.tensor(self.weights, dtype=torch.float64)[among]
        return torch.tensor(among)[torch.multinomial(shares, size, replacement=True, generator=generator)]


def _blocks(draw: Callable[[Generator], Tensor], seed: int, purpose: str, start: int, stop: int) -> Tensor:
    """Rows `start` to `stop` - 1 of numbers that are drawn block by block."""
    blocks = range(start // BLOCK, (stop - 1) // BLOCK + 1)
    rows = torch.cat([draw(stream(seed, purpose, block)) for block in blocks])
    return rows[start - blocks[0] * BLOCK :][: stop - start]
