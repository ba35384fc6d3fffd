"""Mixup in a GAN's discriminator: Eq. 8-11 (appendix G).

The discriminator's batch is `[real; fake]`, B rows of each, and its target `[1; 0]`. A pair of rows is real-fake,
fake-real, fake-fake or real-real; mixing targets by the same plan as states gives the four label cases of Eq. 9.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from ..plans import Plan, Plans
from ._draws import beta, check, one_of

Pair = Literal["real-fake", "fake-real", "fake-fake", "real-real"]


@dataclass(frozen=True, kw_only=True)
class DiscriminatorRule(ABC):
    """Pairs of real and fake rows are mixed and added to the objective. A rule's `plan` defines how.

    The defaults are the paper's if it states a choice, and otherwise those of its authors' later code (branch new_gan,
    6c39b93).

    Examples:
        >>> from dataclasses import dataclass
        >>> import torch
        >>> from mmgan.mixup import DiscriminatorRule, Plan
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Halves(DiscriminatorRule):
        ...     def plan(self, left, right, generator):
        ...         return Plan(0, left, right, torch.tensor(0.5))
        >>> Halves(layers=(1,)).draw(4).plans[0].layer
        1
    """

    layers: Sequence[int] = (0, 1, 2)
    """Layers to mix at, drawn uniformly: 0 is the input, k the output of the discriminator's block k."""
    layer_per: Literal["batch", "pair"] = "batch"
    """Draw one layer per minibatch or one per pair."""
    pairs: Sequence[Pair] = ("real-fake", "fake-real", "fake-fake")
    """Kinds of pairs. The paper leaves out real-real, because a mix of two images is not a real image."""
    share: Literal["each", "split", "random"] = "each"
    """Number of mixed rows for B images. each: B of each kind; split: B in total, in equal parts; random: B in total,
    with the kind drawn for every row."""
    rows: Literal["all", "first"] = "all"
    """all: mix row i with row i; first: repeat the first pair over the whole minibatch, as in one of the authors'
    scripts."""
    target: Literal["soft", "fake"] = "soft"
    """soft: the mixed target of Eq. 9; fake: 0 for every mix, as in the authors' older code."""
    weight: float = 1.0
    """Weight of the mixup term in the discriminator's loss, Eq. 10-11; positive."""
    generator_weight: float = 1.0
    """Weight of the mixup term that the generator maximises, Eq. 8 and 10; 0: its loss uses only plain fakes."""
    replace: bool = False
    """Drop the plain terms of Eq. 10 and keep only the mixup term of Eq. 8 (Zhang et al.)."""

    def __post_init__(self) -> None:
        check(self)
        if not self.pairs or len(set(self.pairs)) < len(self.pairs) or not set(self.pairs) <= set(get_args(Pair)):
            raise ValueError(f"mixup.pairs must be distinct and among {get_args(Pair)}, not {list(self.pairs)}")
        if not self.weight > 0:
            raise ValueError(f"mixup.weight must be positive, not {self.weight}")
        if not self.generator_weight >= 0:
            raise ValueError(f"mixup.generator_weight must be 0 or more, not {self.generator_weight}")

    @abstractmethod
    def plan(self, left: Tensor, right: Tensor, generator: Generator | None) -> Plan:
        """How the rows `left` of `[real; fake]` are mixed with the rows `right`, int64 [M]; `draw` sets the layer."""

    def draw(self, batch_size: int, generator: Generator | None = None) -> Plans:
        """The plans for `batch_size` (B) real and B fake rows in the discriminator's step.

        Real row i is mixed with fake row i, or a row with its neighbour of the same kind. Since rows are independent
        draws, these are random pairs, and they never leave an even share of the batch (`Plans.share`). Tensors are on
        the CPU and depend only on the CPU generator `generator`.
        """
        left, right = self._pairs(batch_size, generator)
        plan = self.plan(left, right, generator)
        if self.layer_per == "batch":
            plans = [replace(plan, layer=one_of(self.layers, generator))]
        else:
            drawn = torch.randint(len(self.layers), left.shape, generator=generator)
            parts = [(layer, plan.take(drawn == i)) for i, layer in enumerate(self.layers)]
            plans = [replace(part, layer=layer) for layer, part in parts if len(part.left)]
        label = 0.0 if self.target == "fake" else None
        return Plans(tuple(plans), 2 * batch_size, 2, keep=not self.replace, weight=self.weight, label=label)

    def draw_for_generator(self, batch_size: int, generator: Generator | None = None) -> Plans:
        """The plans for the generator's step, whose loss always has its plain term; none if it does not use mixup."""
        if not self.generator_weight:
            return Plans(rows=2 * batch_size, sections=2)
        return replace(self.draw(batch_size, generator), keep=True, weight=self.generator_weight)

    def _pairs(self, batch_size: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Left and right rows in `[real; fake]` for every mixed row, int64 [M]."""
        if batch_size < 2:
            raise ValueError("mixing needs a batch of at least two rows")
        kinds, row = len(self.pairs), torch.arange(batch_size)
        if self.share == "each":
            row, kind = row.repeat(kinds), torch.arange(kinds).repeat_interleave(batch_size)
        elif self.share == "split":
            kind = row % kinds
        else:
            kind = torch.randint(kinds, (batch_size,), generator=generator)
        if self.rows == "first":
            row = torch.zeros_like(row)
        neighbour = torch.where((row % 2 == 0) & (row + 1 < batch_size), row + 1, row - 1)
        left_fake, right_fake = (
            torch.tensor([pair.split("-")[half] == "fake" for pair in self.pairs])[kind] for half in (0, 1)
        )
        partner = torch.where(left_fake == right_fake, neighbour, row)
        return row + batch_size * left_fake, partner + batch_size * right_fake


@dataclass(frozen=True, kw_only=True)
class DiscriminatorMixup(DiscriminatorRule):
    """Eq. 8-11: interpolations of real and fake rows with the soft targets of Eq. 9.

    Examples:
        >>> from mmgan.mixup import DiscriminatorMixup
        >>> plans = DiscriminatorMixup(alpha=0.5, layers=(0, 1)).draw(4)
        >>> plans.rows, len(plans.plans[0].left)  # 4 real and 4 fake rows go in; 4 mixed ones of each kind are added
        (8, 12)
    """

    alpha: float = 0.5
    """Strength of mixing, in (0, 1]: lam ~ U(0, alpha), or the parameter of `lam: folded-beta`."""
    lam: Literal["uniform", "folded-beta"] = "uniform"
    """uniform: U(0, alpha); folded-beta: min(l, 1 - l) with l ~ Beta(alpha, alpha), as in the older code."""
    lam_per: Literal["pair", "batch"] = "pair"
    """Draw one coefficient per pair or one per minibatch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.alpha <= 1:
            raise ValueError(f"mixup.alpha must be in (0, 1], not {self.alpha}")

    def plan(self, left: Tensor, right: Tensor, generator: Generator | None) -> Plan:
        """An interpolation by lam ~ U(0, alpha), Eq. 8, or by that of the older code."""
        shape = () if self.lam_per == "batch" else left.shape
        if self.lam == "uniform":
            return Plan(0, left, right, torch.rand(shape, generator=generator) * self.alpha)
        lam = beta(self.alpha, shape, generator)
        return Plan(0, left, right, torch.minimum(lam, 1 - lam))
