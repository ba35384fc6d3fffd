"""Plots that compare runs, and what all plots share: line styles, marks, axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.ticker import LogFormatter

from mmgan.engine import files

if TYPE_CHECKING:  # it imports SciPy, which training does without
    from mmgan.experiments.differences import Difference

LINES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 3)))
WIDTH = 5.6
"""Width of a figure in inches; panels are stacked, so that their text stays legible on a phone."""
MARKS = "osv^D<>"
"""Line styles and marks, so that lines can be distinguished without colour."""
Curve = Sequence[Sequence[float]]
"""x and y."""


class _Plain(LogFormatter):
    """Labels the ticks that matplotlib chooses with plain numbers: 0.00001, not 10^-5."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return np.format_float_positional(x, 6, fractional=False, trim="-") if super().__call__(x, pos) else ""


def log_scale(axes: Axes) -> None:
    """Make the y axis logarithmic, labelled with plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(_Plain())
    axes.yaxis.set_minor_formatter(_Plain())


def save(figure: Figure, path: Path) -> None:
    """Write a figure, with one legend above its panels if they have labels."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if handles:
        room = 100 * figure.get_size_inches()[0] / (6.5 * max(map(len, handles)) + 55)  # labels that fit in a row
        columns = min(len(handles), max(1, int(room)))
        figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=columns, fontsize=9)
    files.draw(figure, path, dpi=100)


def curves(
    panels: Mapping[str, Mapping[str, Sequence[Curve]]], path: Path, x: str = "", y: str = "", log: bool = False
) -> None:
    """Plot the curves of runs by panel and arm: a line for the mean of the runs, a band for their range.

    Points that some runs of an arm lack are left out. `x` and `y` label the axes.
    """
    figure = Figure(figsize=(WIDTH, 2.8 * len(panels) + 1), layout="constrained")
    column = figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for (title, arms), axes in zip(panels.items(), column, strict=True):
        for i, (arm, runs) in enumerate(arms.items()):
            found = [dict(zip(*run, strict=True)) for run in runs]
            common = sorted(set.intersection(*map(set, found)))
            values = np.array([[run[point] for point in common] for run in found])
            line, color = LINES[i % len(LINES)], f"C{i % 10}"
            axes.plot(common, values.mean(0), linestyle=line, color=color, label=arm)
            axes.fill_between(common, values.min(0), values.max(0), color=color, alpha=0.12, linewidth=0)
        axes.set(title=title, ylabel=y)
        axes.grid(alpha=0.3, which="both")
        if log:
            log_scale(axes)
    column[-1].set(xlabel=x)
    save(figure, path)


class Mark(NamedTuple):
    """An arm at one x: its mean and confidence interval, or the difference from a baseline, by measure."""

    line: str
    x: float
    found: Mapping[str, Difference]
    whole: bool
    """Whether the arm has as many runs as the largest one; otherwise its mark is hollow."""


def over_option(
    marks: Sequence[Mark], titles: Mapping[str, str], option: str, baseline: str | None, path: Path
) -> None:
    """Plot measures, or their differences from `baseline`, against an option, as in the paper's Figure 9.

    `titles`: by measure, one panel each.
    """
    figure = Figure(figsize=(WIDTH, 3.4 * len(titles) + 0.5), layout="constrained")
    lines = list(dict.fromkeys(mark.line for mark in marks))
    for axes, (measure, title) in zip(
        figure.subplots(len(titles), 1, squeeze=False)[:, 0], titles.items(), strict=True
    ):
        if baseline:
            axes.axhline(0, linestyle=":", color="black", label=baseline)
        for i, line in enumerate(lines):
            shift = 1.03 ** (i - (len(lines) - 1) / 2)  # so that marks at the same value do not overlap
            own = sorted((mark for mark in marks if mark.line == line), key=lambda mark: mark.x)
            color, shape = f"C{i % 10}", MARKS[i % len(MARKS)]
            means = [mark.found[measure].mean for mark in own]
            axes.plot([mark.x * shift for mark in own], means, linestyle=LINES[i % len(LINES)], color=color)
            for mark, mean in zip(own, means, strict=True):
                one = mark.found[measure]
                error = one.high - one.mean if one.n > 1 else 0.0
                face = color if mark.whole else "white"
                axes.errorbar(mark.x * shift, mean, error, fmt=shape, color=color, capsize=3, markerfacecolor=face)
            axes.plot([], [], shape, linestyle=LINES[i % len(LINES)], color=color, label=line)
        ticks = sorted({mark.x for mark in marks})
        axes.set(xscale="log", xlabel=option, ylabel=title)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
    save(figure, path)


class Span(NamedTuple):
    """A difference with its confidence interval, and what it shows, one of SHOWN."""

    label: str
    mean: float
    low: float
    high: float
    shown: str


_YES, _NO = ("C0", "o", "C0"), ("0.45", "o", "white")
SHOWN = {
    "shows": _YES,
    "undecided": _NO,
    "the opposite shows": ("C3", "s", "C3"),
    "p below 5 %": _YES,
    "p of 5 % or more": _NO,
}
"""Colour, mark and its filling."""


def forest(panels: Mapping[str, Sequence[Span]], path: Path) -> None:
    """Plot differences with their confidence intervals, one row each, one panel for each measure."""
    counts = [len(spans) for spans in panels.values()]
    figure = Figure(figsize=(WIDTH, 0.24 * sum(counts) + 0.9 * len(counts) + 0.5), layout="constrained")
    column = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[count + 1 for count in counts])[:, 0]
    for (measure, spans), axes in zip(panels.items(), column, strict=True):
        axes.axvline(0, color="black", linewidth=0.8)
        for place, one in enumerate(spans):
            color, mark, face = SHOWN[one.shown]
            axes.plot([one.low, one.high], [place, place], color=color)
            axes.plot(one.mean, place, mark, color=color, markerfacecolor=face, markersize=5, label=one.shown)
        axes.set_yticks(range(len(spans)), [one.label for one in spans], fontsize=9)
        axes.set(xlabel=f"difference in {measure}", ylim=(len(spans) - 0.4, -0.6))
        axes.grid(alpha=0.3, axis="x")
    save(figure, path)


def mosaic(pictures: Mapping[str, Path], path: Path) -> None:
    """Arrange pictures in a grid, a JPEG, because samples of many arms are large; each is below its name."""
    columns = min(4, len(pictures))
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.9 * rows), layout="constrained")
    figure.subplots(rows, columns, squeeze=False)
    for axes in figure.axes[len(pictures) :]:
        axes.remove()
    for axes, (name, file) in zip(figure.axes, pictures.items(), strict=False):
        axes.imshow(imread(file), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set(xticks=[], yticks=[])  # axis("off") would remove the space for the title
        axes.set_title(name, fontsize=8)
    files.draw(figure, path, dpi=90, pil_kwargs={"quality": 85})
