"""GAN losses as functions of single logits; Eq. 10-11 reduce them.

A discriminator loss is a pair (l_real, l_fake), and for a target t in [0, 1] (Eq. 9)

    l(d, t) = t * l_real(d) + (1 - t) * l_fake(d).

Another loss is another `Loss` below; its name is then a value of the option `loss`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class Loss(NamedTuple):
    """Element-wise functions of logits."""

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    """What the generator minimises on its fakes' logits, unless it is to maximise `fake` (saturating)."""

    def discriminator(self, logits: Tensor, target: Tensor) -> Tensor:
        """l(d, t), one a row: [N] from logits [N] and targets [N] in [0, 1]."""
        if logits.shape != target.shape:
            raise ValueError(f"a discriminator must put out logits {list(target.shape)}, not {list(logits.shape)}")
        return target * self.real(logits) + (1 - target) * self.fake(logits)

    def for_generator(self, logits: Tensor, saturating: bool) -> Tensor:
        """The generator's loss, one a row; saturating is Eq. 10 as printed, maximising l_fake."""
        return -self.fake(logits) if saturating else self.generator(logits)


js = Loss(real=lambda d: F.softplus(-d), fake=F.softplus, generator=lambda d: F.softplus(-d))
"""Binary cross entropy on logits; the generator minimises -log d(g(z)) (Goodfellow et al. 2014)."""

hinge = Loss(real=lambda d: F.relu(1 - d), fake=lambda d: F.relu(1 + d), generator=lambda d: -d)
"""Hinge loss (Miyato et al. 2018)."""

wasserstein = Loss(real=lambda d: -d, fake=lambda d: d, generator=lambda d: -d)
"""Wasserstein loss (Arjovsky et al. 2017); the Lipschitz bound is the spectral norm's."""

LOSSES: dict[str, Loss] = {name: value for name, value in globals().items() if isinstance(value, Loss)}
