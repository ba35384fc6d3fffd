"""The relativistic pairing loss: a function of the logits of all rows rather than single ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..plans import Plans
from .single import Loss


@dataclass(frozen=True)
class Relativistic(Loss):
    """The relativistic pairing loss (Jolicoeur-Martineau 2018; R3GAN, Huang et al. 2024): real i against fake i."""

    def discriminator(self, logits: Tensor, target: Tensor, plans: Plans) -> dict[str, Tensor]:
        """`pair`, the mean of softplus(-(d(real) - d(fake))), and `mix`, the same for mixed rows with their targets.

        A mixed row with target t is compared with the fake row it is made of (the left one of two fakes; for two real
        rows, the fake paired with the left one): binary cross entropy of the difference, with target (1 + t) / 2 (our
        extension; t = 1 gives R3GAN's pair, and a fake mixed with itself is stationary). Raises ValueError without
        plain rows.
        """
        if not plans.plain:
            raise ValueError("the relativistic loss compares with plain rows, which mixup.replace drops")
        size = plans.plain // 2
        left, right = plans.sources(logits.device)
        fake = torch.where(left >= size, left, torch.where(right >= size, right, left + size))
        difference, t = logits - logits[fake], (1 + target) / 2
        losses = t * F.softplus(-difference) + (1 - t) * F.softplus(difference)
        terms = {"pair": losses[:size].mean()}
        return terms | ({"mix": plans.weight * losses[plans.plain :].mean()} if plans else {})

    def generator(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """Mean of softplus(-(d(fake) - d(real)))."""
        if real is None:
            raise ValueError("the relativistic loss needs real images in the generator's step")
        return F.softplus(real - fake).mean()
