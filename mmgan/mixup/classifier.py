"""How plans are drawn for a classifier: Eq. 1 and Algorithm 2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.distributions import Beta

from .plan import Plan


def draw_pairs(
    batch_size: int,
    alpha: float,
    layers: Sequence[int] = (0, 1, 2),
    lam_per: str = "batch",
    blocks: int = 1,
    detach: bool = False,
    generator: Generator | None = None,
) -> Plan:
    """A plan that mixes every row with another: `lam ~ Beta(alpha, alpha)`, one layer drawn uniformly from `layers`.

    `lam_per` "batch" draws one coefficient (the paper), "pair" one a row. The right rows are a random permutation of
    the batch; with `blocks` > 1 a permutation within each of so many consecutive shares, so that any number of
    processes that divides `blocks` can split the same plan (`Plan.shard`). `detach` is the ablation of section 5.1.
    Tensors are on the CPU and come from the CPU generator `generator`. Raises ValueError for unusable arguments.
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be positive, not {alpha}")
    if not layers:
        raise ValueError("layers must name at least one layer")
    if lam_per not in ("batch", "pair"):
        raise ValueError(f"lam_per must be 'batch' or 'pair', not {lam_per!r}")
    share, rest = divmod(batch_size, blocks)
    if rest:
        raise ValueError(f"a batch of {batch_size} rows does not divide into {blocks} blocks")
    layer = layers[int(torch.randint(len(layers), (), generator=generator))]
    right = torch.cat([torch.randperm(share, generator=generator) + block * share for block in range(blocks)])
    lam = beta(alpha, () if lam_per == "batch" else (batch_size,), generator)
    return Plan(layer, torch.arange(batch_size), right, lam, detach=detach)


def beta(alpha: float, shape: tuple[int, ...], generator: Generator | None) -> Tensor:
    """Draws of Beta(alpha, alpha) that depend on `generator` alone: float32 of `shape`, on the CPU."""
    seed = int(torch.randint(2**62, (), generator=generator))  # torch's sampler knows only the global generator
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Beta(alpha, alpha).sample(shape)
