"""Attacks on a classifier's pixels: FGSM (appendix F; Goodfellow et al. 2014) and PGD (Madry et al. 2018).

Networks take pixels in [0, 1] and normalise them themselves, so that a budget `eps` means the same for every one. An
attack takes the gradient with respect to pixels alone and runs the network in evaluation mode: parameters, their
gradients, batch norm statistics and modes are left as they were.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from classifiers.supervised import ClassifierLoss, CrossEntropy
from mmgan.engine.modes import evaluating
from mmgan.mixup import Plans

Norm = Literal["linf", "l2"]


def check_eps(eps: float, option: str, norm: Norm) -> None:
    """Raise ValueError, naming the option, for an implausible bound on pixels in [0, 1]."""
    if not 0 < eps < math.inf:
        raise ValueError(f"{option} must be positive and finite, not {eps}")
    if norm == "linf" and eps > 1:
        raise ValueError(f"{option} is for pixels in [0, 1], where {eps} bounds nothing; 8/255 is {8 / 255:.4f}")


@dataclass(frozen=True)
class Attack:
    """How images are attacked."""

    eps: float
    """Bound on the perturbation; infinite: no bound but [0, 1], the sanity check of appendix F."""
    step_size: float
    """Length of each gradient step."""
    iterations: int
    norm: Norm = "linf"
    random_start: bool = False
    """Start at random within the bound (`start`), not at the image."""
    restarts: int = 1
    """Attacks on each image, each from another start; the image counts as right only if it withstands all of them."""
    loss: ClassifierLoss = field(default_factory=CrossEntropy)
    """The loss that the attack increases."""
    eot: int = 1
    """Passes whose gradients are averaged in every iteration, for a network that is random at test time: the
    expectation over its randomness (Athalye et al. 2018)."""
    scale: Tensor | None = None
    """None: `eps` and `step_size` are in pixels, and images are clamped to [0, 1]. Otherwise the unit of both,
    float32 [C, 1, 1], and nothing is clamped; with the standard deviations that the network divides by, this is the
    authors' attack on normalised images.
    """


def fgsm(network: nn.Module, x: Tensor, y: Tensor, attack: Attack) -> Tensor:
    """Appendix F: x + eps sgn(grad_x L(x, y)), clamped to [0, 1]; one iteration of `pgd`, with `eps` as its step.

    With norm l2, the gradient divided by its length replaces the sign. Arguments as for `pgd`.
    """
    return pgd(network, x, y, replace(attack, step_size=attack.eps, iterations=1))


def pgd(
    network: nn.Module, x: Tensor, y: Tensor, attack: Attack, noise: Tensor | None = None, plans: Plans | None = None
) -> Tensor:
    """Projected gradient ascent on the loss: `iterations` steps of `step_size`, each projected to within `eps` of x.

    `x` float32 [B, C, R, R] in [0, 1] and `y` float32 [B, classes], the targets to move away from; the result
    is like `x`. `noise`, N(0, 1) like `x`, gives the random start; without it the attack starts at `x`. With `plans`,
    drawn for B rows, a network that takes them mixes images and targets on the way.
    """
    for adversarial in iterates(network, x, y, attack, noise, plans):
        x = adversarial
    return x


def iterates(
    network: nn.Module, x: Tensor, y: Tensor, attack: Attack, noise: Tensor | None = None, plans: Plans | None = None
) -> Iterator[Tensor]:
    """The images after every iteration of `pgd`, which has the same arguments."""
    eps, norm, bounded = attack.eps, attack.norm, attack.eps < math.inf
    unit = x.new_ones(()) if attack.scale is None else attack.scale

    def within(moved: Tensor) -> Tensor:
        if bounded:
            moved = x + unit * project((moved - x) / unit, eps, norm)
        return moved.clamp(0, 1) if attack.scale is None else moved

    moved = x
    if noise is not None:
        if not bounded:
            raise ValueError("a random start needs a bound eps")
        moved = within(x + unit * start(noise, eps, norm))
    for _ in range(attack.iterations):
        with evaluating(network):
            g = torch.stack([_gradient(network, moved, y, attack.loss, plans) for _ in range(attack.eot)]).mean(0)
        moved = within(moved + unit * attack.step_size * steepest(unit * g, norm))
        yield moved


def steepest(g: Tensor, norm: Norm) -> Tensor:
    """The step of length 1 that raises the loss most, for gradients [B, ...]: their signs, or g / |g|_2."""
    return g.sign() if norm == "linf" else unit(g)


def unit(g: Tensor) -> Tensor:
    """Rows of `g` [B, ...] at Euclidean norm 1; a row of zeros stays zero.

    Rows are first scaled by their largest value: a confident network's gradients are so small that squares underflow.
    """
    smallest = torch.finfo(g.dtype).tiny
    g = g / _rows(g.flatten(1).abs().amax(1).clamp(min=smallest), g)
    return g / _rows(g.flatten(1).norm(dim=1).clamp(min=smallest), g)


def project(delta: Tensor, eps: float, norm: Norm) -> Tensor:
    """The perturbations nearest to `delta` [B, ...] that are no longer than `eps`."""
    if norm == "linf":
        return delta.clamp(-eps, eps)
    return delta * _rows((eps / delta.flatten(1).norm(dim=1)).clamp(max=1), delta)


def start(noise: Tensor, eps: float, norm: Norm) -> Tensor:
    """Random perturbations from N(0, 1) `noise` [B, ...]: uniform in the cube of half side `eps`, or on the l2 sphere.

    In as many dimensions as an image has, nearly all of a ball's volume lies close to its surface.
    """
    if norm == "linf":
        return eps * torch.erf(noise / 2**0.5)
    return eps * steepest(noise, norm)


def _rows(factors: Tensor, like: Tensor) -> Tensor:
    """[B] as [B, 1, ...]."""
    return factors.reshape(-1, *[1] * (like.ndim - 1))


def _gradient(network: nn.Module, x: Tensor, y: Tensor, loss: ClassifierLoss, plans: Plans | None) -> Tensor:
    """The gradient, with respect to `x` alone, of the loss summed over rows."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        # A network with nothing to mix need not know about plans.
        logits, targets = network(x, plans, y) if plans else (network(x), y)
        with torch.autocast(x.device.type, enabled=False):
            total = loss(logits.float(), targets) * len(x)
    return torch.autograd.grad(total, x)[0]
