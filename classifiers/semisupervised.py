"""Semi-supervised objectives: what images without labels add to the loss (section 5.2, appendices D and E).

Every pass is of unlabelled rows alone, so that batch norm never takes statistics of labelled and unlabelled ones
together: Algorithms 1 and 3 pass them one after the other, Oliver et al.'s code (2018) in one batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classifiers.attacks import unit
from classifiers.supervised import Forward
from mmgan.mixup import ClassifierMixup, Plan

Compare = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class PseudoLabel:
    """Pseudo-labels (Lee 2013)."""

    threshold: float = 0.95
    """Learn from images whose most probable class is more probable than that."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise ValueError(f"ssl.pseudo_label.threshold must be in [0, 1), not {self.threshold}")


@dataclass(frozen=True)
class PiModel:
    """The Pi-model (Laine & Aila 2017)."""

    compare: Compare = "probabilities"
    """What is compared by squared differences."""


@dataclass(frozen=True)
class MeanTeacher:
    """Mean Teacher (Tarvainen & Valpola 2017); the teacher is what is validated and evaluated."""

    decay: float = 0.95
    """How much of themselves the teacher's weights keep in an update; 0.95 is Oliver et al.'s."""
    compare: Compare = "probabilities"
    """What is compared by squared differences."""

    def __post_init__(self) -> None:
        if not 0 < self.decay < 1:
            raise ValueError(f"ssl.mean_teacher.decay must be in (0, 1), not {self.decay}")


@dataclass(frozen=True)
class VAT:
    """Virtual adversarial training (Miyato et al. 2018)."""

    eps: float = 6.0
    """Euclidean norm of a perturbation, in the units of layer 0; Oliver et al. take 6 for whitened CIFAR-10."""
    xi: float = 1e-3
    """Norm of the step by which it is found. Oliver et al.'s 1e-6 is near single precision's rounding: on 8x8
    digits the direction had a cosine of 0.68 with the exact one, at 1e-3 above 0.999."""
    iterations: int = 1
    """Power iterations that find the direction."""
    entropy: float = 0.0
    """Weight of the predictions' entropy, from the first step on: entropy minimisation, VAT-EM."""

    def __post_init__(self) -> None:
        for name in ("eps", "xi", "iterations"):
            if getattr(self, name) <= 0:
                raise ValueError(f"ssl.vat.{name} must be positive, not {getattr(self, name)}")
        if self.entropy < 0:
            raise ValueError(f"ssl.vat.entropy must be 0 or more, not {self.entropy}")


@dataclass(frozen=True)
class UnlabelledMixup(ClassifierMixup):
    """Mixup of unlabelled images and their predictions, Algorithm 1; with layers [0] Algorithm 3."""

    compare: Compare = "probabilities"
    """What is mixed and compared by squared differences; logits, not normalised, in the authors' code."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.detach:
            raise ValueError("ssl.mixup.detach is an ablation of supervised learning; leave it out")


@dataclass(frozen=True)
class SemiSupervised:
    """Learning from images without labels, by the one method of which the section is given."""

    weight: float = 1.0
    """The largest weight of the method's loss; appendix E has 1 for CIFAR-10 and 2 for SVHN."""
    ramp_until: float = 0.4
    """Share of the updates over which the weight rises to that; 0: it starts there."""
    ramp_from: Literal["zero", "official"] = "zero"
    """It rises from 0 (appendix E), or from exp(-5) of itself as in the authors' code."""
    batch_size: int = 50
    """Unlabelled images of a step, over all processes."""
    pseudo_label: PseudoLabel | None = None
    """Pseudo-labels."""
    pi: PiModel | None = None
    """Pi-model."""
    mean_teacher: MeanTeacher | None = None
    """Mean Teacher."""
    vat: VAT | None = None
    """Virtual adversarial training."""
    mixup: UnlabelledMixup | None = None
    """Mixup of the unlabelled images; that of the labelled ones is the other section of this name."""

    def __post_init__(self) -> None:
        methods = ("pseudo_label", "pi", "mean_teacher", "vat", "mixup")
        given = [name for name in methods if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"ssl needs one section of {', '.join(methods)}, not {' and '.join(given) or 'none'}")
        for name in ("weight", "batch_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"ssl.{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.ramp_until <= 1:
            raise ValueError(f"ssl.ramp_until must be in [0, 1], not {self.ramp_until}")
        if self.ramp_from == "official" and not self.ramp_until:
            raise ValueError("ssl.ramp_from official needs ssl.ramp_until")
        if self.mixup and self.batch_size % self.mixup.blocks:
            raise ValueError(f"ssl.mixup.blocks {self.mixup.blocks} must divide ssl.batch_size {self.batch_size}")


def ramp(done: float, config: SemiSupervised) -> float:
    """What share of the weight counts when `done` of 1 is done: exp(-5 (1 - done / until)^2), then 1 (appendix E).

    From "zero" it is moved and stretched to start at 0.
    """
    if done >= config.ramp_until:
        return 1.0
    rise, start = math.exp(-5 * (1 - done / config.ramp_until) ** 2), math.exp(-5)
    return rise if config.ramp_from == "official" else (rise - start) / (1 - start)


@torch.no_grad()
def predictions(f: Forward, x: Tensor, compare: Compare) -> Tensor:
    """Targets without gradient, [B, classes]: probabilities, or logits."""
    logits: Tensor = f(x)
    return logits if compare == "logits" else logits.softmax(1)


def squared_difference(logits: Tensor, targets: Tensor, compare: Compare) -> Tensor:
    """The mean over rows and classes; `targets` are of the kind `compare` says, [B, classes] like `logits`."""
    return F.mse_loss(logits if compare == "logits" else logits.softmax(1), targets)


def pseudo_label(f: Forward, x: Tensor, threshold: float) -> Tensor:
    """Cross entropy to the most probable class where it is more probable than `threshold`, else 0; a mean over rows."""
    logits = f(x)
    p, label = logits.detach().softmax(1).max(1)
    return (F.cross_entropy(logits, label, reduction="none") * (p > threshold)).mean()


def pi_model(f: Forward, x: Tensor, again: Tensor, compare: Compare) -> Tensor:
    """Squared difference of predictions for two views of the same images, of which `again` gets no gradient.

    In expectation its gradient is half of Laine & Aila's, who let both views have it.
    """
    return squared_difference(f(x), predictions(f, again, compare), compare)


def mean_teacher(f: Forward, teacher: Forward, x: Tensor, again: Tensor, compare: Compare) -> Tensor:
    """Squared difference of the student's predictions for `x` from the teacher's for another view."""
    return squared_difference(f(x), predictions(teacher, again, compare), compare)


def interpolation(f: Forward, x: Tensor, plan: Plan, compare: Compare) -> Tensor:
    """L_US of Algorithm 1, lines 7-9, and of Algorithm 3 with a plan at layer 0.

    Algorithm 3 prints the labelled batch's targets in its line 10; read as the unlabelled one's.
    """
    targets = predictions(f, x, compare)
    return squared_difference(f(x, plan), plan.mix(targets), compare)


def divergence(target: Tensor, logits: Tensor) -> Tensor:
    """KL(p || q) of the softmax of two logits [B, classes], a mean over rows."""
    return F.kl_div(logits.log_softmax(1), target.log_softmax(1), reduction="batchmean", log_target=True)


def direction(f: Forward, x: Tensor, logits: Tensor, d: Tensor, xi: float, iterations: int) -> Tensor:
    """Unit vectors in which f's predictions change most, by power iterations from `d`, shaped like `x`.

    Algorithm 1 of Miyato et al.: d <- grad_r KL(f(x) || f(x + r)) at r = xi d. `logits` are f(x).
    """
    for _ in range(iterations):
        r = (xi * unit(d)).requires_grad_()
        (d,) = torch.autograd.grad(divergence(logits, f(x + r)), r)
    return unit(d)


def vat(f: Forward, x: Tensor, logits: Tensor, d: Tensor, config: VAT) -> Tensor:
    """KL(f(x) || f(x + eps r)), with no gradient of f(x), as in Miyato et al.; `logits` are f(x), `d` ~ N(0, 1).

    Oliver et al. take KL(f(x + eps r) || f(x)), and the entropy of f(x + eps r) where here it is that of f(x).
    """
    logits = logits.detach()
    r = direction(f, x, logits, d, config.xi, config.iterations)
    return divergence(logits, f(x + config.eps * r))


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the softmax, in nats, a mean over rows (Grandvalet & Bengio 2005)."""
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Passes that leave running statistics of batch norm as they are: of rows that are no images of the data set."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    try:
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
