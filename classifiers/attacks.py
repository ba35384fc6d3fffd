"""Attacks on a classifier's pixels: FGSM (appendix F; Goodfellow et al. 2014) and PGD (Madry et al. 2018).

Networks take pixels in [0, 1] and normalise them themselves, so that a budget `eps` means the same for every one. An
attack takes the gradient with respect to pixels alone and runs the network in evaluation mode: parameters, their
gradients, batch norm statistics and modes are afterwards what they were.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from classifiers.supervised import ClassifierLoss, CrossEntropy
from mmgan.mixup import Plans

Norm = Literal["linf", "l2"]


def check_eps(eps: float, option: str, norm: Norm) -> None:
    """Raise ValueError, naming the option, for a bound in pixels of [0, 1] that cannot be meant."""
    if not 0 < eps < math.inf:
        raise ValueError(f"{option} must be positive and finite, not {eps}")
    if norm == "linf" and eps > 1:
        raise ValueError(
            f"{option} is in pixels of [0, 1], so that {eps} bounds nothing; 8 of 255 levels are {8 / 255:.4f}"
        )


def fgsm(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: Norm = "linf",
    scale: Tensor | None = None,
    loss: ClassifierLoss = CrossEntropy(),  # noqa: B008
) -> Tensor:
    """Appendix F: x + eps sgn(grad_x L(x, y)), clamped to [0, 1]; one iteration of `pgd`, with `eps` as its step.

    With norm l2 the gradient is divided by its length instead. Arguments as of `pgd`.
    """
    return pgd(network, x, y, eps, eps, 1, norm, scale=scale, loss=loss)


def pgd(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float | None,
    step_size: float,
    iterations: int,
    norm: Norm = "linf",
    noise: Tensor | None = None,
    scale: Tensor | None = None,
    loss: ClassifierLoss = CrossEntropy(),  # noqa: B008
    plans: Plans = Plans(),  # noqa: B008
) -> Tensor:
    """Projected gradient ascent on the loss: `iterations` steps of `step_size`, each projected to within `eps` of x.

    `x` float32 [B, C, R, R] in [0, 1] and `y` float32 [B, classes], targets that the loss is to leave; the result is
    like `x`. `eps` None: no bound but [0, 1], the sanity check of appendix F. `noise`, N(0, 1) like `x`, starts at
    random (`start`). Without `scale` the result is clamped to [0, 1]; with it, float32 [C, 1, 1], `eps` and `step_size`
    are in units of `scale` and nothing is clamped: given the deviations that the network divides by, the authors'
    attack on normalised images. With `plans`, drawn for B rows, a network that takes them mixes
    images and targets on the way.
    """
    for adversarial in iterates(network, x, y, eps, step_size, iterations, norm, noise, scale, loss, plans):
        x = adversarial
    return x


def iterates(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float | None,
    step_size: float,
    iterations: int,
    norm: Norm = "linf",
    noise: Tensor | None = None,
    scale: Tensor | None = None,
    loss: ClassifierLoss = CrossEntropy(),  # noqa: B008
    plans: Plans = Plans(),  # noqa: B008
) -> Iterator[Tensor]:
    """The images after every iteration of `pgd`, whose arguments these are."""
    unit = x.new_ones(()) if scale is None else scale

    def within(moved: Tensor) -> Tensor:
        if eps is not None:
            moved = x + unit * project((moved - x) / unit, eps, norm)
        return moved.clamp(0, 1) if scale is None else moved

    moved = x
    if noise is not None:
        if eps is None:
            raise ValueError("a random start needs a bound eps")
        moved = within(x + unit * start(noise, eps, norm))
    with _evaluating(network):
        for _ in range(iterations):
            g = _gradient(network, moved, y, loss, plans)
            moved = within(moved + unit * step_size * direction(unit * g, norm))
            yield moved


def direction(g: Tensor, norm: Norm) -> Tensor:
    """The step of length 1 that raises the loss most, for gradients [B, ...]: their signs, or g / |g|_2."""
    return g.sign() if norm == "linf" else unit(g)


def unit(g: Tensor) -> Tensor:
    """Rows of `g` [B, ...] at Euclidean norm 1; a row of zeros stays one.

    First scaled by their largest value: a confident network's gradients are so small that their squares vanish.
    """
    smallest = torch.finfo(g.dtype).tiny
    g = g / _rows(g.flatten(1).abs().amax(1).clamp(min=smallest), g)
    return g / _rows(g.flatten(1).norm(dim=1).clamp(min=smallest), g)


def project(delta: Tensor, eps: float, norm: Norm) -> Tensor:
    """The perturbations nearest to `delta` [B, ...] of which none is longer than `eps`."""
    if norm == "linf":
        return delta.clamp(-eps, eps)
    return delta * _rows((eps / delta.flatten(1).norm(dim=1)).clamp(max=1), delta)


def start(noise: Tensor, eps: float, norm: Norm) -> Tensor:
    """Random perturbations from N(0, 1) `noise` [B, ...]: uniform in the cube of half side `eps`, or on the l2 sphere.

    Of a ball in as many dimensions as an image has, nearly all lies next to its sphere.
    """
    if norm == "linf":
        return eps * torch.erf(noise / 2**0.5)
    return eps * direction(noise, norm)


def _rows(factors: Tensor, like: Tensor) -> Tensor:
    """[B] as [B, 1, ...]."""
    return factors.reshape(-1, *[1] * (like.ndim - 1))


def _gradient(network: nn.Module, x: Tensor, y: Tensor, loss: ClassifierLoss, plans: Plans) -> Tensor:
    """The gradient of the sum over rows of the loss with respect to `x` alone."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        # A network that has nothing to mix need not know of plans.
        logits, targets = network(x, plans, y) if plans else (network(x), y)
        with torch.autocast(x.device.type, enabled=False):
            total = loss(logits.float(), targets) * len(x)
    return torch.autograd.grad(total, x)[0]


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode while entered; afterwards every module has the mode it had."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
