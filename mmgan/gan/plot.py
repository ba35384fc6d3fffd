"""Plots of a run's curves; matplotlib is imported only when needed, so that a run starts sooner."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

from mmgan.engine import files


def plot_losses(metrics: Path, path: Path) -> None:
    """Plot the loss terms against steps from a `metrics.jsonl`; nothing if it has no rows yet."""
    rows = [row for row in files.read_rows(metrics) if "loss/generator" in row]
    if not rows:
        return
    from matplotlib.figure import Figure  # noqa: PLC0415

    from mmgan.experiments.figures import LINES  # noqa: PLC0415

    steps = [row["step"] for row in rows]
    styles = cycle(LINES)
    figure = Figure(figsize=(5.6, 3.5), layout="constrained")
    axes = figure.subplots()
    for name in (name for name in rows[-1] if name.startswith("loss/")):
        label, marker = name.removeprefix("loss/").replace("_", " "), "." if len(rows) < 20 else ""
        axes.plot(steps, [row[name] for row in rows], label=label, linestyle=next(styles), marker=marker)
    axes.set(xlabel="generator step", ylabel="loss term", title="Terms of the discriminator's and the generator's loss")
    axes.legend()
    axes.grid(alpha=0.3)
    files.draw(figure, path, dpi=120)


def plot_scores(metrics: Path, path: Path) -> None:
    """Plot FID and IS against steps from a `metrics.jsonl`, marking best and last FID; nothing if there are none."""
    rows = [row for row in files.read_rows(metrics) if "score/fid" in row]
    if not rows:
        return
    from matplotlib.figure import Figure  # noqa: PLC0415

    steps, fid = [row["step"] for row in rows], [row["score/fid"] for row in rows]
    figure = Figure(figsize=(5.6, 3.5), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    right.plot(steps, [row["score/is"] for row in rows], ":", color="tab:blue", label="IS")
    left.plot(steps, fid, "-", color="black", label="FID")
    best = fid.index(min(fid))
    for i, name, marker in ((best, "best", "v"), (len(fid) - 1, "last", "o")):
        left.plot(steps[i], fid[i], marker, color="black", label=f"{name}: {fid[i]:.4g} at step {steps[i]}")
    left.set(xlabel="generator step", ylabel="FID")
    right.set(ylabel="Inception Score")
    figure.legend(loc="outside upper center", ncols=2)
    files.draw(figure, path, dpi=120)
