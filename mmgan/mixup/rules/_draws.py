"""Draws and checks shared by all rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Generator, Tensor
from torch.distributions import Beta, Gamma

from ..plans import Plan


@contextmanager
def by(generator: Generator | None) -> Iterator[None]:
    """Inside the block, torch's samplers, which use the global generator, depend only on `generator`, on the CPU."""
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def beta(alpha: float, shape: Sequence[int], generator: Generator | None) -> Tensor:
    """Draws of Beta(alpha, alpha) that depend only on `generator`: float32 of `shape`, on the CPU.

    A draw is A / (A + B) of two Gamma(alpha) draws. For small alpha both can be below the smallest float, and torch's
    sampler then returns 1/2. Small alphas therefore use logarithms: Gamma(alpha) is Gamma(alpha + 1) times
    U(0, 1)^(1 / alpha).
    """
    with by(generator):
        if alpha >= 0.1:  # both are that small in 3 of 10^8 draws
            return Beta(alpha, alpha).sample(torch.Size(shape))
        larger = Gamma(torch.tensor(alpha + 1, dtype=torch.float64), 1.0).sample(torch.Size([2, *shape]))
        a, b = larger.log() - torch.empty_like(larger).exponential_() / alpha
        return torch.sigmoid(a - b).float()


@dataclass(frozen=True, eq=False)
class Seeded(Plan):
    """A plan with random numbers for every pair, whose shape is known only once the states are.

    They are drawn for the pairs of all processes, on the device of the states, and each pair takes its own, so they do
    not depend on how pairs are divided among processes or layers.
    """

    seed: int = field(kw_only=True)
    """Seed of the numbers."""
    pairs: int = field(kw_only=True)
    """Number of pairs drawn, over all processes and layers."""
    row: Tensor = field(kw_only=True)
    """Indices of this plan's pairs among them: int64 [M], values in [0, pairs)."""

    def generator(self, device: torch.device) -> Generator:
        """The generator of this plan's random numbers, in its initial state."""
        return Generator(device).manual_seed(self.seed + self.layer)


def seeded(left: Tensor, generator: Generator | None) -> dict[str, Any]:
    """The fields of a `Seeded` plan for all pairs of a batch, whose left rows are `left`."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return {"seed": seed, "pairs": len(left), "row": torch.arange(len(left))}


def one_of(layers: Sequence[int], generator: Generator | None) -> int:
    """A layer, drawn uniformly."""
    return layers[int(torch.randint(len(layers), (), generator=generator))]


def check(rule: Any) -> None:
    """Raise ValueError, naming the option, for invalid layers or a value that its type does not allow."""
    whole = all(isinstance(layer, int) and layer >= 0 for layer in rule.layers)
    if not whole or not 0 < len(set(rule.layers)) == len(rule.layers):
        raise ValueError(f"mixup.layers must be distinct layers, 0 or more, not {list(rule.layers)}")
    for name, hint in get_type_hints(type(rule)).items():
        if get_origin(hint) is Literal and getattr(rule, name) not in get_args(hint):
            raise ValueError(f"mixup.{name} must be one of {get_args(hint)}, not {getattr(rule, name)!r}")
