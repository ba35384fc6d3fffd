"""Measurements of what a discriminator has learnt: whether mixup works as intended, whether it memorised real images.

Nothing here changes a network: passes are in evaluation mode, where the spectral norm's power iteration is off.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmgan.engine.modes import evaluating
from mmgan.mixup import Plan, Plans

LAYERS = (0, 1, 2)
"""The paper's eligible layers, input, h1 and h2, regardless of where a run mixes."""
LAMS = tuple(round(0.1 * i, 1) for i in range(11))
"""Shares of the real image."""


@torch.no_grad()
def paths(discriminator: nn.Module, real: Tensor, fake: Tensor, y: Tensor | None = None) -> dict[str, list[float]]:
    """d(lam * real + (1 - lam) * fake), mixed at each of LAYERS, for each of LAMS: mean logits, as `path/LAYER`.

    `real`, `fake`: float32 [N, C, R, R] in [-1, 1]; `y`: class vectors of `[real; fake]`, if the discriminator is
    conditional. If mixup works, logits rise evenly from fake to real. Layers that a network lacks are left out; one
    that is neither Staged nor Mixable has none.
    """
    n, rows, both = len(real), torch.arange(len(real), device=real.device), torch.cat([real, fake])
    lams = torch.tensor(LAMS, device=real.device)
    found = {}
    for layer in LAYERS[: getattr(discriminator, "depth", 0)]:
        plans = [Plans((Plan(layer, rows, rows + n, lam),), rows=2 * n) for lam in lams]  # one at a time: it has to fit
        found[f"path/{layer}"] = torch.stack([_logits(discriminator, both, y, one).mean() for one in plans]).tolist()
    return found


@torch.no_grad()
def spectral_norms(network: nn.Module) -> dict[str, float]:
    """The largest singular value of every convolution's and linear layer's weight [out, in * k * k], by layer.

    For the weight as used, after any spectral norm, whose single power iteration gives values near 1.
    """
    return {
        f"spectral_norm/{name.removeprefix('stages.')}": torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item()
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }


@torch.no_grad()
def diagnose(
    discriminator: nn.Module,
    real: Tensor,
    fake: Tensor,
    held_out: Tensor | None,
    classes: Sequence[Tensor] | None = None,
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Scalars, and curves over LAMS, that describe `discriminator`.

    Images are float32 [N, C, R, R] in [-1, 1] on its device; `held_out` are real ones not trained on; for a conditional
    GAN, `classes` are the class vectors of each, in this order. Scalars: mean logits of each kind, `d/gap` between
    training and held-out images (overfitting), and `spectral_norms`.
    """
    named = {"d/real": real, "d/fake": fake} | ({} if held_out is None else {"d/held_out": held_out})
    vectors: Sequence[Tensor | None] = classes or [None] * len(named)
    with evaluating(discriminator):
        found = {
            name: _logits(discriminator, x, y).mean().item()
            for (name, x), y in zip(named.items(), vectors, strict=True)
        }
        if held_out is not None:
            found["d/gap"] = found["d/real"] - found["d/held_out"]
        both = torch.cat([*classes[:2]]) if classes else None
        return found | spectral_norms(discriminator), paths(discriminator, real, fake, both)


def _logits(discriminator: nn.Module, x: Tensor, y: Tensor | None, plans: Plans = Plans()) -> Tensor:  # noqa: B008
    if y is not None:
        return discriminator(x, plans, y)[0]
    return discriminator(x, plans) if plans else discriminator(x)
