"""Networks as a sequence of stages, so that a plan can mix between any two of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, overload

import torch
from torch import Generator, Tensor, nn

from .plans import Plans


class Staged(nn.Module):
    """A network f = g_k o h_k for every k: `h_k` is the first k stages, `g_k` the rest (section 2 of the paper).

    Layer 0 is the input, layer k the output of stage k; plans may mix at layers 0 to K - 1 of K stages. Everything
    goes through `forward`, the one call that DDP and autocast wrap.

    Examples:
        >>> import torch
        >>> from mmgan.mixup import ClassifierMixup, Staged
        >>> network = Staged(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
        >>> x, y = torch.rand(8, 3), torch.eye(2)[torch.arange(8) % 2]
        >>> logits, targets = network(x, ClassifierMixup(layers=(0, 1)).draw(8), y)
        >>> logits.shape, targets.shape
        (torch.Size([8, 2]), torch.Size([8, 2]))
    """

    def __init__(self, *stages: nn.Module, preprocess: nn.Module | None = None) -> None:
        """`preprocess`, if given, computes h_0(x), the input that is mixed at layer 0, from x."""
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.preprocess = preprocess

    @property
    def depth(self) -> int:
        """Number of layers available for mixing: 0 to depth - 1."""
        return len(self.stages)

    @overload
    def forward(
        self, x: Tensor, plans: Plans = ..., y: None = ..., start: int | None = ..., stop: int | None = ...
    ) -> Tensor: ...
    @overload
    def forward(
        self, x: Tensor, plans: Plans, y: Tensor, start: int | None = ..., stop: int | None = ...
    ) -> tuple[Tensor, Tensor]: ...
    def forward(
        self,
        x: Tensor,
        plans: Plans = Plans(),  # noqa: B008
        y: Tensor | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """f(x), mixed by `plans`; h_k(x) with `stop=k`; g_k(h) with `start=k`, without preprocessing even for k = 0.

        `x` is [N, ...]. With targets `y` [N, ...], also returns the targets of the output rows, mixed like the rows.
        Raises ValueError for a plan at a layer outside the pass, or for a number of rows other than that of `x`.
        """
        stop = len(self.stages) if stop is None else stop
        h = self.preprocess(x) if start is None and self.preprocess is not None else x
        start = start or 0
        plans.check(start, stop)
        for layer in range(start, stop):
            h, y = plans.mix(layer, h, y)
            h = self.stages[layer](h)
        return h if y is None else (h, y)


@torch.no_grad()
def check_layers(rule: Any, network: nn.Module, x: Tensor, generator: Callable[[int], Generator]) -> None:
    """Raise ValueError for layers that `network` does not have or at which `rule` cannot mix.

    A copy of the network, whose statistics may change, mixes the rows `x` (as many as plans for a batch of two need)
    once at each of the rule's layers, with draws from `generator`(layer).
    """
    depth = getattr(network, "depth", None)
    if depth is None:
        raise ValueError(f"to be mixed, {type(network).__name__} must be Staged or Mixable")
    if max(rule.layers) >= depth:
        raise ValueError(f"the network has layers 0 (its input) to {depth - 1}")
    network = copy.deepcopy(network)
    for layer in rule.layers:
        try:
            network(x, replace(rule, layers=(layer,)).draw(2, generator(layer)))
        except RuntimeError as error:
            raise ValueError(str(error)) from error
