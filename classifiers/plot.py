"""Pictures of a classifier's curves."""

from __future__ import annotations

from pathlib import Path

from mmgan.engine import files


def plot_interval(metrics: Path, path: Path, epoch: float) -> None:
    """Draw the interval of lam that a rule has learnt, the mean of each end, over epochs of `epoch` steps.

    Draws nothing if `metrics` has no interval.
    """
    rows = [row for row in files.read_rows(metrics) if "interval/low" in row]
    if not rows:
        return
    from matplotlib.figure import Figure  # noqa: PLC0415  # so that a run starts sooner

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    epochs = [row["step"] / epoch for row in rows]
    axes.fill_between(epochs, [row["interval/low"] for row in rows], [row["interval/high"] for row in rows], alpha=0.4)
    axes.set(xlabel="epoch", ylabel="lam, smallest to largest", ylim=(0, 1), title="Interval of lam, mean over pairs")
    files.draw(figure, path, dpi=120)


def plot_training(metrics: Path, path: Path, epoch: float) -> None:
    """Draw the training loss and, if measured, validation NLL (Fig. 8) and error over epochs of `epoch` steps.

    Draws nothing if `metrics` has no row yet.
    """
    rows = files.read_rows(metrics)
    if not rows:
        return
    from matplotlib.figure import Figure  # noqa: PLC0415  # so that a run starts sooner

    figure = Figure(figsize=(5.6, 3.5), layout="constrained")
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
    files.draw(figure, path, dpi=120)
