"""AdaMixUp (Guo, Mao & Zhang 2019): a network learns between which coefficients every pair may be mixed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from ..plans import Plan, Plans
from ._draws import Seeded, seeded
from .classifier import ClassifierRule


@dataclass(frozen=True, eq=False)
class Adaptive(Seeded):
    """An interpolation by lam = low + width * U(0, 1), of which lam has a gradient through the mixed states alone."""

    low: Tensor = field(kw_only=True)
    """Least lam of each pair, floating point [M]; 0 until the policy is asked."""
    width: Tensor = field(kw_only=True)
    """Length of its interval, floating point [M]; 1 until the policy is asked, so that `lam` is the U(0, 1)."""

    def blend(self, x: Tensor) -> Tensor:
        """What the policy sees of the pairs of `x` [N, ...]: (m * x[left] + m' * x[right]) / 2, [M, ...].

        m and m' are N(0, 1) cut off at 2 deviations, another number for every pixel.
        """
        m = torch.empty(2, self.pairs, *x.shape[1:], device=x.device)
        m = nn.init.trunc_normal_(m, a=-2, b=2, generator=self.generator(x.device))[:, self.row]
        return (m[0] * x[self.left] + m[1] * x[self.right]) / 2

    def share_of_left(self, h: Tensor) -> Tensor:  # noqa: ARG002
        """`lam`, without a gradient, as the authors' framework leaves targets without one."""
        return self.lam.detach()


class Policy(nn.Module):
    """The interval of a pair: softmax of two linear layers, with nothing between them, on features of the blend."""

    def __init__(self, backbone: nn.Module, size: int) -> None:
        """`backbone` makes features [M, size] of images: a network of the classifier's kind with weights of its own."""
        super().__init__()
        self.backbone = backbone
        self.interval = _two_layers(size, 100, 3)

    def forward(self, blend: Tensor) -> Tensor:
        """Least lam, length of the interval, and the rest of 1: [M, 3], rows that sum to 1."""
        return cast("Tensor", self.interval(self.backbone(blend)).float().softmax(1))


def _two_layers(size: int, between: int, out: int) -> nn.Sequential:
    layers = nn.Linear(size, between), nn.Linear(between, out)
    for layer in layers:
        nn.init.normal_(layer.weight, std=1e-3)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


@dataclass(frozen=True, kw_only=True)
class AdaMixUp(ClassifierRule):
    """AdaMixUp: every pair has its own lam, from an interval that a second network, the policy, learns.

    The first half of a batch, x1, is mixed with rows of the whole batch; the second half, u, is not. A head beside the
    last layer learns to tell mixed rows from x1 and u (the intrusion loss), and the policy, by the same loss, to make
    mixes for which it can. At the input as published; at hidden layers as our extension, the policy seeing the images.

    >>> import torch
    >>> from mmgan.mixup import AdaMixUp
    >>> rule, x = AdaMixUp(), torch.rand(8, 3)
    >>> plans = rule.complete(rule.policy(lambda: torch.nn.Linear(3, 5), 5), x, rule.draw(8))
    >>> plans.plans[0].lam.shape, plans.plans[0].lam.requires_grad
    (torch.Size([4]), True)
    """

    learns: ClassVar[bool] = True
    layers: Sequence[int] = (0,)
    """Layers to mix at, drawn uniformly: 0 is the input, k the output of the network's stage k."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.detach:
            raise ValueError("mixup.detach blocks the gradient that AdaMixUp's policy learns by; leave it out")

    def plan(self, left: Tensor, right: Tensor, generator: Generator | None) -> Plan:
        """A plan whose lam is U(0, 1) of each pair until `complete` has asked the policy."""
        lam = torch.rand(left.shape, generator=generator)
        low, width = torch.zeros_like(lam), torch.ones_like(lam)
        return Adaptive(0, left, right, lam, **seeded(left, generator), low=low, width=width)

    def draw(self, batch_size: int, generator: Generator | None = None, blocks: int = 1) -> Plans:
        """As of every rule, but that of each block the first half alone is mixed, and that the plain rows are kept.

        Raises ValueError for blocks of an odd number of rows, too.
        """
        drawn = super().draw(batch_size, generator, blocks)
        share = batch_size // blocks
        if share % 2:
            raise ValueError(f"AdaMixUp mixes one half of a batch, which {share} rows do not have; take an even number")
        first = torch.arange(batch_size) % share < share // 2
        return replace(drawn, plans=tuple(plan.take(first) for plan in drawn.plans), keep=True)

    def policy(self, backbone: Callable[[], nn.Module], size: int) -> Policy:
        """The network that learns the intervals."""
        return Policy(backbone(), size)

    def head(self, size: int) -> nn.Module:
        """The intrusion head: two linear layers, with nothing between them."""
        return _two_layers(size, 10, 2)

    def complete(self, policy: Callable[[Tensor], Tensor], x: Tensor, plans: Plans) -> Plans:
        """The plans with lam = low + width * U(0, 1), low and width by `policy` from the pairs of `x` [N, ...]."""
        return replace(plans, plans=tuple(self._ask(policy, x, cast("Adaptive", plan)) for plan in plans.plans))

    @staticmethod
    def _ask(policy: Callable[[Tensor], Tensor], x: Tensor, plan: Adaptive) -> Adaptive:
        low, width, _ = policy(plan.blend(x)).unbind(1)
        return replace(plan, lam=low + width * plan.lam, low=low, width=width)

    def terms(
        self, outputs: Tensor, targets: Tensor, plans: Plans, loss: Callable[[Tensor, Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """`supervised`, a mean over mixed rows and x1, and `intrusion`, one over u and x1 (class 1) and mixed ones (0).

        The columns of `outputs` after the logits are the head's.
        """
        logits, intrusion = outputs.split([targets.shape[1], 2], 1)
        rows = torch.arange(len(outputs), device=outputs.device)
        seen = torch.cat([*(plan.left for plan in plans.plans), rows[plans.plain :]])
        return {
            "supervised": loss(logits[seen], targets[seen]),
            "intrusion": F.cross_entropy(intrusion, (rows < plans.plain).long()),
        }

    def watch(self, plans: Plans) -> dict[str, Tensor]:
        """The ends of the interval, means over the batch: `interval/low` and `interval/high`, scalars."""
        low, width = (torch.cat([getattr(plan, end).detach() for plan in plans.plans]) for end in ("low", "width"))
        return {"interval/low": low.mean(), "interval/high": (low + width).mean()}
