"""An evaluation as pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mmgan.experiments.figures import LINES


def plot_reliability(parts: list[tuple[int, float, float]], path: Path) -> None:
    """Accuracy over confidence (`reliability` of measures.py); the diagonal is perfect calibration."""
    figure = Figure(figsize=(4.2, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], ":", color="grey", label="perfect")
    axes.plot([c for _, c, _ in parts], [a for _, _, a in parts], "o-", color="black", label="15 equal bins")
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    figure.savefig(path, dpi=120)


def plot_interpolation(arms: dict[str, list[dict[str, list[float]]]], path: Path) -> None:
    """Fig. 2: NLL of interpolated targets over lam, a panel for each layer, a line for each arm: mean and range."""
    layers = sorted(next(iter(arms.values()))[0], key=int)
    figure = Figure(figsize=(3 * len(layers), 3.4), layout="constrained")
    panels = figure.subplots(1, len(layers), sharey=True, squeeze=False)[0]
    for layer, axes in zip(layers, panels, strict=True):
        for i, (arm, runs) in enumerate(arms.items()):
            curves = np.array([run[layer] for run in runs])
            lams = np.linspace(0, 1, curves.shape[1])
            axes.plot(lams, curves.mean(0), linestyle=LINES[i % len(LINES)], label=arm)
            axes.fill_between(lams, curves.min(0), curves.max(0), alpha=0.15)
        axes.set(xlabel="lam", title=f"mixed at layer {layer}" + (" (input)" if layer == "0" else ""))
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="NLL of the mixed target")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(arms), 7))
    figure.savefig(path, dpi=120)
