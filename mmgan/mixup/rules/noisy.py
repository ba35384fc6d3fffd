"""Noisy feature mixup (Lim et al. 2022): mixed states with additive and multiplicative noise; targets without noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor
from torch.distributions import Beta

from ..plans import Plan
from ._draws import Seeded, by, seeded
from .classifier import ClassifierMixup
from .discriminator import DiscriminatorMixup


@dataclass(frozen=True, eq=False)
class Noisy(Seeded):
    """An interpolation of states with added noise; targets are interpolated without noise."""

    additive: Tensor = field(kw_only=True)
    """Standard deviation of the additive normal noise: float32 []."""
    multiplicative: Tensor = field(kw_only=True)
    """Largest relative change of a state: float32 []."""

    def noise(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """U(-1, 1) and N(0, 1) for every state of every mixed row of `h` [N, ...]: float32 [M, ...] each."""
        generator, shape = self.generator(h.device), (self.pairs, *h.shape[1:])
        normal, uniform = (draw(shape, device=h.device, generator=generator) for draw in (torch.randn, torch.rand))
        return 2 * uniform[self.row] - 1, normal[self.row]

    def _states(self, h: Tensor) -> Tensor:
        """(1 + multiplicative * u) * (lam * h[left] + (1 - lam) * h[right]) + additive * n."""
        u, n = self.noise(h)
        return (super()._states(h) * (1 + self.multiplicative * u) + self.additive * n).to(h.dtype)


@dataclass(frozen=True, kw_only=True)
class _Noisy:
    """Noisy mixup for both kinds of network."""

    additive: float = 0.4
    """Standard deviation of the normal noise added to mixed states, 0 or more, times a factor ~ Beta(2, 5) drawn for
    each minibatch."""
    multiplicative: float = 0.2
    """Largest relative change, 0 or more, of mixed states by multiplicative uniform noise, times another such factor.
    """

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]  # the rule's
        for name in ("additive", "multiplicative"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"mixup.{name} must be 0 or more, not {getattr(self, name)}")

    def plan(self, left: Tensor, right: Tensor, generator: Generator | None) -> Plan:
        """The rule's interpolation with noise on the states."""
        lam = super().plan(left, right, generator).lam  # type: ignore[misc]  # the rule's
        with by(generator):
            b = Beta(2.0, 5.0).sample(torch.Size([2]))
        additive, multiplicative = self.additive * b[0], self.multiplicative * b[1]
        return Noisy(0, left, right, lam, **seeded(left, generator), additive=additive, multiplicative=multiplicative)


@dataclass(frozen=True, kw_only=True)
class ClassifierNoisyMixup(_Noisy, ClassifierMixup):
    """Noisy feature mixup in a classifier.

    Examples:
        >>> import torch
        >>> from mmgan.mixup import ClassifierNoisyMixup
        >>> (plan,) = ClassifierNoisyMixup(layers=(1,)).draw(8).plans
        >>> plan.noise(torch.zeros(8, 16, 4, 4))[0].shape
        torch.Size([8, 16, 4, 4])
    """

    layers: Sequence[int] = (0, 1, 2, 3)
    """Layers to mix at, drawn uniformly: 0 is the input, k the output of the network's stage k."""
    alpha: float = 1.0
    """Strength of mixing, positive: lam ~ Beta(alpha, alpha)."""


@dataclass(frozen=True, kw_only=True)
class DiscriminatorNoisyMixup(_Noisy, DiscriminatorMixup):
    """Noisy mixup in a discriminator, our extension, with the pairs, lam and targets of `DiscriminatorMixup`.

    Examples:
        >>> from mmgan.mixup import DiscriminatorNoisyMixup
        >>> len(DiscriminatorNoisyMixup(additive=0.1).draw(4).plans[0].left)
        12
    """
