"""The losses of classifiers, and the plans of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mmgan.engine.randomness import Draws, stream
from mmgan.mixup import ClassifierRule, Plans

Forward = Callable[..., Any]
"""A network that is called like `Staged`: f(x) are logits, f(x, plans, targets) logits and mixed targets."""


class ClassifierLoss(ABC):
    """A loss on logits and soft targets. To add one, write another subclass, here or in a file of your own."""

    @abstractmethod
    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over rows: `logits` [B, classes], `targets` floating point [B, classes] of rows that sum to 1."""


@dataclass(frozen=True)
class CrossEntropy(ClassifierLoss):
    """Cross entropy."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """-sum_c y_c log p_c, a mean over rows."""
        return F.cross_entropy(logits, targets)


@dataclass(frozen=True)
class BCESoftmax(ClassifierLoss):
    """The authors' code: binary cross entropy of every class's softmax probability."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """-(y_c log p_c + (1 - y_c) log(1 - p_c)) of the softmax p, a mean over rows and classes.

        Logarithms are clamped at -100, as in torch's binary cross entropy, which the authors' code uses.
        """
        return F.binary_cross_entropy(logits.softmax(1), targets)


def draw(rule: ClassifierRule | None, batch_size: int, draws: Draws, number: int, blocks: int) -> Plans:
    """This process's share of the plans that `rule`, if any, draws for the global batch `number`, on its device.

    Both rows of a pair lie in the same one of `blocks` equal parts of the batch, a multiple of the number of processes.
    """
    if rule is None:
        return Plans(rows=batch_size // draws.world)
    plans = rule.draw(batch_size, stream(draws.seed, "plan", number), blocks)
    return plans.share(draws.rank, draws.world).to(draws.device)
