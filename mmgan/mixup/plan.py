"""The one operation of the paper, and the numbers that define it.

Manifold Mixup applies the same interpolation to hidden states and to targets:

    h~ = lam * h[left] + (1 - lam) * h[right]
    y~ = lam * y[left] + (1 - lam) * y[right]

A `Plan` holds those numbers. It is drawn before the forward pass; from then on everything is a pure,
differentiable function of tensors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Plan(NamedTuple):
    """What to mix, where and by how much.

    `keep` appends the M mixed rows to the N original ones (a discriminator sees real, fake and mixed rows in one
    pass); without it the mixed rows replace them (a classifier sees mixed rows only). `detach` blocks the gradient
    right after the mix, the ablation of section 5.1.
    """

    layer: int
    """Where: 0 is the network's input, k the output of its stage k."""
    left: Tensor
    """Rows weighted by `lam`: int64 [M], values in [0, N)."""
    right: Tensor
    """Rows weighted by `1 - lam`: int64 [M], values in [0, N)."""
    lam: Tensor
    """Interpolation coefficients in [0, 1]: floating point, shape [] (one for all pairs) or [M]."""
    keep: bool = False
    detach: bool = False

    def mix(self, h: Tensor) -> Tensor:
        """Interpolate the rows of `h`, hidden states or targets alike (Eq. 1; Eq. 9 when `h` holds 1 and 0).

        `h` is floating point [N, ...]; the result has the same dtype and shape [M, ...], or [N + M, ...] with `keep`.
        The interpolation is computed in the wider of the dtypes of `h` and `lam`, so that half precision states are
        mixed by the very coefficient their targets are.
        """
        dtype = torch.promote_types(h.dtype, self.lam.dtype)
        lam = self.lam.to(dtype).reshape(-1, *[1] * (h.ndim - 1))
        left, right = (_select(h, rows).to(dtype) for rows in (self.left, self.right))
        mixed = torch.lerp(right, left, lam).to(h.dtype)
        if self.detach:
            mixed = mixed.detach()
        return torch.cat([h, mixed]) if self.keep else mixed

    def to(self, device: torch.device | str) -> Plan:
        """The same plan with its tensors on `device`."""
        left, right, lam = (t.to(device, non_blocking=True) for t in (self.left, self.right, self.lam))
        return self._replace(left=left, right=right, lam=lam)

    def shard(self, rank: int, world: int, batch_size: int) -> Plan:
        """The part of a plan for a global batch that belongs to process `rank` of `world`.

        The global batch is one section of `batch_size` rows (a classifier) or several of them stacked (real, then
        fake); of each section a process holds its `rank`-th consecutive share. Raises ValueError when a pair
        would cross processes or `batch_size` does not divide evenly.
        """
        if world == 1:
            return self
        share, rest = divmod(batch_size, world)
        if rest:
            raise ValueError(f"a batch of {batch_size} rows does not divide over {world} processes")
        mine = self.left % batch_size // share == rank
        if not torch.equal(mine, self.right % batch_size // share == rank):
            raise ValueError(f"pairs cross the border between processes; take a multiple of {2 * world} as batch size")

        def local(rows: Tensor) -> Tensor:
            return rows[mine] // batch_size * share + rows[mine] % batch_size - rank * share

        lam = self.lam if self.lam.ndim == 0 else self.lam[mine]
        return self._replace(left=local(self.left), right=local(self.right), lam=lam)


def _select(h: Tensor, rows: Tensor) -> Tensor:
    """`h[rows]` in the memory format of `h`; its gradient costs a fraction of that of `h[rows]`."""
    if h.ndim == 4 and h.is_contiguous(memory_format=torch.channels_last):
        return h.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)
    return h.index_select(0, rows)


def mix_at(layer: int, h: Tensor, plans: tuple[Plan, ...]) -> Tensor:
    """`h` after every one of `plans` that mixes at `layer`."""
    for plan in plans:
        if plan.layer == layer:
            h = plan.mix(h)
    return h
