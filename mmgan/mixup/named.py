"""Mixup in networks nobody here wrote: layers by module name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from .plan import Plan, mix_at


class Mixable(nn.Module):
    """Make a network mix, as `Mixable(network, names)(x, *plans)`: layer 0 is x, layer k the output of `names[k - 1]`.

    `names` are those of `network.named_modules()`. The hooks live for one forward pass only: copying, saving or
    compiling the network sees none of them. Where a plan keeps the plain rows, a batch norm above the mix sees them and
    the mixed ones together; then a mixed row no longer depends on its two rows alone.

    Raises ValueError, naming the modules there are, for a name that is not among them.
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
        """Number of layers there are to mix at: 0 to depth - 1."""
        return len(self.names) + 1

    def forward(self, x: Tensor, *plans: Plan) -> Any:
        """The network's output for `x` [N, ...], mixed by `plans` on the way.

        Raises ValueError for a layer without a name, RuntimeError when a named module did not run exactly once or
        put out something other than one tensor (the mix would then silently be none, or another than asked for).
        """
        layers = {plan.layer for plan in plans} - {0}
        if not layers <= set(range(self.depth)):
            raise ValueError(f"cannot mix at layers {sorted(layers)}; there are layers 0 to {self.depth - 1}")
        runs = dict.fromkeys(layers, 0)

        def mix(layer: int, _module: nn.Module, _args: object, output: object) -> Tensor:
            if not isinstance(output, Tensor):
                raise RuntimeError(f"module {self.names[layer - 1]!r} puts out {type(output).__name__}, not one tensor")
            runs[layer] += 1
            if runs[layer] > 1:
                raise RuntimeError(f"module {self.names[layer - 1]!r} runs more than once in a pass")
            return mix_at(layer, output, plans)

        handles = []
        try:
            for layer in layers:
                hook: Callable[..., Tensor] = partial(mix, layer)
                handles.append(self.network.get_submodule(self.names[layer - 1]).register_forward_hook(hook))
            output = self.network(mix_at(0, x, plans))
        finally:
            for handle in handles:
                handle.remove()
        for layer, n in runs.items():
            if n == 0:
                raise RuntimeError(f"module {self.names[layer - 1]!r} did not run, so nothing was mixed")
        return output
