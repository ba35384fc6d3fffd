"""The one operation of the paper, and the numbers that define it.

Manifold Mixup applies the same interpolation to hidden states and to targets:

    h~ = lam * h[left] + (1 - lam) * h[right]
    y~ = lam * y[left] + (1 - lam) * y[right]

A `Plan` holds these numbers for one layer, `Plans` all plans of one pass. They are drawn before the forward pass; after
that, everything is a pure, differentiable function of tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self, overload

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Plan:
    """What to mix at one layer, and by how much. For other operations, subclasses override states and targets."""

    layer: int
    """Layer to mix at: 0 is the network's input, k the output of its stage k."""
    left: Tensor
    """Plain rows weighted by `lam`: int64 [M], values in [0, N)."""
    right: Tensor
    """Plain rows weighted by `1 - lam`: int64 [M], values in [0, N)."""
    lam: Tensor
    """Interpolation coefficients in [0, 1]: floating point, shape [] (one for all pairs) or [M]."""
    detach: bool = False
    """Stop the gradient at the mixed states: the ablation of section 5.1."""

    def mix_states(self, h: Tensor) -> Tensor:
        """The mixed rows [M, ...] of hidden states `h`, floating point [N, ...], in the dtype of `h`."""
        mixed = self._states(h)
        return mixed.detach() if self.detach else mixed

    def mix_targets(self, y: Tensor, h: Tensor) -> Tensor:
        """The targets [M, ...] of the mixed rows, for `y` [N, ...]; they may depend on `h` only through its shape."""
        return interpolate(y, self.left, self.right, self.share_of_left(h))

    def _states(self, h: Tensor) -> Tensor:
        return interpolate(h, self.left, self.right, self.lam)

    def share_of_left(self, h: Tensor) -> Tensor:  # noqa: ARG002
        """The fraction of each mixed row of states `h` [N, ...] that comes from its left row, in [0, 1]: [] or [M]."""
        return self.lam

    def to(self, device: torch.device | str) -> Self:
        """The same plan with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def take(self, rows: Tensor) -> Self:
        """The plan for some of its pairs: `rows` is int64 [K] or bool [M]."""
        return self._map(lambda tensor: tensor[rows] if tensor.ndim else tensor)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        changed: dict[str, Any] = {name: change(value) for name, value in values if isinstance(value, Tensor)}
        return replace(self, **changed)


@dataclass(frozen=True, eq=False)
class Plans:
    """Everything that one pass mixes, in the order of the mixed output rows; without plans, the plain pass.

    The output rows are the N plain ones, if they are kept, then the mixed ones of each plan, in the order of layers.
    Every plan mixes plain rows.
    """

    plans: tuple[Plan, ...] = ()
    rows: int = 0
    """N, the number of plain input rows."""
    sections: int = 1
    """Number of equal parts of these rows that processes share: 1 for a classifier, 2 for real and fake images."""
    keep: bool = False
    """Keep the plain rows (a discriminator sees real, fake and mixed rows in one pass) or only the mixed ones."""
    first: int = 0
    """First plain row to keep; those before it are mixed and then dropped as well."""
    weight: float = 1.0
    """Weight of the mixed rows' term in a GAN's objective (Eq. 10)."""
    label: float | None = None
    """Target that the objective uses for every mixed row instead of the interpolated one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "plans", tuple(sorted(self.plans, key=lambda plan: plan.layer)))

    def __bool__(self) -> bool:
        """Whether anything is mixed."""
        return bool(self.plans)

    @property
    def plain(self) -> int:
        """Number of plain output rows."""
        if not self:
            return self.rows
        return self.rows - self.first if self.keep else 0

    @overload
    def mix(self, layer: int, h: Tensor, y: Tensor) -> tuple[Tensor, Tensor]: ...
    @overload
    def mix(self, layer: int, h: Tensor, y: Tensor | None = ...) -> tuple[Tensor, Tensor | None]: ...
    def mix(self, layer: int, h: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Mix states and targets at `layer`; returns each with the rows mixed here appended.

        At the last layer with a plan, plain rows that are not kept are dropped. Raises ValueError if `h` or `y` does
        not have the number of rows that these plans were drawn for.
        """
        here = [plan for plan in self.plans if plan.layer == layer]
        if not here:
            return h, y
        entering = self.rows + sum(len(plan.left) for plan in self.plans if plan.layer < layer)
        if len(h) != entering or (y is not None and len(y) != entering):
            found = f"{len(h)}" if y is None else f"{len(h)} with {len(y)} targets"
            raise ValueError(f"these plans are for {entering} rows at layer {layer}, not {found}")
        drop = self.rows - self.plain if layer == self.plans[-1].layer else 0
        mixed = self._append(h, [plan.mix_states(h) for plan in here], drop)
        return mixed, None if y is None else self._append(y, [plan.mix_targets(y, h) for plan in here], drop)

    @staticmethod
    def _append(rows: Tensor, mixed: list[Tensor], drop: int) -> Tensor:
        """`rows` without the first `drop`, followed by the mixed ones."""
        before = [rows[drop:]] if len(rows) > drop else []
        return torch.cat([*before, *mixed]) if len(before + mixed) > 1 else mixed[0]

    def check(self, start: int, stop: int) -> None:
        """Raise ValueError for a plan at a layer outside a pass from layer `start` to before `stop`."""
        for plan in self.plans:
            if not start <= plan.layer < stop:
                raise ValueError(f"cannot mix at layer {plan.layer}; this pass has layers {start} to {stop - 1}")

    def sources(self, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """The left and right plain row of every output row, int64 [R]; for a plain row, both are the row itself."""
        rows = torch.arange(self.rows - self.plain, self.rows, device=device)
        left, right = ([rows, *(getattr(plan, half) for plan in self.plans)] for half in ("left", "right"))
        return torch.cat(left), torch.cat(right)

    def to(self, device: torch.device | str) -> Plans:
        """The same plans with their tensors on `device`."""
        return replace(self, plans=tuple(plan.to(device) for plan in self.plans))

    def share(self, rank: int, world: int) -> Plans:
        """The part of process `rank` of `world`, which has the corresponding share of every section's rows.

        Raises ValueError if a pair would cross processes or the rows do not divide evenly.
        """
        size = self.rows // self.sections
        part, rest = divmod(size, world)
        if rest:
            raise ValueError(f"a batch of {size} rows does not divide over {world} processes")

        def local(rows: Tensor) -> Tensor:
            return rows // size * part + rows % size - rank * part

        found = []
        for plan in self.plans if world > 1 else ():
            mine = plan.left % size // part == rank
            if not torch.equal(mine, plan.right % size // part == rank):
                raise ValueError(
                    f"pairs cross the border between processes; use a multiple of {2 * world} as batch size"
                )
            kept = plan.take(mine)
            found.append(replace(kept, left=local(kept.left), right=local(kept.right)))
        first = self.first // world
        return replace(self, plans=tuple(found), rows=self.sections * part, first=first) if world > 1 else self


def interpolate(h: Tensor, left: Tensor, right: Tensor, lam: Tensor) -> Tensor:
    """`lam * h[left] + (1 - lam) * h[right]`, Eq. 1 and 3, for hidden states and for targets: [M, ...].

    `h` is floating point [N, ...], `lam` [] or [M]; the result has the dtype of `h`. It is computed in the wider of the
    two dtypes, so that half precision states are mixed by exactly the same coefficient as their targets.
    """
    dtype = torch.promote_types(h.dtype, lam.dtype)
    lam = lam.to(dtype).reshape(-1, *[1] * (h.ndim - 1))
    a, b = (select(h, rows).to(dtype) for rows in (left, right))
    return torch.lerp(b, a, lam).to(h.dtype)


def select(h: Tensor, rows: Tensor) -> Tensor:
    """`h[rows]` in the memory format of `h`, with a much cheaper gradient."""
    if h.ndim == 4 and h.is_contiguous(memory_format=torch.channels_last):
        return h.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)
    return h.index_select(0, rows)
