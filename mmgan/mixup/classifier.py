"""Mixup in a classifier: Eq. 1 and Algorithm 2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.distributions import Beta

from .plan import Plan


@dataclass(frozen=True)
class ClassifierMixup:
    """Mixup in a classifier, Eq. 1: every row is mixed with another of its batch, at one layer a batch."""

    alpha: float = 2.0
    """Strength: lam ~ Beta(alpha, alpha)."""
    layers: Sequence[int] = (0, 1, 2)
    """Layers to mix at, drawn uniformly: 0 is the input, k the output of the network's stage k. [0] is Input Mixup."""
    lam_per: Literal["batch", "pair"] = "batch"
    """One coefficient a minibatch (the paper), or one for every pair."""
    detach: bool = False
    """Block the gradient right after the mix, so that only layers above it learn: the ablation of section 5.1."""
    blocks: int = 4
    """Pair within so many equal parts of the batch: then as many processes, or a divisor, share out the same pairs."""

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise ValueError(f"mixup.alpha must be positive, not {self.alpha}")
        whole = all(isinstance(layer, int) and layer >= 0 for layer in self.layers)
        if not whole or not 0 < len(set(self.layers)) == len(self.layers):
            raise ValueError(f"mixup.layers must name different layers, 0 or more, not {list(self.layers)}")
        if self.lam_per not in ("batch", "pair"):
            raise ValueError(f"mixup.lam_per must be 'batch' or 'pair', not {self.lam_per!r}")
        if self.blocks < 1:
            raise ValueError(f"mixup.blocks must be positive, not {self.blocks}")

    def draw(self, batch_size: int, generator: Generator | None = None) -> Plan:
        """The plan for one batch: its layer, a random permutation within each block as right rows, and lam.

        Tensors are on the CPU and come from the CPU generator `generator`. Raises ValueError for a batch that does not
        divide into blocks.
        """
        share, rest = divmod(batch_size, self.blocks)
        if rest:
            raise ValueError(f"a batch of {batch_size} rows does not divide into {self.blocks} blocks (mixup.blocks)")
        layer = self.layers[int(torch.randint(len(self.layers), (), generator=generator))]
        permutations = [torch.randperm(share, generator=generator) + b * share for b in range(self.blocks)]
        lam = beta(self.alpha, () if self.lam_per == "batch" else (batch_size,), generator)
        return Plan(layer, torch.arange(batch_size), torch.cat(permutations), lam, detach=self.detach)


def beta(alpha: float, shape: tuple[int, ...], generator: Generator | None) -> Tensor:
    """Draws of Beta(alpha, alpha) that depend on `generator` alone: float32 of `shape`, on the CPU."""
    seed = int(torch.randint(2**62, (), generator=generator))  # torch's sampler knows only the global generator
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Beta(alpha, alpha).sample(shape)
