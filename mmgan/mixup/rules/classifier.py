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
    """Every row is mixed with another of its batch, at one layer a batch. A rule says how, by `plan`.

    A rule that `learns` has parameters: of `policy`, from which `complete` takes what `draw` leaves open, and of
    `head`, whose outputs `terms` may use. They are trained with the network, by the same loss, and saved with it.

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
    """Whether the rule has parameters of its own."""
    layers: Sequence[int] = (0, 1, 2)
    """Layers to mix at, drawn uniformly: 0 is the input, k the output of the network's stage k."""
    detach: bool = False
    """Block the gradient right after the mix, so that only layers above it learn: the ablation of section 5.1."""

    def __post_init__(self) -> None:
        check(self)

    @abstractmethod
    def plan(self, left: Tensor, right: Tensor, generator: Generator | None) -> Plan:
        """How the rows `left` are mixed with the rows `right`, int64 [M]; `draw` sets the layer."""

    def draw(self, batch_size: int, generator: Generator | None = None, blocks: int = 1) -> Plans:
        """The plans of one batch: one layer, and a random permutation of the batch as right rows.

        With `blocks` the permutation stays within so many equal parts of the batch, so that as many processes, or a
        divisor of them, can share out the same pairs. Tensors are on the CPU and depend on the CPU generator
        `generator` alone. Raises ValueError for a batch that does not divide into blocks.
        """
        share, rest = divmod(batch_size, blocks)
        if rest:
            raise ValueError(f"a batch of {batch_size} rows does not divide into {blocks} blocks")
        layer = one_of(self.layers, generator)
        right = torch.cat([torch.randperm(share, generator=generator) + b * share for b in range(blocks)])
        plan = self.plan(torch.arange(batch_size), right, generator)
        return Plans((replace(plan, layer=layer, detach=self.detach),), rows=batch_size)

    def policy(self, backbone: Callable[[], nn.Module], size: int) -> nn.Module | None:  # noqa: ARG002
        """What the rule learns to mix by, for `complete`; None: nothing.

        `backbone()` is a new network of the classifier's kind, that makes features [N, size] of images.
        """
        return None

    def head(self, size: int) -> nn.Module | None:  # noqa: ARG002
        """A second head on the features [N, size] of the classifier, which makes [N, columns] of them; None: none."""
        return None

    def complete(self, policy: Callable[..., Tensor], x: Tensor, plans: Plans) -> Plans:  # noqa: ARG002
        """`plans`, as they were drawn, with what `policy` says of the images `x` [N, ...], as layer 0 takes them."""
        return plans

    def terms(
        self,
        outputs: Tensor,
        targets: Tensor,
        plans: Plans,  # noqa: ARG002
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> dict[str, Tensor]:
        """Terms of the loss by name, scalars whose sum is minimised: Eq. 1, L(g_k(Mix(h_k(x), h_k(x'))), Mix(y, y')).

        `outputs` [R, classes + columns of the head] and `targets` [R, classes] are of the rows that come out.
        """
        return {"supervised": loss(outputs, targets)}

    def watch(self, plans: Plans) -> dict[str, Tensor]:  # noqa: ARG002
        """Scalars by name to keep beside the losses, of completed plans."""
        return {}


@dataclass(frozen=True, kw_only=True)
class ClassifierMixup(ClassifierRule):
    """Manifold Mixup, Eq. 1; with layers [0], Input Mixup.

    >>> from mmgan.mixup import ClassifierMixup
    >>> (plan,) = ClassifierMixup(alpha=2.0, layers=(0, 1)).draw(8).plans
    >>> sorted(plan.right.tolist())
    [0, 1, 2, 3, 4, 5, 6, 7]
    """

    alpha: float = 2.0
    """Strength: lam ~ Beta(alpha, alpha)."""
    lam_per: Literal["batch", "pair"] = "batch"
    """One coefficient a minibatch (the paper), or one for every pair."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha > 0:
            raise ValueError(f"mixup.alpha must be positive, not {self.alpha}")

    def plan(self, left: Tensor, right: Tensor, generator: Generator | None) -> Plan:
        """An interpolation by lam ~ Beta(alpha, alpha)."""
        return Plan(0, left, right, beta(self.alpha, () if self.lam_per == "batch" else left.shape, generator))
