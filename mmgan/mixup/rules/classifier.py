"""Mixup in a classifier: Eq. 1 and Algorithm 2."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from ..plans import Plan, Plans
from ._draws import beta, check, one_of


@dataclass(frozen=True, kw_only=True)
class ClassifierRule(ABC):
    """Every row is mixed with a row of its batch, possibly itself, at one layer per batch. A rule's `plan` defines how.

    A rule that `learns` has parameters: those of `policy`, with which `complete` fills in what `draw` leaves open, and
    those of `head`, whose outputs `terms` may use. They are trained with the network, by the same loss, and saved with
    it.

    Examples:
        >>> from dataclasses import dataclass
        >>> import torch
        >>> from mmgan.mixup import ClassifierRule, Plan
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Halves(ClassifierRule):
        ...     def plan(self, left, right, generator):
        ...         return Plan(0, left, right, torch.tensor(0.5))
        >>> Halves(layers=(1,)).draw(4).plans[0].layer
        1
    """

    learns: ClassVar[bool] = False
    """Whether the rule has parameters."""
    layers: Sequence[int] = (0, 1, 2)
    """Layers to mix at, drawn uniformly: 0 is the input, k the output of the network's stage k."""
    detach: bool = False
    """Stop the gradient at the mixed states, so that only layers above them learn: the ablation of section 5.1."""

    def __post_init__(self) -> None:
        check(self)

    @abstractmethod
    def plan(self, left: Tensor, right: Tensor, generator: Generator | None) -> Plan:
        """How the rows `left` are mixed with the rows `right`, int64 [M]; `draw` sets the layer."""

    def draw(self, batch_size: int, generator: Generator | None = None, blocks: int = 1) -> Plans:
        """The plans of one batch: one layer, and a random permutation of the batch as right rows.

        With `blocks`, the permutation stays within this many equal parts of the batch, so that this number of
        processes, or a divisor of it, can share the same pairs. Tensors are on the CPU and depend only on the CPU
        generator `generator`. Raises ValueError if the batch does not divide into blocks.
        """
        share, rest = divmod(batch_size, blocks)
        if rest:
            raise ValueError(f"a batch of {batch_size} rows does not divide into {blocks} blocks")
        layer = one_of(self.layers, generator)
        right = torch.cat([torch.randperm(share, generator=generator) + b * share for b in range(blocks)])
        plan = self.plan(torch.arange(batch_size), right, generator)
        return Plans((replace(plan, layer=layer, detach=self.detach),), rows=batch_size)

    def policy(self, backbone: Callable[[], nn.Module], size: int) -> nn.Module | None:  # noqa: ARG002
        """The network with which the rule learns how to mix, for `complete`; None: none.

        `backbone()` is a new network of the classifier's kind that maps images to features [N, size].
        """
        return None

    def head(self, size: int) -> nn.Module | None:  # noqa: ARG002
        """A second head on the classifier's features, from [N, size] to [N, columns]; None: none."""
        return None

    def complete(self, policy: Callable[..., Tensor], x: Tensor, plans: Plans) -> Plans:  # noqa: ARG002
        """`plans`, as drawn, completed by the output of `policy` for images `x` [N, ...], the input of layer 0."""
        return plans

    def terms(
        self,
        outputs: Tensor,
        targets: Tensor,
        plans: Plans,  # noqa: ARG002
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> dict[str, Tensor]:
        """Terms of the loss by name, scalars whose sum is minimised: Eq. 1, L(g_k(Mix(h_k(x), h_k(x'))), Mix(y, y')).

        `outputs` [R, classes + columns of the head] and `targets` [R, classes] are those of the output rows.
        """
        return {"supervised": loss(outputs, targets)}

    def watch(self, plans: Plans) -> dict[str, Tensor]:  # noqa: ARG002
        """Scalars by name, from completed plans, to log with the losses."""
        return {}


@dataclass(frozen=True, kw_only=True)
class ClassifierMixup(ClassifierRule):
    """Manifold Mixup, Eq. 1; Input Mixup with layers [0].

    Examples:
        >>> from mmgan.mixup import ClassifierMixup
        >>> (plan,) = ClassifierMixup(alpha=2.0, layers=(0, 1)).draw(8).plans
        >>> sorted(plan.right.tolist())
        [0, 1, 2, 3, 4, 5, 6, 7]
    """

    alpha: float = 2.0
    """Strength of mixing, positive: lam ~ Beta(alpha, alpha)."""
    lam_per: Literal["batch", "pair"] = "batch"
    """Draw one coefficient per minibatch (as in the paper) or one per pair."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha > 0:
            raise ValueError(f"mixup.alpha must be positive, not {self.alpha}")

    def plan(self, left: Tensor, right: Tensor, generator: Generator | None) -> Plan:
        """An interpolation by lam ~ Beta(alpha, alpha)."""
        return Plan(0, left, right, beta(self.alpha, () if self.lam_per == "batch" else left.shape, generator))
