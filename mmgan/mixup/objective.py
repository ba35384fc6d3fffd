"""The GAN objective, Eq. 10, whose mixup term is Eq. 8 at the input and that of Eq. 11 at hidden layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .losses import JS, Loss
from .plans import Plans
from .rules import DiscriminatorRule


def discriminator_loss(
    discriminator: Callable[..., Any],
    real: Tensor,
    fake: Tensor,
    mixup: DiscriminatorRule | Plans | None = None,
    loss: Loss = JS(),  # noqa: B008
    r1_gamma: float = 0.0,
    r2_gamma: float = 0.0,
    augment: Callable[[Tensor], Tensor] | None = None,
    classes: Tensor | None = None,
) -> dict[str, Tensor]:
    """Eq. 10-11 in one pass over real, fake and mixed rows: scalar terms by name, whose sum `discriminator` minimises.

    `real` and `fake` are [B, ...] without gradient. `mixup` is a rule, from which plans are drawn here by torch's
    global generator, or plans drawn for B rows; the discriminator must then be `Staged` or `Mixable`. None: the plain
    objective. The discriminator returns logits [rows]. `r1_gamma` and `r2_gamma` add R1 and R2, gamma / 2 times the
    mean squared gradient norm at real images and at fakes (Mescheder et al. 2018), only for plain rows. `augment`
    changes the rows `[real; fake]` before any mixing; R1 and R2 differentiate through it, with respect to the original
    images. `classes`, vectors [2B, C] for the rows `[real; fake]`, are for a conditional discriminator: it is called
    with (rows, plans, `[target | class]`) and returns logits and the mixed `[target | class]`. Raises ValueError for
    R1, R2 or a loss that compares if the plans drop plain rows, and if the discriminator does not return one logit for
    each row.

    Examples:
        >>> import torch
        >>> from mmgan.mixup import DiscriminatorMixup, Mixable, discriminator_loss
        >>> layers = torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1), torch.nn.Flatten(0)
        >>> net = torch.nn.Sequential(*layers)
        >>> real, fake = torch.randn(4, 2), torch.randn(4, 2)
        >>> sorted(discriminator_loss(Mixable(net, ["1"]), real, fake, DiscriminatorMixup(layers=(0, 1))))
        ['fake', 'mix', 'real']
    """
    size = len(real)
    plans = _plans(mixup, size, DiscriminatorRule.draw)
    penalised = slice(0 if r1_gamma else size, 2 * size if r2_gamma else size)
    if (r1_gamma or r2_gamma) and not plans.plain:
        raise ValueError("R1 and R2 need plain rows, which mixup.replace drops")
    batch = torch.cat([real, fake])
    if r1_gamma or r2_gamma:
        batch.requires_grad_()
    logits, target = _pass(discriminator, batch, size, plans, augment, classes)
    terms = loss.discriminator(logits, target, plans)
    if r1_gamma or r2_gamma:
        squared = squared_gradient(logits[penalised], batch)
        terms |= {"r1": r1_gamma / 2 * squared[:size].mean()} if r1_gamma else {}
        terms |= {"r2": r2_gamma / 2 * squared[size:].mean()} if r2_gamma else {}
    return terms


def generator_loss(
    discriminator: Callable[..., Any],
    fake: Tensor,
    real: Tensor | None = None,
    mixup: DiscriminatorRule | Plans | None = None,
    loss: Loss = JS(),  # noqa: B008
    augment: Callable[[Tensor], Tensor] | None = None,
    classes: Tensor | None = None,
) -> dict[str, Tensor]:
    """The generator's side of Eq. 10: its plain term minus the mixup term, which it maximises.

    Returns scalar terms by name, whose sum the generator minimises. `fake` [B, ...] carries the generator's gradient;
    `real`, [B, ...] without gradient, is needed for mixup and for losses that compare. Eq. 11 prints only the
    discriminator's side; the preset `eq11` uses this loss without mixup. `augment` changes the rows that are passed,
    `[real; fake]`, or only the fakes if no real ones are needed; `classes` are vectors as in `discriminator_loss`, the
    last B of which belong to the fakes. Raises ValueError if real images are needed but missing, if the plans drop
    plain rows, and if the discriminator does not return one logit for each row.

    Examples:
        >>> import torch
        >>> from mmgan.mixup import DiscriminatorMixup, Mixable, generator_loss
        >>> layers = torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1), torch.nn.Flatten(0)
        >>> net = torch.nn.Sequential(*layers)
        >>> real, fake = torch.randn(4, 2), torch.randn(4, 2, requires_grad=True)
        >>> list(generator_loss(Mixable(net, ["1"]), fake, real, DiscriminatorMixup(layers=(0, 1))))
        ['generator', 'generator_mix']
    """
    size = len(fake)
    plans = _plans(mixup, size, DiscriminatorRule.draw_for_generator)
    if not plans and not loss.needs_real:
        logits, _ = _pass(discriminator, fake, 0, plans, augment, classes)
        return {"generator": loss.generator(logits, None)}
    if real is None:
        raise ValueError("the generator's step needs real images for this mixup or loss")
    if not plans.plain:
        raise ValueError("the generator's loss needs plain rows, which these plans drop; use draw_for_generator")
    if not loss.needs_real:
        plans = replace(plans, first=size)
    logits, target = _pass(discriminator, torch.cat([real, fake]), size, plans, augment, classes)
    plain = logits[: plans.plain]
    terms = {"generator": loss.generator(plain[-size:], plain[:size] if loss.needs_real else None)}
    return terms | ({"generator_mix": -loss.discriminator(logits, target, plans)["mix"]} if plans else {})


def squared_gradient(logits: Tensor, images: Tensor) -> Tensor:
    """||grad d(x)||^2 for every image [N, C, H, W] in the graph of `logits`: [N], differentiable."""
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.flatten(1).square().sum(1)


def _plans(
    mixup: DiscriminatorRule | Plans | None, size: int, draw: Callable[[DiscriminatorRule, int], Plans]
) -> Plans:
    if isinstance(mixup, Plans):
        return mixup
    return draw(mixup, size) if mixup else Plans(rows=2 * size, sections=2)


def _pass(
    discriminator: Callable[..., Any],
    batch: Tensor,
    real: int,
    plans: Plans,
    augment: Callable[[Tensor], Tensor] | None,
    classes: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Logits and targets, Eq. 9, of the output rows, [R] each, for `batch`, whose first `real` rows are real."""
    batch = augment(batch) if augment else batch
    target = torch.zeros(len(batch), device=batch.device)
    target[:real] = 1
    if classes is not None:
        logits, rows = discriminator(batch, plans, torch.cat([target[:, None], classes[-len(batch) :]], 1))
        target = rows[:, 0]
    elif plans:
        logits, target = discriminator(batch, plans, target)
    else:  # without mixing, a discriminator need not accept plans
        logits = discriminator(batch)
    if plans.label is not None:
        target = torch.cat([target[: plans.plain], torch.full_like(target[plans.plain :], plans.label)])
    if logits.shape != target.shape:
        raise ValueError(f"a discriminator must return logits {list(target.shape)}, not {list(logits.shape)}")
    return logits, target
