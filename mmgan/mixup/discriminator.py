"""Mixup in a GAN's discriminator: Eq. 8-11 (appendix G).

The discriminator's batch is `[real; fake]`, B rows of each, and its target `[1; 0]`. A pair of two rows is real-fake,
fake-real, fake-fake or real-real; mixing the target by the plan that mixes the states gives Eq. 9's four label cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args, get_origin, get_type_hints

import torch
from torch import Generator, Tensor

from .classifier import beta
from .plan import Plan

Pair = Literal["real-fake", "fake-real", "fake-fake", "real-real"]


@dataclass(frozen=True)
class DiscriminatorMixup:
    """Mixup in the discriminator, Eq. 8-11. The defaults are the paper's where it states a choice."""

    alpha: float = 0.5
    """Strength, in (0, 1]: lam ~ U(0, alpha), or the parameter of `lam: folded-beta`."""
    layers: Sequence[int] = (0, 1, 2)
    """Layers to mix at, drawn uniformly: 0 is the input, k the output of the discriminator's block k."""
    lam: Literal["uniform", "folded-beta"] = "uniform"
    """U(0, alpha), or the official code's min(l, 1 - l) with l ~ Beta(alpha, alpha)."""
    lam_per: Literal["batch", "pair"] = "batch"
    """One coefficient a minibatch, or one for every pair."""
    layer_per: Literal["batch", "pair"] = "batch"
    """One layer a minibatch, or one for every pair."""
    pairs: Sequence[Pair] = ("real-fake", "fake-real", "fake-fake")
    """Kinds of pairs. Real-real is left out in the paper, since a mix of two images is not a real image."""
    share: Literal["split", "each", "random"] = "split"
    """How kinds share the minibatch of B mixed rows: in equal parts; B rows for each kind; drawn for every row."""
    rows: Literal["all", "first"] = "all"
    """Mix row i with row i, or repeat the first pair for the whole minibatch as the official hidden mixup does."""
    target: Literal["soft", "fake"] = "soft"
    """The mixed target of Eq. 9, or 0 for every mix as in the official code."""
    weight: float = 1.0
    """Weight of the mixup term in Eq. 10-11."""
    replace: bool = False
    """Drop the plain terms of Eq. 10 and keep the mixup term of Eq. 8 alone (Zhang et al.)."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise ValueError(f"mixup.alpha must be in (0, 1], not {self.alpha}")
        whole = all(isinstance(layer, int) and layer >= 0 for layer in self.layers)
        if not whole or not 0 < len(set(self.layers)) == len(self.layers):
            raise ValueError(f"mixup.layers must name different layers, 0 or more, not {list(self.layers)}")
        if not self.pairs or len(set(self.pairs)) < len(self.pairs) or not set(self.pairs) <= set(get_args(Pair)):
            raise ValueError(f"mixup.pairs must name different ones of {get_args(Pair)}, not {list(self.pairs)}")
        for name, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                raise ValueError(f"mixup.{name} must be one of {get_args(hint)}, not {getattr(self, name)!r}")
        if not self.weight > 0:
            raise ValueError(f"mixup.weight must be positive, not {self.weight}")

    def draw(self, batch_size: int, generator: Generator | None = None) -> tuple[Plan, ...]:
        """Plans for a batch of `batch_size` (B) real and as many fake rows: what mixes with what, where, by how much.

        One plan, or with `layer_per` "pair" one for every layer drawn. Real row i is mixed with fake row i and a row
        with its neighbour of the same kind, random pairs since both are independent draws; so pairs never leave an
        even share of the batch (`Plan.shard`). Tensors are on the CPU, drawn from the CPU generator `generator`.
        """
        if batch_size < 2:
            raise ValueError("a batch needs two rows to be mixed")
        left, right = self._pairs(batch_size, generator)
        shape = () if self.lam_per == "batch" else left.shape
        if self.lam == "uniform":
            lam = torch.rand(shape, generator=generator) * self.alpha
        else:
            lam = beta(self.alpha, shape, generator)
            lam = torch.minimum(lam, 1 - lam)
        if self.layer_per == "batch":
            layer = self.layers[int(torch.randint(len(self.layers), (), generator=generator))]
            return (Plan(layer, left, right, lam, keep=not self.replace),)
        drawn = torch.randint(len(self.layers), left.shape, generator=generator)
        # A network adds the rows of several plans in the order of its layers. All refer to the plain rows, which are
        # kept even where the loss drops them.
        plans = []
        for i in sorted(range(len(self.layers)), key=self.layers.__getitem__):
            at = (drawn == i).nonzero().squeeze(1)
            if len(at):
                plans.append(Plan(self.layers[i], left[at], right[at], lam[at] if lam.ndim else lam, keep=True))
        return tuple(plans)

    def _pairs(self, batch_size: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Left and right rows of `[real; fake]` for every mixed row, int64 [M]."""
        kinds = len(self.pairs)
        row = torch.arange(batch_size)
        if self.share == "each":
            row, kind = row.repeat(kinds), torch.arange(kinds).repeat_interleave(batch_size)
        elif self.share == "split":
            kind = row % kinds
        else:
            kind = torch.randint(kinds, (batch_size,), generator=generator)
        fake = torch.tensor([[half == "fake" for half in pair.split("-")] for pair in self.pairs])[kind]
        neighbour = row ^ 1
        neighbour = torch.where(neighbour < batch_size, neighbour, row - 1)
        partner = torch.where(fake[:, 0] == fake[:, 1], neighbour, row)
        if self.rows == "first":
            row, partner = torch.zeros_like(row), partner * 0 + (fake[:, 0] == fake[:, 1])
        return row + fake[:, 0] * batch_size, partner + fake[:, 1] * batch_size

    def targets(self, batch_size: int, plans: Sequence[Plan], device: torch.device | str = "cpu") -> Tensor:
        """Eq. 9: the targets of the rows the discriminator puts out under `plans`, in their order, float32."""
        y = torch.cat([torch.ones(batch_size, device=device), torch.zeros(batch_size, device=device)])
        for plan in plans:
            y = plan.mix(y)
        if self.target == "fake":
            y[-self._mixed_rows(batch_size) :] = 0
        return y

    def terms(self, losses: Tensor, batch_size: int) -> dict[str, Tensor]:
        """Eq. 10-11: `real`, `fake` and `mix`, which sum to the loss; with `replace` Eq. 8, `mix` alone.

        `losses` holds one loss a row, in the order the discriminator puts them out. Each term is a mean over its
        rows, `mix` times `weight`.
        """
        if losses.ndim != 1:
            raise ValueError(f"there must be one loss a row, [N], not {list(losses.shape)}")
        mix = {"mix": self.weight * losses[-self._mixed_rows(batch_size) :].mean()}
        return mix if self.replace else gan_terms(losses, batch_size) | mix

    def _mixed_rows(self, batch_size: int) -> int:
        return batch_size * len(self.pairs) if self.share == "each" else batch_size


def gan_terms(losses: Tensor, batch_size: int) -> dict[str, Tensor]:
    """The two terms of the plain GAN objective (Eq. 10 without mixup), means over the first and second B rows."""
    return {"real": losses[:batch_size].mean(), "fake": losses[batch_size : 2 * batch_size].mean()}
