"""What all pictures share: line styles, marks, axes."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter

LINES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 3)))
MARKS = "osv^D<>"
"""Line styles and marks, so that lines are told apart without colour."""


class _Plain(LogFormatter):
    """Labels the ticks that matplotlib chooses by numbers as people write them: 7, not 7 x 10^0."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def log_scale(axes: Axes) -> None:
    """Make the y axis logarithmic, labelled with plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(_Plain())
    axes.yaxis.set_minor_formatter(_Plain())
