"""Semi-supervised methods: what images without labels add to the loss (section 5.2, appendices D and E).

A method is a class with options of its own, one a file. A file added to this folder is imported with it, so that its
class is a value of the option `ssl`.

Every pass is of unlabelled rows alone, so that batch norm never takes statistics of labelled and unlabelled ones
together: Algorithms 1 and 3 pass them one after the other, Oliver et al.'s code (2018) in one batch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from classifiers.supervised import Forward
from mmgan import modules
from mmgan.mixup import ClassifierRule, Plans

if TYPE_CHECKING:
    from classifiers.config import ClassifierConfig

Compare = Literal["probabilities", "logits"]


@dataclass(frozen=True)
class Batch:
    """A process's share of a batch of unlabelled images, and what a method may need besides."""

    f: Forward
    """The network in training, called like `Staged`."""
    x: Tensor
    """A random view of the images, as layer 0 takes them: float32 [B, C, R, R]."""
    again: Callable[[], Tensor]
    """Another random view of the same images."""
    noise: Callable[[str], Tensor]
    """N(0, 1) of the shape of `x`; every purpose has its own."""
    plans: Plans
    """What the method's rule has drawn for these images; nothing to mix where it has no rule."""
    teacher: Forward
    """The average of the network's weights, called like `f`; the network itself where the method keeps none."""
    frozen: Callable[[], AbstractContextManager[None]]
    """While entered, passes leave the network's running statistics as they are."""


@dataclass(frozen=True, kw_only=True)
class SemiSupervised(ABC):
    """What all methods are told."""

    weight: float = 1.0
    """The largest weight of the method's loss; appendix E has 1 for CIFAR-10 and 2 for SVHN."""
    ramp_until: float = 0.4
    """Share of the updates over which the weight rises to that; 0: it starts there."""
    ramp_from: Literal["zero", "official"] = "zero"
    """It rises from 0 (appendix E), or from exp(-5) of itself as in the authors' code."""
    batch_size: int | None = None
    """Unlabelled images of a step, over all processes; null: as many as labelled ones, as in the authors' code."""

    def __post_init__(self) -> None:
        for name in ("weight", "batch_size"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"ssl.{name} must be positive, not {value}")
        if self.rule and self.rule.detach:
            raise ValueError("ssl.mixup.detach is an ablation of supervised learning; leave it out")
        if not 0 <= self.ramp_until <= 1:
            raise ValueError(f"ssl.ramp_until must be in [0, 1], not {self.ramp_until}")
        if self.ramp_from == "official" and not self.ramp_until:
            raise ValueError("ssl.ramp_from official needs ssl.ramp_until")

    @property
    def rule(self) -> ClassifierRule | None:
        """The rule by which the method mixes, if it does."""
        return None

    def teacher_decay(self, number: int) -> float | None:  # noqa: ARG002
        """How much of itself a teacher, the average of the network's weights, keeps in update `number`, from 0 on.

        None: there is no teacher.
        """
        return None

    def check(self, config: ClassifierConfig) -> None:  # noqa: B027
        """Raise ValueError for options of other sections that do not go with the method."""

    @abstractmethod
    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss by name, scalars: `unsupervised`, which weight and ramp multiply, and others as they are.

        Every pass is of as many rows as the batch has, so that processes stay in step.
        """

    def ramp(self, done: float) -> float:
        """The share of the weight that counts when `done` of 1 is done: exp(-5 (1 - done / until)^2), then 1.

        Appendix E. From "zero" it is moved and stretched to start at 0.
        """
        if done >= self.ramp_until:
            return 1.0
        rise, start = math.exp(-5 * (1 - done / self.ramp_until) ** 2), math.exp(-5)
        return rise if self.ramp_from == "official" else (rise - start) / (1 - start)


@torch.no_grad()
def predictions(f: Forward, x: Tensor, compare: Compare) -> Tensor:
    """Targets without gradient, [B, classes]: probabilities, or logits."""
    logits: Tensor = f(x)
    return logits if compare == "logits" else logits.softmax(1)


def squared_difference(logits: Tensor, targets: Tensor, compare: Compare) -> Tensor:
    """The mean over rows and classes; `targets` are of the kind `compare` says, [B, classes] like `logits`."""
    return F.mse_loss(logits if compare == "logits" else logits.softmax(1), targets)


modules.import_all(__name__)
