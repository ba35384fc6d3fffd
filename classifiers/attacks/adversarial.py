"""Adversarial training (Madry et al. 2018): the objective of classifiers/supervised.py on images under attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classifiers.attacks.gradient import Attack, Norm, check_eps, pgd
from classifiers.supervised import ClassifierLoss
from mmgan.engine.modes import evaluating
from mmgan.mixup import Plans


@dataclass(frozen=True)
class AdversarialTraining:
    """Train on images attacked by PGD in pixels; FGSM is one iteration with step_size eps and no random_start."""

    eps: float = 8 / 255
    """Bound on the perturbation, for pixels in [0, 1]."""
    norm: Norm = "linf"
    """Norm of the perturbation: linf or l2."""
    step_size: float = 2 / 255
    """Length of each gradient step."""
    iterations: int = 7
    """Gradient steps of the attack; each costs about two thirds of a plain training step."""
    random_start: bool = True
    """Start at random within the bound, not at the image."""
    order: Literal["attack-mix", "mix-attack"] = "attack-mix"
    """With mixup: mix the attacked images, or attack the mixed ones (classifiers/attacks/adversarial.py)."""
    clean: bool = False
    """Train on the clean images as well: every term is then a mean over both passes (Goodfellow et al. 2014)."""
    labels: Literal["true", "predicted"] = "true"
    """Class that the attack leads away from: the image's true label, or the network's prediction for it."""

    def __post_init__(self) -> None:
        for name in ("eps", "step_size"):
            check_eps(getattr(self, name), f"adversarial.{name}", self.norm)
        if not 0 < self.iterations <= 10_000:  # each is a pass of the network, in every step
            raise ValueError(f"adversarial.iterations must be positive and at most 10000, not {self.iterations}")


def premixed(config: AdversarialTraining, x: Tensor, y: Tensor, plans: Plans) -> tuple[Tensor, Tensor, Plans]:
    """`x` and `y`, mixed if the order is mix-attack and there are plans for layer 0, and the remaining plans."""
    if config.order == "attack-mix":
        return x, y, plans
    x, y = plans.mix(0, x, y)
    return x, y, Plans(tuple(plan for plan in plans.plans if plan.layer), rows=len(x))


@torch.no_grad()
def predicted(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The classes that `network`, in evaluation mode, predicts for `x` [B, C, R, R]: one-hot [B, classes], like `y`."""
    with evaluating(network):
        return F.one_hot(network(x).argmax(1), y.shape[1]).to(y)


def attack(
    config: AdversarialTraining,
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    plans: Plans,
    loss: ClassifierLoss,
    noise: Tensor | None,
) -> Tensor:
    """The images to train on: `x`, perturbed to raise `loss` at the targets `y`; `x`, `y`, `plans` are from `premixed`.

    `noise`, N(0, 1) in the shape of `x`, gives the random start. `network` is the bare module, not the one prepared by
    Accelerate, so that DDP does not see the attack's passes, which leave the parameters' gradients alone.

    - Order. attack-mix attacks every image with respect to its own label, and `plans` then mix the attacked images.
      mix-attack first mixes the images by the plans for layer 0, and attacks the mixed images with respect to their
      mixed targets. For a hidden layer there are no mixed images; it then attacks the plain images so that the loss of
      the mixed states rises.
    - Batch norm is in evaluation mode while attacking: the attacked network is the one that will be used, rows do not
      depend on one another, and running statistics see the attacked images only once, in the training pass. Dropout is
      off. The training pass is in training mode as usual.
    - Label leaking. With a single step, no random start and the true labels, a network can learn to read the label off
      the perturbation (Kurakin et al. 2017); it then does better under FGSM than without attack, which
      scripts/attack_cls.py checks for, but is no more robust. With `labels` predicted it cannot.
    """
    seen = plans if config.order == "mix-attack" else Plans(rows=len(x))
    made = Attack(config.eps, config.step_size, config.iterations, config.norm, config.random_start, loss=loss)
    return pgd(network, x, y, made, noise, seen)
