"""A run's curves as a picture."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.figure import Figure


def plot_losses(metrics: Path, path: Path) -> None:
    """Draw the terms of the loss over steps from a `metrics.jsonl`; nothing where it has no row yet."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    if not rows:
        return
    steps = [row["step"] for row in rows]
    styles = iter(("-", "--", ":", "-.", (0, (5, 1))))
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    for name in (name for name in rows[-1] if name.startswith("loss/")):
        label, marker = name.removeprefix("loss/"), "." if len(rows) < 20 else ""
        axes.plot(steps, [row[name] for row in rows], label=label, linestyle=next(styles), marker=marker)
    axes.set(xlabel="generator step", ylabel="loss term", title="The discriminator's terms, and the generator's loss")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
