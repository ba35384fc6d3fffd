"""Pictures of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from classifiers.evaluation.measures import BINS
from mmgan.engine import files
from mmgan.experiments.figures import curves
from mmgan.experiments.measures import layer_name


def plot_reliability(parts: list[tuple[int, float, float]], path: Path) -> None:
    """Accuracy over confidence (`reliability` of measures.py); the diagonal is perfect calibration."""
    figure = Figure(figsize=(4.2, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], ":", color="grey", label="perfect")
    axes.plot([c for _, c, _ in parts], [a for _, _, a in parts], "o-", color="black", label=f"{BINS} equal bins")
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    files.draw(figure, path, dpi=120)


def plot_interpolation(arms: Mapping[str, Sequence[Mapping[str, Sequence[float]]]], path: Path) -> None:
    """Fig. 2: NLL of interpolated targets over lam, one panel per layer, one line per arm: mean and range."""
    layers = sorted(next(iter(arms.values()))[0], key=int)
    panels = {
        f"mixed at {layer_name(layer)}": {
            arm: [(np.linspace(0, 1, len(run[layer])).tolist(), run[layer]) for run in runs]
            for arm, runs in arms.items()
        }
        for layer in layers
    }
    curves(panels, path, x="lam", y="NLL of the mixed target")
