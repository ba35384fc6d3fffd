"""The base class of losses, and losses of single logits.

A loss of single logits is a pair (l_real, l_fake); for a target t in [0, 1] (Eq. 9)

    l(d, t) = t * l_real(d) + (1 - t) * l_fake(d).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ..plans import Plans


class Loss(ABC):
    """A GAN loss."""

    needs_real: ClassVar[bool] = True
    """Whether the generator's step needs the logits of real images; if not, none are computed there."""

    @abstractmethod
    def discriminator(self, logits: Tensor, target: Tensor, plans: Plans) -> dict[str, Tensor]:
        """The terms of the discriminator's loss by name, scalars whose sum it minimises; `mix` is for mixed rows.

        `logits` and `target` (in [0, 1]) are [R], for the output rows of `plans`: B real, B fake, then mixed. In the
        generator's step, which uses only `mix`, a loss without `needs_real` gets no real rows.
        """

    @abstractmethod
    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """The generator's loss, a scalar, for the logits [B] of its fakes and, if needed, of real images."""


class SingleLogit(Loss):
    """A loss of single logits, averaged over real, fake and mixed rows."""

    needs_real: ClassVar[bool] = False

    @abstractmethod
    def real(self, d: Tensor) -> Tensor:
        """l_real, elementwise."""

    @abstractmethod
    def fake(self, d: Tensor) -> Tensor:
        """l_fake, elementwise."""

    def discriminator(self, logits: Tensor, target: Tensor, plans: Plans) -> dict[str, Tensor]:
        """Eq. 10-11: `real`, `fake` and `mix`, each a mean over its rows; `mix` times its weight."""
        losses = target * self.real(logits) + (1 - target) * self.fake(logits)
        size, plain = plans.rows // 2, plans.plain
        terms = {"real": losses[:size].mean(), "fake": losses[size:plain].mean()} if plain == plans.rows else {}
        return terms | ({"mix": plans.weight * losses[plain:].mean()} if plans else {})


@dataclass(frozen=True)
class JS(SingleLogit):
    """Binary cross entropy on logits (Goodfellow et al. 2014)."""

    saturating: bool = False
    """The generator maximises l_fake, as in the plain term of Eq. 10, instead of minimising -log d(g(z))."""

    def real(self, d: Tensor) -> Tensor:
        """-log sigmoid(d)."""
        return F.softplus(-d)

    def fake(self, d: Tensor) -> Tensor:
        """-log(1 - sigmoid(d))."""
        return F.softplus(d)

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:  # noqa: ARG002
        """-log sigmoid(d), or log(1 - sigmoid(d))."""
        return (-self.fake(fake) if self.saturating else self.real(fake)).mean()


@dataclass(frozen=True)
class Hinge(SingleLogit):
    """Hinge loss (Miyato et al. 2018)."""

    saturating: bool = False
    """The generator maximises l_fake instead of d(g(z))."""

    def real(self, d: Tensor) -> Tensor:
        """max(0, 1 - d)."""
        return F.relu(1 - d)

    def fake(self, d: Tensor) -> Tensor:
        """max(0, 1 + d)."""
        return F.relu(1 + d)

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:  # noqa: ARG002
        """-d, or -max(0, 1 + d)."""
        return (-self.fake(fake) if self.saturating else -fake).mean()


@dataclass(frozen=True)
class LeastSquares(SingleLogit):
    """Least squares with targets 1 and 0 (Mao et al. 2017, Eq. 9)."""

    def real(self, d: Tensor) -> Tensor:
        """(d - 1)^2 / 2."""
        return (d - 1).square() / 2

    def fake(self, d: Tensor) -> Tensor:
        """d^2 / 2."""
        return d.square() / 2

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:  # noqa: ARG002
        """(d - 1)^2 / 2."""
        return self.real(fake).mean()


@dataclass(frozen=True)
class Wasserstein(SingleLogit):
    """Wasserstein loss (Arjovsky et al. 2017); the Lipschitz bound comes from the spectral norm."""

    def real(self, d: Tensor) -> Tensor:
        """-d."""
        return -d

    def fake(self, d: Tensor) -> Tensor:
        """The logit d."""
        return d

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:  # noqa: ARG002
        """-d."""
        return -fake.mean()
