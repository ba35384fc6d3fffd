"""Semi-supervised methods: what unlabelled images add to the loss (section 5.2, appendices D and E).

A method is a class whose fields are its options, one per file. A file added to this folder is imported with the others,
so that the option `ssl` can name its class.

Every pass is of unlabelled rows only, so that batch norm never computes statistics over labelled and unlabelled rows
together: Algorithms 1 and 3 pass them one after the other, the code of Oliver et al. (2018) in one batch.
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
    """A process's share of a batch of unlabelled images, and what else a method may need."""

    f: Forward
    """The network in training, called like `Staged`."""
    x: Tensor
    """A random view of the images, as layer 0 takes them: float32 [B, C, R, R]."""
    again: Callable[[], Tensor]
    """Another random view of the same images."""
    noise: Callable[[str], Tensor]
    """N(0, 1) noise shaped like `x`, different for every purpose."""
    plans: Plans
    """The plans that the method's rule drew for these images; nothing to mix if it has no rule."""
    teacher: Forward
    """The network with averaged weights, called like `f`; the network itself if the method keeps no average."""
    frozen: Callable[[], AbstractContextManager[None]]
    """A context within which passes leave the network's running statistics as they are."""


@dataclass(frozen=True, kw_only=True)
class SemiSupervised(ABC):
    """The options of all methods."""

    weight: float = 1.0
    """The largest weight of the method's loss; appendix E uses 1 for CIFAR-10 and 2 for SVHN."""
    ramp_until: float = 0.4
    """Share of the updates, in [0, 1], over which the weight rises to its largest value; 0: it starts there."""
    ramp_from: Literal["zero", "official"] = "zero"
    """Where the weight starts: at 0 (appendix E), or at exp(-5) times its largest value, as in the authors' code."""
    batch_size: int | None = None
    """Unlabelled images per step, over all processes; null: the number of labelled ones, as in the authors' code."""

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
        """The method's mixup rule, if it has one."""
        return None

    def teacher_decay(self, number: int) -> float | None:  # noqa: ARG002
        """The decay of the teacher, an average of the network's weights, in update `number`, counted from 0.

        None: there is no teacher.
        """
        return None

    def check(self, config: ClassifierConfig) -> None:  # noqa: B027
        """Raise ValueError for options of other sections that are incompatible with the method."""

    @abstractmethod
    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss by name, scalars: `unsupervised`, multiplied by weight and ramp, and others as they are.

        Every pass must have as many rows as the batch, so that processes stay in step.
        """

    def ramp(self, done: float) -> float:
        """The factor on the weight after a share `done` of training: exp(-5 (1 - done / until)^2), then 1.

        Appendix E. With `ramp_from` zero it is shifted and scaled to start at 0.
        """
        if done >= self.ramp_until:
            return 1.0
        rise, start = math.exp(-5 * (1 - done / self.ramp_until) ** 2), math.exp(-5)
        return rise if self.ramp_from == "official" else (rise - start) / (1 - start)


@torch.no_grad()
def predictions(f: Forward, x: Tensor, compare: Compare) -> Tensor:
    """Targets without gradient, [B, classes]: probabilities or logits."""
    logits: Tensor = f(x)
    return logits if compare == "logits" else logits.softmax(1)


def squared_difference(logits: Tensor, targets: Tensor, compare: Compare) -> Tensor:
    """The mean over rows and classes; `targets` [B, classes] are probabilities or logits, as `compare` says."""
    return F.mse_loss(logits if compare == "logits" else logits.softmax(1), targets)


modules.import_all(__name__)
