"""Networks as a row of stages, so that a plan can mix between any two of them."""

from __future__ import annotations

from torch import Tensor, nn

from .plan import Plan, mix_at


class Staged(nn.Module):
    """A network f = g_k o h_k for every k: `h_k` is the first k stages, `g_k` the rest (section 2 of the paper).

    Layer 0 is the input, layer k the output of stage k; plans may mix at layers 0 to K - 1 of K stages. Everything
    goes through `forward`, the one call that DDP and autocast wrap.
    """

    def __init__(self, *stages: nn.Module, preprocess: nn.Module | None = None) -> None:
        """`preprocess`, where there is one, makes h_0(x), the input that is mixed at layer 0, from x."""
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.preprocess = preprocess

    @property
    def depth(self) -> int:
        """Number of layers there are to mix at: 0 to depth - 1."""
        return len(self.stages)

    def forward(self, x: Tensor, *plans: Plan, start: int | None = None, stop: int | None = None) -> Tensor:
        """f(x), mixed by `plans` on the way; h_k(x) with `stop=k`; g_k(h) with `start=k`, for k = 0 not preprocessed.

        Raises ValueError for a plan at a layer that is not passed on the way.
        """
        stop = len(self.stages) if stop is None else stop
        h = self.preprocess(x) if start is None and self.preprocess is not None else x
        start = start or 0
        for plan in plans:
            if not start <= plan.layer < stop:
                raise ValueError(f"cannot mix at layer {plan.layer}; this pass has layers {start} to {stop - 1}")
        for layer in range(start, stop):
            h = self.stages[layer](mix_at(layer, h, plans))
        return h
