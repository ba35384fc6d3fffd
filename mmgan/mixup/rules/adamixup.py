"""AdaMixUp (Guo, Mao & Zhang 2019): a network learns the interval of the coefficients for every pair."""

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
    """An interpolation by lam = low + width * U(0, 1), where lam has a gradient only through the mixed states."""

    low: Tensor = field(kw_only=True)
    """Smallest lam of each pair, floating point [M]; 0 until the policy is called."""
    width: Tensor = field(kw_only=True)
    """Length of its interval, floating point [M]; 1 until the policy is called, so that `lam` is the U(0, 1)."""

    def blend(self, x: Tensor) -> Tensor:
        """The policy's input for the pairs of `x` [N, ...]: (m * x[left] + m' * x[right]) / 2, [M, ...].

        m and m' are N(0, 1) truncated at 2 standard deviations, drawn independently for every pixel.
        """
        m = torch.empty(2, self.pairs, *x.shape[1:], device=x.device)
        m = nn.init.trunc_normal_(m, a=-2, b=2, generator=self.generator(x.device))[:, self.row]
        return (m[0] * x[self.left] + m[1] * x[self.right]) / 2

    def share_of_left(self, h: Tensor) -> Tensor:  # noqa: ARG002
        """`lam`, without a gradient, as for targets in the authors' framework."""
        return self.lam.detach()


class Policy(nn.Module):
    """The interval of a pair: softmax of two linear layers, with no nonlinearity between, on features of the blend."""

    def __init__(self, backbone: nn.Module, size: int) -> None:
        """`backbone` maps images to features [M, size]: a network of the classifier's kind with separate weights."""
        super().__init__()
        self.backbone = backbone
        self.interval = _two_layers(size, 100, 3)

    def forward(self, blend: Tensor) -> Tensor:
        """Smallest lam, length of the interval, and the remainder: [M, 3], rows that sum to 1."""
        return cast("Tensor", self.interval(self.backbone(blend)).float().softmax(1))


def _two_layers(size: int, between: int, out: int) -> nn.Sequential:
    layers = nn.Linear(size, between), nn.Linear(between, out)
    for layer in layers:
        nn.init.normal_(layer.weight, std=1e-3)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


@dataclass(frozen=True, kw_only=True)
class AdaMixUp(ClassifierRule):
    """AdaMixUp: every pair has a separate lam, from an interval that a second network, the policy, learns.

    The first half of a batch, x1, is mixed with rows of the whole batch; the second half, u, is not. A head next to the
    last layer learns to distinguish mixed rows from x1 and u (the intrusion loss), and the policy learns, by the same
    loss, to make mixes that this head can distinguish. Published for the input; at hidden layers, where the policy
    still sees the images, it is our extension.

    Examples:
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
            raise ValueError("mixup.detach blocks the gradient that AdaMixUp's policy learns from; leave it out")

    def plan(self, left: Tensor, right: Tensor, generator: Generator | None) -> Plan:
        """A plan whose lam is U(0, 1) for each pair until `complete` has called the policy."""
        lam = torch.rand(left.shape, generator=generator)
        low, width = torch.zeros_like(lam), torch.ones_like(lam)
        return Adaptive(0, left, right, lam, **seeded(left, generator), low=low, width=width)

    def draw(self, batch_size: int, generator: Generator | None = None, blocks: int = 1) -> Plans:
        """As in every rule, except that only the first half of each block is mixed and the plain rows are kept.

        Also raises ValueError for blocks with an odd number of rows.
        """
        drawn = super().draw(batch_size, generator, blocks)
        share = batch_size // blocks
        if share % 2:
            raise ValueError(f"AdaMixUp mixes one half of a batch, so {share} rows do not work; use an even number")
        first = torch.arange(batch_size) % share < share // 2
        return replace(drawn, plans=tuple(plan.take(first) for plan in drawn.plans), keep=True)

    def policy(self, backbone: Callable[[], nn.Module], size: int) -> Policy:
        """The network that learns the intervals."""
        return Policy(backbone(), size)

    def head(self, size: int) -> nn.Module:
        """The intrusion head: two linear layers, with no nonlinearity between them."""
        return _two_layers(size, 10, 2)

    def complete(self, policy: Callable[[Tensor], Tensor], x: Tensor, plans: Plans) -> Plans:
        """The plans with lam = low + width * U(0, 1), with `policy`'s low and width for the pairs of `x` [N, ...]."""
        return replace(plans, plans=tuple(self._ask(policy, x, cast("Adaptive", plan)) for plan in plans.plans))

    @staticmethod
    def _ask(policy: Callable[[Tensor], Tensor], x: Tensor, plan: Adaptive) -> Adaptive:
        low, width, _ = policy(plan.blend(x)).unbind(1)
        return replace(plan, lam=low + width * plan.lam, low=low, width=width)

    def terms(
        self, outputs: Tensor, targets: Tensor, plans: Plans, loss: Callable[[Tensor, Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """`supervised`, a mean over mixed rows and x1, and `intrusion`, one over u and x1 (class 1) and mixed rows (0).

        The columns of `outputs` after the logits are those of the head.
        """
        logits, intrusion = outputs.split([targets.shape[1], 2], 1)
        rows = torch.arange(len(outputs), device=outputs.device)
        seen = torch.cat([*(plan.left for plan in plans.plans), rows[plans.plain :]])
        return {
            "supervised": loss(logits[seen], targets[seen]),
            "intrusion": F.cross_entropy(intrusion, (rows < plans.plain).long()),
        }

    def watch(self, plans: Plans) -> dict[str, Tensor]:
        """The ends of the interval, averaged over the batch: `interval/low` and `interval/high`, scalars."""
        low, width = (torch.cat([getattr(plan, end).detach() for plan in plans.plans]) for end in ("low", "width"))
        return {"interval/low": low.mean(), "interval/high": (low + width).mean()}
