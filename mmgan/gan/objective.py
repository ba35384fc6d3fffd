"""The GAN objective: Eq. 10, and Eq. 11 with mixup. Pure functions of networks and tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mmgan.gan.losses import Loss
from mmgan.mixup import DiscriminatorMixup, Plan, gan_terms


def discriminator_terms(
    discriminator: Callable[..., Tensor],
    real: Tensor,
    fake: Tensor,
    loss: Loss,
    mixup: DiscriminatorMixup | None = None,
    plans: tuple[Plan, ...] = (),
    gradient_penalty: float = 0.0,
) -> dict[str, Tensor]:
    """Eq. 10-11 in one pass over real, fake and mixed rows: scalar terms whose sum the discriminator minimises.

    `real` and `fake` are [B, C, H, W] without gradient; `plans` is what `mixup` drew for B rows.
    """
    batch = torch.cat([real, fake])
    if gradient_penalty:
        batch.requires_grad_()
    logits = discriminator(batch, *plans)
    if mixup is None:
        target = torch.cat([logits.new_ones(len(real)), logits.new_zeros(len(fake))])
        terms = gan_terms(loss.discriminator(logits, target), len(real))
    else:
        target = mixup.targets(len(real), plans, logits.device)
        terms = mixup.terms(loss.discriminator(logits, target), len(real))
    if gradient_penalty:
        terms["penalty"] = gradient_penalty * squared_gradient(logits[: len(real)], batch)[: len(real)].mean()
    return terms


def squared_gradient(logits: Tensor, images: Tensor) -> Tensor:
    """||grad d(x)||^2 of every image [N, C, H, W] in the graph of `logits`: [N], differentiable."""
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.flatten(1).square().sum(1)


def generator_loss(discriminator: Callable[..., Tensor], fake: Tensor, loss: Loss, saturating: bool) -> Tensor:
    """The scalar the generator minimises on its fakes [B, C, H, W]; without mixup, as in Eq. 11."""
    return loss.for_generator(discriminator(fake), saturating).mean()
