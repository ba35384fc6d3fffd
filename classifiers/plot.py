"""A classifier's curves as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

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


def plot_reliability(parts: list[tuple[int, float, float]], path: Path) -> None:
    """Accuracy over confidence (`reliability` of classifiers/evaluate.py); the diagonal is perfect calibration."""
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


def plot_attacks(found: Mapping[str, Any], path: Path) -> None:
    """Accuracy over eps, with its intervals, of what scripts/attack_cls.py found."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    names = {"fgsm": "FGSM", "pgd": "PGD", "transfer": "transferred PGD", "autoattack": "AutoAttack"}
    for line, (name, label) in zip(LINES, names.items(), strict=False):
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
    figure.savefig(path, dpi=120)


def plot_attacked(
    images: Tensor, seen: Tensor, attacked: Tensor, fooled: Tensor, labels: Tensor, title: str, path: Path
) -> None:
    """Images float32 [n, C, R, R] in [0, 1], the same under attack, and the difference, grey where it is none.

    Above them their `labels` int64 [n], and the classes `seen` in them and, `fooled`, in those under attack.
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
