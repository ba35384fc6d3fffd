"""Mixup in any existing network: layers by module name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from .plans import Plans


class Mixable(nn.Module):
    """Add mixup to a network: layer 0 is its input, layer k the output of the module `names[k - 1]`.

    `names` are from `network.named_modules()`, in the order in which these modules run. Hooks exist only during a
    forward pass, so copying, saving or compiling the network is not affected. If plain rows are kept, a batch norm
    after the mixing sees them together with the mixed ones, so a mixed row then depends on more than its two rows. A
    module called by `torch.utils.checkpoint` runs again in the backward pass, without its hook, so its output cannot be
    mixed; name the module around it, whose forward calls `checkpoint`.

    Raises ValueError, listing the network's modules, for an unknown name.

    Examples:
        >>> import torch
        >>> from mmgan.mixup import ClassifierMixup, Mixable
        >>> network = Mixable(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)), ["1"])
        >>> x, y = torch.rand(8, 3), torch.eye(2)[torch.arange(8) % 2]
        >>> logits, targets = network(x, ClassifierMixup(layers=(0, 1)).draw(8), y)
        >>> logits.shape, targets.shape
        (torch.Size([8, 2]), torch.Size([8, 2]))
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        modules = dict(network.named_modules())
        for name in names:
            if not name or name not in modules:
                raise ValueError(f"no module {name!r} in the network; it has {', '.join(filter(None, modules))}")
        self.network, self.names = network, tuple(names)

    @property
    def depth(self) -> int:
        """Number of layers available for mixing: 0 to depth - 1."""
        return len(self.names) + 1

    def forward(self, x: Tensor, plans: Plans = Plans(), y: Tensor | None = None) -> Any:  # noqa: B008
        """The network's output for `x` [N, ...], mixed by `plans`; with targets `y` [N, ...], the mixed targets too.

        Raises ValueError for a layer without a name or plans for another number of rows; RuntimeError if a named module
        did not run exactly once, ran before an earlier one in `names`, is inside a checkpointed part, or did not return
        a single tensor (mixing would otherwise silently be missing or wrong).
        """
        if not plans:
            return self.network(x) if y is None else (self.network(x), y)
        plans.check(0, self.depth)
        mixed_at = {plan.layer for plan in plans.plans}
        ran: list[int] = []

        def hook(layer: int, _module: nn.Module, _args: object, output: Any) -> Any:
            nonlocal y
            name = self.names[layer - 1]
            if layer in mixed_at and layer in ran:
                raise RuntimeError(f"module {name!r} runs more than once in a pass")
            if ran and layer < max(ran):
                raise RuntimeError(f"module {self.names[max(ran) - 1]!r} runs before {name!r}; list it before")
            if layer in mixed_at:
                if _is_checkpointed():
                    raise RuntimeError(
                        f"module {name!r} is inside a part that activation checkpointing runs again in the backward "
                        "pass, unmixed; name a module around that part, or turn checkpointing off"
                    )
                if not isinstance(output, Tensor):
                    raise RuntimeError(f"module {name!r} returns {type(output).__name__}, not one tensor")
                for other in mixed_at.intersection(range(1, layer)).difference(ran):
                    raise RuntimeError(f"module {name!r} runs before {self.names[other - 1]!r}, or without it")
                output, y = plans.mix(layer, output, y)
            ran.append(layer)
            return output

        handles = []
        try:
            for layer, name in enumerate(self.names, 1):
                handles.append(self.network.get_submodule(name).register_forward_hook(partial(hook, layer)))
            x, y = plans.mix(0, x, y)
            output = self.network(x)
        finally:
            for handle in handles:
                handle.remove()
        for layer in mixed_at - {0} - set(ran):
            raise RuntimeError(f"module {self.names[layer - 1]!r} did not run, so nothing was mixed")
        return output if y is None else (output, y)


def _is_checkpointed() -> bool:
    """Whether a hook of `Mixable.forward` runs inside `torch.utils.checkpoint`, which only the call stack shows."""
    frame = None if torch.compiler.is_compiling() else sys._getframe(1)
    while frame and frame.f_code is not Mixable.forward.__code__:
        if frame.f_globals.get("__name__") == torch.utils.checkpoint.__name__:
            return True
        frame = frame.f_back
    return False
