"""The supervised objective: section 2 and Algorithm 2, with either loss."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from mmgan.mixup import Plan

Forward = Callable[..., Tensor]
"""A network, as `f(x, *plans)`."""
Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-sum_c y_c log p_c, a mean over rows; `logits` [B, C], `targets` floating point [B, C] of rows that sum to 1."""
    return F.cross_entropy(logits, targets)


def bce_softmax(logits: Tensor, targets: Tensor) -> Tensor:
    """-(y_c log p_c + (1 - y_c) log(1 - p_c)) of the softmax p, a mean over rows and classes: the authors' code.

    Logarithms are cut off at -100, as by torch's binary cross entropy, which theirs is.
    """
    return F.binary_cross_entropy(logits.softmax(1), targets)


LOSSES: dict[str, Loss] = {"ce": cross_entropy, "bce_softmax": bce_softmax}


def supervised(network: Forward, x: Tensor, y: Tensor, plan: Plan | None, loss: Loss) -> Tensor:
    """L(g_k(Mix_lam(h_k(x), h_k(x'))), Mix_lam(y, y')), Eq. 1; without a plan L(f(x), y).

    `x` float32 [B, C, R, R], `y` float32 [B, classes], one-hot.
    """
    if plan is None:
        return loss(network(x), y)
    return loss(network(x, plan), plan.mix(y))
