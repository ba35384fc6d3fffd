"""Networks as a row of stages, so that a plan can mix between any two of them."""

from __future__ import annotations

from torch import Tensor, nn

from .plan import Plan, mix_at


class Staged(nn.Module):
    """A network f = g_k o h_k for every k: `h_k` is the first k stages, `g_k` the rest (section 2 of the paper).

    Layer 0 is the input, layer k the output of stage k; plans may mix at layers 0 to K - 1 of K stages. Everything
    goes through `forward`, the one call that DDP and autocast wrap.
    """

    def __init__(self, *stages: nn.Module) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    @property
    def depth(self) -> int:
        """Number of layers there are to mix at: 0 to depth - 1."""
        return len(self.stages)

    def forward(self, x: Tensor, *plans: Plan, start: int = 0, stop: int | None = None) -> Tensor:
        """f(x), mixed by `plans` on the way; h_k(x) with `stop=k`; g_k(h) with `start=k`.

        Raises ValueError for a plan at a layer that is not passed on the way.
        """
        stop = len(self.stages) if stop is None else stop
        for plan in plans:
            if not start <= plan.layer < stop:
                raise ValueError(f"cannot mix at layer {plan.layer}; this pass has layers {start} to {stop - 1}")
        h = x
        for layer in range(start, stop):
            h = self.stages[layer](mix_at(layer, h, plans))
        return h
