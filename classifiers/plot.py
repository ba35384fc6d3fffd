"""A classifier's curves as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mmgan.engine import files
from mmgan.experiments.figures import LINES, log_scale


def plot_training(metrics: Path, path: Path, epoch: float) -> None:
    """Draw the training loss and, where measured, validation NLL (Fig. 8) and error over epochs of `epoch` steps.

    Nothing where `metrics` has no row yet.
    """
    rows = files.read_rows(metrics)
    if not rows:
        return
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    left = figure.subplots()
    curves = {"loss": ("training loss", "-"), "validation/nll": ("validation NLL", "--")}
    for name, (label, line) in curves.items():
        points = [(row["step"] / epoch, row[name]) for row in rows if name in row]
        if points:
            left.plot(*zip(*points, strict=True), line, color="black", label=label)
    left.set(xlabel="epoch", ylabel="loss, NLL")
    errors = [(row["step"] / epoch, 100 * row["validation/error"]) for row in rows if "validation/error" in row]
    if errors:
        right = left.twinx()
        right.plot(*zip(*errors, strict=True), ":", color="tab:blue", label="validation error")
        right.set(ylabel="validation error (%)")
    figure.legend(loc="outside upper center", ncols=3)
    figure.savefig(path, dpi=120)


def plot_epochs(arms: dict[str, list[list[tuple[float, float]]]], path: Path) -> None:
    """Fig. 8: validation NLL over epochs, a line for each arm: the mean over its runs, and their range."""
    figure = Figure(figsize=(8.5, 4), layout="constrained")
    axes = figure.subplots()
    for i, (arm, runs) in enumerate(arms.items()):
        epochs = [epoch for epoch, _ in runs[0]]
        values = np.array([[nll for _, nll in run] for run in runs])
        axes.plot(epochs, values.mean(0), linestyle=LINES[i % len(LINES)], label=arm)
        axes.fill_between(epochs, values.min(0), values.max(0), alpha=0.15)
    axes.set(xlabel="epoch", ylabel="validation NLL")
    log_scale(axes)
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=120)


def plot_arms_attacked(panels: Mapping[str, Mapping[str, Sequence[Sequence[tuple[float, float]]]]], path: Path) -> None:
    """Accuracy over eps, a panel for each attack, a line for each arm: the mean over its runs, and their range.

    `panels`: by attack and arm, for every run its pairs of eps and accuracy.
    """
    figure = Figure(figsize=(4 * len(panels), 3.6), layout="constrained")
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for (title, arms), axes in zip(panels.items(), row, strict=True):
        for i, (arm, runs) in enumerate(arms.items()):
            eps, values = np.array(runs)[0, :, 0], 100 * np.array(runs)[:, :, 1]
            axes.plot(eps, values.mean(0), linestyle=LINES[i % len(LINES)], marker=".", label=arm)
            axes.fill_between(eps, values.min(0), values.max(0), alpha=0.15)
        axes.set(xlabel="eps", title=title, ylim=(-2, 102))
        axes.grid(alpha=0.3)
    row[0].set(ylabel="accuracy (%)")
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 7))
    figure.savefig(path, dpi=120)
