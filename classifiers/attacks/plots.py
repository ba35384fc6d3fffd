"""Pictures of attacks on a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from mmgan.engine import files
from mmgan.experiments.figures import LINES
from mmgan.experiments.measures import ATTACKS


def plot_attacks(found: Mapping[str, Any], path: Path) -> None:
    """Accuracy over eps, with confidence intervals, from the results of protocol.py."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for line, (name, label) in zip(LINES, ATTACKS.items(), strict=False):
        rows = [{"eps": 0.0} | found["clean"], *found.get(name, ())]
        if len(rows) > 1:
            eps, middle, low, high = np.array(
                [[row[key] for key in ("eps", "accuracy", "low", "high")] for row in rows]
            ).T
            spread = 100 * np.stack([middle - low, high - middle])
            axes.errorbar(eps, 100 * middle, spread, linestyle=line, marker=".", capsize=3, label=label)
    unit = {"pixel": "pixels in [0, 1]", "normalised": "the channels' deviations"}[found["space"]]
    axes.set(xlabel=f"eps ({found['norm']}, {unit})", ylabel="accuracy (%)", ylim=(-2, 102))
    axes.legend()
    axes.grid(alpha=0.3)
    files.draw(figure, path, dpi=120)


def plot_attacked(
    images: Tensor, seen: Tensor, attacked: Tensor, fooled: Tensor, labels: Tensor, title: str, path: Path
) -> None:
    """Images float32 [n, C, R, R] in [0, 1], the same under attack, and the difference, grey where there is none.

    Above them are their `labels` int64 [n] and the predicted classes, `seen` without attack and `fooled` under attack.
    """
    figure = Figure(figsize=(1.1 * len(images), 4.2), layout="constrained")
    panels = figure.subplots(3, len(images), squeeze=False)
    delta = attacked - images
    largest = max(float(delta.abs().max()), 1e-6)
    for row, pictures in zip(panels, (images, attacked, 0.5 + delta / (2 * largest)), strict=True):
        for axes, picture in zip(row, pictures, strict=True):
            axes.imshow(picture.clamp(0, 1).permute(1, 2, 0).expand(-1, -1, 3).numpy(), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
    for i, (label, before, after) in enumerate(zip(labels.tolist(), seen.tolist(), fooled.tolist(), strict=True)):
        panels[0, i].set_title(f"label {label}\npredicted {before}", fontsize="small")
        panels[1, i].set_title(f"predicted {after}", fontsize="small")
    for axes, label in zip(panels[:, 0], ("image", "attacked", "difference"), strict=True):
        axes.set_ylabel(label)
    figure.suptitle(f"{title}; difference of at most {largest:.3f}", fontsize="medium")
    files.draw(figure, path, dpi=120)
